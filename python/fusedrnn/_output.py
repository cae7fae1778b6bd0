"""Standard output and error of a command: what cannot be written ends in a sentence."""

from __future__ import annotations

import errno
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TextIO, cast

from fusedrnn.cli.interrupt import INTERRUPTED

UNWRITABLE = 2


class OutputError(Exception):
    """Standard output takes nothing more. No OSError, for argparse would swallow that."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"standard output: {cause.strerror or cause}")


def run(command: Callable[[], int]) -> int:
    """Return the exit status of `command`, or that of an output which could not be written.

    Results that were not written are a failure, with a sentence on standard error, also where their
    reader left. Messages that were not written are none: a command goes on, for what
    it computes may be worth more than its progress bar.
    """
    outer = sys.stdout, sys.stderr
    try:
        # Python has None in place of a stream that was closed when it started.
        messages = outer[1] or open(os.devnull, "w")  # noqa: SIM115  # until the process ends
        sys.stderr = cast(TextIO, Messages(messages))
        if outer[0] is None:
            raise OutputError(OSError(errno.EBADF, os.strerror(errno.EBADF)))
        sys.stdout = cast(TextIO, Results(outer[0]))
        status = _status(command)
        sys.stdout.flush()  # not left to the interpreter's end, which has no words for it
    except OutputError as error:
        print(f"fusedrnn: {error}", file=sys.stderr)
        return UNWRITABLE
    finally:
        sys.stdout, sys.stderr = outer
    return status


def _status(command: Callable[[], int]) -> int:
    try:
        return command()
    except SystemExit as stop:  # argparse's way to end
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:  # amid the imports of a command, say, which has words of its own
        print("fusedrnn: interrupted", file=sys.stderr)
        return INTERRUPTED


class Stream(ABC):
    """A text stream that `failed` is told of once it cannot be written."""

    #: What stands for characters that the stream's encoding lacks.
    errors = "replace"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        encoding = self._stream.encoding
        if encoding:  # a StringIO has none
            text = text.encode(encoding, self.errors).decode(encoding)
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            self._discard()
            self.failed(error)

    def _discard(self) -> None:
        """Send what the stream still holds to nowhere, or Python's end would fail with it again."""
        try:
            descriptor = self._stream.fileno()
        except OSError:  # a stream in memory
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)

    @abstractmethod
    def failed(self, error: OSError) -> None: ...


class Results(Stream):
    """Standard output."""

    def failed(self, error: OSError) -> None:
        raise OutputError(error) from None


class Messages(Stream):
    """Standard error: nothing can be said about its own failure."""

    errors = "backslashreplace"

    def failed(self, error: OSError) -> None:
        pass
