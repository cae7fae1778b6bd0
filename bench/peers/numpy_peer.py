"""NumPy: the loop that a careful user writes, forward and with a backward by hand.

The same functions in float64 are the reference that every peer is verified against.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..scenarios import Array, Problem
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


def forward(problem: Problem) -> tuple[dict[str, Array], list[tuple[Array, ...]]]:
    """Outputs y, h_n (lstm: c_n), and each step's gates."""
    cell, p = problem.shape.cell, problem.arrays
    x, w_hh_t, b_hh = p["x"], p["w_hh"].T, p["b_hh"]
    a = x.reshape(-1, x.shape[2]) @ p["w_ih"].T + p["b_ih"]
    a = a.reshape(*x.shape[:2], -1)
    h, c = p["h0"], p.get("c0")
    y = np.empty_like(x)
    gates = []
    for t in range(x.shape[0]):
        h, *saved = _step(cell, a[t], h @ w_hh_t + b_hh, h, c)
        y[t] = h
        if cell == "lstm":
            c = saved.pop(0)
        gates.append(tuple(saved))
    outputs = {"y": y, "h_n": h}
    if c is not None:
        outputs["c_n"] = c
    return outputs, gates


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


def training(problem: Problem) -> dict[str, Array]:
    """The outputs and every gradient, by the names of the public API."""
    cell, p = problem.shape.cell, problem.arrays
    outputs, gates = forward(problem)
    x, w_hh = p["x"], p["w_hh"]
    shape = (*x.shape[:2], w_hh.shape[0])
    da, du = np.empty(shape, x.dtype), np.empty(shape, x.dtype)
    dh, dc = p["dh_n"], p.get("dc_n")
    for t in reversed(range(x.shape[0])):
        da[t], du[t], bypass, dc = _step_backward(cell, p["dy"][t] + dh, dc, gates[t])
        dh = du[t] @ w_hh + bypass
    da, du = da.reshape(-1, shape[2]), du.reshape(-1, shape[2])
    h_prev = np.concatenate([p["h0"][None], outputs["y"][:-1]]).reshape(-1, w_hh.shape[1])
    grads = {
        "dx": (da @ p["w_ih"]).reshape(x.shape),
        "dw_ih": da.T @ x.reshape(-1, x.shape[2]),
        "dw_hh": du.T @ h_prev,
        "db_ih": da.sum(axis=0),
        "db_hh": du.sum(axis=0),
        "dh0": dh,
    }
    if dc is not None:
        grads["dc0"] = dc
    return outputs | grads


def reference(scenario: str, problem: Problem) -> dict[str, Array]:
    """What the scenario must return, computed in float64 from the problem's own values."""
    exact = problem.astype("float64")
    return training(exact) if scenario == "training" else forward(exact)[0]


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
        if scenario == "training":
            return Job(lambda: training(problem), lambda result: result)
        if scenario == "step":
            return _stateful(problem)
        return Job(lambda: forward(problem), lambda result: result[0])

    def matmuls(self, a: Array, b: Array, dtype: str) -> list[Callable[[], Any]]:
        return [lambda: a @ b] if dtype == "float32" else []


def _stateful(problem: Problem) -> Job:
    """One step a call, the state kept."""
    cell, p = problem.shape.cell, problem.arrays
    w_ih_t, w_hh_t, b_ih, b_hh = p["w_ih"].T, p["w_hh"].T, p["b_ih"], p["b_hh"]
    next_x = itertools.cycle(p["x"]).__next__
    h, c = p["h0"], p.get("c0")

    def run() -> dict[str, Array]:
        nonlocal h, c
        h, *saved = _step(cell, next_x() @ w_ih_t + b_ih, h @ w_hh_t + b_hh, h, c)
        state = {"h_n": h}
        if cell == "lstm":
            c = state["c_n"] = saved[0]
        return state

    return Job(run, lambda state: {"y": state["h_n"][None], **state})
