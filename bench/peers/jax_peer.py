"""JAX on the CPU: `lax.scan` over the steps, the input projection before it, all under `jit`.

XLA's thread pool takes its size from the CPUs that the process may use when it starts, so this
peer runs in a process of its own, which `bench/worker.py` ties to as many CPUs as threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import machine
from ..scenarios import Array, Problem
from .base import Job, Peer, require

WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")


class Jax(Peer):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._jax = require("jax")
        self._jax.config.update("jax_platforms", "cpu")

    def version(self) -> str:
        return str(self._jax.__version__)

    def set_threads(self, threads: int) -> None:
        if machine.cores() != threads:
            raise RuntimeError(f"jax: runs as many threads as CPUs, {machine.cores()}")

    def prepare(self, scenario: str, problem: Problem) -> Job:
        dtype = getattr(self._jax.numpy, problem.dtype)
        data = {k: self._jax.numpy.asarray(v, dtype) for k, v in problem.arrays.items()}
        return {"inference": self._inference, "step": self._step, "training": self._training}[
            scenario
        ](problem, data)

    def _inference(self, problem: Problem, data: dict[str, Any]) -> Job:
        return self._job(self._jax.jit(self._forward(problem)), *_arguments(problem, data))

    def _training(self, problem: Problem, data: dict[str, Any]) -> Job:
        jax, forward = self._jax, self._forward(problem)
        names = ["dx", *(f"d{w}" for w in WEIGHTS), *(f"d{s}0" for s in problem.states)]
        upstream = {"y": data["dy"]} | {f"{s}_n": data[f"d{s}_n"] for s in problem.states}

        def loss(*arguments: Any) -> Any:
            """Its gradient is that of `forward` with `upstream` coming from above."""
            outputs = forward(*arguments)
            terms = [(outputs[k] * upstream[k]).sum(dtype="float32") for k in upstream]
            return sum(terms), outputs

        arguments = _arguments(problem, data)
        graded = jax.value_and_grad(loss, range(len(arguments)), has_aux=True)

        def training(*arguments: Any) -> dict[str, Any]:
            (_, outputs), gradients = graded(*arguments)
            return {**outputs, **dict(zip(names, gradients, strict=True))}

        return self._job(jax.jit(training), *arguments)

    def _step(self, problem: Problem, data: dict[str, Any]) -> Job:
        jax, xs = self._jax, [np.asarray(x)[None] for x in data["x"]]
        step, weights = jax.jit(self._forward(problem)), [data[name] for name in WEIGHTS]
        names = [f"{s}_n" for s in problem.states]
        state = [data[f"{s}0"] for s in problem.states]
        next_x = itertools.cycle(xs).__next__

        def run() -> dict[str, Any]:
            nonlocal state
            outputs: dict[str, Any] = jax.block_until_ready(step(next_x(), *weights, *state))
            state = [outputs[name] for name in names]
            return outputs

        return Job(run, _collect)

    def _job(self, function: Callable[..., Any], *arguments: Any) -> Job:
        wait = self._jax.block_until_ready
        return Job(lambda: wait(function(*arguments)), _collect)

    def _forward(self, problem: Problem) -> Callable[..., dict[str, Any]]:
        jax, cell, names = self._jax, problem.shape.cell, problem.states

        def forward(
            x: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, *states: Any
        ) -> dict[str, Any]:
            def step(state: tuple[Any, ...], a: Any) -> tuple[tuple[Any, ...], Any]:
                state = _cell(jax, cell, a, state[0] @ w_hh.T + b_hh, state)
                return state, state[0]

            last, y = jax.lax.scan(step, states, x @ w_ih.T + b_ih)
            return {"y": y} | {f"{s}_n": v for s, v in zip(names, last, strict=True)}

        return forward


def _cell(jax: Any, cell: str, a: Any, u: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    """The state after a step, from a = W_ih x + b_ih and u = W_hh h + b_hh."""
    tanh, sigmoid, split = jax.numpy.tanh, jax.nn.sigmoid, jax.numpy.split
    if cell == "rnn":
        return (tanh(a + u),)
    if cell == "gru":
        a_r, a_z, a_n = split(a, 3, axis=-1)
        u_r, u_z, u_n = split(u, 3, axis=-1)
        z, n = sigmoid(a_z + u_z), tanh(a_n + sigmoid(a_r + u_r) * u_n)
        return ((1 - z) * n + z * state[0],)
    i, f, g, o = split(a + u, 4, axis=-1)
    c = sigmoid(f) * state[1] + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def _arguments(problem: Problem, data: dict[str, Any]) -> list[Any]:
    return [data[name] for name in ("x", *WEIGHTS, *(f"{s}0" for s in problem.states))]


def _collect(result: dict[str, Any]) -> dict[str, Array]:
    arrays = {name: np.asarray(array) for name, array in result.items()}
    return {
        name: array.astype("float32") if array.dtype.name == "bfloat16" else array
        for name, array in arrays.items()
    }
