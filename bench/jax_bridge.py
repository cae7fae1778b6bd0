"""What fusedrnn.jax saves beside jax.lax.scan: `python bench/jax_bridge.py`.

A jitted step of training, loss and gradients of all parameters: `fusedrnn.jax`, and a scan over the
cell as people write it, once with the cell's two products in each step, and once with those of the
inputs done for all steps beforehand. The first losses and gradients are compared. Times are the
least of rounds that take turns: on one core CPU times of the process, which other work on the
machine changes little, on more of them (`--cores`) times that pass.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import jax
import jax.numpy as jnp
import numpy as np

import fusedrnn as fr
import fusedrnn.jax as bridge
from bench import machine
from bench.timing import least

SHAPES = ((128, 32, 128), (64, 1, 64), (64, 16, 256), (32, 64, 512))  # T, B, H = I
LIMIT = 2e-5  # relative difference of results
Step = Callable[[Any, Any], Any]
Run = Callable[[], Any]


def cell_lstm(a: Any, params: Any, state: Any) -> tuple[Any, Any]:
    h, c = state
    i, f, g, o = jnp.split(a + h @ params["weight_hh_l0"].T + params["bias_hh_l0"], 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def cell_gru(a: Any, params: Any, state: Any) -> tuple[Any, Any]:
    h = state[0]
    a_r, a_z, a_n = jnp.split(a, 3, -1)
    u_r, u_z, u_n = jnp.split(h @ params["weight_hh_l0"].T + params["bias_hh_l0"], 3, -1)
    r, z = jax.nn.sigmoid(a_r + u_r), jax.nn.sigmoid(a_z + u_z)
    n = jnp.tanh(a_n + r * u_n)
    h = (1 - z) * n + z * h
    return (h,), h


def cell_rnn(a: Any, params: Any, state: Any) -> tuple[Any, Any]:
    h = jnp.tanh(a + state[0] @ params["weight_hh_l0"].T + params["bias_hh_l0"])
    return (h,), h


CELLS = {"RNN": (cell_rnn, 1), "GRU": (cell_gru, 1), "LSTM": (cell_lstm, 2)}


def scan_of(name: str, H: int, ahead: bool) -> Step:
    """y of a scan; `ahead`: with the products of the inputs before it."""
    cell, states = CELLS[name]

    def project(params: Any, x: Any) -> Any:
        return x @ params["weight_ih_l0"].T + params["bias_ih_l0"]

    def run(params: Any, x: Any) -> Any:
        def step(state: Any, x_t: Any) -> Any:
            return cell(x_t if ahead else project(params, x_t), params, state)

        zero = jnp.zeros((x.shape[1], H), x.dtype)
        return jax.lax.scan(step, (zero,) * states, project(params, x) if ahead else x)[1]

    return run


def measure(
    name: str, shape: tuple[int, int, int], rounds: int, budget: float, cores: int
) -> dict[str, Any]:
    T, B, H = shape
    layer = getattr(bridge, name)(H, H)
    params = layer.init(jax.random.key(0))
    x, dy = jax.random.normal(jax.random.key(1), (2, T, B, H))
    steps = {
        "ours": lambda params, x: layer.apply(params, x)[0],
        "scan": scan_of(name, H, False),
        "scan, inputs ahead": scan_of(name, H, True),
    }

    def training(run: Step) -> Any:
        def loss(params: Any, x: Any, dy: Any) -> Any:
            return (run(params, x) * dy).sum()

        return jax.jit(jax.value_and_grad(loss))

    compiled = {kind: training(run) for kind, run in steps.items()}
    first = {kind: run(params, x, dy) for kind, run in compiled.items()}
    for kind, found in first.items():
        for got, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(first["ours"]), strict=True):
            error = float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
            if not error <= LIMIT * T:
                raise SystemExit(f"{name} {shape}: {kind} differs by {error:.1e}")
    runs: dict[str, Run] = {
        kind: functools.partial(_finished, run, params, x, dy) for kind, run in compiled.items()
    }
    clock = time.process_time if cores == 1 else time.perf_counter
    times = least(runs, rounds, budget, clock=clock)
    return {
        "cell": name,
        "shape": shape,
        "ms": times["ours"] * 1e3,
        "scan_over_ours": times["scan"] / times["ours"],
        "scan_ahead_over_ours": times["scan, inputs ahead"] / times["ours"],
    }


def _finished(run: Any, *arguments: Any) -> Any:
    return jax.block_until_ready(run(*arguments))


def line(record: dict[str, Any]) -> str:
    shape = ", ".join(map(str, record["shape"]))
    return (
        f"| {record['cell']} | {shape} | {record['ms']:.3f} | {record['scan_over_ours']:.2f} | "
        f"{record['scan_ahead_over_ours']:.2f} |"
    )


HEAD = (
    "| | T, B, H | ms | scan over ours | scan with the inputs' products ahead over ours |\n"
    "|---|---|---:|---:|---:|"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--min-time", type=float, default=0.2, help="seconds a round and run")
    parser.add_argument("--out", type=Path, help="a JSON file; beside it a .md with the table")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="how many of them")
    options = parser.parse_args(arguments)
    # Before JAX counts them, at its first operation.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    fr.set_num_threads(options.cores)
    print(HEAD, flush=True)
    records = []
    for shape in SHAPES[: options.shapes]:
        for name in CELLS:
            records.append(measure(name, shape, options.rounds, options.min_time, options.cores))
            print(line(records[-1]), flush=True)
    if options.out:
        about = machine.describe() | {
            "isa": fr.info()["isa"],
            "versions": {"fusedrnn": fr.__version__, "jax": jax.__version__},
            "load": machine.load_average(),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        whole = {"machine": about, "training": records}
        options.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        what = "one core, CPU times" if options.cores == 1 else f"{options.cores} cores, wall times"
        head = (
            f"{about['cpu']}, family {about['family'].get('cpu family')}, {about['isa']}, JAX "
            f"{jax.__version__}; {what}, the least of calls; load average {about['load']:.1f}."
        )
        table = "\n".join([head, "", HEAD, *map(line, records)])
        options.out.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
