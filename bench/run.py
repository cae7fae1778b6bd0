"""Compare fusedrnn with its peers in one run: `python bench/run.py --help`."""

from __future__ import annotations

import argparse
import datetime
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a script: `bench` is a package beside its folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import machine, plots
from bench.harness import Harness, Settings
from bench.limits import Ceilings
from bench.peers import OURS, PEERS, Peer, UnavailableError
from bench.probes import ProbeError, Probes
from bench.records import Cores, Row, Run, load_runs
from bench.scenarios import (
    CLASSES,
    GATES,
    SCENARIOS,
    SHAPE_SETS,
    parse_shapes,
    scenario_shapes,
)
from bench.summary import (
    amount,
    ceilings,
    class_summaries,
    digits,
    share_text,
    tables,
)
from bench.timing import timer_overhead
from bench.worker import load_peer

RESULTS = Path(__file__).resolve().parent / "results"
# A load average above this share of the cores is worth a warning.
BUSY = 0.5
# Seconds to wait for well placed threads before a case, and between two looks.
WAIT_S = 60.0
POLL_S = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; 1 where a result was wrong or a peer failed, else 0."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.missing and not options.merge:
        parser.error("argument --missing: expected --merge beside it")
    if options.again_misplaced and not options.missing:
        parser.error("argument --again-misplaced: expected --missing beside it")
    if options.list:
        _print_list()
        return 0
    out = options.out or RESULTS / f"{_slug(machine.describe())}.json"
    try:
        before = load_runs([out])[0] if options.merge and out.exists() else None
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    peers, skipped = _load(options.peers, isolate=options.isolate)
    if not peers:
        print("no peer to run", file=sys.stderr)
        return 1
    harness = Harness(peers, Settings(rounds=options.rounds, min_time=options.min_time))
    try:
        run, saved = _measure(harness, peers, skipped, options, out, before)
    except ValueError as error:  # the file to merge with is of another machine
        print(f"{out}: {error}", file=sys.stderr)
        return 2
    finally:
        harness.close()
    _print_classes(saved)
    try:
        files = plots.draw(saved, out.with_suffix(""), out.stem)
        print(f"plots: {', '.join(path.name for path in files)} in {out.with_suffix('')}")
    except UnavailableError as why:
        print(f"no plots: {why}")
    print(f"written: {out}")
    return 1 if any(row.status in ("wrong", "failed") for row in run.rows) else 0


def _measure(
    harness: Harness,
    peers: list[Peer],
    skipped: dict[str, str],
    options: argparse.Namespace,
    out: Path,
    before: Run | None,
) -> tuple[Run, Run]:
    """This run, and what the file holds at its end; the file is written after every case."""
    load = machine.load_average()
    if load is not None and load > BUSY * machine.cores():
        print(f"the machine is busy (load {load}): times will not be comparable", file=sys.stderr)
    run = Run(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        commands=(_command(options),),
        machine=machine.describe() | {"load_before": load, "timer_overhead_s": timer_overhead()},
        settings=harness.settings_record(),
        peers={peer.name: {"version": peer.version(), **peer.details()} for peer in peers},
        skipped=skipped,
    )
    if before is not None:
        before.merged(run)  # an error now rather than after the work
    probes, why_not = _probes(options)
    if why_not:
        run = replace(run, skipped=run.skipped | {"probes": why_not})
    if options.probes:
        run = _with_ceilings(run, harness, options.threads, probes)
    saved = run
    started = time.monotonic()
    said: set[tuple[str, str]] = set()
    for name in options.classes:
        scenario, dtype = CLASSES[name].case
        words = options.shapes or [*CLASSES[name].shapes]
        shapes = [s for s in parse_shapes(words) if s.cell in options.cells]
        unit = "MB" if scenario == "memory" else "ms"
        print(f"\n{name}: {SCENARIOS[scenario]}, {dtype}")
        print(
            _line(
                "cell T, B, H",
                ["threads", f"{OURS} {unit}", f"best peer {unit}", "ratio", "of ceiling"],
            )
        )
        for shape in scenario_shapes(scenario, shapes):
            # Bytes hardly depend on threads.
            for threads in options.threads[:1] if scenario == "memory" else options.threads:
                if options.missing and before:
                    again = options.again_misplaced
                    if before.holds(scenario, dtype, threads, shape, well_placed=again):
                        continue
                if time.monotonic() - started > 60 * options.time_limit:
                    print(f"the time limit is over: {shape} and what follows did not run")
                    return run, saved
                cores = None
                if probes and threads > 1 and scenario != "memory":
                    least, limit = saved.least_latency_ns, options.wait_for_cores
                    cores = _wait(probes, threads, least, limit)
                rows = harness.run_case(scenario, shape, threads, dtype)
                if probes and cores:
                    harness.settle()
                    rows = _with_cores(rows, cores, _cores(probes, threads))
                run = replace(run, rows=(*run.rows, *rows))
                saved = before.merged(run) if before else run
                _write(saved, out)
                _print_case(rows, ceilings(run), said, saved.mark(rows[0]))
        print(f"{time.monotonic() - started:.0f} s", flush=True)
    return run, saved


def _probes(options: argparse.Namespace) -> tuple[Probes | None, str]:
    """The probes, or None and why they cannot be had; neither where they are not wanted."""
    if not options.probes:
        return None, ""
    try:
        return Probes(), ""
    except ProbeError as why:
        print(f"skipped probes: {why}")
        return None, str(why)


def _cores(probes: Probes, threads: int) -> Cores:
    return Cores(probes.cores(threads), probes.core_latency_ns())


def _wait(probes: Probes, threads: int, least_latency_ns: float, limit: float) -> Cores:
    """The cores of so many threads, once these are well placed or `limit` seconds are over."""
    end = time.monotonic() + limit
    waits = False
    while True:
        found = _cores(probes, threads)
        least_latency_ns = min(least_latency_ns, found.latency_ns)
        if not found.misplaced(threads, least_latency_ns) or time.monotonic() >= end:
            return found
        if not waits:
            print(f"waiting: {found.number:g} cores, {found.latency_ns:g} ns apart", flush=True)
            waits = True
        time.sleep(POLL_S)


def _with_cores(rows: list[Row], before: Cores, after: Cores) -> list[Row]:
    """The rows of a case with the worse of what was found before and after it."""
    number = min(before.number, after.number)
    latency = max(before.latency_ns, after.latency_ns)
    return [replace(row, cores=number, core_latency_ns=latency) for row in rows]


def _with_ceilings(
    run: Run, harness: Harness, all_threads: Sequence[int], probes: Probes | None
) -> Run:
    """The run with its GEMM rates and, where they can be had, those of the probes."""
    gemm: dict[int, float] = {}
    found: dict[int, dict[str, float]] = {}
    sizes = machine.cache_bytes(run.machine)
    for threads in all_threads:
        gemm[threads] = round(harness.gemm_gflops(threads), 1)
        rates = {"gemm_bf16_gflops": round(harness.gemm_gflops(threads, "bfloat16"), 1)}
        rates |= probes.measure(threads, sizes) if probes else {}
        found[threads] = rates
        facts = {"gemm_gflops": gemm[threads], **rates}
        print(f"threads {threads}: " + ", ".join(f"{k} {v}" for k, v in facts.items()))
    return replace(run, gemm_gflops=gemm, probes=found)


def _write(run: Run, out: Path) -> None:
    """Replace the file at once, so that an interrupted run leaves the last whole one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    partial.write_text(run.to_json(), encoding="utf-8")
    partial.replace(out)


def _print_case(
    rows: list[Row], limits: dict[int, Ceilings], said: set[tuple[str, str]], mark: str
) -> None:
    (table,) = tables(rows)
    shape = rows[0].shape
    ours, best = table.ours(shape), table.best(shape)
    ratio = table.ratio(shape, best.peer) if best else None
    theirs = f"{amount(best)} {best.peer}" if best else "-"
    cells = [
        str(table.threads),
        amount(ours),
        theirs,
        digits(ratio),
        share_text(ours, limits),
    ]
    print(_line(shape.label + mark, cells), flush=True)
    for name in table.extras:
        row = table.row(shape, name)
        cells = [str(table.threads), amount(row), "", "", share_text(row, limits)]
        print(_line(f"  {name.removeprefix(OURS + '-')}", cells))
    for row in rows:
        if row.message and (row.peer, row.message) not in said:
            said.add((row.peer, row.message))
            print(f"  {row.peer}: {row.status}: {row.message}")


def _print_classes(run: Run) -> None:
    print("\nbest peer's time (bytes) over ours, by class: entries, geometric mean, lowest")
    for found in class_summaries(tables(run.rows)):
        print(
            f"{found.name:<24} {found.entries:>4} {digits(found.mean):>8} {digits(found.lowest):>8}"
            f"  {found.where}, {found.peer}"
        )


def _line(head: str, cells: list[str]) -> str:
    widths = (8, 14, 26, 8, 18)
    text = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{head:<40}{text}"


def _load(names: list[str], *, isolate: bool) -> tuple[list[Peer], dict[str, str]]:
    """The peers that are here, and why the others are not."""
    peers: list[Peer] = []
    skipped: dict[str, str] = {}
    for name in names:
        try:
            peers.append(load_peer(name, isolate=isolate))
        except (UnavailableError, RuntimeError) as why:
            skipped[name] = str(why)
            print(f"skipped {name}: {why}")
    return peers, skipped


def _print_list() -> None:
    print("classes")
    for name, found in CLASSES.items():
        print(f"  {name:<22} {SCENARIOS[found.scenario]}, {found.dtype}; {', '.join(found.shapes)}")
    print("shapes (cell:T,B,H[,layers=N][,bidirectional][,lengths=NAME])")
    for name, shapes in SHAPE_SETS.items():
        print(f"  {name:<22} {' '.join(map(str, shapes))}")
    print("peers")
    for name in PEERS:
        try:
            peer = load_peer(name)
            print(f"  {name:<22} {peer.version()}")
            peer.close()
        except (UnavailableError, RuntimeError) as why:
            print(f"  {name:<22} {why}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__)
    default = Settings()
    add = parser.add_argument
    for option, known in (("--peers", PEERS), ("--classes", CLASSES), ("--cells", GATES)):
        add(
            option,
            type=_names(known),
            default=[*known],
            metavar="A,B",
            help=", ".join(known),
        )
    threads = sorted({1, min(2, machine.cores())})
    add("--threads", type=_threads, default=threads, metavar="N,N", help="default 1,2")
    add(
        "--shapes",
        nargs="+",
        type=_shape_word,
        metavar="SHAPE",
        help=f"sets ({', '.join(SHAPE_SETS)}) and shapes such as lstm:64,16,256 or"
        " gru:64,16,256,layers=2,bidirectional,lengths=random; default the sets of each class",
    )
    add(
        "--rounds",
        type=_positive(int),
        default=default.rounds,
        metavar="N",
        help="turns of each peer, default %(default)s",
    )
    add(
        "--min-time",
        type=_positive(float),
        default=default.min_time,
        metavar="S",
        help="seconds of calls in a turn, default %(default)s",
    )
    add(
        "--out",
        type=Path,
        metavar="FILE.json",
        help="where the results go, after every case; default bench/results/CPU-CORES.json",
    )
    add(
        "--time-limit",
        type=_positive(float),
        default=1e9,
        metavar="MIN",
        help="begin no case after so many minutes",
    )
    add(
        "--wait-for-cores",
        type=_positive(float, or_zero=True),
        default=WAIT_S,
        metavar="S",
        help="before a case with several threads, wait so many seconds at most while their CPUs"
        " share a core or are far apart; then it runs, and is marked; default %(default)s",
    )
    add("--missing", action="store_true", help="with --merge, run what the file lacks")
    add(
        "--again-misplaced",
        action="store_true",
        help="with --missing, also run again what tables mark for shared or far cores",
    )
    add("--merge", action="store_true", help="keep the cases of that file that do not run now")
    add("--isolate", action="store_true", help="every peer in a process of its own")
    add("--no-probes", dest="probes", action="store_false", help="measure no ceilings")
    add("--list", action="store_true", help="list classes, shapes and peers, and stop")
    return parser


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """An argparse type: names of `known`, separated by commas."""

    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"expected {', '.join(known)}, got {name!r}")
        return names

    return parse


def _positive(number: Callable[[str], float], *, or_zero: bool = False) -> Callable[[str], float]:
    """An argparse type: a finite number above 0, or 0 as well."""

    def parse(text: str) -> float:
        value = number(text)
        if not (0 < value < float("inf") or (or_zero and value == 0)):
            least = "of at least" if or_zero else "above"
            raise argparse.ArgumentTypeError(f"expected a number {least} 0, got {text!r}")
        return value

    return parse


def _threads(text: str) -> list[int]:
    counts = [int(_positive(int)(word)) for word in text.split(",")]
    if max(counts) > machine.cores():
        raise argparse.ArgumentTypeError(f"expected at most {machine.cores()}, got {text!r}")
    return counts


def _shape_word(text: str) -> str:
    try:
        parse_shapes([text])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _slug(facts: dict[str, object]) -> str:
    """A file name of the CPU, without its vendor, and its cores."""
    text = (
        f"{machine.name(facts)} {facts['cores']} core{'s' if facts['cores'] != 1 else ''}".lower()
    )
    text = re.sub(r"\((r|tm)\)|\b(amd|intel|cpu|processor)\b", " ", text)
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


def _command(options: argparse.Namespace) -> str:
    """The command that repeats this run."""
    words = ["python bench/run.py"]
    for name, known in (("peers", PEERS), ("classes", CLASSES), ("cells", GATES)):
        chosen = getattr(options, name)
        if chosen != [*known]:
            words.append(f"--{name} {','.join(chosen)}")
    words.append(f"--threads {','.join(map(str, options.threads))}")
    words += [f"--shapes {' '.join(options.shapes)}"] if options.shapes else []
    words.append(f"--rounds {options.rounds} --min-time {options.min_time}")
    if options.wait_for_cores != WAIT_S:
        words.append(f"--wait-for-cores {options.wait_for_cores:g}")
    switches = ("merge", "missing", "again_misplaced", "isolate")
    words += [f"--{name.replace('_', '-')}" for name in switches if getattr(options, name)]
    return " ".join(words)


if __name__ == "__main__":
    sys.exit(main())
