"""OpenVINO on the CPU: a model of LSTMSequence, GRUSequence or RNNSequence, one a layer.

The bfloat16 class is the same float32 model with INFERENCE_PRECISION_HINT bf16, as its users run
it. Inputs and outputs stay in the request's tensors; for a step two requests take turns, the
state that one writes being what the other reads.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ..scenarios import PARAMETERS, Array, Problem
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
        entering = {"x": problem.arrays["x"]}
        for s in problem.states:
            rows = np.split(problem.arrays[f"{s}0"], problem.shape.layers)
            entering |= {f"{s}0_{layer}": row for layer, row in enumerate(rows)}
        for name, array in entering.items():
            request.set_tensor(name, self._ov.Tensor(array.copy()))
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
                request.set_tensor(f"{s}0_0", before)
                request.set_tensor(f"{s}_n_0", after)
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
        """x [T,B,I] and each layer's states [D,B,H] in; y [T,B,D*H] and states [D,B,H] out."""
        ops, shape = self._ops, problem.shape
        batch, hidden, directions = shape.batch, shape.hidden, shape.directions
        lengths = shape.sequence_lengths
        lengths = np.full(batch, steps) if lengths is None else lengths
        x = ops.parameter([steps, batch, hidden], np.float32, name="x")
        parameters, outputs = [x], {}
        y = self._swapped(x, (steps, batch, hidden))
        for layer in range(shape.layers):
            states = [
                ops.parameter([directions, batch, hidden], np.float32, name=f"{s}0_{layer}")
                for s in problem.states
            ]
            parameters += states
            arguments = [
                y,
                *(self._swapped(state, (directions, batch, hidden)) for state in states),
                ops.constant(lengths.astype(np.int32)),
                *(ops.constant(array) for array in _weights(problem, layer)),
            ]
            node = self._sequence(shape.cell, arguments, hidden, directions)
            y = node.output(0)  # [B,D,T,H]
            if directions > 1:
                turned = ops.constant(np.array([0, 2, 1, 3], np.int64))
                y = ops.transpose(y, turned)
            y = self._reshaped(y, (batch, steps, directions * hidden))
            for index, s in enumerate(problem.states):
                last = self._swapped(node.output(index + 1), (batch, directions, hidden))
                outputs[f"{s}_n_{layer}"] = last
        outputs["y"] = self._swapped(y, (batch, steps, directions * hidden))
        results = []
        for name, output in outputs.items():
            output.output(0).get_tensor().set_names({name})
            results.append(ops.result(output))
        for parameter in parameters:
            parameter.output(0).get_tensor().set_names({parameter.get_friendly_name()})
        return self._ov.Model(results, parameters, shape.cell)

    def _sequence(self, cell: str, arguments: list[Any], hidden: int, directions: int) -> Any:
        """The operator of a layer."""
        way = "bidirectional" if directions > 1 else "forward"
        if cell == "lstm":
            return self._ops.lstm_sequence(*arguments, hidden, way)
        if cell == "gru":
            return self._ops.gru_sequence(*arguments, hidden, way, linear_before_reset=True)
        return self._ops.rnn_sequence(*arguments, hidden, way, activations=["tanh"])

    def _reshaped(self, node: Any, shape: tuple[int, ...]) -> Any:
        return self._ops.reshape(node, self._ops.constant(np.array(shape, np.int64)), False)

    def _swapped(self, node: Any, shape: tuple[int, int, int]) -> Any:
        """The first two axes exchanged; a mere reshape where one of them is 1."""
        if 1 in shape[:2]:
            return self._reshaped(node, (shape[1], shape[0], shape[2]))
        return self._ops.transpose(node, self._ops.constant(np.array([1, 0, 2], np.int64)))


def _weights(problem: Problem, layer: int) -> list[Array]:
    """W, R and B of each direction; the gates in OpenVINO's order.

    Its GRU keeps two biases of the new gate.
    """
    shape, data = problem.shape, problem.arrays
    hidden, first = shape.hidden, layer * shape.directions
    blocks = np.concatenate([np.arange(hidden) + g * hidden for g in ORDER[shape.cell]])
    rows = []
    for suffix in shape.suffixes[first : first + shape.directions]:
        w_ih, w_hh, b_ih, b_hh = (data[name + suffix][blocks] for name in PARAMETERS)
        bias = b_ih + b_hh
        if shape.cell == "gru":
            bias = np.concatenate([bias[: 2 * hidden], b_ih[2 * hidden :], b_hh[2 * hidden :]])
        rows.append((w_ih, w_hh, bias))
    return [np.stack(arrays) for arrays in zip(*rows, strict=True)]


def _outputs(problem: Problem, request: Any) -> dict[str, Array]:
    """Copies, because the next call writes into the same memory."""
    found = {"y": request.get_tensor("y").data.copy()}
    for s in problem.states:
        layers = [f"{s}_n_{layer}" for layer in range(problem.shape.layers)]
        found[f"{s}_n"] = np.concatenate([request.get_tensor(name).data for name in layers])
    return found
