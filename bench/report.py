"""Write docs/benchmarks.md: `python bench/report.py bench/results/*.json > docs/benchmarks.md`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

if not __package__:  # run as a script: `bench` is a package beside its folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.peers import OURS
from bench.records import Run, load_runs
from bench.scenarios import SCENARIOS
from bench.summary import NOISY, Table, digits, geometric_mean, milliseconds, tables

HEAD = """\
<!-- Generated from the files of bench/results; edit bench/report.py instead. -->
# Benchmarks

    python bench/run.py --out bench/results/NAME.json
    python bench/report.py bench/results/*.json > docs/benchmarks.md

- Verify, then time: each peer's result (in training, every gradient) is held against a NumPy
  float64 computation before the clock starts; what fails is shown as `wrong` and not timed.
- The peers take turns in one process, with the same number of threads and the same random inputs;
  times are milliseconds a call, the median over the rounds of each round's median. `~` marks
  noise: rounds that lie more than {noisy:.0%} apart, or a median so far above the shortest call.
- A ratio is the peer's time over ours: above 1, fusedrnn is faster.
- GFLOP/s count the matrix products alone, `2 T B (G H) (I + H)` forward and three times that in
  training, with G = 1, 3, 4 gate blocks for RNN, GRU, LSTM; the share is of the fastest
  1536-cubed float32 matrix product that any of the peers reached in the same run.
- One layer, one direction, biases and initial states given, I = H. PyTorch runs eagerly:
  `torch.nn.LSTM`, `GRU`, `RNN`, for a step `LSTMCell`, `GRUCell`, `RNNCell`. NumPy is a loop over
  time.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report of the result files; 2 where one cannot be read."""
    parser = argparse.ArgumentParser(prog="bench/report.py", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    files = parser.parse_args(arguments).files
    try:
        runs = load_runs(files)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(report({path.stem: run for path, run in zip(files, runs, strict=True)}), end="")
    return 0


def report(runs: dict[str, Run]) -> str:
    """The page as Markdown; `runs` by the names of their files."""
    parts = [HEAD.format(noisy=NOISY)]
    for name, run in runs.items():
        groups = tables(run.rows)
        parts += [f"## {name}\n", _machine(run), *_overview(groups)]
        parts += [_section(table, run) for table in groups]
    return "\n".join(parts)


def _machine(run: Run) -> str:
    facts = run.machine
    ours = run.peers.get(OURS, {})
    lines = {
        "CPU": f"{facts.get('cpu')}, {facts.get('cores')} cores used, caches "
        + ", ".join(f"{level} {size}" for level, size in facts.get("caches", {}).items()),
        "Instruction sets": f"{', '.join(facts.get('instruction_sets', []))}"
        + (f"; fusedrnn used {ours['isa']}" if "isa" in ours else ""),
        "System": f"{facts.get('system')}, Python {facts.get('python')}, huge pages "
        f"{facts.get('huge_pages')}, load before the run {facts.get('load_before')}",
        "Versions": ", ".join(f"{peer} {facts['version']}" for peer, facts in run.peers.items()),
        "GEMM": ", ".join(
            f"{rate:.0f} GFLOP/s on {threads} thread{'s' if threads > 1 else ''}"
            for threads, rate in run.gemm_gflops.items()
        ),
        "Largest relative error": f"{_errors(run)}; {run.settings['tolerance']:.0e} allowed",
        "Run": f"`{run.command}`, {run.created}",
    }
    lines |= {f"Skipped {peer}": why for peer, why in run.skipped.items()}
    return "\n".join(f"- {name}: {text}" for name, text in lines.items()) + "\n"


def _errors(run: Run) -> str:
    """Each peer's largest error."""
    errors: dict[str, float] = {}
    for row in run.rows:
        if row.error is not None:
            errors[row.peer] = max(row.error, errors.get(row.peer, 0.0))
    return ", ".join(f"{peer} {error:.1e}" for peer, error in errors.items())


def _overview(groups: list[Table]) -> list[str]:
    """Geometric mean and lowest ratio of every table; nothing where ours did not run."""
    lines = []
    for table in groups:
        for peer in table.others:
            ratios = table.ratios(peer)
            if not ratios:
                continue
            least = min(ratios, key=lambda shape: ratios[shape])
            mean = digits(geometric_mean(ratios.values()))
            lines.append([table.title, peer, mean, f"{digits(ratios[least])} ({least.label})"])
    head = ["table", "peer", "geometric mean of peer/ours", "lowest"]
    return [_grid(head, lines)] if lines else []


def _section(table: Table, run: Run) -> str:
    peers, others = table.peers, table.others
    measured = peers[0]
    ceiling = run.gemm_gflops.get(table.threads)
    head = ["cell T, B, H", *(f"{peer} ms" for peer in peers)]
    head += [f"{peer}/ours" for peer in others] if OURS in peers else []
    head += [f"{measured} GFLOP/s", "share of GEMM"]
    lines, notes = [], []
    for shape in table.shapes:
        line = [shape.label, *(milliseconds(table.row(shape, peer)) for peer in peers)]
        if OURS in peers:
            line += [digits(table.ratio(shape, peer)) for peer in others]
        row = table.row(shape, measured)
        rate = row.gflops if row else None
        share = "-" if rate is None or not ceiling else f"{rate / ceiling:.0%}"
        lines.append([*line, digits(rate), share])
    for row in table.rows:
        if row.message:
            notes.append(f"- {row.shape.label}, {row.peer}: {row.status}: {row.message}")
    if OURS in peers and others:
        means = [digits(geometric_mean(table.ratios(peer).values())) for peer in others]
        lines.append(["geometric mean", *[""] * len(peers), *means, "", ""])
    text = f"### {_capital(table.title)}\n\n{_capital(SCENARIOS[table.scenario])}.\n\n"
    text += _grid(head, lines)
    if notes:
        text += "\n" + "\n".join(notes) + "\n"
    return text + "".join(_chart(table, peer) for peer in others[:1])


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _chart(table: Table, peer: str) -> str:
    """A bar for each shape's ratio, drawn by whatever renders Mermaid in Markdown."""
    ratios = table.ratios(peer)
    if not ratios:
        return ""
    labels = ", ".join(f'"{shape.label}"' for shape in ratios)
    bars = ", ".join(f"{ratio:.2f}" for ratio in ratios.values())
    return (
        "\n```mermaid\nxychart-beta horizontal\n"
        f'    title "{peer} time over fusedrnn time: {table.title}"\n'
        f"    x-axis [{labels}]\n"
        f'    y-axis "times faster" 0 --> {max(ratios.values()) * 1.05:.2f}\n'
        f"    bar [{bars}]\n```\n"
    )


def _grid(head: list[str], lines: Iterable[list[str]]) -> str:
    """A Markdown table, its first column to the left, the others to the right."""
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
