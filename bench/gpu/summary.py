"""From rows to ratios: what `run.py` prints and `report.py` writes of a GPU."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from ..summary import digits
from .peers import COMPARED, PEERS
from .records import Row, Run
from .scenarios import SCENARIOS, TABLE, Case

# Times whose rounds lie further apart than this are marked in tables.
NOISY = 0.1
NOT_MEASURED = "not yet measured"
HEAD = f"{'case':<46}" + "".join(f"{name:>16}" for name in PEERS) + "  ms; peer/ours"


def milliseconds(row: Row | None) -> str:
    """The median with three digits; `~` marks noise; a word where nothing was timed."""
    if row is None or row.status == "unsupported":
        return "-"
    if row.median is None:
        return row.status
    return digits(row.median * 1e3) + ("~" if row.noise > NOISY else "")


def ratio(run: Run, case: Case, peer: str) -> float | None:
    """The peer's time over ours, run the same way: above 1 ours is faster."""
    theirs, ours = run.row(case, peer), run.row(case, COMPARED[peer])
    if theirs is None or ours is None or theirs.median is None or ours.median is None:
        return None
    return theirs.median / ours.median


def share(run: Run, row: Row | None) -> str:
    """The rate of the products over that of the GPU's own large product."""
    rate = run.ceilings.get("gemm_tflops", {}).get(row.case.precision) if row else None
    if row is None or row.tflops is None or not rate:
        return "-"
    return f"{row.tflops / rate:.1%}"


def case_line(run: Run, case: Case) -> str:
    """A line for the terminal."""
    cells = "".join(f"{milliseconds(run.row(case, peer)):>16}" for peer in PEERS)
    ratios = ", ".join(f"{peer} {digits(ratio(run, case, peer))}" for peer in COMPARED)
    return f"{case!s:<46}{cells}  {ratios}"


@dataclass(frozen=True)
class Section:
    """The cases of one table."""

    scenario: str
    precision: str
    lengths: bool
    cases: tuple[Case, ...]

    @property
    def title(self) -> str:
        return f"{self.scenario}, {self.precision}" + (", variable lengths" * self.lengths)


def sections(cases: Iterable[Case]) -> list[Section]:
    """Cases by scenario, precision and lengths, in the order of the scenarios."""
    groups: dict[tuple[bool, str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.lengths, case.scenario, case.precision), []).append(case)
    order = [*SCENARIOS]
    known = sorted(groups.items(), key=lambda item: (item[0][0], order.index(item[0][1])))
    return [Section(s, p, lengths, tuple(found)) for (lengths, s, p), found in known]


def wanted_and_found(run: Run) -> list[Case]:
    """Every case of the table, and what else was measured."""
    return list(dict.fromkeys([*TABLE, *run.cases]))


@dataclass(frozen=True)
class Summary:
    """A peer's time over ours in one section: how many entries, their mean, the lowest."""

    title: str
    peer: str
    entries: int
    mean: float
    lowest: float
    where: Case


def summaries(run: Run) -> list[Summary]:
    found = []
    for section in sections(run.cases):
        for peer in COMPARED:
            ratios = [(ratio(run, case, peer), case) for case in section.cases]
            known = [(value, case) for value, case in ratios if value is not None]
            if known:
                lowest, where = min(known, key=lambda entry: entry[0])
                mean = statistics.geometric_mean(value for value, _ in known)
                found.append(Summary(section.title, peer, len(known), mean, lowest, where))
    return found


def summary_lines(run: Run) -> list[str]:
    """For the terminal: a line a section and peer, then what failed."""
    lines = ["peer's time over ours: entries, geometric mean, lowest"]
    lines += [
        f"{s.title:<40} {s.peer:<14} {s.entries:>4} {digits(s.mean):>7} {digits(s.lowest):>7}"
        f"  {s.where.shape.label}"
        for s in summaries(run)
    ]
    bad = [row for row in run.rows if row.status in ("wrong", "failed")]
    lines += [f"{row.case} {row.peer}: {row.status}: {row.message[:200]}" for row in bad]
    return lines
