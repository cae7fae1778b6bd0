"""RTNeural's JSON: models that its C++ library loads, layer by layer as Keras exports them.

An object with "in_shape" (its last number is the input size) and "layers", objects with "type",
"shape" (its last number is H), "activation" and "weights": lists of numbers in the form of Keras'
weights (`fusedrnn.convert.keras`). Source: https://github.com/jatinchowdhury18/RTNeural,
python/model_utils.py writes it and RTNeural/model_loader.h reads it. Its types "lstm" and "gru" are
recurrent; the gru has the reset gate after the product.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusedrnn import bf16, options
from fusedrnn.convert import files, keras
from fusedrnn.convert.arrays import Array, zeros_like
from fusedrnn.convert.weights import Cell, Run, layer_of, runs_of
from fusedrnn.layers.base import Layer

_CELLS = {"lstm": Cell("lstm", peephole=False), "gru": Cell("gru", reset_after=True)}
_LAYER_NAMES = ("type", "name", "activation", "shape", "weights")
_MODEL_NAMES = ("in_shape", "layers")


def from_rtneural(
    source: Any, index: int | Sequence[int] | None = None, *, dtype: str = "float32"
) -> Layer:
    """Return a layer of the weights of a model of RTNeural.

    Parameters
    ----------
    source : path or mapping
        A JSON file, or what it holds.
    index : int or list of int, optional
        Which of the model's layers, from 0; several that follow each other become one layer of
        several. Without it the model has to consist of lstm alone, or of gru alone.
    dtype : str
        That the numbers are read as.

    Returns
    -------
    LSTM or GRU

    Raises
    ------
    ValueError, TypeError
        Where it is no such model, the layer is of another type (dense) or of another activation
        than tanh, or has numbers that are not finite, of other shapes or under other names.
    """
    dtype = options.dtype(dtype)
    model = source if isinstance(source, Mapping) else _parsed(source)
    layers, in_shape = _get(model, "layers", "model"), _get(model, "in_shape", "model")
    if not isinstance(layers, (list, tuple)):
        raise ValueError(f"layers: expected a list, got {type(layers).__name__}")
    numbers = _indices(index, len(layers))
    if index is None:
        _check_names("model", model, _MODEL_NAMES)
    runs = []
    for number in numbers:
        label = f"layers[{number}]"
        run = _run(label, layers[number], dtype)
        below = (
            in_shape if number == 0 else _get(layers[number - 1], "shape", f"layers[{number - 1}]")
        )
        width = _last("in_shape" if number == 0 else f"layers[{number - 1}], shape", below)
        if run.input_size != width:
            raise ValueError(
                f"{label}, kernel: expected {width} rows, the width of what it reads, "
                f"got {run.input_size}"
            )
        runs.append(run)
    return layer_of(runs, batch_first=False)


def to_rtneural(layer: Any, path: Any = None) -> dict[str, Any]:
    """Return a layer as a model of RTNeural, which has a layer of it for each of this one's.

    Parameters
    ----------
    layer : GRU or LSTM
        Of one direction; a GRU with ``reset_after=True``, an LSTM without peepholes. An LSTM's bias
        is bias_ih + bias_hh; where layers have none it is zero. compute_dtype does not go along.
    path : path, optional
        Where to write it as well, as JSON: the whole file, or nothing.

    Returns
    -------
    dict
        Of lists and numbers, as JSON has them.

    Raises
    ------
    ValueError, TypeError
        For another layer, or weights that are not finite, for which JSON has no numbers.
    """
    runs = runs_of(layer, "RTNeural", tuple(_CELLS))
    cell = runs[0].cell
    if layer.bidirectional:
        raise ValueError(f"layer: expected one direction, which RTNeural has, got {layer!r}")
    if cell.reset_after is False:
        raise ValueError(f"layer: expected reset_after=True, which RTNeural has, got {layer!r}")
    layers = [
        {
            "type": cell.name,
            "activation": "tanh",
            "shape": [None, None, run.hidden_size],
            "weights": [_numbers(run.label, array) for array in keras.weights_of(_biased(run))],
        }
        for run in runs
    ]
    model = {"in_shape": [None, None, layer.input_size], "layers": layers}
    if path is not None:
        files.write(path, json.dumps(model, indent=1).encode())
    return model


def _biased(run: Run) -> Run:
    """RTNeural's loader asks for biases."""
    if run.b_ih is not None:
        return run
    zeros = zeros_like(run.w_ih[:, 0])
    return Run(run.label, run.cell, run.w_ih, run.w_hh, zeros, zeros)


def _numbers(label: str, array: Array) -> Any:
    wide = bf16.cast(array, "float64")
    if not np.isfinite(wide).all():
        raise ValueError(f"{label}: expected finite numbers, as JSON has no others, got others")
    return wide.tolist()


def _parsed(path: Any) -> Mapping[str, Any]:
    data = files.read("source", path)

    def refused(word: str) -> Any:
        raise ValueError(f"{word} is no number of JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name comes twice in one object")
        return found

    try:
        model = json.loads(data, parse_constant=refused, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"source: expected JSON in {path}, got none ({error})") from error
    if not isinstance(model, dict):
        raise ValueError(f"source: expected a JSON object in {path}, got {type(model).__name__}")
    return model


def _indices(index: int | Sequence[int] | None, count: int) -> list[int]:
    if index is None:
        if not count:
            raise ValueError("layers: expected at least one, got none")
        return list(range(count))
    numbers: list[int] = []
    for number in index if isinstance(index, (list, tuple, range)) else [index]:
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"index: expected an int or a list of them, got {index!r}")
        numbers.append(number)
    following = list(range(numbers[0], numbers[0] + len(numbers))) if numbers else []
    if not numbers or numbers != following or not 0 <= numbers[0] <= numbers[-1] < count:
        raise ValueError(
            f"index: expected numbers from 0 to {count - 1} that follow each other, got {index!r}"
        )
    return numbers


def _get(values: Any, name: str, label: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{label}: expected an object, got {type(values).__name__}")
    if name not in values:
        raise ValueError(f"{label}: expected a name {name!r}, got {', '.join(map(str, values))}")
    return values[name]


def _check_names(label: str, values: Mapping[str, Any], known: Sequence[str]) -> None:
    if unknown := [str(name) for name in values if name not in known]:
        raise ValueError(
            f"{label}: expected no names but {', '.join(known)}, got {', '.join(unknown)} too"
        )


def _last(label: str, shape: Any) -> int:
    if not isinstance(shape, (list, tuple)) or not shape or type(shape[-1]) is not int:
        raise ValueError(f"{label}: expected a list that ends with an integer, got {shape!r}")
    return int(shape[-1])


def _run(label: str, layer: Any, dtype: str) -> Run:
    kind = _get(layer, "type", label)
    if not isinstance(kind, str) or kind not in _CELLS:
        raise ValueError(
            f"{label}, type: expected 'lstm' or 'gru', got {kind!r}; index chooses layers"
        )
    _check_names(label, layer, _LAYER_NAMES)
    activation = layer.get("activation", "")
    if activation not in ("tanh", ""):  # RTNeural computes tanh whatever stands here
        raise ValueError(f"{label}, activation: expected 'tanh' or '', got {activation!r}")
    weights = _get(layer, "weights", label)
    if not isinstance(weights, (list, tuple)) or len(weights) != 3:
        raise ValueError(f"{label}, weights: expected 3 lists, kernel, recurrent kernel and bias")
    names = ("kernel", "recurrent_kernel", "bias")
    read = [
        _array(f"{label}, {name}", value, dtype) for name, value in zip(names, weights, strict=True)
    ]
    run = keras.run_of(label, _CELLS[kind], read)
    width = _last(f"{label}, shape", _get(layer, "shape", label))
    if run.hidden_size != width:
        raise ValueError(
            f"{label}, recurrent_kernel: expected {width} rows, as shape says, "
            f"got {run.hidden_size}"
        )
    return run


def _array(label: str, value: Any, dtype: str) -> Array:
    try:
        wide = np.array(value)
    except ValueError as error:
        raise ValueError(f"{label}: expected lists of one length each, got others") from error
    if wide.dtype.kind not in "iuf":
        raise ValueError(f"{label}: expected numbers, got {wide.dtype.name}")
    with np.errstate(over="ignore"):
        array = bf16.cast(wide.astype(np.float64), dtype)
    if not np.isfinite(bf16.cast(array, "float64")).all():
        raise ValueError(f"{label}: expected finite numbers of {dtype}, got others")
    return array
