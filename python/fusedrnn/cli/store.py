"""A run in a file of the user's choice: tried before the training, never half of one after it."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from fusedrnn.cli import run as runs
from fusedrnn.cli.errors import CommandError
from fusedrnn.cli.files import check_regular
from fusedrnn.cli.run import Run


def rehearse(option: str, path: Path, run: Run) -> None:
    """Write a checkpoint beside ``path`` and take it away again, before the training.

    Permissions, a read-only or full disk, a quota: no question put to the system in advance
    answers all of them.

    Raises
    ------
    CommandError
        If `save` would fail.
    """
    _write(option, path, run).unlink()


def save(option: str, path: Path, run: Run) -> None:
    """Write ``run`` to ``path``: either the whole new file is there, or the old one.

    Raises
    ------
    CommandError
        If the file cannot be written, or the old one not be replaced; the new one then stays
        where the message says.
    """
    target = path.resolve()  # through a symbolic link, which stays one
    written = _write(option, path, run)
    kept = f"; the model is in {written}"
    try:
        if target.exists():
            check_regular(option, path)  # once more: the training may have taken hours
            shutil.copymode(target, written)
        os.replace(written, target)
    except CommandError as error:
        raise CommandError(f"{error}{kept}") from None
    except OSError as error:
        raise CommandError(f"{option} {path}: {error.strerror}{kept}") from None


def _write(option: str, path: Path, run: Run) -> Path:
    """Write a run to a new file in the folder of ``path``: all of it, or there is no file."""
    target = path.resolve()
    # A name that nobody has, not even as a link to something else, and no longer than any name.
    new = target.with_name(f".fusedrnn-{secrets.token_hex(8)}.safetensors")
    try:
        runs.write(new, run)
    except OSError as error:
        reason = error.strerror or error
        raise CommandError(f"{option} {path}: cannot write in {target.parent}: {reason}") from None
    except ImportError as error:
        raise CommandError(f"{option} {path}: {error}") from None
    return new
