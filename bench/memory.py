"""What `memory="lean"` saves and what it costs: `python bench/memory.py`.

For each cell and shape a training step (forward, then backward with dy = y) of one layer on one
thread, in a process of its own for each of the two memories, in turns. Peak memory is what the
process holds at most beyond what it held with the layer and before x: x, y, the tape, what backward
works in, dx and all else. Times are CPU times of the process, the least of a few steps and rounds.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np

import fusedrnn as fr
from bench import machine

SHAPES = ((64, 16, 256), (1000, 4, 128), (200000, 1, 256))  # T, B, H = I
CELLS = ("LSTM", "GRU", "RNN")
MEMORIES = ("default", "lean")


def held() -> int:
    """Bytes of this process at most, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_one(cell: str, memory: str, T: int, B: int, H: int, budget: float) -> dict[str, Any]:
    """Steps within a budget of seconds, at least one."""
    fr.set_num_threads(1)
    layer = getattr(fr, cell)(H, H, memory=memory, seed=0)
    layer.forward(np.zeros((1, 1, H), "float32"))
    before = held()
    x = np.random.default_rng(0).standard_normal((T, B, H), "float32")
    least, peak, kept = float("inf"), 0, 0
    end = time.perf_counter() + budget
    while True:
        begin = time.process_time()
        y, _, tape = layer.forward(x)
        grads = layer.backward(tape, y)
        least = min(least, time.process_time() - begin)
        peak = peak or held() - before
        kept = tape.reserve.nbytes
        del y, tape, grads
        if time.perf_counter() >= end:
            return {"ms": least * 1e3, "peak": peak, "tape": kept}


def measure(rounds: int, budget: float) -> list[dict[str, Any]]:
    """One record for each cell and shape."""
    records = []
    for shape in SHAPES:
        for cell in CELLS:
            best: dict[str, dict[str, Any]] = {}
            for _ in range(rounds):
                for memory in MEMORIES:
                    command = [sys.executable, __file__, "--one", cell, memory]
                    command += [*map(str, shape), "--min-time", str(budget)]
                    found = json.loads(subprocess.check_output(command, text=True))
                    known = best.setdefault(memory, found)
                    best[memory] = {name: min(known[name], found[name]) for name in found}
            records.append({"cell": cell, "shape": shape, **best})
            print(_line(records[-1]), flush=True)
    return records


HEAD = (
    "| | T, B, H | tape, MB | lean | peak, MB | lean | ms | lean | lean over default |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|---:|"
)


def _line(record: Mapping[str, Any]) -> str:
    default, lean = record["default"], record["lean"]
    shape = ", ".join(map(str, record["shape"]))
    numbers = [f"{run[name] / 1e6:.1f}" for name in ("tape", "peak") for run in (default, lean)]
    numbers += [f"{default['ms']:.1f}", f"{lean['ms']:.1f}", f"{lean['ms'] / default['ms']:.2f}"]
    return f"| {record['cell']} | {shape} | {' | '.join(numbers)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--min-time", type=float, default=1.0, help="seconds a round and run")
    parser.add_argument("--out", type=Path, help="a JSON file; beside it a .md with the table")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        cell, memory, *sizes = options.one
        T, B, H = map(int, sizes)
        print(json.dumps(run_one(cell, memory, T, B, H, options.min_time)))
        return 0
    print(HEAD)
    records = measure(options.rounds, options.min_time)
    if options.out:
        about = machine.describe() | {
            "isa": fr.info()["isa"],
            "versions": {"fusedrnn": fr.__version__},
            "load": machine.load_average(),
        }
        options.out.write_text(json.dumps({"machine": about, "records": records}, indent=1) + "\n")
        table = "\n".join(_line(record) for record in records)
        options.out.with_suffix(".md").write_text(f"{HEAD}\n{table}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
