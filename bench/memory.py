"""What `memory="lean"` saves and what it costs: `python bench/memory.py`.

For each cell and shape a training step (forward, then backward with dy = y) of one layer on one
thread. Peak memory is what a process with one step of one kind holds at most beyond what it held
with the layer and before x: x, y, the tape, what backward works in, dx and all else. Times are CPU
times of a process in which steps of both kinds take turns, the least of some.
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


def layer_of(cell: str, memory: str, H: int) -> Any:
    """One that has run before."""
    layer = getattr(fr, cell)(H, H, memory=memory, seed=0)
    layer.forward(np.zeros((1, 1, H), "float32"))
    return layer


def take_step(layer: Any, x: Any) -> int:
    """Forward and backward; returns the tape's bytes."""
    y, _, tape = layer.forward(x)
    layer.backward(tape, y)
    return int(tape.reserve.nbytes)


def peak_of(cell: str, memory: str, T: int, B: int, H: int) -> dict[str, int]:
    """Of this process, which has taken no step before."""
    layer = layer_of(cell, memory, H)
    before = held()
    x = np.random.default_rng(0).standard_normal((T, B, H), "float32")
    tape = take_step(layer, x)
    return {"tape": tape, "peak": held() - before}


def times_of(cell: str, T: int, B: int, H: int, steps: int, budget: float) -> dict[str, float]:
    """The least milliseconds of at least so many steps of each kind, within a budget of seconds."""
    layers = {memory: layer_of(cell, memory, H) for memory in MEMORIES}
    x = np.random.default_rng(0).standard_normal((T, B, H), "float32")
    least = dict.fromkeys(MEMORIES, float("inf"))
    end = time.perf_counter() + budget
    while steps > 0 or time.perf_counter() < end:
        for memory, layer in layers.items():
            begin = time.process_time()
            take_step(layer, x)
            least[memory] = min(least[memory], (time.process_time() - begin) * 1e3)
        steps -= 1
    return least


def measure(steps: int, budget: float) -> list[dict[str, Any]]:
    """One record for each cell and shape."""
    records: list[dict[str, Any]] = []
    for shape in SHAPES:
        for cell in CELLS:
            record: dict[str, Any] = {"cell": cell, "shape": shape}
            # Before steps of this process: a child begins with what its parent held at most.
            for memory in MEMORIES:
                command = [sys.executable, __file__, "--one", cell, memory, *map(str, shape)]
                record[memory] = json.loads(subprocess.check_output(command, text=True))
            records.append(record)
    for record in records:
        T, B, H = record["shape"]
        for memory, ms in times_of(record["cell"], T, B, H, steps, budget).items():
            record[memory]["ms"] = ms
        print(_line(record), flush=True)
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
    parser.add_argument("--steps", type=int, default=2, help="of each kind, at least")
    parser.add_argument("--min-time", type=float, default=5.0, help="seconds a cell and shape")
    parser.add_argument("--out", type=Path, help="a JSON file; beside it a .md with the table")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    fr.set_num_threads(1)
    if options.one:
        cell, memory, *sizes = options.one
        T, B, H = map(int, sizes)
        print(json.dumps(peak_of(cell, memory, T, B, H)))
        return 0
    print(HEAD)
    records = measure(options.steps, options.min_time)
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
