"""The clock of a GPU: events around each call, in a stream of its own, the L2 flushed before it.

Calls rotate over several sets of data, and between two calls a buffer twice as large as the L2 is
written, so that no call finds its inputs there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..peers.base import require

# Sets of data that the calls of a case take in turns.
SETS = 2


class Clock(Protocol):
    """Times calls; a test has one that needs no GPU."""

    def capture(self, call: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
        """A function that replays the call as a CUDA graph, and the call's result in it."""

    def seconds(self, calls: Sequence[Callable[[], Any]], count: int) -> list[float]:
        """The seconds of so many calls, in turns."""


@dataclass
class CudaClock:
    """CUDA events and graphs through PyTorch."""

    warm_up_calls: int = 2

    def __post_init__(self) -> None:
        self._torch = require("torch")
        size = self._torch.cuda.get_device_properties(0).L2_cache_size
        self._flush = self._torch.empty(2 * size // 4, dtype=self._torch.int32, device="cuda")
        self._stream = self._torch.cuda.Stream()

    def capture(self, call: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
        torch = self._torch
        torch.cuda.synchronize()  # the data may have been made in another stream
        with torch.cuda.stream(self._stream):
            for _ in range(self.warm_up_calls):
                call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            result = call()
        graph.replay()
        torch.cuda.synchronize()
        return graph.replay, result

    def seconds(self, calls: Sequence[Callable[[], Any]], count: int) -> list[float]:
        torch = self._torch
        torch.cuda.synchronize()
        with torch.cuda.stream(self._stream):
            pairs = []
            for number in range(count):
                self._flush.zero_()
                pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
                pair[0].record()
                calls[number % len(calls)]()
                pair[1].record()
                pairs.append(pair)
            torch.cuda.synchronize()
        return [begin.elapsed_time(end) * 1e-3 for begin, end in pairs]


class HostClock:
    """The CPU's, for a session without a GPU: a graph is the call itself, figures mean nothing."""

    def capture(self, call: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
        return call, call()

    def seconds(self, calls: Sequence[Callable[[], Any]], count: int) -> list[float]:
        found = []
        for number in range(count):
            started = time.perf_counter()
            calls[number % len(calls)]()
            found.append(time.perf_counter() - started)
        return found


def calls_in(seconds: float, estimate: float, least: int = 3, most: int = 200) -> int:
    """How many calls fill so many seconds, within bounds."""
    return max(least, min(most, round(seconds / max(estimate, 1e-9))))


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
