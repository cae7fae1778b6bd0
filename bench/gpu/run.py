"""Compare fusedrnn with PyTorch and cuDNN on a GPU: `python bench/gpu/run.py --help`."""

from __future__ import annotations

import argparse
import datetime
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: `bench` is a package two folders up
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from bench.gpu import device
from bench.gpu.harness import Harness, Settings
from bench.gpu.peer import Peer, UnavailableError
from bench.gpu.peers import PEERS, make_peer
from bench.gpu.records import Row, Run, load_runs
from bench.gpu.scenarios import CASE_SETS, Case, parse_cases
from bench.gpu.summary import HEAD, case_line, summary_lines
from bench.gpu.timing import Clock, CudaClock, HostClock

RESULTS = Path(__file__).resolve().parent.parent / "results"
# What a rehearsal on the CPU runs in the place of any other cases.
REHEARSED = ("training/bfloat16/lstm:8,3,32",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; 1 where a result was wrong or a peer failed, 3 without a GPU."""
    options = _parser().parse_args(arguments)
    if options.list:
        _print_list()
        return 0
    if options.rehearse:
        options.cases, options.ceilings = [*REHEARSED], False
    elif why := _no_gpu():
        print(f"not measured: {why}", file=sys.stderr)
        return 3
    facts = device.facts()
    out = options.out or RESULTS / f"{_slug(str(facts.get('gpu', 'gpu')))}.json"
    try:
        keep = (options.merge or options.resume) and out.exists()
        before = load_runs([out])[0] if keep else None
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    cases = parse_cases(options.cases)
    if options.resume and before is not None:
        cases = [case for case in cases if case not in set(before.cases)]
    peers, skipped = _load(options.peers, options.quick)
    settings = Settings(rounds=options.rounds, round_time=options.round_time)
    clock: Clock = HostClock() if options.rehearse else CudaClock()
    harness = Harness(peers, settings, clock, device="cpu" if options.rehearse else "cuda")
    run = Run(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        commands=(_command(options),),
        machine=facts,
        settings=harness.settings_record(),
        peers={peer.name: peer.version() for peer in peers},
        skipped=skipped,
        ceilings=_ceilings(clock, before) if options.ceilings else {},
    )
    try:
        saved = measure(harness.run_case, run, cases, out, before, options.time_limit)
    except ValueError as error:  # the file to merge with is of another GPU
        print(f"{out}: {error}", file=sys.stderr)
        return 2
    print("\n".join(summary_lines(saved)))
    print(f"written: {out}")
    return 1 if any(row.status in ("wrong", "failed") for row in saved.rows) else 0


def _ceilings(clock: Clock, before: Run | None) -> dict[str, Any]:
    """Rates of this GPU; those that the file holds need no second measurement."""
    return before.ceilings if before and before.ceilings else device.ceilings(clock)


def measure(
    run_case: Callable[[Case], list[Row]],
    run: Run,
    cases: Sequence[Case],
    out: Path,
    before: Run | None = None,
    time_limit: float = 0,
    now: Callable[[], float] = time.monotonic,
) -> Run:
    """Case by case, the file written after each; what it holds at the end.

    No case starts after `time_limit` seconds (0: no limit).
    """
    # An error now rather than after the work.
    started, saved = now(), before.merged(run) if before else run
    print(HEAD)
    for number, case in enumerate(cases):
        if time_limit and now() - started > time_limit:
            print(f"time is up: {number} of {len(cases)} cases")
            break
        rows = run_case(case)
        run = replace(
            run, rows=(*run.rows, *rows), clocks=run.clocks | {str(case): device.clocks()}
        )
        saved = before.merged(run) if before else run
        _write(saved, out)
        print(case_line(run, case), flush=True)
        for row in rows:
            if row.message:
                print(f"  {row.peer}: {row.status}: {row.message[:300]}")
    return saved


def _write(run: Run, out: Path) -> None:
    """Replace the file at once, so that an interrupted run leaves the last whole one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    partial.write_text(run.to_json(), encoding="utf-8")
    partial.replace(out)


def _no_gpu() -> str:
    """Why nothing can be measured here; empty where it can."""
    try:
        import torch  # noqa: PLC0415 (a list of cases needs no PyTorch)
    except ImportError as error:
        return f"PyTorch is not installed ({error})"
    return "" if torch.cuda.is_available() else "PyTorch sees no CUDA device"


def _load(names: Sequence[str], quick: bool = False) -> tuple[list[Peer], dict[str, str]]:
    """The peers that are here, and why the others are not."""
    peers: list[Peer] = []
    skipped: dict[str, str] = {}
    for name in names:
        try:
            peers.append(make_peer(name, quick))
        except (UnavailableError, RuntimeError) as why:
            skipped[name] = str(why)
            print(f"skipped {name}: {why}")
    return peers, skipped


def _print_list() -> None:
    for name, cases in CASE_SETS.items():
        print(f"{name}: {len(cases)} cases")
        print("".join(f"  {case}\n" for case in cases), end="")
    print(f"peers: {', '.join(PEERS)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/gpu/run.py", description=__doc__)
    default = Settings()
    add = parser.add_argument
    add("--peers", type=_peers, default=[*PEERS], metavar="A,B", help=", ".join(PEERS))
    add(
        "--cases",
        nargs="+",
        type=_case_word,
        default=["table"],
        metavar="CASE",
        help=f"sets ({', '.join(CASE_SETS)}) and cases such as "
        "training/bfloat16/lstm:1024,16,768/lengths",
    )
    add("--rounds", type=int, default=default.rounds, metavar="N", help="default %(default)s")
    add(
        "--round-time",
        type=float,
        default=default.round_time,
        metavar="S",
        help="seconds of calls in a turn, default %(default)s",
    )
    add("--time-limit", type=float, default=0, metavar="S", help="start no case later than this")
    add("--out", type=Path, metavar="FILE.json", help="default bench/results/GPU.json")
    add("--merge", action="store_true", help="keep the cases of that file that do not run now")
    add("--resume", action="store_true", help="the same, and run only cases that it lacks")
    add("--no-ceilings", dest="ceilings", action="store_false", help="no copy, no products")
    add("--quick", action="store_true", help="of each peer the likely fastest ways alone")
    add("--rehearse", action="store_true", help="one small case on the CPU, without a GPU")
    add("--list", action="store_true", help="list cases and peers, and stop")
    return parser


def _peers(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in PEERS:
            raise argparse.ArgumentTypeError(f"expected {', '.join(PEERS)}, got {name!r}")
    return names


def _case_word(text: str) -> str:
    try:
        parse_cases([text])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _command(options: argparse.Namespace) -> str:
    """The command that repeats this run."""
    words = ["python bench/gpu/run.py"]
    if options.peers != [*PEERS]:
        words.append(f"--peers {','.join(options.peers)}")
    words.append(f"--cases {' '.join(options.cases)}")
    words.append(f"--rounds {options.rounds} --round-time {options.round_time}")
    words += ["--quick"] if options.quick else []
    return " ".join(words)


if __name__ == "__main__":
    sys.exit(main())
