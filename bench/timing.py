"""The clock around a call."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any


def perf_counter() -> float:
    """Seconds of a monotonic clock with a nanosecond's resolution."""
    return time.perf_counter_ns() * 1e-9


def samples(
    run: Callable[[], Any], calls: int, clock: Callable[[], float] = perf_counter
) -> list[float]:
    """Seconds of each of so many calls, the release of its result included."""
    seconds = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(calls):
            start = clock()
            run()
            seconds.append(clock() - start)
    finally:
        if collecting:
            gc.enable()
    return seconds


def timer_overhead() -> float:
    """Seconds that timing adds to a call: the median of calls that do nothing."""
    times = sorted(samples(lambda: None, 2001))
    return times[1000]
