"""fusedrnn through its public API alone: the functions for sequences, a layer for a step."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..scenarios import Array, Problem
from .base import Job, Peer, require

WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")


class FusedRnn(Peer):
    name = "fusedrnn"

    def __init__(self) -> None:
        self._fr = require("fusedrnn")

    def version(self) -> str:
        return str(self._fr.__version__)

    def details(self) -> dict[str, Any]:
        info: dict[str, Any] = self._fr.info()
        return info

    def set_threads(self, threads: int) -> None:
        self._fr.set_num_threads(threads)
        if self._fr.get_num_threads() != threads:
            raise RuntimeError(f"fusedrnn: does not run {threads} threads")

    def prepare(self, scenario: str, problem: Problem) -> Job:
        return {"inference": self._inference, "step": self._step, "training": self._training}[
            scenario
        ](problem)

    def _arguments(self, problem: Problem) -> list[Array]:
        names = ("x", *WEIGHTS, *(f"{s}0" for s in problem.states))
        return [problem.arrays[name] for name in names]

    def _inference(self, problem: Problem) -> Job:
        function, arguments = getattr(self._fr, problem.shape.cell), self._arguments(problem)
        return Job(lambda: function(*arguments), lambda result: _outputs(problem, *result))

    def _training(self, problem: Problem) -> Job:
        forward = getattr(self._fr, f"{problem.shape.cell}_forward")
        backward = getattr(self._fr, f"{problem.shape.cell}_backward")
        arguments = self._arguments(problem)
        upstream = [problem.arrays[n] for n in ("dy", *(f"d{s}_n" for s in problem.states))]

        def run() -> Any:
            y, state, tape = forward(*arguments)
            return y, state, backward(tape, *upstream)

        def collect(result: Any) -> dict[str, Array]:
            y, state, grads = result
            names = ["dx", *(f"d{w}" for w in WEIGHTS), *(f"d{s}0" for s in problem.states)]
            return _outputs(problem, y, state) | {n: np.asarray(getattr(grads, n)) for n in names}

        return Job(run, collect)

    def _step(self, problem: Problem) -> Job:
        hidden, data = problem.shape.hidden, problem.arrays
        layer = getattr(self._fr, problem.shape.cell.upper())(hidden, hidden)
        layer.load_state_dict(
            {
                "weight_ih_l0": data["w_ih"],
                "weight_hh_l0": data["w_hh"],
                "bias_ih_l0": data["b_ih"],
                "bias_hh_l0": data["b_hh"],
            }
        )
        states = tuple(data[f"{s}0"][None] for s in problem.states)
        x, state = data["x"][0], states if problem.shape.cell == "lstm" else states[0]

        def collect(result: Any) -> dict[str, Array]:
            y, last = result
            last = tuple(s[0] for s in last) if problem.shape.cell == "lstm" else last[0]
            return _outputs(problem, y[None], last)

        return Job(lambda: layer.step(x, state), collect)


def _outputs(problem: Problem, y: Any, last: Any) -> dict[str, Array]:
    states = last if isinstance(last, tuple) else (last,)
    named = zip((f"{s}_n" for s in problem.states), states, strict=True)
    return {"y": np.asarray(y)} | {name: np.asarray(state) for name, state in named}
