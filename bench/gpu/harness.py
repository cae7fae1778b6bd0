"""Verify, then time: of each peer the fastest right way, and those of all peers in turns."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .peer import Job, Peer, UnavailableError, Variant
from .records import Row
from .reference import MismatchError, reference, verify
from .scenarios import Case, Problem, random_problem
from .timing import SETS, Clock, calls_in, median


@dataclass(frozen=True)
class Settings:
    """How to measure: `round_time` seconds of calls in each of a peer's turns."""

    rounds: int = 5
    round_time: float = 0.02
    seed: int = 0


@dataclass
class _Entry:
    """A verified way to run a case."""

    label: str
    calls: Sequence[Callable[[], Any]]
    error: float
    estimate: float
    keep: Any


class Harness:
    """Runs cases; `clock`, `device` and `problem` are parameters so that tests need no GPU."""

    def __init__(
        self,
        peers: Sequence[Peer],
        settings: Settings,
        clock: Clock,
        device: str = "cuda",
    ) -> None:
        self._peers = list(peers)
        self._settings = settings
        self._clock = clock
        self._device = device

    def settings_record(self) -> dict[str, Any]:
        """How it measures, for the record."""
        return asdict(self._settings)

    def run_case(self, case: Case) -> list[Row]:
        """One row for each peer, in their order."""
        problem = random_problem(case, self._device, self._settings.seed)
        problems = [problem, *(problem.other_data(100 + n) for n in range(1, SETS))]
        expected = reference(problem)
        rows: dict[str, Row] = {}
        entries: dict[str, _Entry] = {}
        for peer in self._peers:
            rows[peer.name], entry = self._best(peer, case, problems, expected)
            if entry is not None:
                entries[peer.name] = entry
        del expected
        for name, rounds in self._time(entries).items():
            rows[name] = replace(rows[name], rounds=tuple(rounds))
        return list(rows.values())

    def _best(
        self, peer: Peer, case: Case, problems: list[Problem], expected: dict[str, Any]
    ) -> tuple[Row, _Entry | None]:
        """The peer's row and its fastest right way, None where it has none."""
        row = Row(case, peer.name, "ok")
        try:
            variants = peer.variants(case)
        except UnavailableError as why:
            return replace(row, status="unsupported", message=str(why)), None
        best: _Entry | None = None
        reasons: Counter[str] = Counter()
        wrong = 0
        for variant in variants:
            try:
                entry = self._entry(variant, case, problems, expected)
            except MismatchError as why:
                wrong += 1
                reasons[f"wrong: {why}"] += 1
                continue
            except Exception as why:  # a way that a library refuses must not end the run
                reasons[f"{type(why).__name__}: {_first_line(why)}"] += 1
                continue
            finally:
                gc.collect()  # memory of the way before
            if best is None or entry.estimate < best.estimate:
                best = entry
        if best is None:
            status = "wrong" if wrong else "failed"
            return replace(row, status=status, message="; ".join(reasons)), None
        row = replace(row, choice=best.label, rejected=dict(reasons), error=best.error)
        return replace(row, calls=self._calls(best) * self._settings.rounds), best

    def _entry(
        self, variant: Variant, case: Case, problems: list[Problem], expected: dict[str, Any]
    ) -> _Entry:
        job: Job = variant.make(problems)
        error = verify(job.collect(job.calls[0]()), expected, case.precision)
        label, calls = variant.label, job.calls
        keep: list[Any] = [job]
        if variant.graph:
            try:
                calls, first, graphs = self._captured(job)
            except Exception as why:
                if not variant.eager_too:
                    raise
                label += f" (not captured: {_first_line(why)})"
            else:
                error = max(error, verify(job.collect(first), expected, case.precision))
                keep.append(graphs)
        self._clock.seconds(calls, len(calls))
        estimate = median(self._clock.seconds(calls, 3))
        return _Entry(label, calls, error, estimate, keep)

    def _captured(self, job: Job) -> tuple[list[Callable[[], Any]], Any, list[Any]]:
        captured = [self._clock.capture(call) for call in job.calls]
        return [replay for replay, _ in captured], captured[0][1], [r for _, r in captured]

    def _calls(self, entry: _Entry) -> int:
        return calls_in(self._settings.round_time, entry.estimate)

    def _time(self, entries: dict[str, _Entry]) -> dict[str, list[float]]:
        """Each round's median of each peer; the peers take turns, whose order rotates."""
        names = [*entries]
        rounds: dict[str, list[float]] = {name: [] for name in names}
        for number in range(self._settings.rounds):
            turn = number % max(len(names), 1)
            for name in names[turn:] + names[:turn]:
                entry = entries[name]
                self._clock.seconds(entry.calls, 1)  # the GPU's clock rises, its caches fill
                seconds = self._clock.seconds(entry.calls, self._calls(entry))
                rounds[name].append(median(seconds))
        return rounds


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
