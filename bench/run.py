"""Compare fusedrnn with its peers in one run: `python bench/run.py --help`."""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

if not __package__:  # run as a script: `bench` is a package beside its folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import machine
from bench.harness import Harness, Settings
from bench.peers import OURS, PEERS, Peer, UnavailableError, load_peer
from bench.records import Row, Run
from bench.scenarios import SCENARIOS, SHAPE_SETS, Shape, parse_shapes, scenario_shapes
from bench.summary import Table, digits, geometric_mean, milliseconds, tables

# A load average above this share of the cores is worth a warning.
BUSY = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; 1 where a result was wrong or a peer failed, else 0."""
    options = _parser().parse_args(arguments)
    if options.list:
        _print_list()
        return 0
    peers, skipped = _load(options.peers)
    if not peers:
        print("no peer to run", file=sys.stderr)
        return 1
    settings = Settings(rounds=options.rounds, min_time=options.min_time)
    harness = Harness(peers, settings)
    load = machine.load_average()
    if load is not None and load > BUSY * machine.cores():
        print(f"the machine is busy (load {load}): times will not be comparable", file=sys.stderr)
    ceiling = {threads: round(harness.gemm_gflops(threads), 1) for threads in options.threads}
    rows: list[Row] = []
    for scenario in options.scenarios:
        for threads in options.threads:
            cases = scenario_shapes(scenario, parse_shapes(options.shapes))
            print(f"\n{scenario}: {SCENARIOS[scenario]}")
            print(f"threads {threads}, largest GEMM rate {ceiling[threads]} GFLOP/s")
            rows += _run_table(harness, scenario, cases, threads)
    run = Run(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        command=_command(options),
        machine=machine.describe() | {"load_before": load},
        settings=asdict(settings),
        peers={peer.name: {"version": peer.version(), **peer.details()} for peer in peers},
        skipped=skipped,
        gemm_gflops=ceiling,
        rows=tuple(rows),
    )
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(run.to_json(), encoding="utf-8")
        print(f"\nwritten: {options.out}")
    return 1 if any(row.status in ("wrong", "failed") for row in rows) else 0


def _run_table(harness: Harness, scenario: str, cases: list[Shape], threads: int) -> list[Row]:
    """Run one table and print each line as soon as it is known."""
    names = harness.peers
    others = [name for name in names if name != OURS] if OURS in names else []
    heads = [f"{name} ms" for name in names] + [f"{name}/ours" for name in others]
    print(_line("cell T, B, H", [*heads, f"{names[0]} GFLOP/s"]))
    rows: list[Row] = []
    for shape in cases:
        rows += harness.run_case(scenario, shape, threads)
        (table,) = tables(rows)
        cells = [milliseconds(table.row(shape, name)) for name in names]
        cells += [digits(table.ratio(shape, name)) for name in others]
        first = table.row(shape, names[0])
        print(_line(shape.label, [*cells, digits(first.gflops if first else None)]), flush=True)
        for row in table.rows:
            if row.shape == shape and row.message:
                print(f"  {row.peer}: {row.status}: {row.message}")
    (table,) = tables(rows)
    _print_means(table, len(names))
    return rows


def _print_means(table: Table, columns: int) -> None:
    if OURS not in table.peers or not table.others:
        return
    means = [digits(geometric_mean(table.ratios(name).values())) for name in table.others]
    print(_line("geometric mean", [""] * columns + means))
    least = [digits(min(table.ratios(name).values(), default=None)) for name in table.others]
    print(_line("lowest", [""] * columns + least))


def _line(head: str, cells: list[str]) -> str:
    return f"{head:<18}" + "".join(f"{cell:>18}" for cell in cells)


def _load(names: list[str]) -> tuple[list[Peer], dict[str, str]]:
    """The peers that are here, and why the others are not."""
    peers: list[Peer] = []
    skipped: dict[str, str] = {}
    for name in names:
        try:
            peers.append(load_peer(name))
        except UnavailableError as why:
            skipped[name] = str(why)
            print(f"skipped {name}: {why}")
    return peers, skipped


def _print_list() -> None:
    print("scenarios")
    for name, text in SCENARIOS.items():
        print(f"  {name:<10} {text}")
    print("shapes (cell:T,B,H)")
    for name, shapes in SHAPE_SETS.items():
        print(f"  {name:<10} {' '.join(map(str, shapes))}")
    print("peers")
    for name in PEERS:
        try:
            print(f"  {name:<10} {load_peer(name).version()}")
        except UnavailableError as why:
            print(f"  {name:<10} {why}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__)
    default = Settings()
    add = parser.add_argument
    add("--peers", type=_names(PEERS), default=[*PEERS], metavar="A,B", help=", ".join(PEERS))
    add(
        "--scenarios",
        type=_names(SCENARIOS),
        default=[*SCENARIOS],
        metavar="A,B",
        help=", ".join(SCENARIOS),
    )
    add("--threads", type=_threads, default=[1, 2], metavar="N,N", help="default 1,2")
    add(
        "--shapes",
        nargs="+",
        type=_shape_word,
        default=["table"],
        metavar="SHAPE",
        help=f"sets ({', '.join(SHAPE_SETS)}) and shapes cell:T,B,H such as lstm:64,16,256",
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
    add("--out", type=Path, metavar="FILE.json", help="where the results go")
    add("--list", action="store_true", help="list scenarios, shapes and peers, and stop")
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


def _positive(number: Callable[[str], float]) -> Callable[[str], float]:
    """An argparse type: a finite number above 0."""

    def parse(text: str) -> float:
        value = number(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
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


def _command(options: argparse.Namespace) -> str:
    """The command that repeats this run."""
    return (
        f"python bench/run.py --peers {','.join(options.peers)}"
        f" --scenarios {','.join(options.scenarios)}"
        f" --threads {','.join(map(str, options.threads))} --shapes {' '.join(options.shapes)}"
        f" --rounds {options.rounds} --min-time {options.min_time}"
    )


if __name__ == "__main__":
    sys.exit(main())
