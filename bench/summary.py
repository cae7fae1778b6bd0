"""From rows to ratios: what `run.py` prints, `report.py` writes and `plots.py` draws."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from .limits import Bound, Ceilings, bound
from .machine import cache_bytes
from .peers import OURS, PEERS, is_extra, library
from .records import Row, Run
from .scenarios import CLASSES, KINDS, Shape

# Times with more noise than this (`Row.noise`) are marked in tables.
NOISY = 0.25


@dataclass(frozen=True)
class Table:
    """The rows of one scenario, dtype, number of threads and kind of shape (`Shape.kind`)."""

    scenario: str
    dtype: str
    threads: int
    kind: str
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        plural = "" if self.threads == 1 else "s"
        kind = f"{self.kind}, " if self.kind else ""
        return f"{self.scenario}, {kind}{self.dtype}, {self.threads} thread{plural}"

    @property
    def shapes(self) -> list[Shape]:
        return list(dict.fromkeys(row.shape for row in self.rows))

    @property
    def peers(self) -> list[str]:
        """The peers that timed or failed something here, in the order of the registry."""
        names = dict.fromkeys(row.peer for row in self.rows if row.status != "unsupported")
        order = {name: number for number, name in enumerate(PEERS)}
        return sorted(names, key=lambda name: order.get(name, len(order)))

    @property
    def others(self) -> list[str]:
        """The peers that ours is compared with."""
        return [peer for peer in self.peers if library(peer) != OURS]

    @property
    def ways(self) -> list[str]:
        """How ours ran in this class's precision."""
        return [peer for peer in self.peers if library(peer) == OURS and not is_extra(peer)]

    @property
    def extras(self) -> list[str]:
        """Variants of ours, compared with nobody."""
        return [peer for peer in self.peers if is_extra(peer)]

    def row(self, shape: Shape, peer: str) -> Row | None:
        return next((r for r in self.rows if r.shape == shape and r.peer == peer), None)

    def best(self, shape: Shape) -> Row | None:
        """The fastest of the others, None where none was timed."""
        return self._fastest(shape, self.others)

    def ours(self, shape: Shape) -> Row | None:
        """The fastest of our ways, None where none was timed."""
        return self._fastest(shape, self.ways)

    def _fastest(self, shape: Shape, peers: list[str]) -> Row | None:
        rows = (self.row(shape, peer) for peer in peers)
        timed = [(row.cost, row) for row in rows if row is not None and row.cost]
        return min(timed, key=lambda pair: pair[0])[1] if timed else None

    def ratio(self, shape: Shape, peer: str) -> float | None:
        """The peer's time, or bytes, over ours: above 1 ours needs less; None if one lacks."""
        ours, theirs = self.ours(shape), self.row(shape, peer)
        if ours is None or theirs is None or not ours.cost or not theirs.cost:
            return None
        return theirs.cost / ours.cost

    def ratios(self, peer: str) -> dict[Shape, float]:
        found = ((shape, self.ratio(shape, peer)) for shape in self.shapes)
        return {shape: ratio for shape, ratio in found if ratio is not None}

    def best_ratios(self) -> dict[Shape, float]:
        """The best peer's time over ours."""
        found = {}
        for shape in self.shapes:
            best = self.best(shape)
            ratio = self.ratio(shape, best.peer) if best else None
            if ratio is not None:
                found[shape] = ratio
        return found


def tables(rows: Iterable[Row]) -> list[Table]:
    """Rows by their `case`, in the order of classes, kinds, then of the first row."""
    groups: dict[tuple[str, str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.case, []).append(row)
    order = [found.case for found in CLASSES.values()]

    def place(item: tuple[tuple[str, str, int, str], list[Row]]) -> tuple[int, int]:
        scenario, dtype, _, kind = item[0]
        case = (scenario, dtype)
        return order.index(case) if case in order else len(order), KINDS.index(kind)

    known = sorted(groups.items(), key=place)
    return [Table(*case, tuple(members)) for case, members in known]


@dataclass(frozen=True)
class ClassSummary:
    """Best peer's time over ours in one class and kind, over all shapes and numbers of threads."""

    name: str
    entries: int
    mean: float
    lowest: float
    where: str
    peer: str


def class_summaries(groups: Iterable[Table]) -> list[ClassSummary]:
    """One for each class and kind of shape that has a ratio."""
    groups = list(groups)
    summaries = []
    for (name, found), kind in itertools.product(CLASSES.items(), KINDS):
        entries = [
            (ratio, table, shape)
            for table in groups
            if (table.scenario, table.dtype) == found.case and table.kind == kind
            for shape, ratio in table.best_ratios().items()
        ]
        if not entries:
            continue
        lowest, table, shape = min(entries, key=lambda entry: entry[0])
        best = table.best(shape)
        summaries.append(
            ClassSummary(
                f"{name}, {kind}" if kind else name,
                len(entries),
                statistics.geometric_mean(entry[0] for entry in entries),
                lowest,
                f"{shape.label}, {table.threads} thread{'s' if table.threads > 1 else ''}",
                best.peer if best else "",
            )
        )
    return summaries


def ceilings(run: Run) -> dict[int, Ceilings]:
    """The ceilings of a run by number of threads; none where no probe ran."""
    return {
        threads: Ceilings.of(
            threads, run.gemm_gflops.get(threads, 0.0), probes, cache_bytes(run.machine)
        )
        for threads, probes in run.probes.items()
    }


def row_bound(row: Row, limits: dict[int, Ceilings]) -> Bound | None:
    """The ceiling of the row's case, with the weights as that peer stores them."""
    if row.threads not in limits:
        return None
    stored = PEERS[row.peer].weight_bytes if row.peer in PEERS else None
    return bound(row.scenario, row.shape, row.dtype, limits[row.threads], stored)


def share_text(row: Row | None, limits: dict[int, Ceilings]) -> str:
    """How much of the ceiling a row reached, and which: `91% operations`."""
    limit = row_bound(row, limits) if row else None
    if row is None or limit is None or not row.median:
        return "-"
    return f"{limit.seconds / row.median:.0%} {limit.limit}"


def geometric_mean(values: Iterable[float]) -> float | None:
    """None for no values."""
    values = list(values)
    return statistics.geometric_mean(values) if values else None


def amount(row: Row | None) -> str:
    """What a table's cell holds: `milliseconds`, of the memory scenario MB (10^6 bytes)."""
    if row is not None and row.peak is not None:
        return digits(row.peak / 1e6)
    return milliseconds(row)


def milliseconds(row: Row | None) -> str:
    """The median with three digits; `~` marks noise; a word where nothing was timed."""
    if row is None or row.status == "unsupported":
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
