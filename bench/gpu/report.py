"""The GPU's part of the page that `bench/report.py` writes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..scenarios import GATES
from ..summary import digits
from .peers import COMPARED, PEERS
from .records import Row, Run
from .scenarios import SCENARIOS, TABLE, Case
from .summary import (
    NOISY,
    NOT_MEASURED,
    Section,
    milliseconds,
    ratio,
    sections,
    share,
    summaries,
    wanted_and_found,
)

INTRODUCTION = """\
## On a GPU

    python bench/gpu/run.py --out bench/results/NAME.json

- Each result, in training every gradient, is held against a float64 computation on the same GPU
  before it is timed, and again after its capture; what fails is shown as `wrong`.
- Milliseconds a call by CUDA events: the median over the rounds of each round's median, the peers
  in turns. Two sets of data take turns, and a buffer twice as large as the L2 is written before
  each call. `~` marks rounds more than {noisy:.0%} apart.
- `pytorch` is torch.nn's layer as it comes, called from Python, beside `fusedrnn`, called the same
  way; `-graph` is the same call replayed as a CUDA graph. `cudnn` is cuDNN's own API as a graph:
  every algorithm (standard, persist static, persist static small H, persist dynamic), maths type
  and, for float16, precision of the arithmetic; the fastest right one, named beside its time. It
  stands beside `fusedrnn-graph`.
- A ratio is the peer's time over ours: above 1, fusedrnn is faster. The share is the rate of the
  matrix products in the valid steps (`2 T B (G H) (I + H)` forward, three times that in training;
  {gates}) over the rate of a product of 8192 x 8192 in the same precision and run.
- One layer, one direction, biases and initial states given, I = H. With variable lengths each
  batch has lengths from T down to T / 4, longest first; `pytorch` packs and pads within the call.
- float32 is float32 throughout; PyTorch's own default lets cuDNN round it to TF32, which is the
  case `tfloat32` here. The 16-bit cases have arrays and weights in that type.
"""


def section(runs: dict[str, Run], images: dict[str, list[Path]] | None = None) -> str:
    """Markdown; without a run the cases are there and marked as not yet measured."""
    gates = ", ".join(f"G = {count} for {cell.upper()}" for cell, count in GATES.items())
    parts = [INTRODUCTION.format(noisy=NOISY, gates=gates)]
    if not runs:
        head = ["table", "cases", "result"]
        lines = [[s.title, str(len(s.cases)), NOT_MEASURED] for s in sections(TABLE)]
        return "\n".join([*parts, grid(head, lines)])
    for name, run in runs.items():
        parts += [f"### {name}\n", _machine(run), _overview(run)]
        parts += [f"![{path.stem}](plots/{path.name})\n" for path in (images or {}).get(name, [])]
        parts += [_table(run, found) for found in sections(wanted_and_found(run))]
    return "\n".join(parts)


def _machine(run: Run) -> str:
    facts, rates = run.machine, run.ceilings
    clocks = [int(c["sm_mhz"]) for c in run.clocks.values() if c.get("sm_mhz", "").isdigit()]
    lines = {
        "GPU": f"{facts.get('gpu')}, driver {facts.get('driver')}, "
        f"compute capability {facts.get('capability')}, {facts.get('memory_mib')} MiB",
        "Clocks": f"{min(clocks)} to {max(clocks)} MHz after the cases, "
        f"at most {facts.get('max_sm_mhz')}"
        if clocks
        else "not reported",
        "Versions": ", ".join(f"{name} {version}" for name, version in run.peers.items()),
        "Run": "; ".join(f"`{command}`" for command in run.commands) + f", {run.created}",
    }
    if rates:
        products = ", ".join(f"{p} {rate}" for p, rate in rates.get("gemm_tflops", {}).items())
        lines["Rates"] = f"copy {rates.get('copy_gbs')} GB/s; products, TFLOP/s: {products}"
    lines |= {f"Skipped {peer}": why for peer, why in run.skipped.items()}
    return "\n".join(f"- {name}: {text}" for name, text in lines.items()) + "\n"


def _overview(run: Run) -> str:
    head = ["table", "peer", "entries", "geometric mean of peer/ours", "lowest"]
    lines = [
        [s.title, s.peer, str(s.entries), digits(s.mean), f"{digits(s.lowest)} ({_label(s.where)})"]
        for s in summaries(run)
    ]
    return grid(head, lines) if lines else ""


def _table(run: Run, found: Section) -> str:
    measured = [case for case in found.cases if case in set(run.cases)]
    missing = [case for case in found.cases if case not in set(run.cases)]
    text = f"#### {found.title[0].upper()}{found.title[1:]}\n\n"
    if measured:
        head = ["cell T, B, H", *(f"{peer} ms" for peer in PEERS), "cuDNN's way"]
        head += [*(f"{peer}/ours" for peer in COMPARED), "TFLOP/s", "share"]
        text += f"{SCENARIOS[found.scenario][0].upper()}{SCENARIOS[found.scenario][1:]}.\n\n"
        text += grid(head, [_line(run, case) for case in measured])
        text += "".join(f"\n- {note}" for note in _notes(run, measured)) + "\n"
    if missing:
        text += f"{NOT_MEASURED[0].upper()}{NOT_MEASURED[1:]}: "
        text += "; ".join(_label(case) for case in missing) + ".\n"
    return text


def _line(run: Run, case: Case) -> list[str]:
    best = _fastest(run, case)
    cudnn = run.row(case, "cudnn")
    return [
        _label(case),
        *(milliseconds(run.row(case, peer)) for peer in PEERS),
        cudnn.choice if cudnn else "-",
        *(digits(ratio(run, case, peer)) for peer in COMPARED),
        digits(best.tflops if best else None),
        share(run, best),
    ]


def _fastest(run: Run, case: Case) -> Row | None:
    """The faster of our two ways."""
    rows = [run.row(case, name) for name in dict.fromkeys(COMPARED.values())]
    timed = [(row.median, row) for row in rows if row is not None and row.median is not None]
    return min(timed, key=lambda pair: pair[0])[1] if timed else None


def _notes(run: Run, cases: Iterable[Case]) -> list[str]:
    """Why a cell has no time: each reason once, with the cases it holds for."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in run.rows:
        if row.message and row.case in set(cases):
            found.setdefault((row.peer, row.status, row.message), []).append(_label(row.case))
    return [f"{'; '.join(c)}, {p}: {s}: {m}" for (p, s, m), c in found.items()]


def _label(case: Case) -> str:
    return case.shape.label


def grid(head: list[str], lines: Iterable[list[str]]) -> str:
    """A Markdown table, its first column to the left, the others to the right."""
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
