"""JAX on the CPU: `lax.scan` over the steps, the input projection before it, all under `jit`.

With lengths the scan is masked: where a sequence has ended its state stands still, and y is 0.

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
        if scenario == "step":
            return self._step(problem, data)
        arguments = [data[name] for name in _names(problem)]
        if scenario == "inference":
            return self._job(self._jax.jit(self._forward(problem)), *arguments)
        training = self._jax.jit(self._training(problem, data))
        if scenario == "memory":  # what compiling takes is not a step's
            training = training.lower(*arguments).compile()
        return self._job(training, *arguments)

    def _training(self, problem: Problem, data: dict[str, Any]) -> Callable[..., dict[str, Any]]:
        jax, forward = self._jax, self._forward(problem)
        names = [f"d{name}" for name in _names(problem)]
        upstream = {"y": data["dy"]} | {f"{s}_n": data[f"d{s}_n"] for s in problem.states}

        def loss(*arguments: Any) -> Any:
            """Its gradient is that of `forward` with `upstream` coming from above."""
            outputs = forward(*arguments)
            terms = [(outputs[k] * upstream[k]).sum(dtype="float32") for k in upstream]
            return sum(terms), outputs

        graded = jax.value_and_grad(loss, range(len(names)), has_aux=True)

        def training(*arguments: Any) -> dict[str, Any]:
            (_, outputs), gradients = graded(*arguments)
            return {**outputs, **dict(zip(names, gradients, strict=True))}

        return training

    def _step(self, problem: Problem, data: dict[str, Any]) -> Job:
        jax, xs = self._jax, [np.asarray(x)[None] for x in data["x"]]
        step, weights = jax.jit(self._forward(problem)), [data[n] for n in problem.parameters]
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
        """A function of what `_names` says; steps beyond a sequence's end keep its state."""
        jax, shape = self._jax, problem.shape
        lengths, where = shape.sequence_lengths, jax.numpy.where

        def scan(x: Any, weights: tuple[Any, ...], states: tuple[Any, ...], reverse: bool) -> Any:
            w_ih, w_hh, b_ih, b_hh = weights

            def advance(state: tuple[Any, ...], a: Any) -> tuple[Any, ...]:
                return _cell(jax, shape.cell, a, state[0] @ w_hh.T + b_hh, state)

            def step(state: tuple[Any, ...], a: Any) -> tuple[tuple[Any, ...], Any]:
                state = advance(state, a)
                return state, state[0]

            def masked(state: tuple[Any, ...], given: Any) -> tuple[tuple[Any, ...], Any]:
                a, live = given
                new = advance(state, a)
                state = tuple(where(live, n, s) for n, s in zip(new, state, strict=True))
                return state, where(live, new[0], 0)

            a = x @ w_ih.T + b_ih
            if lengths is None:
                return jax.lax.scan(step, states, a, reverse=reverse)
            live = np.arange(shape.steps)[:, None, None] < lengths[None, :, None]
            return jax.lax.scan(masked, states, (a, live), reverse=reverse)

        def forward(x: Any, *others: Any) -> dict[str, Any]:
            weights, states = others[: 4 * shape.runs], others[4 * shape.runs :]
            lasts, parts = [], []
            for row, suffix in enumerate(shape.suffixes):
                own = tuple(state[row] for state in states)
                last, y = scan(x, weights[4 * row : 4 * row + 4], own, suffix.endswith("_reverse"))
                lasts.append(last)
                parts.append(y)
                if len(parts) == shape.directions:  # the layer is whole
                    x, parts = jax.numpy.concatenate(parts, axis=2), []
            stacked = map(jax.numpy.stack, zip(*lasts, strict=True))
            named = zip(problem.states, stacked, strict=True)
            return {"y": x} | {f"{s}_n": v for s, v in named}

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


def _names(problem: Problem) -> list[str]:
    """What training differentiates by, and `_forward` takes."""
    return ["x", *problem.parameters, *(f"{s}0" for s in problem.states)]


def _collect(result: dict[str, Any]) -> dict[str, Array]:
    arrays = {name: np.asarray(array) for name, array in result.items()}
    return {
        name: array.astype("float32") if array.dtype.name == "bfloat16" else array
        for name, array in arrays.items()
    }
