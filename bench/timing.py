"""The clock around a call."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
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


def least(
    runs: Mapping[str, Callable[[], Any]],
    rounds: int,
    budget: float,
    before: Callable[[int], None] | None = None,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """The least time of a call of each, in turns, with so many seconds of calls a round.

    CPU time of the process, which other work on the machine changes little, unless `clock` is
    another. `before` is told the number of a round that begins.
    """
    times = dict.fromkeys(runs, float("inf"))
    for number in range(rounds):
        if before is not None:
            before(number)
        for run in runs.values():
            run()
        for name, run in runs.items():
            end = time.perf_counter() + budget
            while True:
                begin = clock()
                run()
                times[name] = min(times[name], clock() - begin)
                if time.perf_counter() >= end:
                    break
    return times
