"""Write the page: `python bench/report.py --out docs/benchmarks.md bench/results/*.json`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

if not __package__:  # run as a script: `bench` is a package beside its folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import machine, plots
from bench.gpu import plots as gpu_plots
from bench.gpu import records as gpu_records
from bench.gpu import report as gpu_report
from bench.limits import Ceilings
from bench.peers import OURS, UnavailableError, library
from bench.records import ENOUGH_CORES, FAR, Run, load_runs
from bench.scenarios import SCENARIOS, Shape
from bench.summary import (
    NOISY,
    Table,
    amount,
    ceilings,
    class_summaries,
    digits,
    geometric_mean,
    share_text,
    tables,
)

MOST_COMMANDS = 4  # that the page shows

HEAD = """\
<!-- Generated from the files of bench/results; edit bench/report.py instead. -->
# Benchmarks

    python bench/run.py --out bench/results/NAME.json
    python bench/report.py --out docs/benchmarks.md bench/results/*.json

- Verify, then time: each peer's result (in training, every gradient; of a step, several in a row)
  is held against a NumPy float64 computation before the clock starts; what fails is shown as
  `wrong` and not timed.
- The peers take turns in one run, with the same number of threads and the same random inputs;
  times are milliseconds a call, the median over the rounds of each round's median. `~` marks
  noise: rounds that lie more than {noisy:.0%} apart, or a median so far above the shortest call.
- `†` marks cases whose threads were misplaced, by probes before and after: together they were less
  than {enough:g} times their number as fast as one (older rows do not know), or a number took more
  than {far:g} times the file's shortest way from one to another and back. A virtual machine's CPUs
  move from core to core: for seconds or minutes two are hardware threads of one, or stand on two
  dies. Small cells, whose threads meet at every step, then take up to twice as long.
- A ratio is the best peer's time over ours: above 1, fusedrnn is faster. The best peer is the
  fastest of all other libraries' columns, whichever it is for that line; ours is the fastest of
  ours. `fusedrnn` runs a frozen layer for inference and steps (weights packed once, as ONNX
  Runtime and OpenVINO do), `-functions` packs them at every call, as training does; `-mixed` takes
  and returns float32 and computes in bfloat16. Variants that give up precision (`-bf16-weights`,
  `-int8-weights`) or time (`-lean`: memory="lean") are shown beside and never counted.
- The share of the ceiling is the least time that this machine's limits allow over the time taken.
  The limits are measured by probes in the same run: `operations` of the matrix products,
  `2 T B (G H) (I + H)` a layer and direction forward and three times that in training (G = 1, 3, 4
  gate blocks for RNN, GRU, LSTM; with lengths the steps that exist instead of T B), over the
  fastest rate seen in that precision; `bytes` of the weights that each step must read, over the
  bandwidth of the nearest cache that holds a thread's share of them (bench/limits.py).
- Plain shapes are one layer in one direction; networks have tables of their own, and so have long
  sequences and batches with lengths: random ones from 1 to T, or one sequence of T steps and the
  rest of T / 8 (`one-long`), in no order. Biases and initial states given, I = H.
- In bfloat16 classes arrays are bfloat16 in and out for fusedrnn and `pytorch`; the others as their
  users run them: autocast, OpenVINO's precision hint.
- `pytorch` is eager torch.nn as it comes (an LSTM computes through oneDNN; for a step the cells);
  `-native` without oneDNN, `-autocast` with float32 parameters, `-layer` the layers with T = 1,
  `-frozen` traced and frozen, `-compile` by inductor. ONNX Runtime and OpenVINO run one operator a
  layer with bound memory; JAX is a jitted `lax.scan` in a process of its own, tied to as many CPUs
  as threads; NumPy is a loop over time.
- Everyone gets a batch with lengths as a padded one and gives y padded with zeros: PyTorch through
  a PackedSequence (packing and padding are timed), ONNX Runtime with sequence_lens, OpenVINO with
  sequence_lengths, JAX by a masked scan, fusedrnn with `lengths`. None is 0, which PyTorch refuses.
- Memory is what a process holds at most in a training step, beyond what it held before: results,
  what backward needs, gradients, scratch; not the weights, x and dy. A process of its own for each
  peer and shape, which has taken a step of two time steps before, and JAX compiled.
- A step feeds its state back, on one thread or two; p50 and p99 are over all timed calls, the
  clock's own {overhead} included.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print or write the report of the result files; 2 where one cannot be read."""
    parser = argparse.ArgumentParser(prog="bench/report.py", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    parser.add_argument(
        "--out", type=Path, metavar="PAGE.md", help="write the page, and plots/ beside it"
    )
    options = parser.parse_args(arguments)
    gpu_files = [path for path in options.files if gpu_records.is_gpu_file(path)]
    cpu_files = [path for path in options.files if path not in gpu_files]
    try:
        cpu_runs, gpu_runs = load_runs(cpu_files), gpu_records.load_runs(gpu_files)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    named = {path.stem: run for path, run in zip(cpu_files, cpu_runs, strict=True)}
    gpu_named = {path.stem: run for path, run in zip(gpu_files, gpu_runs, strict=True)}
    if options.out is None:
        print(report(named, gpu_runs=gpu_named), end="")
        return 0
    images: dict[str, list[Path]] = {}
    folder = options.out.parent / "plots"
    try:
        for name, run in named.items():
            images[name] = plots.draw(run, folder, name)
        for name, gpu_run in gpu_named.items():
            images[name] = gpu_plots.draw(gpu_run, folder, name)
    except UnavailableError as why:
        print(f"no plots: {why}", file=sys.stderr)
    options.out.write_text(report(named, images, gpu_named), encoding="utf-8")
    return 0


def report(
    runs: dict[str, Run],
    images: dict[str, list[Path]] | None = None,
    gpu_runs: dict[str, gpu_records.Run] | None = None,
) -> str:
    """The page as Markdown; runs by the names of their files, `images` in plots/ beside it."""
    overheads = [run.machine.get("timer_overhead_s", 0.0) for run in runs.values()]
    overhead = f"{max(overheads) * 1e9:.0f} ns" if any(overheads) else "time"
    parts = [
        HEAD.format(noisy=NOISY, overhead=overhead, enough=ENOUGH_CORES, far=FAR),
        *_side_by_side(runs),
    ]
    for name, run in runs.items():
        groups, limits = tables(run.rows), ceilings(run)
        parts += [f"## {name}\n", _machine(run), *_overview(groups), *_probes(run)]
        parts += [f"![{path.stem}](plots/{path.name})\n" for path in (images or {}).get(name, [])]
        parts += [_section(run, table, limits) for table in groups]
    parts.append(gpu_report.section(gpu_runs or {}, images))
    return "\n".join(parts)


def _side_by_side(runs: dict[str, Run]) -> list[str]:
    """The classes' summaries of every machine."""
    found = {
        f"{machine.name(run.machine)}, {run.machine.get('cores')} cores": {
            s.name: f"{digits(s.mean)} ({digits(s.lowest)})"
            for s in class_summaries(tables(run.rows))
        }
        for run in runs.values()
    }
    classes = dict.fromkeys(name for means in found.values() for name in means)
    if not classes:
        return []
    lines = [[name, *(means.get(name, "-") for means in found.values())] for name in classes]
    text = "## All CPUs\n\nGeometric mean of best peer/ours, and the lowest in brackets.\n\n"
    return [text + _grid(["class", *found], lines)]


def _caption(run: Run, table: Table) -> str:
    """The CPU of a table, and when and under what load it was measured."""
    dates = sorted({row.date[:10] for row in table.rows if row.date} or {run.created[:10]})
    loads = sorted(row.load for row in table.rows if row.load is not None)
    loads = loads or [load for load in [run.machine.get("load_before")] if load is not None]
    when, load = (
        " to ".join(dict.fromkeys(map(str, (span[0], span[-1])))) if span else "unknown"
        for span in (dates, loads)
    )
    apart = _span([row.core_latency_ns for row in table.rows], ", cores {:.0f} to {:.0f} ns apart")
    count = _span(
        [row.cores for row in table.rows], ", all threads {:.3g} to {:.3g} times as fast as one"
    )
    cpu = f"{machine.name(run.machine)}, {run.machine.get('cores')} cores"
    return f"{cpu}; measured {when}, load average {load}{apart}{count}"


def _span(values: Iterable[float | None], text: str) -> str:
    """The text with the least and the largest of what is known, empty where nothing is."""
    known = [value for value in values if value is not None]
    return text.format(min(known), max(known)) if known else ""


def _machine(run: Run) -> str:
    facts = run.machine
    ours = run.peers.get(OURS, {})
    lines = {
        "CPU": f"{machine.name(facts)}, {facts.get('cores')} cores used, caches "
        + ", ".join(f"{level} {size}" for level, size in facts.get("caches", {}).items()),
        "Instruction sets": f"{', '.join(facts.get('instruction_sets', []))}"
        + (f"; fusedrnn used {ours['isa']}" if "isa" in ours else ""),
        "System": f"{facts.get('system')}, Python {facts.get('python')}, huge pages "
        f"{facts.get('huge_pages')}, load before the run {facts.get('load_before')}",
        "Versions": _versions(run),
        "GEMM": ", ".join(
            f"{rate:.0f} GFLOP/s on {threads} thread{'s' if threads > 1 else ''}"
            for threads, rate in run.gemm_gflops.items()
        ),
    }
    for dtype, allowed in run.settings["tolerances"].items():
        if errors := _errors(run, dtype):
            looser = run.settings.get("gradient_tolerances", {}).get(dtype)
            more = f", {looser:.0e} of gradients" if looser else ""
            lines[f"Largest relative error, {dtype}"] = f"{errors}; {allowed:.0e} allowed{more}"
    lines["Run"] = f"{_commands(run)}, {run.created}"
    lines |= {f"Skipped {peer}": why for peer, why in run.skipped.items()}
    return "\n".join(f"- {name}: {text}" for name, text in lines.items()) + "\n"


def _versions(run: Run) -> str:
    """Each library once, though it may run in several ways; all of its versions in the rows."""
    versions: dict[str, dict[str, None]] = {}
    for peer, facts in run.peers.items():
        versions.setdefault(library(peer), {})
        known = {row.version: None for row in run.rows if row.peer == peer and row.version}
        known |= {facts["version"]: None} if any(not row.version for row in run.rows) else {}
        versions[library(peer)] |= known or {facts["version"]: None}
    return ", ".join(f"{name} {' and '.join(found)}" for name, found in versions.items())


def _commands(run: Run) -> str:
    """What was typed; of a table that was measured in many parts, how many they were."""
    if len(run.commands) > MOST_COMMANDS:
        return f"in {len(run.commands)} parts, whose commands stand in the result file, the last"
    return "; ".join(f"`{command}`" for command in run.commands)


def _errors(run: Run, dtype: str) -> str:
    """Each peer's largest error in that precision."""
    errors: dict[str, float] = {}
    for row in run.rows:
        if row.error is not None and row.dtype == dtype:
            errors[row.peer] = max(row.error, errors.get(row.peer, 0.0))
    return ", ".join(f"{peer} {error:.1e}" for peer, error in errors.items())


def _overview(groups: list[Table]) -> list[str]:
    """Geometric mean and lowest entry: of each class, then of every table and peer."""
    lines = [
        [s.name, str(s.entries), digits(s.mean), f"{digits(s.lowest)} ({s.where}, {s.peer})"]
        for s in class_summaries(groups)
    ]
    if not lines:
        return []
    head = ["class", "entries", "geometric mean of best peer/ours", "lowest"]
    details = []
    for table in groups:
        for peer in table.others:
            ratios = table.ratios(peer)
            if not ratios:
                continue
            least = min(ratios, key=lambda shape: ratios[shape])
            mean = digits(geometric_mean(ratios.values()))
            details.append([table.title, peer, mean, f"{digits(ratios[least])} ({least.label})"])
    return [
        _grid(head, lines),
        _grid(["table", "peer", "geometric mean of peer/ours", "lowest"], details),
    ]


def _probes(run: Run) -> list[str]:
    """What the machine can do, by number of threads."""
    names = list(dict.fromkeys(name for rates in run.probes.values() for name in rates))
    if not names:
        return []
    lines = [
        [f"{threads}", *(digits(rates.get(name)) for name in names)]
        for threads, rates in run.probes.items()
    ]
    units = {"gflops": "GFLOP/s", "gbs": "GB/s"}
    heads = [name.rpartition("_") for name in names]
    texts = [f"{name.replace('_', ' ')} {units.get(unit, unit)}" for name, _, unit in heads]
    return [_grid(["probes: threads", *texts], lines)]


def _section(run: Run, table: Table, limits: dict[int, Ceilings]) -> str:
    peers, others = [*table.ways, *table.others], table.others
    compared = bool(table.ways and others)
    step, memory = table.scenario == "step", table.scenario == "memory"
    unit = "MB" if memory else "ms"
    head = ["cell T, B, H", *(f"{peer} {unit}" for peer in peers)]
    head += ["best peer", "best/ours"] if compared else []
    head += ["ours p50 / p99 µs", "best peer p50 / p99 µs"] if compared and step else []
    head += [] if memory else [f"{OURS} GFLOP/s", "share of ceiling"]
    lines = []
    for shape in table.shapes:
        row, best = table.ours(shape), table.best(shape)
        line = [_label(run, table, shape)]
        line += [amount(table.row(shape, peer)) for peer in peers]
        if compared:
            line += [best.peer if best else "-", digits(table.best_ratios().get(shape))]
        if compared and step:
            line += [_percentiles(row), _percentiles(best)]
        if not memory:
            line += [digits(row.gflops if row else None), share_text(row, limits)]
        lines.append(line)
    if compared:
        mean = digits(geometric_mean(table.best_ratios().values()))
        line = ["geometric mean", *[""] * len(peers), "", mean]
        lines.append(line + [""] * (len(head) - len(line)))
    text = f"### {_capital(table.title)}\n\n{_capital(SCENARIOS[table.scenario])}.\n"
    text += f"{_caption(run, table)}.\n\n"
    text += _grid(head, lines)
    if table.extras:
        text += "\n" + _grid(*_extras(run, table, limits))
    if notes := _notes(table):
        text += "\n" + "\n".join(notes) + "\n"
    return text


def _label(run: Run, table: Table, shape: Shape) -> str:
    """The shape, marked where its threads were misplaced, which all rows of a case have alike."""
    return shape.label + run.mark(next(row for row in table.rows if row.shape == shape))


def _extras(
    run: Run, table: Table, limits: dict[int, Ceilings]
) -> tuple[list[str], list[list[str]]]:
    """Variants of ours beside ours: compared with nobody, because their precision is another."""
    names, memory = [OURS, *table.extras], table.scenario == "memory"
    head = ["cell T, B, H"]
    for name in names:
        head += [f"{name} MB"] if memory else [f"{name} ms", "share of ceiling"]
    lines = []
    for shape in table.shapes:
        line = [_label(run, table, shape)]
        for name in names:
            row = table.row(shape, name)
            line += [amount(row)] if memory else [amount(row), share_text(row, limits)]
        lines.append(line)
    return head, lines


def _percentiles(row: object) -> str:
    p50, p99 = getattr(row, "p50", None), getattr(row, "p99", None)
    return "-" if p50 is None or p99 is None else f"{p50 * 1e6:.2f} / {p99 * 1e6:.2f}"


def _notes(table: Table) -> list[str]:
    """Why a cell has no time: each peer's reason once, with the shapes it holds for."""
    shapes: dict[tuple[str, str, str], list[str]] = {}
    for row in table.rows:
        if row.message:
            shapes.setdefault((row.peer, row.status, row.message), []).append(row.shape.label)
    count = len(table.shapes)
    return [
        f"- {'all' if len(found) == count else '; '.join(found)}, {peer}: {status}: {message}"
        for (peer, status, message), found in shapes.items()
    ]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _grid(head: list[str], lines: Iterable[list[str]]) -> str:
    """A Markdown table, its first column to the left, the others to the right."""
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
