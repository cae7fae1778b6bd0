"""fusedrnn through its public functions on PyTorch's CUDA tensors, eager and as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..peers.base import UnavailableError, require
from .peer import Job, Peer, Variant
from .scenarios import Case, Problem

ARGUMENTS = ("x", "w_ih", "w_hh", "b_ih", "b_hh")


class FusedRnn(Peer):
    graph = False

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._fr = require("fusedrnn")
        self._info = self._fr.info()
        if not self._info.get("cuda_devices"):
            raise UnavailableError(f"fusedrnn uses no GPU: {self._info.get('cuda', 'not built')}")

    def version(self) -> str:
        return f"{self._fr.__version__}, {self._info['cuda']}"

    def variants(self, case: Case) -> list[Variant]:
        return [Variant("graph" if self.graph else "eager", self._job, graph=self.graph)]

    def _job(self, problems: Sequence[Problem]) -> Job:
        case = problems[0].case
        make = self._training if case.scenario == "training" else self._inference
        return Job([make(problem) for problem in problems], lambda result: _named(case, result))

    def _arguments(self, problem: Problem) -> tuple[list[Any], dict[str, Any]]:
        case, data = problem.case, problem.tensors
        options: dict[str, Any] = {}
        if problem.lengths is not None:
            options["lengths"] = problem.lengths
        if case.precision == "tfloat32":
            options["compute_dtype"] = "tfloat32"
        return [data[name] for name in (*ARGUMENTS, *(f"{s}0" for s in case.states))], options

    def _inference(self, problem: Problem) -> Callable[[], Any]:
        function = getattr(self._fr, problem.case.shape.cell)
        arguments, options = self._arguments(problem)
        return lambda: (*function(*arguments, **options), None)

    def _training(self, problem: Problem) -> Callable[[], Any]:
        cell, data = problem.case.shape.cell, problem.tensors
        forward = getattr(self._fr, f"{cell}_forward")
        backward = getattr(self._fr, f"{cell}_backward")
        arguments, options = self._arguments(problem)
        upstream = [data["dy"], *(data[f"d{s}_n"] for s in problem.case.states)]

        def call() -> Any:
            y, state, tape = forward(*arguments, **options)
            return y, state, backward(tape, *upstream)

        return call


class Graph(FusedRnn):
    """The same as a CUDA graph of the caller's."""

    graph = True


def _named(case: Case, result: Any) -> dict[str, Any]:
    y, state, grads = result
    states = state if isinstance(state, tuple) else (state,)
    found = {"y": y} | {f"{s}_n": h for s, h in zip(case.states, states, strict=True)}
    if grads is None:
        return found
    names = [*(f"d{name}" for name in ARGUMENTS), *(f"d{s}0" for s in case.states)]
    return found | {name: getattr(grads, name) for name in names}
