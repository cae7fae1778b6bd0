"""The records of a run, and their JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .scenarios import Shape, flops

SCHEMA = 1


@dataclass(frozen=True)
class Row:
    """One peer on one case.

    `status` is `ok` (verified and timed), `wrong` (the verification failed), `failed` (it raised)
    or `unsupported`; `message` says more about the last three. `error` is the largest relative
    error among the results. `rounds` holds each round's median of a call, `least` the shortest
    call of all, in seconds; `calls` counts the timed calls.
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

    @property
    def case(self) -> tuple[str, str, int]:
        """What rows of one table have in common: scenario, dtype, threads."""
        return self.scenario, self.dtype, self.threads

    @property
    def median(self) -> float | None:
        """Seconds a call: the median of the rounds' medians, None where nothing was timed."""
        return statistics.median(self.rounds) if self.rounds else None

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
    """Everything about one run that its table needs.

    `gemm_gflops` is, per number of threads, the best float32 matrix product of any peer.
    """

    created: str
    command: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    peers: dict[str, dict[str, Any]]
    skipped: dict[str, str] = field(default_factory=dict)
    gemm_gflops: dict[int, float] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()

    def to_json(self) -> str:
        data = {"schema": SCHEMA, **dataclasses.asdict(self)}
        for row, record in zip(data["rows"], self.rows, strict=True):
            row |= {"shape": str(record.shape), "median": record.median, "gflops": record.gflops}
        return json.dumps(data, indent=1, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Run:
        """Raises ValueError where the text is of another schema."""
        data = json.loads(text)
        if data.pop("schema", None) != SCHEMA:
            raise ValueError(f"result file: expected schema {SCHEMA}")
        rows = tuple(map(_row, data.pop("rows")))
        ceiling = {int(threads): value for threads, value in data.pop("gemm_gflops").items()}
        return cls(rows=rows, gemm_gflops=ceiling, **data)


def _row(data: dict[str, Any]) -> Row:
    derived = ("median", "gflops")  # written for other readers of the file
    kept = {key: value for key, value in data.items() if key not in derived}
    return Row(**kept | {"shape": Shape.parse(data["shape"]), "rounds": tuple(data["rounds"])})


def load_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Runs of result files; raises ValueError that names the file that is none."""
    runs = []
    for path in paths:
        try:
            runs.append(Run.from_json(Path(path).read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not a result file: {error}") from error
    return runs
