"""What a batch with lengths costs beside a dense one: `python bench/lengths.py --out NAME.json`.

For each entry the time with lengths over that of the dense batch, and the bracket: what dense calls
of the sequences that live would take, step for step (of a dense call of n sequences the share of
its steps at which n live; between the numbers that are timed, lines). `--beside FOLDER` times a
second package, as of an older version, in turns with the first. Times are the least of rounds that
take turns, in a process of its own: of one thread CPU time, which other work on the machine changes
little; of several wall time: where CPU time is counted by ticks, threads that spin are missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np

import fusedrnn as fr
from bench import machine
from bench.scenarios import LENGTHS
from fusedrnn.bf16 import cast

Lengths = list[int]
SHAPES = (  # cell, T, B, H
    ("LSTM", 240, 16, 128),
    ("GRU", 60, 64, 200),
    ("RNN", 128, 32, 256),
    ("LSTM", 64, 4, 512),
    ("RNN", 200, 8, 64),
)
TIMED = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # sequences of dense calls


_random = LENGTHS["random"]

# Lengths by scenario, each with its reason.
SCENARIOS: Mapping[str, Callable[[int, int], Lengths]] = {
    "random": _random,
    "random, rising": lambda steps, batch: sorted(_random(steps, batch)),
    "random, falling": lambda steps, batch: sorted(_random(steps, batch), reverse=True),
    "one long, the others an eighth": LENGTHS["one-long"],
    "all half": lambda steps, batch: [steps // 2] * batch,
    "all whole": lambda steps, batch: [steps] * batch,
}


class Runner:
    """Calls of one entry, in a process of their own."""

    def __init__(self) -> None:
        self._layers: dict[Any, Any] = {}

    def seconds(self, case: Mapping[str, Any], calls: int) -> float:
        """The least time of so many calls; before the first of a case one more."""
        run = self._run_of(case)
        clock = time.process_time if case["threads"] == 1 else time.perf_counter
        best = float("inf")
        for _ in range(calls):
            start = clock()
            run()
            best = min(best, clock() - start)
        return best

    def _run_of(self, case: Mapping[str, Any]) -> Callable[[], Any]:
        key = json.dumps(case)
        if key not in self._layers:
            self._layers[key] = self._make(case)
            self._layers[key]()
        return self._layers[key]  # type: ignore[no-any-return]

    @staticmethod
    def _make(case: Mapping[str, Any]) -> Callable[[], Any]:
        steps, batch, size = case["steps"], case["batch"], case["size"]
        rng = np.random.default_rng(2)
        layer = getattr(fr, case["cell"])(size, size, seed=0, dtype=case["dtype"])
        x, dy = (
            cast(rng.standard_normal((steps, batch, size), np.float32), case["dtype"])
            for _ in range(2)
        )
        lengths = None if case["lengths"] is None else np.array(case["lengths"])

        def run() -> None:
            fr.set_num_threads(case["threads"])
            if case["training"]:
                layer.backward(layer.forward(x, lengths=lengths)[-1], dy)
            else:
                layer(x, lengths=lengths)

        return run


def serve() -> None:
    """Answer requests, a line of JSON each: a case and a number of calls."""
    runner = Runner()
    for line in sys.stdin:
        request = json.loads(line)
        print(runner.seconds(request["case"], request["calls"]), flush=True)


class Worker:
    """A process that serves, with the package of a folder or the one that is installed."""

    def __init__(self, folder: str | None) -> None:
        environment = dict(os.environ)
        if folder is not None:
            environment["PYTHONPATH"] = folder
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def seconds(self, case: Mapping[str, Any], calls: int) -> float:
        """As `Runner.seconds`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"case": case, "calls": calls}), file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def stop(self) -> None:
        """Wait for its end."""
        self._process.communicate()


def bracket(lengths: Lengths, steps: int, dense: Mapping[int, float]) -> float:
    """Seconds of dense calls of what lives, from those of dense calls of whole sequences."""
    living = [sum(n > t for n in lengths) for t in range(steps)]
    sizes = [0, *sorted(dense)]
    seconds = [0.0, *(dense[n] for n in sorted(dense))]
    return float(sum(np.interp(n, sizes, seconds) for n in living)) / steps


def entries(dtypes: list[str], quick: bool) -> Iterator[dict[str, Any]]:
    """Dense cases, which lengths are put to."""
    shapes = SHAPES[:1] if quick else SHAPES
    for dtype, (cell, steps, batch, size), training, threads in itertools.product(
        dtypes, shapes, (False, True), (1, 2)
    ):
        yield {
            "cell": cell,
            "steps": steps,
            "batch": batch,
            "size": size,
            "dtype": dtype,
            "training": training,
            "threads": threads,
            "lengths": None,
        }


def measure(
    entry: dict[str, Any], workers: list[Worker], rounds: int, calls: int
) -> list[dict[str, Any]]:
    """A row for each scenario."""
    steps, batch = entry["steps"], entry["batch"]
    timed = sorted({n for n in TIMED if n < batch} | {batch})
    cases: dict[Any, dict[str, Any]] = {n: {**entry, "batch": n} for n in timed}
    for name, lengths_of in SCENARIOS.items():
        cases[name] = {**entry, "lengths": lengths_of(steps, batch)}
    least = [dict.fromkeys(cases, float("inf")) for _ in workers]
    for _ in range(rounds):
        for name, case in cases.items():
            for worker, times in zip(workers, least, strict=True):
                if worker is workers[0] or name in SCENARIOS or name == batch:
                    times[name] = min(times[name], worker.seconds(case, calls))
    rows = []
    for name in SCENARIOS:
        lengths = cases[name]["lengths"]
        dense = {n: least[0][n] for n in timed}
        row = {**entry, "scenario": name, "lengths": lengths, "dense_ms": dense[batch] * 1e3}
        row["over_dense"] = least[0][name] / dense[batch]
        row["bracket"] = bracket(lengths, steps, dense) / dense[batch]
        row["share"] = sum(lengths) / (steps * batch)
        if len(workers) > 1:
            row["beside_dense_ms"] = least[1][batch] * 1e3
            row["beside_over_dense"] = least[1][name] / least[1][batch]
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| | T, B, H | | threads | lengths | dense, ms | over dense | bracket | before |",
        "|---|---|---|---:|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['cell']} {row['dtype']} | {row['steps']}, {row['batch']}, {row['size']} "
            f"| {'training' if row['training'] else 'inference'} | {row['threads']} "
            f"| {row['scenario']} | {row['dense_ms']:.2f} | {row['over_dense']:.2f} "
            f"| {row['bracket']:.2f} | {row.get('beside_over_dense', float('nan')):.2f} |"
        )
    return "\n".join(lines).replace("nan", "") + "\n"


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--beside", help="a folder with another version of the package")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one shape")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve()
    folders = [None] if arguments.beside is None else [None, arguments.beside]
    workers = [Worker(folder) for folder in folders]
    rows = []
    for entry in entries(arguments.dtypes, arguments.quick):
        rows += measure(entry, workers, arguments.rounds, arguments.calls)
        print(table(rows[-len(SCENARIOS) :]).split("\n", 2)[2], end="", flush=True)
    for worker in workers:
        worker.stop()
    if arguments.out is not None:
        facts = {"machine": machine.describe(), "rows": rows}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(facts, indent=1) + "\n")
        arguments.out.with_suffix(".md").write_text(table(rows))
    return None


if __name__ == "__main__":
    main()
