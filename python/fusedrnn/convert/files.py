"""Files of weights: read whole, and written so that no reader ever sees half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from pathlib import Path
from typing import Any


def path_of(name: str, path: Any) -> Path:
    """Return the path, symbolic links followed: they stay what they are."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name}: expected a path, got {type(path).__name__}")
    words = os.fsdecode(path)
    if "\0" in words:
        raise ValueError(f"{name}: expected a path, got {words!r}")
    target = Path(os.path.realpath(words))
    if target.is_symlink():  # links that follow one another in a circle
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), words)
    return target


def read(name: str, path: Any) -> bytes:
    """Return what a file holds."""
    return path_of(name, path).read_bytes()


def write(path: Any, data: bytes) -> None:
    """Write a file: either the whole new one is there afterwards, or what was there before.

    Raises
    ------
    OSError
        Where it cannot be written.
    ValueError
        Where something that is no file, such as a folder or a device, is at `path`.
    """
    target = path_of("path", path)
    if target.exists() and not target.is_file():
        raise ValueError(f"path: expected a file or nothing at {target}, got something else")
    written = target.with_name(f".fusedrnn-{secrets.token_hex(8)}")
    try:
        with open(written, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, written)
        os.replace(written, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            written.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is not None:
            error.filename = str(target)  # the name that the caller knows
        raise
