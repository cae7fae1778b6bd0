"""The records of a run, and their JSON."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from .scenarios import Shape, flops

SCHEMA = 3
R = TypeVar("R")
# Threads are misplaced that together reach less than this share of their number of one thread's
# rate, or that are more than so many times as far apart as the nearest of the run.
ENOUGH_CORES = 0.85
FAR = 3.0


class Cores(NamedTuple):
    """What several threads have to run on, as `Row` has it."""

    number: float
    latency_ns: float

    def misplaced(self, threads: int, least_latency_ns: float) -> bool:
        """Whether that is less than so many threads need, `least_latency_ns` being near."""
        few = self.number < ENOUGH_CORES * threads
        return few or self.latency_ns > FAR * least_latency_ns


@dataclass(frozen=True)
class Row:
    """One peer on one case.

    `status` is `ok` (verified and timed), `wrong` (the verification failed), `failed` (it raised)
    or `unsupported`; `message` says more about the last three. `error` is the largest relative
    error among the results. `rounds` holds each round's median of a call, `least` the shortest
    call of all, in seconds; `calls` counts the timed calls. `p50` and `p99` are percentiles over
    all calls of a step, None elsewhere. `peak` are the bytes of the memory scenario, where nothing
    is timed. `version` is the library's, `load` the machine's load average when the case began, at
    `date`: rows of one file may come from several runs. Of cases with several threads `cores` is
    how many times one thread's rate the threads reached together, the lower of before and after
    the case, and `core_latency_ns` the time of a number from one thread to another and back, the
    higher one, where they are known.
    """

    scenario: str
    shape: Shape
    dtype: str
    threads: int
    peer: str
    status: str
    message: str = ""
    error: float | None = None
    rounds: tuple[float, ...] = ()
    least: float | None = None
    calls: int = 0
    p50: float | None = None
    p99: float | None = None
    peak: int | None = None
    version: str = ""
    date: str = ""
    load: float | None = None
    core_latency_ns: float | None = None
    cores: float | None = None

    @property
    def key(self) -> tuple[str, str, int, str, Shape]:
        """What the rows that were measured side by side have in common."""
        return *self.case, self.shape

    @property
    def case(self) -> tuple[str, str, int, str]:
        """What rows of one table have in common: scenario, dtype, threads, kind of shape.

        Memory has one table for all kinds.
        """
        kind = "" if self.scenario == "memory" else self.shape.kind
        return self.scenario, self.dtype, self.threads, kind

    @property
    def median(self) -> float | None:
        """Seconds a call: the median of the rounds' medians, None where nothing was timed."""
        return statistics.median(self.rounds) if self.rounds else None

    @property
    def cost(self) -> float | None:
        """What is compared: seconds, of the memory scenario bytes."""
        return self.peak if self.scenario == "memory" else self.median

    @property
    def noise(self) -> float:
        """How far the rounds lie apart, or their median lies above the shortest call.

        The larger of the two, over the median and over the shortest call; 0 where nothing was
        timed. A busy machine slows every round alike, which only the second one shows.
        """
        if self.median is None or self.least is None:
            return 0.0
        return max(
            (max(self.rounds) - min(self.rounds)) / self.median, self.median / self.least - 1
        )

    @property
    def gflops(self) -> float | None:
        """GFLOP/s by the formula of `scenarios.flops`."""
        return None if self.median is None else flops(self.scenario, self.shape) / self.median / 1e9


@dataclass(frozen=True)
class Run:
    """Everything about one run, or several merged, that its tables need.

    `gemm_gflops` is, per number of threads, the best float32 matrix product of any peer; `probes`
    are the other ceilings, by their names in `probes.Ceilings`.
    """

    created: str
    commands: tuple[str, ...]
    machine: dict[str, Any]
    settings: dict[str, Any]
    peers: dict[str, dict[str, Any]]
    skipped: dict[str, str] = field(default_factory=dict)
    gemm_gflops: dict[int, float] = field(default_factory=dict)
    probes: dict[int, dict[str, float]] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()

    def merged(self, later: Run) -> Run:
        """This run with the cases of a later one, which replaces whole cases.

        The rows of a case stay together, because times are compared only with what was measured
        beside them. Raises ValueError where the machine or the rounds differ.
        """
        for name, ours, theirs in (
            ("machine", _identity(self.machine), _identity(later.machine)),
            ("settings", _identity(self.settings), _identity(later.settings)),
        ):
            if ours != theirs:
                raise ValueError(f"{name}: expected {ours}, got {theirs}")
        again = {row.key for row in later.rows}
        kept = tuple(self._marked(row) for row in self.rows if row.key not in again)
        loads = [run.machine.get("load_before") for run in (self, later)]
        known = [load for load in loads if load is not None]
        peers = self.peers | later.peers
        return Run(
            created=later.created,
            commands=tuple(dict.fromkeys((*self.commands, *later.commands))),
            machine=later.machine | {"load_before": max(known, default=None)},
            settings=later.settings,
            peers=peers,
            skipped={k: v for k, v in (self.skipped | later.skipped).items() if k not in peers},
            gemm_gflops=_largest(self.gemm_gflops, later.gemm_gflops),
            probes={
                threads: _largest(self.probes.get(threads, {}), later.probes.get(threads, {}))
                for threads in dict.fromkeys((*self.probes, *later.probes))
            },
            rows=(*kept, *later.rows),
        )

    def holds(
        self, scenario: str, dtype: str, threads: int, shape: Shape, *, well_placed: bool = False
    ) -> bool:
        """Whether the case has rows, none of them misplaced where `well_placed` is asked for."""
        case = scenario, dtype, threads, shape
        rows = [r for r in self.rows if (r.scenario, r.dtype, r.threads, r.shape) == case]
        return bool(rows) and not (well_placed and any(map(self.misplaced, rows)))

    @functools.cached_property
    def least_latency_ns(self) -> float:
        """The least core latency of all rows, infinite where none has one."""
        known = (row.core_latency_ns for row in self.rows if row.core_latency_ns is not None)
        return min(known, default=math.inf)

    def misplaced(self, row: Row) -> bool:
        """Whether the row's threads shared cores, or ran far apart.

        A virtual machine's CPUs move from core to core: two may be hardware threads of one, or of
        two dies. What is far is told by the nearest that this run has seen.
        """
        found = Cores(
            math.inf if row.cores is None else row.cores,
            0.0 if row.core_latency_ns is None else row.core_latency_ns,
        )
        return found.misplaced(row.threads, self.least_latency_ns)

    def mark(self, row: Row) -> str:
        """What tables put behind a misplaced case."""
        return " †" if self.misplaced(row) else ""

    def _marked(self, row: Row) -> Row:
        """The row with what this run, not a later one, says of it; files once lacked it in rows."""
        if row.date:
            return row
        version = row.version or self.peers.get(row.peer, {}).get("version", "")
        load = self.machine.get("load_before")
        return dataclasses.replace(row, date=self.created, load=load, version=version)

    def to_json(self) -> str:
        data = {"schema": SCHEMA, **dataclasses.asdict(self)}
        for row, record in zip(data["rows"], self.rows, strict=True):
            row |= {"shape": str(record.shape), "median": record.median, "gflops": record.gflops}
        return json.dumps(data, indent=1, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Run:
        """Raises ValueError where the text is of a later schema; earlier ones are read too."""
        data = json.loads(text)
        schema = data.pop("schema", None)
        if schema not in (1, 2, SCHEMA):
            raise ValueError(f"result file: expected schema {SCHEMA}")
        if schema == 1:
            data["commands"] = [data.pop("command")]
            data["settings"]["tolerances"] = {"float32": data["settings"].pop("tolerance")}
        rows = tuple(map(_row, data.pop("rows")))
        gemm = {int(threads): value for threads, value in data.pop("gemm_gflops").items()}
        probes = {int(threads): value for threads, value in data.pop("probes", {}).items()}
        commands = tuple(data.pop("commands"))
        return cls(rows=rows, gemm_gflops=gemm, probes=probes, commands=commands, **data)


def _identity(facts: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for figures to stand in one table."""
    names = ["cpu", "family", "cores", "huge_pages", "rounds", "min_time", "seed"]
    names += ["tolerances", "gradient_tolerances"]
    return {name: facts[name] for name in names if name in facts}


def _largest(one: dict[Any, float], other: dict[Any, float]) -> dict[Any, float]:
    """A ceiling is the most that any run has seen."""
    return {
        key: max(one.get(key, 0.0), other.get(key, 0.0)) for key in dict.fromkeys((*one, *other))
    }


def _row(data: dict[str, Any]) -> Row:
    derived = ("median", "gflops")  # written for other readers of the file
    kept = {key: value for key, value in data.items() if key not in derived}
    return Row(**kept | {"shape": Shape.parse(data["shape"]), "rounds": tuple(data["rounds"])})


def load_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Runs of result files; raises ValueError that names the file that is none."""
    return load_all(paths, Run.from_json, "a result file")


def load_all(paths: Iterable[str | Path], from_json: Callable[[str], R], what: str) -> list[R]:
    """What `from_json` makes of each file; raises ValueError that names a file it refuses."""
    runs = []
    for path in paths:
        try:
            runs.append(from_json(Path(path).read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not {what}: {error}") from error
    return runs
