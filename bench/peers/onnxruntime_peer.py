"""ONNX Runtime on the CPU: a model of LSTM, GRU or RNN operators, one a layer, built here.

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
        x, shape = problem.arrays["x"], problem.shape
        session = self._session(problem, 1 if scenario == "step" else shape.steps)
        entering = {
            f"{s}0_{layer}": rows.copy()
            for s in problem.states
            for layer, rows in enumerate(np.split(problem.arrays[f"{s}0"], shape.layers))
        }
        leaving = {name.replace("0_", "_n_"): np.empty_like(v) for name, v in entering.items()}
        if scenario == "step":
            return self._step(session, problem, list(entering.values()), list(leaving.values()))
        y = np.empty(_y_size(problem, shape.steps), "float32")
        bound = _bind(session, {"x": x, **entering}, {"y": y, **leaving})

        def run() -> None:
            session.run_with_iobinding(bound)

        def collect(_: None) -> dict[str, Array]:
            rows = np.split(np.stack(list(leaving.values())), len(problem.states))
            states = [np.concatenate(list(of_state)) for of_state in rows]
            return _outputs(problem, y.reshape(*x.shape[:2], -1), states)

        return Job(run, collect, keep=(x, entering))

    def _step(self, session: Any, problem: Problem, even: list[Array], odd: list[Array]) -> Job:
        x_t = np.empty_like(problem.arrays["x"][:1])
        y = np.empty(_y_size(problem, 1), "float32")

        def bind(before: list[Array], after: list[Array]) -> Any:
            names = [(f"{s}0_0", f"{s}_n_0") for s in problem.states]
            entering = {name: array for (name, _), array in zip(names, before, strict=True)}
            leaving = {name: array for (_, name), array in zip(names, after, strict=True)}
            return _bind(session, {"x": x_t, **entering}, {"y": y, **leaving})

        turns = ((bind(even, odd), odd), (bind(odd, even), even))
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
        """An ONNX file: x and each layer's states in; y and each layer's last states out."""
        helper, numpy_helper = self._onnx.helper, self._onnx.numpy_helper
        shape, data, cell = problem.shape, problem.arrays, problem.shape.cell
        blocks = np.concatenate([np.arange(shape.hidden) + g * shape.hidden for g in ORDER[cell]])
        # ONNX's other GRU multiplies the reset gate before the product, which is another cell.
        attributes = {"linear_before_reset": 1} if cell == "gru" else {}
        lengths = shape.sequence_lengths
        constants: dict[str, Array] = {}
        if shape.directions > 1:
            constants["merged"] = np.array([0, 0, -1], np.int64)
        elif shape.layers > 1:
            constants["axis"] = np.array([1], np.int64)
        if lengths is not None:
            constants["lengths"] = lengths.astype(np.int32)
        nodes, entering, leaving = [], [], []
        for layer in range(shape.layers):
            first = layer * shape.directions
            suffixes = shape.suffixes[first : first + shape.directions]

            def stacked(*names: str, suffixes: list[str] = suffixes) -> Array:
                rows = [np.concatenate([data[n + s][blocks] for n in names]) for s in suffixes]
                return np.stack(rows)

            constants[f"w_{layer}"] = stacked("weight_ih")
            constants[f"r_{layer}"] = stacked("weight_hh")
            constants[f"b_{layer}"] = stacked("bias_ih", "bias_hh")
            before = [f"{s}0_{layer}" for s in problem.states]
            after = [f"{s}_n_{layer}" for s in problem.states]
            below = "x" if layer == 0 else f"y_{layer - 1}"
            weights = [f"{name}_{layer}" for name in "wrb"]
            joined = self._joined(problem, layer)
            y = f"apart_{layer}" if joined else "y"
            nodes.append(
                helper.make_node(
                    cell.upper(),
                    [below, *weights, "" if lengths is None else "lengths", *before],
                    [y, *after],
                    hidden_size=shape.hidden,
                    direction="bidirectional" if shape.directions > 1 else "forward",
                    **attributes,
                )
            )
            nodes += joined
            entering += before
            leaving += after

        def values(names: list[str], size: list[int]) -> list[Any]:
            real = self._onnx.TensorProto.FLOAT
            return [helper.make_tensor_value_info(name, real, size) for name in names]

        x = [steps, shape.batch, shape.hidden]
        state = [shape.directions, shape.batch, shape.hidden]
        graph = helper.make_graph(
            nodes,
            "network",
            values(["x"], x) + values(entering, state),
            values(["y"], _y_size(problem, steps)) + values(leaving, state),
            [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
        content: bytes = model.SerializeToString()
        return content

    def _joined(self, problem: Problem, layer: int) -> list[Any]:
        """What makes [T,B,D*H] of an operator's y [T,D,B,H]; nothing where the model ends so."""
        node, shape = self._onnx.helper.make_node, problem.shape
        y, apart = "y" if layer == shape.layers - 1 else f"y_{layer}", f"apart_{layer}"
        if shape.directions == 1 and layer == shape.layers - 1:
            return []
        if shape.directions == 1:
            return [node("Squeeze", [apart, "axis"], [y])]
        turned = f"turned_{layer}"
        return [
            node("Transpose", [apart], [turned], perm=[0, 2, 1, 3]),
            node("Reshape", [turned, "merged"], [y]),
        ]


def _y_size(problem: Problem, steps: int) -> list[int]:
    """The model's y: of one direction as its operator has it, [T,1,B,H]; of two [T,B,2*H]."""
    shape = problem.shape
    if shape.directions == 1:
        return [steps, 1, shape.batch, shape.hidden]
    return [steps, shape.batch, shape.directions * shape.hidden]


def _bind(session: Any, entering: dict[str, Array], leaving: dict[str, Array]) -> Any:
    """A binding of the model's inputs and outputs to these arrays' memory."""
    bound = session.io_binding()
    for name, array in entering.items():
        bound.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    for name, array in leaving.items():
        bound.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    return bound


def _outputs(problem: Problem, y: Array, states: list[Array]) -> dict[str, Array]:
    """Copies, because the next call writes into the same memory."""
    named = zip((f"{s}_n" for s in problem.states), states, strict=True)
    return {"y": y.copy()} | {name: state.copy() for name, state in named}
