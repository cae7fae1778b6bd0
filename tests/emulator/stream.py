"""Streams and captured graphs of the emulated devices."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .library import Emulator

LEGACY, PER_THREAD = 1, 2  # as DLPack and CUDA write the default streams


class Stream:
    """A stream of the current device, ordered against no other; `with` makes it the current one.

    `handle` is its `cudaStream_t`. `Stream.default` is the legacy default stream, which is current
    where no other is.
    """

    def __init__(self, emulator: Emulator, handle: int | None = None) -> None:
        self.emulator = emulator
        self._owned = handle is None
        self.handle: int = emulator.call("new_stream") if handle is None else handle

    @classmethod
    def default(cls, emulator: Emulator) -> Stream:
        return cls(emulator, LEGACY)

    @classmethod
    def current(cls, emulator: Emulator) -> Stream:
        return _thread.entered[-1] if _thread.entered else cls.default(emulator)

    def __enter__(self) -> Stream:
        _thread.entered.append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        _thread.entered.pop()

    def __del__(self) -> None:
        if getattr(self, "_owned", False) and self.emulator.last_error() == "":
            self.emulator.call("end_stream", self.handle)

    def synchronize(self) -> None:
        self.emulator.call("synchronize", self.handle)

    def wait_for(self, other: Stream) -> None:
        """Order what this stream is given from now on behind what `other` has been given."""
        self.emulator.call("wait_for_stream", self.handle, other.handle)

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        """Capture the work that the stream is given, instead of queueing it."""
        graph = Graph(self)
        self.emulator.call("begin_capture", self.handle)
        try:
            with self:
                yield graph
        finally:
            graph.handle = self.emulator.call("end_capture", self.handle)


class _Thread(threading.local):
    def __init__(self) -> None:
        self.entered: list[Stream] = []


_thread = _Thread()


class Graph:
    """Captured work. `handle` is None where the capture failed."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.handle: int | None = None

    def launch(self, stream: Stream | None = None) -> None:
        handle = (stream or self.stream).handle
        self.stream.emulator.call("launch_graph", self.handle, handle)

    def __del__(self) -> None:
        if self.handle is not None and self.stream.emulator.last_error() == "":
            self.stream.emulator.call("release_graph", self.handle)
