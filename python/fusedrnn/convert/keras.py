"""Keras 3: its layers and their lists of weights.

A kernel is [I, G*H], a recurrent kernel [H, G*H], gates in the order i f c o and z r h. A GRU with
``reset_after=True`` has a bias [2, 3*H], of the input and of the state; every other bias is one
[G*H]. Source: ``keras.layers.LSTMCell``, ``GRUCell`` and ``SimpleRNNCell``, Keras 3.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, Literal, get_args

from fusedrnn import bf16, options
from fusedrnn.cells import rnn
from fusedrnn.convert import arrays, packages
from fusedrnn.convert.arrays import Array
from fusedrnn.convert.weights import (
    GATES,
    KERAS_GATES,
    Cell,
    Run,
    directions_of,
    layer_of,
    reorder,
    runs_of,
)
from fusedrnn.layers.base import Layer

CellName = Literal["rnn", "gru", "lstm"]
_CELLS: tuple[CellName, ...] = get_args(CellName)
_NONLINEARITIES = {"tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "linear": "identity"}
_ACTIVATIONS = {ours: theirs for theirs, ours in _NONLINEARITIES.items()}


def from_keras(
    source: Any,
    *,
    cell: CellName | None = None,
    reset_after: bool | None = None,
    nonlinearity: rnn.Nonlinearity | None = None,
    go_backwards: bool = False,
) -> Layer:
    """Return a layer, with ``batch_first=True``, of the weights of Keras layers.

    Parameters
    ----------
    source : Keras layer, keras.Sequential or list
        A built ``LSTM``, ``GRU`` or ``SimpleRNN``, ``RNN`` around one of their cells, or
        ``Bidirectional`` around one of these; several of them, one behind the other, become one
        layer of several. Or what ``get_weights()`` of such a layer returns, arrays [kernel,
        recurrent_kernel, bias], twice that of a ``Bidirectional``; this needs no Keras.
    cell : {"rnn", "gru", "lstm"}, optional
        With a list of arrays: which cell they are of.
    reset_after : bool, optional
        With a list of arrays of a GRU without bias; the form of a bias tells.
    nonlinearity : {"tanh", "relu", "sigmoid", "identity"}, optional
        With a list of arrays of an RNN; "tanh" by default.
    go_backwards : bool
        What the Keras layer's is. Layers run forwards: where it is True, give the result its
        sequences turned round, ``x[:, ::-1]``, and its y is in Keras' order.

    Returns
    -------
    RNN, GRU or LSTM
        How a Keras layer is called (``stateful``, ``return_sequences``, masks) and what acts in
        training alone (dropout, regularizers, constraints) is not taken over. The dtype is that of
        the weights.

    Raises
    ------
    ValueError, TypeError
        Where a layer is not built, or has what layers do not have: other activations, a
        ``merge_mode`` but "concat", another ``go_backwards`` than is said.
    """
    backwards = options.flag("go_backwards", go_backwards)
    given = {"cell": cell, "reset_after": reset_after, "nonlinearity": nonlinearity}
    keras = sys.modules.get("keras")  # whoever has a layer has imported it
    several = source.layers if keras and isinstance(source, keras.Sequential) else source
    several = list(several) if isinstance(several, (list, tuple)) else [several]
    if keras and several and all(isinstance(one, keras.layers.Layer) for one in several):
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name}: expected None for a Keras layer, got {value!r}")
        each = [
            _runs_of_layer(keras, f"source[{k}]" if len(several) > 1 else "source", one, backwards)
            for k, one in enumerate(several)
        ]
        for k, one in enumerate(several[:-1]):
            inner = one.forward_layer if isinstance(one, keras.layers.Bidirectional) else one
            if not inner.return_sequences:
                raise ValueError(
                    f"source[{k}]: expected return_sequences=True below another layer, got False"
                )
        if len({len(runs) for runs in each}) > 1:
            raise ValueError(
                "source: expected layers of one direction, or all of two, got "
                + ", ".join(type(one).__name__ for one in several)
            )
    elif isinstance(source, (list, tuple)):
        each = [_runs_of_weights(source, cell, reset_after, nonlinearity)]
    else:
        raise TypeError(
            "source: expected a recurrent layer of Keras 3, a keras.Sequential or a list, "
            f"got {type(source).__name__}"
        )
    if backwards and len(each[0]) == 2:
        raise ValueError("go_backwards: expected False for two directions, got True")
    runs = [run for runs in each for run in runs]
    return layer_of(runs, bidirectional=len(each[0]) == 2, batch_first=True)


def to_keras(layer: Any, *, go_backwards: bool = False) -> Any:
    """Return a built ``keras.Sequential`` of one Keras layer a layer.

    It maps [B, T, I] to [B, T, D*H], whatever the layer's ``batch_first`` is. Its ``layers`` may be
    taken for another model, and their ``get_weights()`` for a layer of one's own. Where Keras has
    one bias it is bias_ih + bias_hh. compute_dtype does not go along.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        An LSTM without peepholes.
    go_backwards : bool
        Make layers that read their sequences from the end, as the first of a stack alone may.

    Raises
    ------
    ValueError, TypeError
        For another layer.
    ImportError
        Where Keras, or the backend that it is set to, is missing.
    """
    runs = runs_of(layer, "Keras", _CELLS)
    cell, directions = runs[0].cell, directions_of(layer)
    backwards = options.flag("go_backwards", go_backwards)
    if backwards and len(runs) > 1:
        raise ValueError(
            f"go_backwards: expected False but for one layer of one direction, got {layer!r}"
        )
    keras = packages.load("to_keras", "keras")
    kinds = {"rnn": keras.layers.SimpleRNN, "gru": keras.layers.GRU, "lstm": keras.layers.LSTM}
    given: dict[str, Any] = {"use_bias": layer.bias, "dtype": layer.dtype}
    if layer.dtype in ("float16", "bfloat16"):
        # The usual one needs a decomposition that backends do not have in 16 bits.
        given["recurrent_initializer"] = "glorot_uniform"
    if cell.reset_after is not None:
        given["reset_after"] = cell.reset_after
    if cell.nonlinearity is not None:
        if cell.nonlinearity not in (*_ACTIVATIONS,):
            raise ValueError(
                f"layer: expected the nonlinearity {options.either(map(repr, _ACTIVATIONS))}, "
                f"which Keras has under names of its own, got {layer!r}"
            )
        given["activation"] = _ACTIVATIONS[str(cell.nonlinearity)]
    model = keras.Sequential([keras.Input((None, layer.input_size), dtype=layer.dtype)])
    for k in range(layer.num_layers):
        theirs = kinds[cell.name](
            layer.hidden_size, return_sequences=True, go_backwards=backwards, **given
        )
        if directions == 2:
            theirs = keras.layers.Bidirectional(theirs, dtype=layer.dtype)
        model.add(theirs)
        own = runs[k * directions : (k + 1) * directions]
        theirs.set_weights([bf16.for_numpy(array) for run in own for array in weights_of(run)])
    return model


# Lists of weights, which RTNeural's files have as well


def weights_of(run: Run) -> list[Array]:
    """A run's kernel, recurrent kernel and, where it has biases, bias."""
    cell = run.cell

    def theirs(array: Array) -> Array:
        return reorder(array, GATES[cell.name], KERAS_GATES[cell.name])

    weights = [theirs(run.w_ih).T, theirs(run.w_hh).T]
    if run.b_ih is None or run.b_hh is None:
        return weights
    if cell.reset_after:
        return [*weights, arrays.stacked(theirs(run.b_ih), theirs(run.b_hh))]
    return [*weights, theirs(arrays.added(run.b_ih, run.b_hh))]


def run_of(label: str, cell: Cell, weights: Sequence[Any]) -> Run:
    """A run of [kernel, recurrent_kernel] and perhaps a bias."""
    names = ("kernel", "recurrent_kernel", "bias")
    if len(weights) not in (2, 3):
        raise ValueError(
            f"{label}: expected the arrays kernel, recurrent_kernel and perhaps bias, "
            f"got {len(weights)}"
        )
    rough = arrays.read(f"{label}, {names[1]}", weights[1], (None, None))
    hidden, gates = rough.shape[0], len(cell.gates)
    bias: tuple[int, ...] = (gates * hidden,)
    shapes = [(None, gates * hidden), (hidden, gates * hidden), (2, *bias)]
    if not cell.reset_after:
        shapes[2] = bias
    w = [
        arrays.read(f"{label}, {name}", value, shape)
        for name, value, shape in zip(names, weights, shapes, strict=False)
    ]

    def ours(array: Array) -> Array:
        return reorder(array, KERAS_GATES[cell.name], GATES[cell.name])

    run = Run(label, cell, ours(w[0].T), ours(w[1].T))
    if len(w) == 2:
        return run
    b_ih, b_hh = w[2] if cell.reset_after else (w[2], arrays.zeros_like(w[2]))
    return dataclasses.replace(run, b_ih=ours(b_ih), b_hh=ours(b_hh))


def _runs_of_weights(
    source: Sequence[Any], cell: str | None, reset_after: bool | None, nonlinearity: str | None
) -> list[Run]:
    if cell is None:
        raise ValueError("cell: expected 'rnn', 'gru' or 'lstm' with a list of arrays, got None")
    name = options.choice("cell", cell, _CELLS)
    if len(source) not in (2, 3, 4, 6):
        raise ValueError(
            f"source: expected 2 or 3 arrays, or 4 or 6 of two directions, got {len(source)}"
        )
    for option, value, owner in (
        ("reset_after", reset_after, "gru"),
        ("nonlinearity", nonlinearity, "rnn"),
    ):
        if value is not None and name != owner:
            raise ValueError(f"{option}: expected None for the {name}, got {value!r}")
    kind = Cell(name, peephole=False if name == "lstm" else None)
    if name == "rnn":
        known = rnn.NONLINEARITIES
        usual = "tanh" if nonlinearity is None else nonlinearity
        kind = Cell("rnn", nonlinearity=options.choice("nonlinearity", usual, known))
    if name == "gru":
        kind = Cell("gru", reset_after=_reset_after(source, reset_after))
    half = len(source) if len(source) < 4 else len(source) // 2
    parts = [source[start : start + half] for start in range(0, len(source), half)]
    if len(parts) == 1:
        return [run_of("source", kind, source)]
    return [
        run_of(f"source[{k * half}:{(k + 1) * half}]", kind, part) for k, part in enumerate(parts)
    ]


def _reset_after(source: Sequence[Any], given: bool | None) -> bool:
    """As the bias of a GRU shows."""
    if given is not None:
        options.flag("reset_after", given)
    if len(source) in (2, 4):
        if given is None:
            raise ValueError("reset_after: expected a bool for a GRU without bias, got None")
        return given
    shown = arrays.read("source[2]", source[2]).ndim == 2
    if given not in (None, shown):
        raise ValueError(
            f"reset_after: expected {shown}, as the bias of the GRU shows, got {given}"
        )
    return shown


# Layers


def _runs_of_layer(keras: Any, label: str, layer: Any, backwards: bool) -> list[Run]:
    if not isinstance(layer, keras.layers.Bidirectional):
        return [_run_of_layer(keras, label, layer, backwards)]
    if layer.merge_mode != "concat":
        raise ValueError(f"{label}: expected merge_mode 'concat', got {layer.merge_mode!r}")
    return [
        _run_of_layer(keras, f"{label}, forward", layer.forward_layer, False),
        _run_of_layer(keras, f"{label}, backward", layer.backward_layer, True),
    ]


def _run_of_layer(keras: Any, label: str, layer: Any, backwards: bool) -> Run:
    kinds = {
        "lstm": keras.layers.LSTMCell,
        "gru": keras.layers.GRUCell,
        "rnn": keras.layers.SimpleRNNCell,
    }
    theirs = getattr(layer, "cell", None)
    name = next((name for name, kind in kinds.items() if isinstance(theirs, kind)), None)
    if name is None or theirs is None or not isinstance(layer, keras.layers.RNN):
        raise TypeError(
            f"{label}: expected LSTM, GRU, SimpleRNN, RNN around one of their cells, or "
            f"Bidirectional, got {type(layer).__name__}"
        )
    if not theirs.built:
        raise ValueError(f"{label}: expected a layer that is built, got one without weights")
    if layer.go_backwards != backwards:
        raise ValueError(
            f"{label}: expected go_backwards={backwards}, as is said, got {layer.go_backwards}"
        )
    activation = keras.activations.serialize(theirs.activation)
    known = tuple(_NONLINEARITIES) if name == "rnn" else ("tanh",)
    if activation not in known:
        raise ValueError(
            f"{label}: expected the activation {' or '.join(map(repr, known))}, got {activation!r}"
        )
    if name != "rnn":
        recurrent = keras.activations.serialize(theirs.recurrent_activation)
        if recurrent != "sigmoid":
            raise ValueError(
                f"{label}: expected the recurrent_activation 'sigmoid', got {recurrent!r}"
            )
    cell = {
        "rnn": Cell("rnn", nonlinearity=_NONLINEARITIES.get(activation)),
        "gru": Cell("gru", reset_after=bool(getattr(theirs, "reset_after", False))),
        "lstm": Cell("lstm", peephole=False),
    }[name]
    # Not get_weights(), which warns of NumPy 2 on some backends.
    return run_of(label, cell, [keras.ops.convert_to_numpy(weight) for weight in theirs.weights])
