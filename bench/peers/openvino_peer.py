"""OpenVINO on the CPU: a model of one LSTMSequence, GRUSequence or RNNSequence.

The bfloat16 class is the same float32 model with INFERENCE_PRECISION_HINT bf16, as its users run
it. Inputs and outputs stay in the request's tensors; for a step two requests take turns, the
state that one writes being what the other reads.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ..scenarios import Array, Problem
from .base import Job, Peer, UnavailableError, only, require

# OpenVINO's gate blocks as indices into ours: f i c o of i f g o; z r h of r z n.
ORDER = {"lstm": (1, 0, 2, 3), "gru": (1, 0, 2), "rnn": (0,)}
PRECISION = {"float32": "f32", "bfloat16": "bf16"}


class OpenVino(Peer):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._ov = require("openvino")
        self._ops = require("openvino.opset14")
        self._core = self._ov.Core()
        self._threads = 1

    def version(self) -> str:
        return str(self._ov.__version__).partition("-")[0]

    def details(self) -> dict[str, Any]:
        return {"capabilities": list(self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))}

    def set_threads(self, threads: int) -> None:
        self._threads = threads  # a property of each compiled model

    def prepare(self, scenario: str, problem: Problem) -> Job:
        only(scenario, "inference", "step")
        hint = PRECISION[problem.dtype]
        if hint == "bf16" and "BF16" not in self.details()["capabilities"]:
            raise UnavailableError("its CPU plugin has no bfloat16 on this machine")
        steps = 1 if scenario == "step" else problem.shape.steps
        compiled = self._core.compile_model(
            self._model(problem, steps),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": self._threads,
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
            },
        )
        if scenario == "step":
            return self._step(compiled, problem)
        request = compiled.create_infer_request()
        for name in ("x", *(f"{s}0" for s in problem.states)):
            request.set_tensor(name, self._ov.Tensor(problem.arrays[name].copy()))
        return Job(request.infer, lambda _: _outputs(problem, request))

    def _step(self, compiled: Any, problem: Problem) -> Job:
        tensor, data = self._ov.Tensor, problem.arrays
        x = tensor(data["x"][:1].copy())
        even = [tensor(data[f"{s}0"].copy()) for s in problem.states]
        odd = [tensor(np.empty_like(data[f"{s}0"])) for s in problem.states]
        requests = []
        for entering, leaving in ((even, odd), (odd, even)):
            request = compiled.create_infer_request()
            request.set_tensor("x", x)
            for s, before, after in zip(problem.states, entering, leaving, strict=True):
                request.set_tensor(f"{s}0", before)
                request.set_tensor(f"{s}_n", after)
            requests.append(request)
        x_t = x.data
        next_x = itertools.cycle(data["x"]).__next__
        next_request = itertools.cycle(requests).__next__

        def run() -> Any:
            x_t[0] = next_x()
            request = next_request()
            request.infer()
            return request

        return Job(run, lambda request: _outputs(problem, request))

    def _model(self, problem: Problem, steps: int) -> Any:
        """x [T,B,I] and states [B,H] in; y [T,B,H] and states [B,H] out."""
        ops, data, shape = self._ops, problem.arrays, problem.shape
        cell, batch, hidden = shape.cell, shape.batch, shape.hidden
        x = ops.parameter([steps, batch, hidden], np.float32, name="x")
        states = [ops.parameter([batch, hidden], np.float32, name=f"{s}0") for s in problem.states]
        arguments = [
            self._swapped(x, (steps, batch, hidden)),
            *(self._reshaped(state, (batch, 1, hidden)) for state in states),
            ops.constant(np.full(batch, steps, np.int32)),
            *(ops.constant(array) for array in _weights(cell, data, hidden)),
        ]
        sequence = {
            "lstm": lambda: ops.lstm_sequence(*arguments, hidden, "forward"),
            "gru": lambda: ops.gru_sequence(
                *arguments, hidden, "forward", linear_before_reset=True
            ),
            "rnn": lambda: ops.rnn_sequence(*arguments, hidden, "forward", activations=["tanh"]),
        }[cell]()
        y = self._reshaped(sequence.output(0), (batch, steps, hidden))
        outputs = {"y": self._swapped(y, (batch, steps, hidden))}
        for index, s in enumerate(problem.states):
            outputs[f"{s}_n"] = self._reshaped(sequence.output(index + 1), (batch, hidden))
        results = []
        for name, node in outputs.items():
            node.output(0).get_tensor().set_names({name})
            results.append(ops.result(node))
        for parameter in (x, *states):
            parameter.output(0).get_tensor().set_names({parameter.get_friendly_name()})
        return self._ov.Model(results, [x, *states], cell)

    def _reshaped(self, node: Any, shape: tuple[int, ...]) -> Any:
        return self._ops.reshape(node, self._ops.constant(np.array(shape, np.int64)), False)

    def _swapped(self, node: Any, shape: tuple[int, int, int]) -> Any:
        """The first two axes exchanged; a mere reshape where one of them is 1."""
        if 1 in shape[:2]:
            return self._reshaped(node, (shape[1], shape[0], shape[2]))
        return self._ops.transpose(node, self._ops.constant(np.array([1, 0, 2], np.int64)))


def _weights(cell: str, data: dict[str, Array], hidden: int) -> list[Array]:
    """W, R and B with the gates in OpenVINO's order; its GRU keeps two biases of the new gate."""
    blocks = np.concatenate([np.arange(hidden) + g * hidden for g in ORDER[cell]])
    b_ih, b_hh = data["b_ih"][blocks], data["b_hh"][blocks]
    bias = b_ih + b_hh
    if cell == "gru":
        bias = np.concatenate([bias[: 2 * hidden], b_ih[2 * hidden :], b_hh[2 * hidden :]])
    return [data["w_ih"][blocks][None], data["w_hh"][blocks][None], bias[None]]


def _outputs(problem: Problem, request: Any) -> dict[str, Array]:
    """Copies, because the next call writes into the same memory."""
    return {
        name: request.get_tensor(name).data.copy()
        for name in ("y", *(f"{s}_n" for s in problem.states))
    }
