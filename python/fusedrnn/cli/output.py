"""What `generate` and `predict` share: a model in, a new file or standard output out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from fusedrnn.cli import results
from fusedrnn.cli.errors import CommandError
from fusedrnn.cli.files import kind_of, rehearse
from fusedrnn.cli.interrupt import INTERRUPTED


def run(command: str, action: Callable[[], int]) -> int:
    """Return the exit status of an action; what it raises is said in a sentence."""
    try:
        return action()
    except CommandError as error:
        print(f"fusedrnn {command}: {error}", file=sys.stderr)
        return error.exit_status
    except MemoryError as error:
        print(f"fusedrnn {command}: {str(error) or 'out of memory'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"fusedrnn {command}: interrupted", file=sys.stderr)
        return INTERRUPTED


def model_file(path: Path) -> Path:
    """Return the file of a model: of a results folder its best one, or else the last."""
    if not path.is_dir():
        return path
    best = path / results.MODEL
    return best if best.exists() else path / results.CHECKPOINT


def check_new(path: Path) -> None:
    """Raise `CommandError` unless a new file can be made at a path, which is not done for good."""
    try:
        kind = kind_of(path)
    except FileNotFoundError:
        if os.path.lexists(path):
            raise CommandError(f"--out {path}: expected a new file, got a link to none") from None
        if not path.resolve().parent.is_dir():
            raise CommandError(
                f"--out {path}: there is no folder {path.resolve().parent}"
            ) from None
        rehearse(f"--out {path}", path)
        return
    except OSError as error:
        raise CommandError(f"--out {path}: {error.strerror}") from None
    raise CommandError(f"--out {path}: expected a new file, got {kind} that is there")


def write_new(path: Path, text: str) -> None:
    """Write a new file, all of it or none, and never over another one."""
    try:
        file = open(path, "x", encoding="utf-8", errors="replace", newline="")  # noqa: SIM115
        try:
            with file:
                file.write(text)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CommandError(f"--out {path}: {error.strerror}") from None
