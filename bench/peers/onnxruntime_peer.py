"""ONNX Runtime on the CPU: a model of one LSTM, GRU or RNN operator, built here.

Inputs and outputs are bound to fixed memory, so that a call allocates and copies nothing; for a
step two bindings take turns, the state that one writes being what the other reads.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ..scenarios import Array, Problem
from .base import Job, Peer, UnavailableError, only, require

# ONNX's gate blocks as indices into ours: i o f c of i f g o; z r h of r z n.
ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}


class OnnxRuntime(Peer):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._onnx = require("onnx")
        self._ort = require("onnxruntime")
        self._threads = 1

    def version(self) -> str:
        return str(self._ort.__version__)

    def details(self) -> dict[str, Any]:
        return {"provider": "CPUExecutionProvider", "onnx": str(self._onnx.__version__)}

    def set_threads(self, threads: int) -> None:
        self._threads = threads  # a property of each session

    def prepare(self, scenario: str, problem: Problem) -> Job:
        only(scenario, "inference", "step")
        if problem.dtype != "float32":
            raise UnavailableError(f"its CPU provider has no {problem.dtype} LSTM, GRU or RNN")
        x = problem.arrays["x"]
        session = self._session(problem, 1 if scenario == "step" else x.shape[0])
        entering = [problem.arrays[f"{s}0"][None].copy() for s in problem.states]
        leaving = [np.empty_like(state) for state in entering]
        if scenario == "inference":
            y = np.empty((x.shape[0], 1, *x.shape[1:]), "float32")
            bound = _bind(session, problem, x, entering, y, leaving)

            def run() -> list[Array]:
                session.run_with_iobinding(bound)
                return leaving

            return Job(run, lambda state: _outputs(problem, y[:, 0], state), keep=(x, entering))
        return self._step(session, problem, entering, leaving)

    def _step(self, session: Any, problem: Problem, even: list[Array], odd: list[Array]) -> Job:
        x_t = np.empty_like(problem.arrays["x"][:1])
        y = np.empty((1, 1, *x_t.shape[1:]), "float32")
        turns = (
            (_bind(session, problem, x_t, even, y, odd), odd),
            (_bind(session, problem, x_t, odd, y, even), even),
        )
        next_turn = itertools.cycle(turns).__next__
        next_x = itertools.cycle(problem.arrays["x"]).__next__

        def run() -> list[Array]:
            x_t[0] = next_x()
            bound, state = next_turn()
            session.run_with_iobinding(bound)
            return state

        return Job(run, lambda state: _outputs(problem, y[:, 0], state))

    def _session(self, problem: Problem, steps: int) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        return self._ort.InferenceSession(
            self._model(problem, steps), options, providers=["CPUExecutionProvider"]
        )

    def _model(self, problem: Problem, steps: int) -> bytes:
        """An ONNX file: x and the initial states in; y and the last states out."""
        helper, numpy_helper = self._onnx.helper, self._onnx.numpy_helper
        cell, hidden, data = problem.shape.cell, problem.shape.hidden, problem.arrays
        blocks = np.concatenate([np.arange(hidden) + g * hidden for g in ORDER[cell]])
        weights = {
            "w": data["w_ih"][blocks][None],
            "r": data["w_hh"][blocks][None],
            "b": np.concatenate([data["b_ih"][blocks], data["b_hh"][blocks]])[None],
        }

        def values(names: list[str], shape: list[int]) -> list[Any]:
            real = self._onnx.TensorProto.FLOAT
            return [helper.make_tensor_value_info(name, real, shape) for name in names]

        batch = problem.shape.batch
        entering = [f"{s}0" for s in problem.states]
        leaving = [f"{s}_n" for s in problem.states]
        # ONNX's other GRU multiplies the reset gate before the product, which is another cell.
        attributes = {"linear_before_reset": 1} if cell == "gru" else {}
        node = helper.make_node(
            cell.upper(),
            ["x", "w", "r", "b", "", *entering],
            ["y", *leaving],
            hidden_size=hidden,
            **attributes,
        )
        graph = helper.make_graph(
            [node],
            "cell",
            values(["x"], [steps, batch, hidden]) + values(entering, [1, batch, hidden]),
            values(["y"], [steps, 1, batch, hidden]) + values(leaving, [1, batch, hidden]),
            [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
        content: bytes = model.SerializeToString()
        return content


def _bind(
    session: Any,
    problem: Problem,
    x: Array,
    entering: list[Array],
    y: Array,
    leaving: list[Array],
) -> Any:
    """A binding of the model's inputs and outputs to these arrays' memory."""
    bound = session.io_binding()
    names = [f"{s}0" for s in problem.states]
    for name, array in zip(["x", *names], [x, *entering], strict=True):
        bound.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    names = [f"{s}_n" for s in problem.states]
    for name, array in zip(["y", *names], [y, *leaving], strict=True):
        bound.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    return bound


def _outputs(problem: Problem, y: Array, states: list[Array]) -> dict[str, Array]:
    """Copies, because the next call writes into the same memory."""
    named = zip((f"{s}_n" for s in problem.states), states, strict=True)
    return {"y": y.copy()} | {name: state[0].copy() for name, state in named}
