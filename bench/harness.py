"""Verify, then time, with the peers interleaved.

For each case every peer's result is checked against the float64 reference; a peer that fails is
recorded as wrong and never timed. Then come several rounds; in each the peers take turns, in an
order that rotates. A turn pauses until the last peer's worker threads sleep, warms up, and times
so many calls that they fill `min_time`. What counts is the median of the rounds' medians.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .peers import Job, Peer, UnavailableError
from .peers.numpy_peer import reference
from .records import Row
from .scenarios import Array, Problem, Shape, random_problem

# A call longer than this, in seconds, gets SLOW_ROUNDS rounds, and needs no warm-up.
SLOW_CALL = 0.4
SLOW_ROUNDS = 3
MAX_CALLS = 20_000


@dataclass(frozen=True)
class Settings:
    """How to measure.

    `tolerance` bounds the relative error |result - reference| / |reference| by norm, for every
    array of the result. Five times what the package promises in float32, because peers sum long
    sequences in other orders.
    """

    rounds: int = 5
    min_time: float = 0.05
    tolerance: float = 1e-5
    dtype: str = "float32"
    seed: int = 0


class MismatchError(Exception):
    """A result that the reference contradicts."""


def verify(
    actual: Mapping[str, Array], expected: Mapping[str, Array], *, dtype: str, tolerance: float
) -> float:
    """The largest relative error by norm; raises MismatchError naming the array that is wrong."""
    if actual.keys() != expected.keys():
        raise MismatchError(
            f"expected {', '.join(sorted(expected))}, got {', '.join(sorted(actual))}"
        )
    worst = 0.0
    for name, exact in expected.items():
        got = actual[name]
        if got.shape != exact.shape or got.dtype != dtype:
            raise MismatchError(
                f"{name}: expected {exact.shape} of {dtype}, got {got.shape} of {got.dtype}"
            )
        error = float(np.linalg.norm(got.astype("float64") - exact) / np.linalg.norm(exact))
        if not error <= tolerance:  # a NaN is no pass
            raise MismatchError(f"{name}: relative error {error:.2g} exceeds {tolerance:.2g}")
        worst = max(worst, error)
    return worst


@dataclass
class _Entry:
    """A peer that passed the verification, and its times so far."""

    peer: Peer
    run: Callable[[], Any]
    error: float
    estimate: float  # seconds a call
    rounds: list[float] = field(default_factory=list)
    least: float = math.inf
    calls: int = 0


class Harness:
    """Runs cases; `clock` and `sleep` are parameters so that tests need no time."""

    def __init__(
        self,
        peers: Sequence[Peer],
        settings: Settings,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._peers = list(peers)
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._references: dict[tuple[bool, Shape], dict[str, Array]] = {}

    @property
    def peers(self) -> list[str]:
        """Their names, in the order of each case's rows."""
        return [peer.name for peer in self._peers]

    def run_case(self, scenario: str, shape: Shape, threads: int) -> list[Row]:
        """One row for each peer, in their order."""
        settings = self._settings
        problem = random_problem(shape, seed=settings.seed, dtype=settings.dtype)
        rows: dict[str, Row] = {}
        entries: list[_Entry] = []
        for peer in self._peers:
            blank = Row(scenario, shape, settings.dtype, threads, peer.name, "failed")
            outcome = self._verified(peer, scenario, problem, threads)
            if isinstance(outcome, _Entry):
                entries.append(outcome)
                rows[peer.name] = blank
            else:
                status, message = outcome
                rows[peer.name] = replace(blank, status=status, message=message)
        self._time(entries, threads)
        for entry in entries:
            rows[entry.peer.name] = replace(
                rows[entry.peer.name],
                status="ok",
                error=entry.error,
                rounds=tuple(entry.rounds),
                least=entry.least,
                calls=entry.calls,
            )
        return list(rows.values())

    def gemm_gflops(self, threads: int, size: int = 1536) -> float:
        """GFLOP/s of the best float32 matrix product that any peer has: the ceiling."""
        rng = np.random.default_rng(self._settings.seed)
        a, b = (rng.standard_normal((size, size)).astype("float32") for _ in range(2))
        best = 0.0
        for peer in self._peers:
            peer.set_threads(threads)
            for call in peer.matmuls(a, b):
                call()
                best = max(best, 2 * size**3 / min(self._samples(call, 10)) / 1e9)
            self._sleep(peer.settle_s)
        return best

    def _reference(self, scenario: str, problem: Problem) -> dict[str, Array]:
        """The reference, kept, because every number of threads asks for the same one."""
        key = scenario == "training", problem.shape
        if key not in self._references:
            self._references[key] = reference(scenario, problem)
        return self._references[key]

    def _verified(
        self, peer: Peer, scenario: str, problem: Problem, threads: int
    ) -> _Entry | tuple[str, str]:
        """The peer's entry, or the status and the message of its row."""
        try:
            peer.set_threads(threads)
            job: Job = peer.prepare(scenario, problem)
            error = verify(
                job.collect(job.run()),
                self._reference(scenario, problem),
                dtype=self._settings.dtype,
                tolerance=self._settings.tolerance,
            )
            (estimate,) = self._samples(job.run, 1)
        except UnavailableError as why:
            return "unsupported", str(why)
        except MismatchError as why:
            return "wrong", str(why)
        except Exception as why:  # a peer's bug must not end the run; the row tells of it
            return "failed", f"{type(why).__name__}: {why}"
        return _Entry(peer, job.run, error, estimate)

    def _time(self, entries: list[_Entry], threads: int) -> None:
        pause = max((entry.peer.settle_s for entry in entries), default=0.0)
        for number in range(self._settings.rounds):
            turn = number % max(len(entries), 1)
            for entry in entries[turn:] + entries[:turn]:
                limit = min(self._settings.rounds, entry.peer.max_rounds)
                if entry.estimate > SLOW_CALL:
                    limit = min(limit, SLOW_ROUNDS)
                if number >= limit:
                    continue
                if threads > 1:
                    self._sleep(pause)
                self._turn(entry)
                pause = entry.peer.settle_s

    def _turn(self, entry: _Entry) -> None:
        settings = self._settings
        if entry.estimate <= SLOW_CALL:
            warm_up = min(max(math.ceil(0.1 * settings.min_time / entry.estimate), 1), MAX_CALLS)
            entry.estimate = statistics.median(self._samples(entry.run, warm_up))
        calls = min(max(math.ceil(settings.min_time / entry.estimate), 1), MAX_CALLS)
        samples = self._samples(entry.run, calls)
        entry.rounds.append(statistics.median(samples))
        entry.least = min(entry.least, *samples)
        entry.calls += calls

    def _samples(self, run: Callable[[], Any], calls: int) -> list[float]:
        """Seconds of each call, the release of its result included."""
        samples = []
        collecting = gc.isenabled()
        gc.disable()
        try:
            for _ in range(calls):
                start = self._clock()
                run()
                samples.append(self._clock() - start)
        finally:
            if collecting:
                gc.enable()
        return samples
