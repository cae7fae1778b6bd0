"""Verify, then time, with the peers interleaved; or verify, and tell the peak of memory.

For each case every peer's result is checked against the float64 reference; a peer that fails is
recorded as wrong and never timed. Then come several rounds; in each the peers take turns, in an
order that rotates. A turn pauses until the last peer's worker threads sleep, warms up, and times
so many calls that they fill `min_time`. What counts is the median of the rounds' medians.

Memory is that of a process of its own for every peer and case: nothing before is held by it.
"""

from __future__ import annotations

import datetime
import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from . import machine
from .peers import OURS, Job, Peer, UnavailableError, applies, library
from .peers.numpy_peer import reference
from .records import Row
from .scenarios import STEP_INPUTS, Array, Problem, Shape, random_problem
from .timing import perf_counter, samples
from .worker import WorkerPeer

# The reference that verifies results is NumPy's: its worker threads take as long to fall asleep.
REFERENCE_SETTLE_S = 0.5
# A call longer than this, in seconds, gets SLOW_ROUNDS rounds, and needs no warm-up.
SLOW_CALL = 0.4
SLOW_ROUNDS = 3
MAX_CALLS = 20_000
# A peer so many times slower than the fastest in its first round gets no other; one with slow
# calls not even that, the second call after its verification being enough to tell.
HOPELESS = 4.0
# Sums of so many steps and fewer are within the tolerances as they are.
LONG_STEPS = 10_000
# Calls of a step in all rounds together, at least: the 99th percentile needs them.
STEP_CALLS = 2000


@dataclass(frozen=True)
class Settings:
    """How to measure.

    `tolerances` bounds, for each dtype, the relative error |result - reference| / |reference| by
    norm, for every array of the result, `gradient_tolerances` for gradients where they have one.
    In float32 it is five times what the package promises, because peers sum long sequences in
    other orders. In bfloat16 twice what PyTorch's GRU needs, which rounds after every operation;
    its biases' gradients, sums over all steps in bfloat16, are off by 5% after 1000 steps. Beyond
    LONG_STEPS `tolerances` grow with the square root of T, as do sums of rounding errors.
    """

    rounds: int = 5
    min_time: float = 0.03
    tolerances: Mapping[str, float] = field(
        default_factory=lambda: {"float32": 1e-5, "bfloat16": 1e-2}
    )
    gradient_tolerances: Mapping[str, float] = field(default_factory=lambda: {"bfloat16": 8e-2})
    seed: int = 0


class MismatchError(Exception):
    """A result that the reference contradicts."""


def verify(
    actual: Mapping[str, Array],
    expected: Mapping[str, Array],
    *,
    dtype: str,
    tolerance: float,
    gradient_tolerance: float | None = None,
) -> float:
    """The largest relative error by norm; raises MismatchError naming the array that is wrong.

    `gradient_tolerance` holds for gradients where it is another than `tolerance`.
    """
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
        allowed = tolerance
        if name.startswith("d") and gradient_tolerance is not None:
            allowed = gradient_tolerance
        if not error <= allowed:  # a NaN is no pass
            raise MismatchError(f"{name}: relative error {error:.2g} exceeds {allowed:.2g}")
        worst = max(worst, error)
    return worst


def results(job: Job, calls: int) -> dict[str, Array]:
    """The results of so many calls in a row: y of all of them, the states after the last."""
    parts = [job.collect(job.run()) for _ in range(calls)]
    if calls == 1:
        return parts[0]
    return parts[-1] | {"y": np.concatenate([part["y"] for part in parts])}


@dataclass
class _Entry:
    """A peer that passed the verification, and its times so far."""

    peer: Peer
    job: Job
    error: float
    estimate: float  # seconds a call
    rounds: list[float] = field(default_factory=list)
    samples: list[float] = field(default_factory=list)
    failure: str = ""
    hopeless: bool = False


@dataclass(frozen=True)
class _Peak:
    """Bytes that a verified training step held at most."""

    held: int
    error: float


class Harness:
    """Runs cases; `clock` and `sleep` are parameters so that tests need no time."""

    def __init__(
        self,
        peers: Sequence[Peer],
        settings: Settings,
        *,
        clock: Callable[[], float] = perf_counter,
        sleep: Callable[[float], None] = time.sleep,
        isolated: Callable[[str], WorkerPeer] = WorkerPeer,
    ) -> None:
        self._peers = list(peers)
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._isolated = isolated

    @property
    def peers(self) -> list[str]:
        """Their names, in the order of each case's rows."""
        return [peer.name for peer in self._peers]

    def settings_record(self) -> dict[str, Any]:
        """How it measures, for the record."""
        return asdict(self._settings)

    def run_case(self, scenario: str, shape: Shape, threads: int, dtype: str) -> list[Row]:
        """One row for each peer that the case is for, in their order."""
        problem = _problem(scenario, shape, dtype, self._settings.seed)
        now = datetime.datetime.now(datetime.timezone.utc)
        date, load = now.isoformat(timespec="minutes"), machine.load_average()
        rows: dict[str, Row] = {}
        entries: list[_Entry] = []
        for peer in self._peers:
            if not applies(peer.name, scenario, shape.cell, dtype):
                continue
            row = Row(
                scenario,
                shape,
                dtype,
                threads,
                peer.name,
                "ok",
                version=peer.version(),
                date=date,
                load=load,
            )
            outcome = self._outcome(peer, scenario, problem, threads)
            if isinstance(outcome, _Entry):
                entries.append(outcome)
            elif isinstance(outcome, _Peak):
                row = replace(row, error=outcome.error, peak=outcome.held)
            else:
                status, message = outcome
                row = replace(row, status=status, message=message)
            rows[peer.name] = row
        self._time(entries, scenario, threads)
        for entry in entries:
            rows[entry.peer.name] = _timed(rows[entry.peer.name], entry, scenario)
        return list(rows.values())

    def gemm_gflops(self, threads: int, dtype: str = "float32", size: int = 1536) -> float:
        """GFLOP/s of the best matrix product that any peer has; 0 where none has one."""
        rng = np.random.default_rng(self._settings.seed)
        a, b = (rng.standard_normal((size, size)).astype("float32") for _ in range(2))
        best = 0.0
        for peer in self._peers:
            calls = peer.matmuls(a, b, dtype)
            if not calls:
                continue
            peer.set_threads(threads)
            for call in calls:
                call()
                best = max(best, 2 * size**3 / min(samples(call, 10, self._clock)) / 1e9)
            self._sleep(peer.settle_s)
        return best

    def settle(self) -> None:
        """Sleep until no peer's worker threads spin any more."""
        self._sleep(max((peer.settle_s for peer in self._peers), default=0.0))

    def close(self) -> None:
        for peer in self._peers:
            peer.close()

    def _outcome(
        self, peer: Peer, scenario: str, problem: Problem, threads: int
    ) -> _Entry | _Peak | tuple[str, str]:
        """What was verified, or the status and the message of the peer's row."""
        try:
            if scenario == "memory":
                return self._peak(peer, problem, threads)
            peer.set_threads(threads)
            job: Job = peer.prepare(scenario, problem)
            found = results(job, STEP_INPUTS if scenario == "step" else 1)
            error = self._error(peer, scenario, problem, found)
            (estimate,) = self._samples(job, 1)
        except UnavailableError as why:
            return "unsupported", str(why)
        except MismatchError as why:
            return "wrong", str(why)
        except Exception as why:  # a peer's bug must not end the run; the row tells of it
            return "failed", f"{type(why).__name__}: {why}"
        return _Entry(peer, job, error, estimate)

    def _error(
        self, peer: Peer, scenario: str, problem: Problem, found: Mapping[str, Array]
    ) -> float:
        """As `verify` has it, against the reference."""
        training = scenario in ("training", "memory")
        long = max(1.0, math.sqrt(problem.shape.steps / LONG_STEPS))
        return verify(
            found,
            _reference(training, problem.shape, problem.dtype, problem.seed),
            dtype="float32",
            tolerance=max(self._settings.tolerances[problem.dtype] * long, peer.tolerance),
            gradient_tolerance=self._settings.gradient_tolerances.get(problem.dtype),
        )

    def _peak(self, peer: Peer, problem: Problem, threads: int) -> _Peak:
        alone = self._isolated(peer.name)
        try:
            alone.set_threads(threads)
            held, found = alone.peak(problem)
        finally:
            alone.close()
        return _Peak(held, self._error(peer, "memory", problem, found))

    def _time(self, entries: list[_Entry], scenario: str, threads: int) -> None:
        _leave_out_hopeless(entries, lambda entry: entry.estimate, least=SLOW_CALL)
        pause = max((entry.peer.settle_s for entry in entries), default=0.0)
        pause = max(pause, REFERENCE_SETTLE_S)
        for number in range(self._settings.rounds):
            turn = number % max(len(entries), 1)
            for entry in entries[turn:] + entries[:turn]:
                if entry.failure or entry.hopeless or number >= self._round_limit(entry):
                    continue
                if threads > 1:
                    self._sleep(pause)
                try:
                    self._turn(entry, scenario)
                except Exception as why:  # as in _verified
                    entry.failure = f"{type(why).__name__}: {why}"
                pause = entry.peer.settle_s
            if number == 0:
                timed = [entry for entry in entries if entry.rounds]
                _leave_out_hopeless(timed, lambda entry: entry.rounds[0])

    def _round_limit(self, entry: _Entry) -> int:
        limit = min(self._settings.rounds, entry.peer.max_rounds)
        return min(limit, SLOW_ROUNDS) if entry.estimate > SLOW_CALL else limit

    def _turn(self, entry: _Entry, scenario: str) -> None:
        settings = self._settings
        if entry.estimate <= SLOW_CALL:
            warm_up = min(max(math.ceil(0.1 * settings.min_time / entry.estimate), 1), MAX_CALLS)
            entry.estimate = statistics.median(self._samples(entry.job, warm_up))
        calls = math.ceil(settings.min_time / entry.estimate)
        if scenario == "step":
            calls = max(calls, math.ceil(STEP_CALLS / settings.rounds))
        seconds = self._samples(entry.job, min(max(calls, 1), MAX_CALLS))
        entry.rounds.append(statistics.median(seconds))
        entry.samples += seconds

    def _samples(self, job: Job, calls: int) -> list[float]:
        if job.sample is not None:
            return job.sample(calls)
        return samples(job.run, calls, self._clock)


def _leave_out_hopeless(
    entries: list[_Entry], seconds: Callable[[_Entry], float], least: float = 0.0
) -> None:
    """Mark what takes HOPELESS times as long as the fastest, and more than `least` seconds.

    Ours is never marked. An entry without a round keeps its estimate as its only one.
    """
    fastest = min(map(seconds, entries), default=math.inf)
    for entry in entries:
        if library(entry.peer.name) == OURS or seconds(entry) <= max(HOPELESS * fastest, least):
            continue
        entry.hopeless = True
        if not entry.rounds:
            entry.rounds.append(entry.estimate)
            entry.samples.append(entry.estimate)


def _timed(row: Row, entry: _Entry, scenario: str) -> Row:
    """The row with what was measured; percentiles for steps alone."""
    if entry.failure:
        return replace(row, status="failed", message=entry.failure)
    ordered = sorted(entry.samples)
    row = replace(
        row,
        error=entry.error,
        rounds=tuple(entry.rounds),
        least=ordered[0],
        calls=len(ordered),
    )
    if scenario != "step":
        return row
    return replace(row, p50=percentile(ordered, 0.5), p99=percentile(ordered, 0.99))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest sample that at least so large a share of the sorted samples does not exceed."""
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def _problem(scenario: str, shape: Shape, dtype: str, seed: int) -> Problem:
    """The inputs of a case; those of a step are a short sequence."""
    if scenario == "step":
        shape = replace(shape, steps=STEP_INPUTS)
    return _cached_problem(shape, dtype, seed)


# Every number of threads asks for the same problem and reference, one case after the other.
@functools.lru_cache(maxsize=1)
def _cached_problem(shape: Shape, dtype: str, seed: int) -> Problem:
    return random_problem(shape, seed=seed, dtype=dtype)


@functools.lru_cache(maxsize=1)
def _reference(training: bool, shape: Shape, dtype: str, seed: int) -> dict[str, Array]:
    problem = _cached_problem(shape, dtype, seed)
    return reference("training" if training else "inference", problem)
