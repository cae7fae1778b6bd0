"""Verify, then time: of each peer the fastest right way, and those of all peers in turns."""

from __future__ import annotations

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
    """A verified way to run a case; its plain calls first, then those that are timed."""

    variant: Variant
    job: Job
    calls: Sequence[Callable[[], Any]]
    error: float
    estimate: float
    label: str = ""
    graphs: Any = None


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
        reasons: Counter[str] = Counter()
        screened = self._screened(variants, case, problems, expected, reasons)
        best: _Entry | None = None
        for entry in screened:
            try:
                self._capture(entry, case, expected)
            except Exception as why:  # as in _screened
                reasons[_reason(why)] += 1
                continue
            if best is None or entry.estimate < best.estimate:
                best = entry
        if best is None:
            status = "wrong" if any(r.startswith("wrong") for r in reasons) else "failed"
            return replace(row, status=status, message="; ".join(reasons)), None
        row = replace(row, choice=best.label, rejected=dict(reasons), error=best.error)
        return replace(row, calls=self._calls(best) * self._settings.rounds), best

    def _screened(
        self,
        variants: Sequence[Variant],
        case: Case,
        problems: list[Problem],
        expected: dict[str, Any],
        reasons: Counter[str],
    ) -> list[_Entry]:
        """The right ways, of each group the fastest one; why others are none goes to `reasons`."""
        found: dict[str, _Entry] = {}
        for variant in variants:
            try:
                job: Job = variant.make(problems)
                error = verify(job.collect(job.calls[0]()), expected, case.precision)
                estimate = median(self._clock.seconds(job.calls, 3))
            except Exception as why:  # a way that a library refuses must not end the run
                reasons[_reason(why)] += 1
                continue
            entry = _Entry(variant, job, job.calls, error, estimate, variant.label)
            group = variant.group or variant.label
            if group not in found or estimate < found[group].estimate:
                found[group] = entry
            del job, entry  # the memory of a way that lost
        return [*found.values()]

    def _capture(self, entry: _Entry, case: Case, expected: dict[str, Any]) -> None:
        """Turn the calls into graphs where the way asks for it, and time them anew."""
        if not entry.variant.graph:
            return
        try:
            captured = [self._clock.capture(call) for call in entry.job.calls]
        except Exception as why:
            if not entry.variant.eager_too:
                raise
            entry.label += f" (not captured: {_first_line(why)})"
            return
        entry.graphs = captured  # a graph's memory lives as long as its result
        error = verify(entry.job.collect(captured[0][1]), expected, case.precision)
        entry.error = max(entry.error, error)
        entry.calls = [replay for replay, _ in captured]
        self._clock.seconds(entry.calls, len(captured))
        entry.estimate = median(self._clock.seconds(entry.calls, 3))

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


def _reason(error: Exception) -> str:
    if isinstance(error, MismatchError):
        return f"wrong: {error}"
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
