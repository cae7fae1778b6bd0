"""What may stand at the paths of the command line."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from fusedrnn.cli.errors import CommandError

KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(option: str, path: Path) -> os.stat_result:
    """Return what is known of the file at ``path``, symbolic links followed.

    Raises
    ------
    CommandError
        If something else is there, such as a folder or a device, or it cannot be looked at.
    FileNotFoundError
        If nothing is there.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CommandError(f"{option} {path}: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise CommandError(f"{option} {path}: expected a file, got {_kind(found)}")
    return found


def kind_of(path: Path) -> str:
    """Return what is at a path, in words; OSError where nothing is."""
    return _kind(os.stat(path))


def _kind(found: os.stat_result) -> str:
    return KINDS.get(stat.S_IFMT(found.st_mode), "something else")


def check_target(path: Path, text: Path | None) -> None:
    """Raise `CommandError` where no checkpoint may be written to ``path``.

    What exists there has to be a file that may be written, and neither ``text``, by whatever name,
    nor one that the output goes to. Whether its folder takes a new file is for `rehearse` or
    `store.rehearse` to find out.
    """
    try:
        found = check_regular("--save", path)
    except FileNotFoundError:
        folder = path.resolve().parent
        if not folder.is_dir():
            raise CommandError(f"--save {path}: there is no folder {folder}") from None
        return
    if text is not None and _is(found, text):
        raise CommandError(f"--save {path}: expected another file than --text {text}")
    if any(_is(found, descriptor) for descriptor in (1, 2)):
        raise CommandError(f"--save {path}: expected another file than the output goes to")
    try:
        # A file is replaced, and never written; but one that is protected is not to be replaced.
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        raise CommandError(f"--save {path}: {error.strerror}") from None


def rehearse(where: str, path: Path) -> None:
    """Write a small file beside ``path`` and take it away again, before the work for it.

    No question put to the system answers whether a folder takes files.

    Raises
    ------
    CommandError
        Where that fails; it begins with `where`.
    """
    target = Path(os.path.realpath(path))
    new = _beside(target)
    try:
        try:
            new.write_bytes(b"\n")
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise CommandError(f"{where}: cannot write in {target.parent}: {reason}") from None


def write(where: str, path: Path, data: bytes) -> None:
    """Write a file: the whole new one is there then, or what was there before.

    Raises
    ------
    CommandError
        Where that fails, or something else is there; it begins with `where`.
    """
    target = Path(os.path.realpath(path))  # through a symbolic link, which stays one
    new = _beside(target)
    try:
        kind = kind_of(target) if os.path.lexists(target) else "a file"
        if kind != "a file":
            raise CommandError(f"{where}: expected a file, got {kind}")
        new.write_bytes(data)
        os.replace(new, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise CommandError(f"{where}: {error.strerror or error}") from None


def _beside(target: Path) -> Path:
    """A name that nobody has, not even as a link to something else, and no longer than any name."""
    return target.with_name(f".fusedrnn-{secrets.token_hex(8)}")


def _is(found: os.stat_result, file: Path | int) -> bool:
    try:
        return os.path.samestat(found, os.stat(file))
    except OSError:  # nothing there, which is for its reader to say
        return False
