"""Layers as ONNX models: standard nodes RNN, GRU and LSTM, laid out as in `onnx`."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn import bf16, information, options
from fusedrnn.cells import constants, lstm
from fusedrnn.convert import files, packages
from fusedrnn.convert.arrays import Array
from fusedrnn.convert.onnx import ACTIVATIONS, DIRECTIONS, FUNCTIONS, INPUTS, SPECIAL, USUAL
from fusedrnn.convert.weights import (
    ONNX_GATES,
    ONNX_PEEPHOLES,
    Cell,
    Run,
    directions_of,
    reorder,
    runs_of,
)
from fusedrnn.layers.base import Layer

_OPSET, _OPSET_BFLOAT16 = 14, 22  # the first with layouts, and with bfloat16 in these nodes


def to_onnx(layer: Any, path: Any = None, *, state: bool = False, lengths: bool = False) -> Any:
    """Return an ONNX model of a layer: one standard node a layer, of any T and B.

    Its input is x [T, B, I] and its outputs are y [T, B, D*H] (both [B, T, ...] where the layer has
    ``batch_first``), h_n and of an LSTM c_n [L*D, B, H].

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        Both directions of a layer are one node. compute_dtype does not go along.
    path : path, optional
        Where to write the model as well: the whole file, or nothing.
    state : bool
        Whether the model has inputs h0 (and c0) [L*D, B, H] too.
    lengths : bool
        Whether it has an input lengths, int32 [B]. Of a sequence of length 0 ONNX Runtime gives
        a final state of 0, where a layer gives the initial one.

    Returns
    -------
    onnx.ModelProto
        Of operator set 14, or 22 for a layer of bfloat16. ONNX Runtime computes float32 alone.

    Raises
    ------
    ValueError, TypeError
        For another layer.
    ImportError
        Where the package onnx is missing.

    Examples
    --------
    >>> model = fr.convert.to_onnx(fr.GRU(3, 4, seed=0))
    >>> node = fr.convert.from_onnx(model)
    >>> Y, Y_h = node.run(np.ones((5, 2, 3), np.float32))
    >>> node.op_type, Y.shape  # [T, D, B, H]
    ('GRU', (5, 1, 2, 4))
    """
    runs = runs_of(layer, "ONNX", tuple(FUNCTIONS), SPECIAL)
    options.flag("state", state)
    options.flag("lengths", lengths)
    onnx = packages.load("to_onnx", "onnx")
    model = _Writer(onnx, layer, runs, state, lengths).model()
    if path is not None:
        files.write(path, model.SerializeToString())
    return model


class _Writer:
    """The graph of one model."""

    def __init__(
        self, onnx: Any, layer: Layer, runs: list[Run], state: bool, lengths: bool
    ) -> None:
        self._make = onnx.helper
        self._from_array = onnx.numpy_helper.from_array
        self._int32 = onnx.TensorProto.INT32
        self._layer = layer
        self._runs = runs
        self._lengths = lengths
        self._states = ("h", "c") if isinstance(layer, lstm.LSTM) else ("h",)
        self._initial = self._states if state else ()
        self._directions = directions_of(layer)
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._dtype = self._add("W_l0", self._weights(0)["W"]).data_type

    def model(self) -> Any:
        layer, make = self._layer, self._make
        below = "x"
        if layer.batch_first:
            below = self._node("Transpose", ["x"], "x_steps", perm=[1, 0, 2])
        self._split_states()
        for k in range(layer.num_layers):
            last = k == layer.num_layers - 1
            below = self._recurrent(k, below, "y" if last and not layer.batch_first else f"y_l{k}")
        if layer.batch_first:
            self._node("Transpose", [below], "y", perm=[1, 0, 2])
        if layer.num_layers > 1:
            for s in self._states:
                each = [f"{s}_n_l{k}" for k in range(layer.num_layers)]
                self._node("Concat", each, f"{s}_n", axis=0)
        inputs, outputs = self._signature()
        graph = make.make_graph(self._nodes, "fusedrnn", inputs, outputs, self._initializers)
        version = _OPSET_BFLOAT16 if layer.dtype == "bfloat16" else _OPSET
        opsets = [make.make_opsetid("", version)]
        return make.make_model(
            graph,
            opset_imports=opsets,
            ir_version=make.find_min_ir_version_for(opsets),
            producer_name="fusedrnn",
            producer_version=information.__version__,
        )

    def _signature(self) -> tuple[list[Any], list[Any]]:
        layer = self._layer
        width = self._directions * layer.hidden_size
        axes = ["B", "T"] if layer.batch_first else ["T", "B"]
        rows = [layer.num_layers * self._directions, "B", layer.hidden_size]

        def info(name: str, shape: list[Any], dtype: Any = self._dtype) -> Any:
            return self._make.make_tensor_value_info(name, dtype, shape)

        inputs = [info("x", [*axes, layer.input_size])]
        inputs += [info(f"{s}0", rows) for s in self._initial]
        if self._lengths:
            inputs.append(info("lengths", ["B"], self._int32))
        return inputs, [info("y", [*axes, width]), *(info(f"{s}_n", rows) for s in self._states)]

    def _split_states(self) -> None:
        count = self._layer.num_layers
        if count == 1 or not self._initial:
            return
        self._add("rows", [self._directions] * count)
        for s in self._initial:
            each = [f"{s}0_l{k}" for k in range(count)]
            self._nodes.append(self._make.make_node("Split", [f"{s}0", "rows"], each, axis=0))

    def _recurrent(self, k: int, below: str, above: str) -> str:
        """The node of layer k; `above` is what its output [T,B,D*H] is called."""
        count, cell = self._layer.num_layers, self._runs[0].cell
        weights = self._weights(k)
        for name, each in weights.items():
            if (name, k) != ("W", 0):  # which stands there already
                self._add(f"{name}_l{k}", each)
        end = f"_l{k}" if count > 1 else ""
        inputs = {
            "X": below,
            "sequence_lens": "lengths" if self._lengths else "",
            **{name: f"{name}_l{k}" for name in weights},
            **{f"initial_{s}": f"{s}0{end}" for s in self._initial},
        }
        op_type = cell.name.upper()
        names = [inputs.get(name, "") for name in INPUTS[op_type]]
        while not names[-1]:
            names.pop()
        attributes = attributes_of(cell, self._layer.hidden_size, self._directions)
        steps = f"Y_l{k}"
        outputs = [steps, *(f"{s}_n{end}" for s in self._states)]
        name = f"{cell.name}_l{k}"
        self._nodes.append(self._make.make_node(op_type, names, outputs, name=name, **attributes))
        if self._directions == 1:
            self._add_once("direction_axis", [1])
            return self._node("Squeeze", [steps, "direction_axis"], above)
        beside = self._node("Transpose", [steps], f"{steps}_beside", perm=[0, 2, 1, 3])
        self._add_once("beside", [0, 0, self._directions * self._layer.hidden_size])  # 0: as it is
        return self._node("Reshape", [beside, "beside"], above)

    def _weights(self, k: int) -> dict[str, tuple[Array, ...]]:
        """W, R, B and P of layer k, one for each direction."""
        runs = self._runs[k * self._directions : (k + 1) * self._directions]
        cell = runs[0].cell

        def theirs(array: Array | None) -> Array:
            assert array is not None, "biases are there together"
            return reorder(array, cell.gates, ONNX_GATES[cell.name])

        weights = {
            "W": tuple(theirs(run.w_ih) for run in runs),
            "R": tuple(theirs(run.w_hh) for run in runs),
        }
        if runs[0].b_ih is not None:
            both = [(theirs(run.b_ih), theirs(run.b_hh)) for run in runs]
            weights["B"] = tuple(np.concatenate(pair) for pair in both)
        peepholes = [run.w_peephole for run in runs]
        ordered = [reorder(p, cell.peepholes, ONNX_PEEPHOLES) for p in peepholes if p is not None]
        return weights | ({"P": tuple(ordered)} if ordered else {})

    def _add(self, name: str, values: Any) -> Any:
        """An initializer: an array of each direction, or integers."""
        is_weights = isinstance(values, tuple)
        array = bf16.for_numpy(np.stack(values)) if is_weights else np.array(values, np.int64)
        tensor = self._from_array(array, name)
        self._initializers.append(tensor)
        return tensor

    def _add_once(self, name: str, values: list[int]) -> None:
        if all(tensor.name != name for tensor in self._initializers):
            self._add(name, values)

    def _node(self, op_type: str, inputs: list[str], output: str, **options: Any) -> str:
        self._nodes.append(self._make.make_node(op_type, inputs, [output], **options))
        return output


def attributes_of(cell: Cell, hidden_size: int, directions: int) -> dict[str, Any]:
    """Attributes of a cell's node; activations where they are not the usual ones.

    These with all numbers, on whose defaults not all runtimes agree.
    """
    op_type = cell.name.upper()
    attributes: dict[str, Any] = {"hidden_size": hidden_size}
    attributes["direction"] = DIRECTIONS[2 if directions == 2 else 0]
    if cell.reset_after is not None:
        attributes["linear_before_reset"] = int(cell.reset_after)
    if cell.coupled:
        attributes["input_forget"] = 1
    if cell.clip is not None:
        attributes["clip"] = cell.clip
    own = (cell.nonlinearity,) if op_type == "RNN" else cell.activations
    if own is None or own == USUAL[op_type]:
        return attributes
    full = [constants.activation("activations", one) for one in own] * directions
    full = [("affine", 1.0, 0.0) if one == ("identity",) else one for one in full]
    numbers = {
        "activations": [ACTIVATIONS[one[0]] for one in full],
        "activation_alpha": [one[1] for one in full if len(one) > 1],
        "activation_beta": [one[2] for one in full if len(one) > 2],
    }
    return attributes | {name: values for name, values in numbers.items() if values}
