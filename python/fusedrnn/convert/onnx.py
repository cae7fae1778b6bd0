"""ONNX models: their nodes RNN, GRU and LSTM, and models that consist of such nodes.

Weights of a node are W [D, G*H, I], R [D, G*H, H], B [D, 2*G*H] (of the input, then of the state)
and P [D, 3*H], gates in the order i o f c and z r h. Source: the operators' reference,
https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fusedrnn.cells import constants, gru, lstm, rnn
from fusedrnn.cells.constants import Activation
from fusedrnn.convert import arrays, files, packages
from fusedrnn.convert.arrays import Array
from fusedrnn.convert.weights import (
    ONNX_GATES,
    ONNX_PEEPHOLES,
    Cell,
    Run,
    directions_of,
    layer_of,
    reorder,
    runs_of,
)
from fusedrnn.layers.base import Layer

INPUTS = {
    "RNN": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "GRU": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "LSTM": ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
}
# What may come anew with each run.
_RUN_INPUTS = ("sequence_lens", "initial_h", "initial_c")
FUNCTIONS: dict[str, Any] = {"rnn": rnn.rnn, "gru": gru.gru, "lstm": lstm.lstm}
# Options that these nodes have.
SPECIAL = ("peephole", "coupled", "clip", "activations")
DIRECTIONS = ("forward", "reverse", "bidirectional")
# Activations: ONNX's names of ours, which have alpha and beta as ours have them, those without both
# first. Ours "identity" is Affine with 1 and 0.
ACTIVATIONS = {
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu": "Relu",
    "softsign": "Softsign",
    "softplus": "Softplus",
    "leaky_relu": "LeakyRelu",
    "elu": "Elu",
    "thresholded_relu": "ThresholdedRelu",
    "hard_sigmoid": "HardSigmoid",
    "affine": "Affine",
    "scaled_tanh": "ScaledTanh",
}
# Whose numbers have defaults in ONNX on which runtimes agree.
_WITH_DEFAULTS = ("leaky_relu", "elu", "hard_sigmoid")
USUAL = {"RNN": ("tanh",), "GRU": gru.ACTIVATIONS, "LSTM": lstm.ACTIVATIONS}
# Nodes that do no more than bring weights into form; of constants, they give constants.
_FORMING = {
    *("Constant", "Identity", "Cast", "Concat", "Slice", "Split", "Squeeze", "Unsqueeze"),
    *("Transpose", "Reshape", "DequantizeLinear"),
}
_FORMING_DEPTH = 8  # so that no file costs more than that many times its size


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """A node RNN, GRU or LSTM, which runs as it does in ONNX.

    Attributes
    ----------
    op_type : str
    name : str
    direction : {"forward", "reverse", "bidirectional"}
    layout : int
        0: sequences are [T, B, ...]; 1: [B, T, ...].
    layer : layer
        An RNN, GRU or LSTM of the node's weights; its ``batch_first`` is ``layout == 1``. That of a
        node whose direction is "reverse" runs forwards: give it its sequences turned round, or use
        `run`.
    """

    op_type: str
    name: str
    direction: str
    layout: int
    layer: Layer
    _constants: Mapping[str, Array] = field(repr=False)
    _origins: Mapping[str, str] = field(repr=False)  # of the inputs that are not constant

    def run(
        self, x: Any, sequence_lens: Any = None, initial_h: Any = None, initial_c: Any = None
    ) -> tuple[Any, ...]:
        """Run the node: ``Y, Y_h``, and of an LSTM ``Y, Y_h, Y_c``.

        Parameters
        ----------
        x : array [T, B, I], or [B, T, I] with layout 1
        sequence_lens : integers [B], optional
            Valid steps of each sequence. Beyond them Y is 0; Y_h and Y_c are the state after the
            last valid step. Of a sequence without any they are the initial state, where ONNX
            Runtime gives 0.
        initial_h, initial_c : array [D, B, H], or [B, D, H] with layout 1, optional
            Each of the three may be left out where the node has none, or one that is constant.

        Returns
        -------
        Y : array [T, D, B, H], or [B, T, D, H] with layout 1
        Y_h, Y_c : array [D, B, H], or [B, D, H]
            Of the kind of x, as all results.

        Raises
        ------
        ValueError, TypeError
            As a call of the layer; and where an input is left out that the node reads.
        """
        layer = self.layer
        steps, batch, _ = arrays.read("x", x, (None, None, layer.input_size)).shape
        if self.layout == 1:
            steps, batch = batch, steps
        given = {"sequence_lens": sequence_lens, "initial_h": initial_h, "initial_c": initial_c}
        is_lstm = isinstance(layer, lstm.LSTM)
        if initial_c is not None and not is_lstm:
            raise ValueError(f"initial_c: expected None for an {self.op_type}, got an array")
        for name, value in given.items():
            if value is None and name in self._origins:
                raise ValueError(
                    f"{name}: expected an array (zeros for no state), for the node reads "
                    f"{self._origins[name]}, got None"
                )
            given[name] = self._constants.get(name) if value is None else value
        lengths = _lengths(given["sequence_lens"], steps, batch)
        state = [
            self._state(name, given[name], batch)
            for name in ("initial_h", "initial_c")[: 2 if is_lstm else 1]
        ]
        if self.direction == "reverse":
            y, states = self._run_reverse(x, state, lengths)
        else:
            y, state_n = layer(x, tuple(state) if is_lstm else state[0], lengths)
            y = y.reshape((*y.shape[:2], directions_of(layer), layer.hidden_size))
            y = y if self.layout == 1 else y.swapaxes(1, 2)
            states = list(state_n) if is_lstm else [state_n]
        if self.layout == 1:
            states = [s.swapaxes(0, 1) for s in states]
        return (y, *states)

    def _state(self, name: str, value: Any, batch: int) -> Array | None:
        if value is None:
            return None
        directions, hidden = directions_of(self.layer), self.layer.hidden_size
        if self.layout == 0:
            return arrays.read(name, value, (directions, batch, hidden))
        return np.swapaxes(arrays.read(name, value, (batch, directions, hidden)), 0, 1)

    def _run_reverse(
        self, x: Any, state: list[Array | None], lengths: Array | None
    ) -> tuple[Any, list[Any]]:
        (run,) = runs_of(self.layer, "ONNX", tuple(FUNCTIONS), SPECIAL)
        arguments: dict[str, Any] = run.arrays() | run.cell.options()
        arguments.pop("peephole", None)  # w_peephole tells
        for name, value in zip(("h0", "c0"), state, strict=False):
            arguments[name] = None if value is None else value[0]
        y, state_n = FUNCTIONS[run.cell.name](
            x.swapaxes(0, 1) if self.layout == 1 else x, **arguments, lengths=lengths, reverse=True
        )
        steps, batch, hidden = y.shape
        y = y.reshape((steps, 1, batch, hidden))
        states = state_n if isinstance(state_n, tuple) else (state_n,)
        return (
            y.swapaxes(0, 2).swapaxes(1, 2) if self.layout == 1 else y,
            [s.reshape((1, batch, hidden)) for s in states],
        )


def _lengths(value: Any, steps: int, batch: int) -> Array | None:
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.shape != (batch,):
        raise ValueError(
            f"sequence_lens: expected integers of shape ({batch},), "
            f"got {array.dtype.name} of shape {array.shape}"
        )
    for index, length in enumerate(array):
        if not 0 <= length <= steps:
            raise ValueError(f"sequence_lens[{index}]: expected 0 to {steps}, got {length}")
    return array


# From ONNX


def from_onnx(model: Any, node: str | int | None = None) -> OnnxNode:
    """Return a node RNN, GRU or LSTM of an ONNX model, ready to run.

    Parameters
    ----------
    model : onnx.ModelProto or path
        Nodes in the branches of an If, Loop or Scan are found too. Weights are initializers or
        constants, which may come through nodes such as Identity, Concat or DequantizeLinear.
    node : str or int, optional
        The node's name (that of its first output where it has none), or its number among the nodes
        of these kinds, from 0; may be left out where there is one.

    Returns
    -------
    OnnxNode
        Its ``run`` takes and gives what the node does, its ``layer`` is a layer of its weights.

    Raises
    ------
    ValueError, TypeError
        Where there is no such node, its weights are not constant, their shapes do not fit, or an
        attribute says what cells do not do, such as other activations for each direction.
    ImportError
        Where the package onnx is missing.
    """
    onnx = packages.load("from_onnx", "onnx")
    proto = _model(onnx, model)
    found = list(_recurrent(_Scope.of(onnx, proto, proto.graph, None)))
    number = _chosen([_name(proto_node) for proto_node, _ in found], node)
    return _converted(*found[number])


def _model(onnx: Any, model: Any) -> Any:
    if isinstance(model, onnx.ModelProto):
        return model
    path = files.path_of("model", model)
    try:
        return onnx.load(path)
    except OSError:
        raise
    except Exception as error:  # protobuf's, or that of external data
        raise ValueError(f"model: expected an ONNX model at {path}, got none ({error})") from error


def _name(node: Any) -> str:
    return str(node.name or next(filter(None, node.output), ""))


def _chosen(names: list[str], node: str | int | None) -> int:
    shown = ", ".join(map(repr, names)) or "none"
    if isinstance(node, bool) or not isinstance(node, (str, int, type(None))):
        raise TypeError(f"node: expected a name or a number, got {type(node).__name__}")
    if node is None and len(names) != 1:
        raise ValueError(
            f"node: expected the name or number of one of the nodes RNN, GRU and LSTM, {shown}, "
            "got None"
        )
    if isinstance(node, str):
        if names.count(node) != 1:
            raise ValueError(
                f"node: expected the name of one of the nodes RNN, GRU and LSTM, {shown}, "
                f"got {node!r}, the name of {names.count(node)}"
            )
        return names.index(node)
    number = node or 0
    if not 0 <= number < len(names):
        raise ValueError(f"node: expected a number of the nodes {shown}, got {number}")
    return number


@dataclass(frozen=True, eq=False)
class _Scope:
    """A graph, and what its nodes see of the graphs that it stands in."""

    onnx: Any
    model: Any
    graph: Any
    initializers: Mapping[str, Any]
    producers: Mapping[str, Any]
    outer: _Scope | None

    @classmethod
    def of(cls, onnx: Any, model: Any, graph: Any, outer: _Scope | None) -> _Scope:
        initializers = {tensor.name: tensor for tensor in graph.initializer}
        producers = {name: node for node in graph.node for name in node.output if name}
        return cls(onnx, model, graph, initializers, producers, outer)

    def constant(self, name: str, depth: int = 0) -> Any:
        """The value of that name, or None where it is not constant."""
        if name in self.initializers:
            return self._to_array(name, self.initializers[name])
        node = self.producers.get(name)
        if node is None:
            return self.outer.constant(name, depth) if self.outer else None
        if node.op_type not in _FORMING or node.domain or depth == _FORMING_DEPTH:
            return None
        given = {key: self.constant(key, depth + 1) for key in node.input if key}
        if any(value is None for value in given.values()):
            return None
        return self._evaluate(node, given, name)

    def _to_array(self, name: str, tensor: Any) -> Any:
        try:
            return self.onnx.numpy_helper.to_array(tensor)
        except Exception as error:  # whatever is wrong in a file of others
            raise ValueError(f"{name}: expected a tensor, got a broken one ({error})") from error

    def _evaluate(self, node: Any, given: Mapping[str, Any], name: str) -> Any:
        reference = packages.load("from_onnx", "onnx.reference")
        make = self.onnx.helper
        try:
            graph = make.make_graph(
                [node],
                "constant",
                [],
                [make.make_empty_tensor_value_info(name)],
                [self.onnx.numpy_helper.from_array(value, key) for key, value in given.items()],
            )
            opsets = self.model.opset_import
            if node.op_type == "DequantizeLinear":  # the same since 10, but computed from 19 on
                opsets = [make.make_opsetid("", max([21, *(opset.version for opset in opsets)]))]
            model = make.make_model(graph, opset_imports=opsets)
            return reference.ReferenceEvaluator(model).run([name], {})[0]
        except Exception as error:
            raise ValueError(
                f"{name}: expected a constant, got a {node.op_type} that cannot be computed "
                f"({error})"
            ) from error

    def origin(self, name: str) -> str:
        """Where a value that is not constant comes from."""
        node = self.producers.get(name)
        if node is not None:
            return f"the output {name!r} of a node {node.op_type}"
        return self.outer.origin(name) if self.outer else f"the input {name!r} of the model"


def _recurrent(scope: _Scope) -> Iterator[tuple[Any, _Scope]]:
    """The nodes of a graph and of those within it, in their order."""
    for node in scope.graph.node:
        if node.op_type in INPUTS and node.domain in ("", "ai.onnx"):
            yield node, scope
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _recurrent(_Scope.of(scope.onnx, scope.model, graph, scope))


def _converted(node: Any, scope: _Scope) -> OnnxNode:
    label = f"node {_name(node)!r}"
    direction, layout, cell, hidden_size = _attributes(scope.onnx, node, label)
    names = INPUTS[node.op_type]
    if len(node.input) > len(names):
        raise ValueError(f"{label}: expected inputs {', '.join(names)}, got {len(node.input)}")
    inputs = {name: key for name, key in zip(names, node.input, strict=False) if key}
    values = {name: scope.constant(key) for name, key in inputs.items() if name != "X"}
    for name in ("W", "R"):
        if name not in inputs:
            raise ValueError(f"{label}, {name}: expected an input, got none")
    for name, value in values.items():
        if value is None and name not in _RUN_INPUTS:
            raise ValueError(
                f"{label}, {name}: expected an initializer or a constant, "
                f"got {scope.origin(inputs[name])}"
            )
    runs = _runs(label, cell, direction, hidden_size, values)
    layer = layer_of(runs, bidirectional=direction == "bidirectional", batch_first=layout == 1)
    at_run = {name: value for name, value in values.items() if name in _RUN_INPUTS}
    return OnnxNode(
        node.op_type,
        _name(node),
        direction,
        layout,
        layer,
        {name: value for name, value in at_run.items() if value is not None},
        {name: scope.origin(inputs[name]) for name, value in at_run.items() if value is None},
    )


def _attributes(onnx: Any, node: Any, label: str) -> tuple[str, int, Cell, int | None]:
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}

    def text(value: Any) -> str:
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def choice(name: str, known: Sequence[Any], default: Any) -> Any:
        value = given.pop(name, default)
        value = text(value) if isinstance(value, bytes) else value
        if value not in known:
            wanted = " or ".join(map(repr, known))
            raise ValueError(f"{label}, {name}: expected {wanted}, got {value!r}")
        return value

    def several(name: str) -> list[Any]:
        value = given.pop(name, [])
        if not isinstance(value, list):
            raise ValueError(f"{label}, {name}: expected a list, got {value!r}")
        return value

    direction = choice("direction", DIRECTIONS, "forward")
    layout = choice("layout", (0, 1), 0)
    kind, count = node.op_type, 2 if direction == "bidirectional" else 1
    scales = (several("activation_alpha"), several("activation_beta"))
    chosen = _activations(label, [text(a) for a in several("activations")], scales, kind, count)
    try:
        clip = constants.limit("clip", _decimal(given.pop("clip", None)))
    except (ValueError, TypeError) as error:
        raise type(error)(f"{label}, {error}") from None
    cell = Cell(kind.lower(), clip=clip)
    if kind == "RNN":
        cell = dataclasses.replace(cell, nonlinearity=chosen[0])
    elif chosen != USUAL[kind]:
        cell = dataclasses.replace(cell, activations=chosen)
    if kind == "GRU":
        after = choice("linear_before_reset", (0, 1), 0) == 1
        cell = dataclasses.replace(cell, reset_after=after)
    if kind == "LSTM":
        # Then there are rows of a gate f as well, which the operator does not read.
        coupled = choice("input_forget", (0, 1), 0) == 1 or None
        cell = dataclasses.replace(cell, coupled=coupled)
    hidden_size = given.pop("hidden_size", None)
    for name, value in given.items():
        raise ValueError(f"{label}, {name}: expected none, for layers have none, got {value!r}")
    return direction, layout, cell, hidden_size


def _activations(
    label: str, names: list[str], scales: tuple[list[Any], list[Any]], kind: str, count: int
) -> tuple[Activation, ...]:
    """One direction's activations, which are those of the other as well.

    Numbers are consumed in the order of the activations, by those that have them.
    """
    usual = USUAL[kind]
    if not names:
        names = [ACTIVATIONS[name] for name in usual] * count
    ours = {theirs.lower(): name for name, theirs in ACTIVATIONS.items()}
    if len(names) != len(usual) * count or not all(name.lower() in ours for name in names):
        wanted = f"{len(usual) * count} of {', '.join(ACTIVATIONS.values())}"
        raise ValueError(f"{label}, activations: expected {wanted}, got {names}")
    each: list[Any] = [[ours[name.lower()]] for name in names]
    for i, attribute in enumerate(("activation_alpha", "activation_beta")):
        takers = [one for one in each if len(constants.DEFAULTS.get(one[0], ())) > i]
        numbers = scales[i]
        if not numbers and all(one[0] in _WITH_DEFAULTS for one in takers):
            numbers = [constants.DEFAULTS[one[0]][i] for one in takers]
        if len(numbers) != len(takers):
            raise ValueError(
                f"{label}, {attribute}: expected {len(takers)} numbers with the activations "
                f"{names}, got {numbers}"
            )
        for one, number in zip(takers, numbers, strict=True):
            one.append(_decimal(number))
    full = [constants.activation(f"{label}, activations", tuple(one)) for one in each]
    shown = ["identity" if one == ("affine", 1.0, 0.0) else constants.shown(one) for one in full]
    first, other = tuple(shown[: len(usual)]), tuple(shown[-len(usual) :])
    if first != other:
        raise ValueError(
            f"{label}, activations: expected the same of both directions, got {first} and {other}"
        )
    return first


def _decimal(number: Any) -> Any:
    """The shortest decimal number that the float32 of an attribute stands for: 0.2 for 0.2."""
    return float(str(np.float32(number))) if isinstance(number, float) else number


def _runs(
    label: str, cell: Cell, direction: str, hidden_size: int | None, values: Mapping[str, Any]
) -> list[Run]:
    count, gates = 2 if direction == "bidirectional" else 1, len(ONNX_GATES[cell.name])
    R = arrays.read(f"{label}, R", values["R"], (count, None, None))
    hidden = R.shape[2]
    if hidden_size not in (None, hidden):
        raise ValueError(
            f"{label}, hidden_size: expected {hidden}, the last axis of R, got {hidden_size!r}"
        )
    shapes = {
        "R": (count, gates * hidden, hidden),
        "W": (count, gates * hidden, None),
        "B": (count, 2 * gates * hidden),
        "P": (count, 3 * hidden),
    }
    w = {
        name: arrays.read(f"{label}, {name}", values[name], shape)
        for name, shape in shapes.items()
        if name in values
    }
    if cell.name == "lstm":
        cell = dataclasses.replace(cell, peephole="P" in w)

    def ours(array: Array) -> Array:
        return reorder(array, ONNX_GATES[cell.name], cell.gates)

    runs = []
    for d in range(count):
        b_ih, b_hh = map(ours, np.split(w["B"][d], 2)) if "B" in w else (None, None)
        peephole = reorder(w["P"][d], ONNX_PEEPHOLES, cell.peepholes) if "P" in w else None
        run = Run(f"{label}, {d}", cell, ours(w["W"][d]), ours(w["R"][d]), b_ih, b_hh, peephole)
        runs.append(run)
    return runs
