"""`python -m fusedrnn` and the program `fusedrnn`, before there is a `main` that catches anything.

Python imports the package first, which takes a while: Ctrl-C and an environment that the library
refuses end in a sentence then, too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType

from fusedrnn.cli.interrupt import INTERRUPTED

REFUSED = 2


def imported() -> None:
    """Leave Ctrl-C to Python again, whose exception `main` catches."""
    if signal.getsignal(signal.SIGINT) is _interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_program() -> bool:
    """Whether this process runs the commands, and does not just import the package."""
    if threading.current_thread() is not threading.main_thread():
        return False
    first = sys.argv[0] if sys.argv else ""
    if first == "-m":  # what stands there until the module is found
        return sys.orig_argv[-len(sys.argv) :][:1] in (["fusedrnn"], ["-mfusedrnn"])
    return os.path.basename(first) == "fusedrnn"


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    _end("interrupted", INTERRUPTED)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        _end("interrupted", INTERRUPTED)
    # What an extension module has against its surroundings; with a name, a module is missing.
    if isinstance(error, ImportError) and error.name is None:
        _end(str(error), REFUSED)
    sys.__excepthook__(kind, error, trace)


def _end(message: str, status: int) -> None:
    try:
        if sys.stderr is not None:
            print(f"fusedrnn: {message}", file=sys.stderr, flush=True)
    except OSError:
        pass
    os._exit(status)  # Python's own end after Ctrl-C is that of a signal


if _is_program():
    sys.excepthook = _uncaught
    # Its exception would not do: extension modules make other ones of it while they are imported.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
