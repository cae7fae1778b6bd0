"""PyTorch as it comes: torch.nn's layers on the GPU, eager and, by CUDA graphs, without launches.

With lengths a call packs the padded batch and pads the result, as a caller with padded arrays does.
PyTorch lets cuDNN round float32 to TF32 unless told otherwise: here in the TF32 cases alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..peers.base import require
from .peer import Job, Peer, Variant
from .scenarios import Case, Problem

WEIGHTS = {
    "weight_ih_l0": "w_ih",
    "weight_hh_l0": "w_hh",
    "bias_ih_l0": "b_ih",
    "bias_hh_l0": "b_hh",
}


class PyTorch(Peer):
    graph = False

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._torch = require("torch")

    def version(self) -> str:
        torch = self._torch
        return f"{torch.__version__}, cuDNN {torch.backends.cudnn.version()}"

    def variants(self, case: Case) -> list[Variant]:
        return [Variant("graph" if self.graph else "eager", self._job, graph=self.graph)]

    def _job(self, problems: Sequence[Problem]) -> Job:
        case = problems[0].case
        for backend in (self._torch.backends.cudnn, self._torch.backends.cuda.matmul):
            backend.allow_tf32 = case.precision == "tfloat32"
        make = self._training if case.scenario == "training" else self._inference
        module = self._module(problems[0])
        calls = [make(module, problem) for problem in problems]
        return Job(calls, lambda result: _named(case, result))

    def _module(self, problem: Problem) -> Any:
        shape, x = problem.case.shape, problem.tensors["x"]
        layer = getattr(self._torch.nn, shape.cell.upper())
        module = layer(shape.hidden, shape.hidden, device=x.device, dtype=x.dtype)
        module.load_state_dict({name: problem.tensors[ours] for name, ours in WEIGHTS.items()})
        return module

    def _layer(self, module: Any, problem: Problem, x: Any, state: Any) -> tuple[Any, Any]:
        """The layer's y and last state, of padded arrays where there are lengths."""
        if problem.host_lengths is None:
            y, last = module(x, state)
            return y, last
        rnn = self._torch.nn.utils.rnn
        packed, last = module(rnn.pack_padded_sequence(x, problem.host_lengths), state)
        y, _ = rnn.pad_packed_sequence(packed, total_length=problem.case.shape.steps)
        return y, last

    def _inference(self, module: Any, problem: Problem) -> Callable[[], Any]:
        data = problem.tensors
        state = _joined([data[f"{s}0"][None] for s in problem.case.states])

        def call() -> Any:
            with self._torch.inference_mode():
                return (*self._layer(module, problem, data["x"], state), None)

        return call

    def _training(self, module: Any, problem: Problem) -> Callable[[], Any]:
        torch, data, states = self._torch, problem.tensors, problem.case.states
        x = data["x"].clone().requires_grad_()
        initial = [data[f"{s}0"][None].clone().requires_grad_() for s in states]
        inputs = [x, *initial, *(getattr(module, name) for name in WEIGHTS)]
        upstream = [data["dy"], *(data[f"d{s}_n"][None] for s in states)]

        def call() -> Any:
            y, last = self._layer(module, problem, x, _joined(initial))
            outputs = [y, *(last if isinstance(last, tuple) else (last,))]
            return y, last, torch.autograd.grad(outputs, inputs, upstream)

        return call


class Graph(PyTorch):
    """The same as a CUDA graph."""

    graph = True


def _joined(states: list[Any]) -> Any:
    """A pair for an LSTM."""
    return tuple(states) if len(states) > 1 else states[0]


def _named(case: Case, result: Any) -> dict[str, Any]:
    y, last, grads = result
    states = last if isinstance(last, tuple) else (last,)
    found = {"y": y} | {f"{s}_n": h[0] for s, h in zip(case.states, states, strict=True)}
    if grads is None:
        return found
    names = ["dx", *(f"d{s}0" for s in case.states), *(f"d{w}" for w in WEIGHTS.values())]
    found |= dict(zip(names, grads, strict=True))
    return found | {f"d{s}0": found[f"d{s}0"][0] for s in case.states}
