"""The records of a run on a GPU, and their JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..records import load_all
from .scenarios import Case

KIND = "gpu"  # tells the file from one of the CPU
SCHEMA = 1


@dataclass(frozen=True)
class Row:
    """One peer on one case.

    `status` is `ok` (verified and timed), `wrong` (no way passed the verification), `failed` or
    `unsupported`; `message` says more about the last three. `choice` is the way that was fastest,
    `rejected` why others are none: each reason with the number of ways. `rounds` holds each
    round's median of a call, in seconds.
    """

    case: Case
    peer: str
    status: str
    message: str = ""
    choice: str = ""
    rejected: dict[str, int] = field(default_factory=dict)
    error: float | None = None
    rounds: tuple[float, ...] = ()
    calls: int = 0

    @property
    def median(self) -> float | None:
        """Seconds a call, None where nothing was timed."""
        return statistics.median(self.rounds) if self.rounds else None

    @property
    def noise(self) -> float:
        """How far the rounds lie apart, over their median."""
        if self.median is None:
            return 0.0
        return (max(self.rounds) - min(self.rounds)) / self.median

    @property
    def tflops(self) -> float | None:
        return None if self.median is None else self.case.flops() / self.median / 1e12


@dataclass(frozen=True)
class Run:
    """Everything about one run that its tables need.

    `ceilings` are rates measured in the run: `copy_gbs` and, by precision, `gemm_tflops`.
    `clocks` holds, for each case, what the driver said right after it.
    """

    created: str
    commands: tuple[str, ...]
    machine: dict[str, Any]
    settings: dict[str, Any]
    peers: dict[str, str]
    skipped: dict[str, str] = field(default_factory=dict)
    ceilings: dict[str, Any] = field(default_factory=dict)
    clocks: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()

    @property
    def cases(self) -> list[Case]:
        return list(dict.fromkeys(row.case for row in self.rows))

    def row(self, case: Case, peer: str) -> Row | None:
        return next((row for row in self.rows if (row.case, row.peer) == (case, peer)), None)

    def merged(self, later: Run) -> Run:
        """This run with the cases of a later one, which replaces whole cases.

        Raises ValueError where the GPU or the settings differ.
        """
        for name, ours, theirs in (
            ("gpu", self.machine.get("gpu"), later.machine.get("gpu")),
            ("settings", self.settings, later.settings),
        ):
            if ours != theirs:
                raise ValueError(f"{name}: expected {ours}, got {theirs}")
        again = set(later.cases)
        return dataclasses.replace(
            later,
            commands=tuple(dict.fromkeys((*self.commands, *later.commands))),
            peers=self.peers | later.peers,
            ceilings=self.ceilings | later.ceilings,
            clocks=self.clocks | later.clocks,
            rows=(*(row for row in self.rows if row.case not in again), *later.rows),
        )

    def to_json(self) -> str:
        data = {"kind": KIND, "schema": SCHEMA, **dataclasses.asdict(self)}
        for row, record in zip(data["rows"], self.rows, strict=True):
            row |= {"case": str(record.case), "median": record.median, "tflops": record.tflops}
        return json.dumps(data, indent=1, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Run:
        """Raises ValueError where the text is no record of a GPU."""
        data = json.loads(text)
        if (data.pop("kind", None), data.pop("schema", None)) != (KIND, SCHEMA):
            raise ValueError(f"expected kind {KIND}, schema {SCHEMA}")
        rows = tuple(map(_row, data.pop("rows")))
        return cls(rows=rows, commands=tuple(data.pop("commands")), **data)


def _row(data: dict[str, Any]) -> Row:
    kept = {k: v for k, v in data.items() if k not in ("median", "tflops")}
    return Row(**kept | {"case": Case.parse(data["case"]), "rounds": tuple(data["rounds"])})


def is_gpu_file(path: str | Path) -> bool:
    """Whether the result file is of a GPU; a file that cannot be read is not."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("kind") == KIND


def load_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Runs of result files; raises ValueError that names the file that is none."""
    return load_all(paths, Run.from_json, "a result file of a GPU")
