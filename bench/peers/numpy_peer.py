"""NumPy: the loop that a careful user writes, forward and with a backward by hand.

The same functions in float64 are the reference that every peer is verified against.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..scenarios import PARAMETERS, Array, Problem
from .base import Job, Peer, UnavailableError, require


def _sigmoid(a: Array) -> Array:
    s: Array = 0.5 * np.tanh(0.5 * a) + 0.5  # no overflow, unlike 1 / (1 + exp(-a))
    return s


def _step(cell: str, a: Array, u: Array, h: Array, c: Array | None) -> tuple[Array, ...]:
    """One step from a = W_ih x + b_ih and u = W_hh h + b_hh; returns h, c and the gates."""
    if cell == "rnn":
        h = np.tanh(a + u)
        return h, h
    if cell == "gru":
        a_r, a_z, a_n = np.split(a, 3, axis=1)
        u_r, u_z, u_n = np.split(u, 3, axis=1)
        r, z = _sigmoid(a_r + u_r), _sigmoid(a_z + u_z)
        n = np.tanh(a_n + r * u_n)
        return (1 - z) * n + z * h, h, r, z, n, u_n
    assert c is not None
    i, f, g, o = np.split(a + u, 4, axis=1)
    i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
    c_new = f * c + i * g
    tanh_c = np.tanh(c_new)
    return o * tanh_c, c_new, i, f, g, o, tanh_c, c


@dataclass(frozen=True)
class _Run:
    """One layer in one direction, forward: its input, states at the ends, and each step's gates."""

    suffix: str
    x: Array
    y: Array
    last: list[Array]  # h (lstm: and c) after the last step
    before: Array  # h before each step, [T,B,H]
    gates: list[tuple[Array, ...]]


def _live(problem: Problem) -> Array | None:
    """Whether each step exists, bool [T,B,1]; None where all do."""
    lengths = problem.shape.sequence_lengths
    if lengths is None:
        return None
    live: Array = np.arange(problem.shape.steps)[:, None, None] < lengths[None, :, None]
    return live


def _order(suffix: str, steps: int) -> range:
    return range(steps - 1, -1, -1) if suffix.endswith("_reverse") else range(steps)


def _run(problem: Problem, suffix: str, row: int, x: Array, live: Array | None) -> _Run:
    """Steps that do not exist leave the state as it is and have zeros in y."""
    cell, p = problem.shape.cell, problem.arrays
    w_hh_t, b_hh = p["weight_hh" + suffix].T, p["bias_hh" + suffix]
    a = x.reshape(-1, x.shape[2]) @ p["weight_ih" + suffix].T + p["bias_ih" + suffix]
    a = a.reshape(*x.shape[:2], -1)
    h = p["h0"][row]
    c = p["c0"][row] if cell == "lstm" else None
    y = np.empty((*x.shape[:2], problem.shape.hidden), x.dtype)
    before = np.empty_like(y)
    gates: list[tuple[Array, ...]] = [()] * len(x)
    for t in _order(suffix, len(x)):
        before[t] = h
        h_new, *saved = _step(cell, a[t], h @ w_hh_t + b_hh, h, c)
        c_new = saved.pop(0) if cell == "lstm" else None
        if live is None:
            y[t] = h = h_new
            c = c_new
        else:
            y[t] = np.where(live[t], h_new, 0)
            h = np.where(live[t], h_new, h)
            c = None if c is None or c_new is None else np.where(live[t], c_new, c)
        gates[t] = tuple(saved)
    return _Run(suffix, x, y, [h] if c is None else [h, c], before, gates)


def forward(problem: Problem) -> tuple[dict[str, Array], list[_Run]]:
    """Outputs y, h_n (lstm: c_n), and what every run leaves for backward."""
    y, live = problem.arrays["x"], _live(problem)
    directions, suffixes = problem.shape.directions, problem.shape.suffixes
    runs: list[_Run] = []
    for first in range(0, len(suffixes), directions):
        layer = [
            _run(problem, suffixes[row], row, y, live) for row in range(first, first + directions)
        ]
        runs += layer
        y = layer[0].y if directions == 1 else np.concatenate([run.y for run in layer], axis=2)
    states = zip(problem.states, zip(*(run.last for run in runs), strict=True), strict=True)
    return {"y": y} | {f"{s}_n": np.stack(rows) for s, rows in states}, runs


def _step_backward(
    cell: str, dh: Array, dc: Array | None, gates: tuple[Array, ...]
) -> tuple[Array, Array, Array | float, Array | None]:
    """Gradients of a and u, the part of dh that bypasses W_hh, and dc of the step before."""
    if cell == "rnn":
        (h,) = gates
        da = dh * (1 - h * h)
        return da, da, 0.0, None
    if cell == "gru":
        h_prev, r, z, n, u_n = gates
        da_n = dh * (1 - z) * (1 - n * n)
        da_r = da_n * u_n * r * (1 - r)
        da_z = dh * (h_prev - n) * z * (1 - z)
        da = np.concatenate([da_r, da_z, da_n], axis=1)
        du = np.concatenate([da_r, da_z, da_n * r], axis=1)
        return da, du, dh * z, None
    i, f, g, o, tanh_c, c_prev = gates
    dc = dh * o * (1 - tanh_c * tanh_c) + dc
    parts = [dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dc * i * (1 - g * g)]
    da = np.concatenate([*parts, dh * tanh_c * o * (1 - o)], axis=1)
    return da, da, 0.0, dc * f


def _run_backward(
    problem: Problem, run: _Run, row: int, dy: Array, live: Array | None
) -> dict[str, Array]:
    """Gradients of the run's input, parameters and states before its first step."""
    cell, p, x = problem.shape.cell, problem.arrays, run.x
    w_ih, w_hh = p["weight_ih" + run.suffix], p["weight_hh" + run.suffix]
    shape = (*x.shape[:2], w_hh.shape[0])
    da, du = np.empty(shape, x.dtype), np.empty(shape, x.dtype)
    dh = p["dh_n"][row]
    dc = p["dc_n"][row] if cell == "lstm" else None
    for t in reversed(_order(run.suffix, len(x))):
        above = dy[t] + dh if live is None else np.where(live[t], dy[t] + dh, 0)
        passed = dc if live is None or dc is None else np.where(live[t], dc, 0)
        da[t], du[t], bypass, dc_before = _step_backward(cell, above, passed, run.gates[t])
        dh_before = du[t] @ w_hh + bypass
        if live is not None:  # gradients of a step that does not exist are 0; the states' pass it
            dh_before = np.where(live[t], dh_before, dh)
            if dc is not None and dc_before is not None:
                dc_before = np.where(live[t], dc_before, dc)
        dh, dc = dh_before, dc_before
    da, du = da.reshape(-1, shape[2]), du.reshape(-1, shape[2])
    grads = {
        "x": (da @ w_ih).reshape(x.shape),
        "weight_ih": da.T @ x.reshape(-1, x.shape[2]),
        "weight_hh": du.T @ run.before.reshape(-1, w_hh.shape[1]),
        "bias_ih": da.sum(axis=0),
        "bias_hh": du.sum(axis=0),
        "h0": dh,
    }
    return grads if dc is None else grads | {"c0": dc}


def training(problem: Problem) -> dict[str, Array]:
    """The outputs and every gradient, by the names of the public API behind a `d`."""
    outputs, runs = forward(problem)
    dy, live, directions = problem.arrays["dy"], _live(problem), problem.shape.directions
    starts: list[dict[str, Array]] = [{}] * len(runs)
    grads: dict[str, Array] = {}
    for last in range(len(runs) - 1, -1, -directions):
        rows = range(last - directions + 1, last + 1)
        parts = np.split(dy, directions, axis=2)
        for row, part in zip(rows, parts, strict=True):
            starts[row] = found = _run_backward(problem, runs[row], row, part, live)
            grads |= {f"d{name}{runs[row].suffix}": found[name] for name in PARAMETERS}
        dy = (
            np.sum([starts[row]["x"] for row in rows], axis=0)
            if directions > 1
            else (starts[last]["x"])
        )
    states = {f"d{s}0": np.stack([start[f"{s}0"] for start in starts]) for s in problem.states}
    return outputs | {"dx": dy} | grads | states


def reference(scenario: str, problem: Problem) -> dict[str, Array]:
    """What the scenario must return, computed in float64 from the problem's own values."""
    exact = problem.astype("float64")
    return training(exact) if scenario in ("training", "memory") else forward(exact)[0]


class NumPy(Peer):
    max_rounds = 2
    settle_s = 0.5  # OpenBLAS's threads yield in a loop before they sleep; 0.05 s are not enough

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # NumPy itself has no call that sets its BLAS's threads.
        self._threadpoolctl = require("threadpoolctl")

    def version(self) -> str:
        return str(np.__version__)

    def details(self) -> dict[str, Any]:
        keys = ("internal_api", "version", "architecture", "threading_layer")
        return {"blas": [{key: pool.get(key) for key in keys} for pool in self._blas()]}

    def _blas(self) -> list[dict[str, Any]]:
        pools: list[dict[str, Any]] = self._threadpoolctl.threadpool_info()
        return [pool for pool in pools if pool["user_api"] == "blas"]

    def set_threads(self, threads: int) -> None:
        self._threadpoolctl.threadpool_limits(limits=threads, user_api="blas")
        if any(pool["num_threads"] != threads for pool in self._blas()):
            raise RuntimeError(f"numpy: its BLAS does not run {threads} threads")

    def prepare(self, scenario: str, problem: Problem) -> Job:
        if problem.dtype != "float32":
            raise UnavailableError(f"has no {problem.dtype}")
        if scenario in ("training", "memory"):
            return Job(lambda: training(problem), lambda result: result)
        if scenario == "step":
            return _stateful(problem)
        return Job(lambda: forward(problem), lambda result: result[0])

    def matmuls(self, a: Array, b: Array, dtype: str) -> list[Callable[[], Any]]:
        return [lambda: a @ b] if dtype == "float32" else []


def _stateful(problem: Problem) -> Job:
    """One step a call, the state kept."""
    cell, p = problem.shape.cell, problem.arrays
    w_ih, w_hh, b_ih, b_hh = (p[name] for name in problem.parameters)
    w_ih_t, w_hh_t = w_ih.T, w_hh.T
    next_x = itertools.cycle(p["x"]).__next__
    h = p["h0"][0]
    c = p["c0"][0] if cell == "lstm" else None

    def run() -> dict[str, Array]:
        nonlocal h, c
        h, *saved = _step(cell, next_x() @ w_ih_t + b_ih, h @ w_hh_t + b_hh, h, c)
        state = {"h_n": h[None]}
        if cell == "lstm":
            c = saved[0]
            state["c_n"] = c[None]
        return state

    return Job(run, lambda state: {"y": state["h_n"], **state})
