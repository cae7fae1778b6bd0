"""Ctrl-C as a request, so that neither an update nor a file is cut in half."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # as shells report a process that Ctrl-C ended


class Interrupt:
    """Whether Ctrl-C was pressed."""

    # A plain attribute: an Event's lock could be taken twice by two signals in a row.
    requested = False


@contextmanager
def ctrl_c_as_request() -> Iterator[Interrupt]:
    """Turn Ctrl-C into a flag.

    Does nothing outside the main thread, and where the process handles or ignores SIGINT in a way
    of its own.
    """
    interrupt = Interrupt()
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupt
        return

    def request(_signal: int, _frame: FrameType | None) -> None:
        interrupt.requested = True

    signal.signal(signal.SIGINT, request)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
