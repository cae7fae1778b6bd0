"""From rows to ratios: the tables that `run.py` prints and `report.py` writes share this."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from .peers import OURS
from .records import Row
from .scenarios import Shape

# Times with more noise than this (`Row.noise`) are marked in tables.
NOISY = 0.25


@dataclass(frozen=True)
class Table:
    """The rows of one scenario, dtype and number of threads."""

    scenario: str
    dtype: str
    threads: int
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        plural = "" if self.threads == 1 else "s"
        return f"{self.scenario}, {self.dtype}, {self.threads} thread{plural}"

    @property
    def shapes(self) -> list[Shape]:
        return list(dict.fromkeys(row.shape for row in self.rows))

    @property
    def peers(self) -> list[str]:
        return list(dict.fromkeys(row.peer for row in self.rows))

    @property
    def others(self) -> list[str]:
        """The peers that ours is compared with."""
        return [peer for peer in self.peers if peer != OURS]

    def row(self, shape: Shape, peer: str) -> Row | None:
        return next((r for r in self.rows if r.shape == shape and r.peer == peer), None)

    def ratio(self, shape: Shape, peer: str) -> float | None:
        """The peer's time over ours: above 1 ours is faster. None where either has no time."""
        ours, theirs = self.row(shape, OURS), self.row(shape, peer)
        if ours is None or theirs is None or not ours.median or not theirs.median:
            return None
        return theirs.median / ours.median

    def ratios(self, peer: str) -> dict[Shape, float]:
        found = ((shape, self.ratio(shape, peer)) for shape in self.shapes)
        return {shape: ratio for shape, ratio in found if ratio is not None}


def tables(rows: Iterable[Row]) -> list[Table]:
    """Rows by scenario, dtype and threads, in the order of their first row."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.case, []).append(row)
    return [Table(*case, tuple(members)) for case, members in groups.items()]


def geometric_mean(values: Iterable[float]) -> float | None:
    """None for no values."""
    values = list(values)
    return statistics.geometric_mean(values) if values else None


def milliseconds(row: Row | None) -> str:
    """The median with three digits; `~` marks noise; a word where nothing was timed."""
    if row is None:
        return "-"
    if row.median is None:
        return row.status
    return digits(row.median * 1e3) + ("~" if row.noise > NOISY else "")


def digits(value: float | None, significant: int = 3) -> str:
    """Fixed notation with so many significant digits, `-` for None."""
    if value is None:
        return "-"
    if value == 0 or not math.isfinite(value):
        return str(value)
    return f"{value:.{max(significant - 1 - math.floor(math.log10(abs(value))), 0)}f}"
