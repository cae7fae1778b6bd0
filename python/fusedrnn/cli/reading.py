"""Text from a file, a pipe, a device or standard input: UTF-8, with an end, and words if not."""

from __future__ import annotations

import codecs
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fusedrnn.cli.errors import CommandError

#: Upper bound of what is read; training takes some thirty times this in memory.
MAX_BYTES = 256 * 2**20
READ_BYTES = 2**20
STDIN = Path("-")

# That of little-endian UTF-32 begins as UTF-16's does.
_OTHER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


def read_text(option: str, path: Path) -> str:
    r"""Return a text with ``\n`` at the ends of its lines; a byte-order mark is dropped.

    Parameters
    ----------
    option : str
        What the message begins with, such as "--data".
    path : Path
        ``-`` is standard input.

    Raises
    ------
    CommandError
        If the file is missing, unreadable, too long, binary or not UTF-8.
    """
    try:
        text = _read_bytes(option, path).decode("utf-8-sig")
    except OSError as error:
        raise CommandError(f"{option} {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise CommandError(
            f"{option} {path}: expected UTF-8, got byte 0x{error.object[error.start]:02x} "
            f"at offset {error.start}"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def fingerprint(text: str) -> str:
    """Return a digest by which a run recognises its data."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    if path != STDIN:
        with open(path, "rb") as file:
            yield file
    elif sys.stdin is None:
        raise OSError("standard input is closed")
    else:
        yield sys.stdin.buffer


def _read_bytes(option: str, path: Path) -> bytes:
    """Read what may come from a pipe or a device, and without an end."""
    data = bytearray()
    with _open(path) as file:
        while block := file.read(min(READ_BYTES, MAX_BYTES + 1 - len(data))):
            data += block
            if data.startswith(_OTHER_MARKS):
                raise CommandError(
                    f"{option} {path}: expected UTF-8, got the byte-order mark of UTF-16 or UTF-32"
                )
            if b"\0" in block:
                raise CommandError(f"{option} {path}: expected a text file, got a binary one")
            if len(data) > MAX_BYTES:
                raise CommandError(
                    f"{option} {path}: expected at most {MAX_BYTES:,} bytes, got more"
                )
    return bytes(data)
