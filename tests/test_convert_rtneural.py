"""RTNeural's JSON, against the equations that its C++ computes, written out here."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from convert_support import B, H, I, close, layer_of, rejected, same_layer, sequence
from fusedrnn.convert import from_rtneural, to_rtneural

cells = pytest.mark.parametrize("cell", ["gru", "lstm"])


def sigmoid(v: Any) -> Any:
    return 1 / (1 + np.exp(-v))


def run_gru(weights: list[Any], x: Any) -> Any:
    """RTNeural/gru/gru.h: rows of W are inputs, its columns z, r and c."""
    W, U, b = (np.array(w) for w in weights)
    h, ys = np.zeros((x.shape[1], len(U))), []
    for x_t in x:
        wz, wr, wc = np.split(x_t @ W + b[0], 3, axis=1)
        uz, ur, uc = np.split(h @ U + b[1], 3, axis=1)
        z = sigmoid(wz + uz)
        h = (1 - z) * np.tanh(wc + sigmoid(wr + ur) * uc) + z * h
        ys.append(h)
    return np.stack(ys)


def run_lstm(weights: list[Any], x: Any) -> Any:
    """RTNeural/lstm/lstm.h: columns i, f, c and o, one bias."""
    W, U, b = (np.array(w) for w in weights)
    h, c, ys = np.zeros((x.shape[1], len(U))), np.zeros((x.shape[1], len(U))), []
    for x_t in x:
        i, f, g, o = np.split(x_t @ W + h @ U + b, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        ys.append(h)
    return np.stack(ys)


def run_model(model: dict[str, Any], x: Any) -> Any:
    for layer in model["layers"]:
        x = {"gru": run_gru, "lstm": run_lstm}[layer["type"]](layer["weights"], x)
    return x


def exported(cell: str, sizes: tuple[int, ...] = (I, H), seed: int = 0) -> dict[str, Any]:
    """A model as python/model_utils.py writes one."""
    rng, gates = np.random.default_rng(seed), {"gru": 3, "lstm": 4}[cell]
    layers = []
    for inputs, hidden in itertools.pairwise(sizes):
        bias = (2, gates * hidden) if cell == "gru" else (gates * hidden,)
        shapes = [(inputs, gates * hidden), (hidden, gates * hidden), bias]
        weights = [rng.uniform(-0.5, 0.5, s).astype(np.float32).tolist() for s in shapes]
        shape = [None, None, hidden]
        layers.append({"type": cell, "activation": "tanh", "shape": shape, "weights": weights})
    return {"in_shape": [None, None, sizes[0]], "layers": layers}


def with_dense(model: dict[str, Any]) -> dict[str, Any]:
    width = model["layers"][-1]["shape"][-1]
    weights = [np.ones((width, 1)).tolist(), [0.5]]
    dense = {"type": "dense", "activation": "", "shape": [None, None, 1], "weights": weights}
    return model | {"layers": [*model["layers"], dense]}


@cells
@pytest.mark.parametrize("sizes", [(I, H), (I, H, H, H), (1, H)])
def test_a_model(cell: str, sizes: tuple[int, ...], tmp_path: Path) -> None:
    model = exported(cell, sizes)
    layer = from_rtneural(model)
    assert isinstance(layer, {"gru": fr.GRU, "lstm": fr.LSTM}[cell])
    assert layer.num_layers == len(sizes) - 1
    x = sequence(layer)
    close(layer(x)[0], run_model(model, x))
    path = tmp_path / "model.json"
    path.write_text(json.dumps(model))
    same_layer(from_rtneural(path), layer)
    assert to_rtneural(layer) == model


@cells
@pytest.mark.parametrize("options", [{}, {"num_layers": 3}, {"bias": False}])
def test_a_layer(cell: str, options: dict[str, Any], tmp_path: Path) -> None:
    layer = layer_of(cell, **options)
    path = tmp_path / "model.json"
    model = to_rtneural(layer, path)
    assert json.loads(path.read_text()) == model
    x = sequence(layer)
    y, _ = layer(x)
    close(y, run_model(model, x))
    close(from_rtneural(path)(x)[0], y)
    assert [p.name for p in tmp_path.iterdir()] == ["model.json"]


@cells
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_dtypes(cell: str, dtype: str) -> None:
    layer = from_rtneural(exported(cell), dtype=dtype)
    assert layer.dtype == dtype
    same_layer(from_rtneural(to_rtneural(layer), dtype=dtype), layer)


@cells
def test_layers_of_a_larger_model(cell: str) -> None:
    model = with_dense(exported(cell, (I, H, H)))
    whole = from_rtneural(exported(cell, (I, H, H)))
    same_layer(from_rtneural(model, [0, 1]), whole)
    same_layer(from_rtneural(model | {"in_skip": 1}, range(2)), whole)
    first, second = from_rtneural(model, 0), from_rtneural(model, 1)
    assert (first.num_layers, second.input_size) == (1, H)
    x = sequence(whole)
    np.testing.assert_array_equal(second(first(x)[0])[0], whole(x)[0])


# Errors


def changed(cell: str = "lstm", **parts: Any) -> dict[str, Any]:
    model = exported(cell)
    (layer,) = model["layers"]
    return model | {"layers": [{k: v for k, v in (layer | parts).items() if v is not None}]}


def with_weight(at: int, value: Any, cell: str = "lstm") -> dict[str, Any]:
    weights = list(exported(cell)["layers"][0]["weights"])
    weights[at] = value
    return changed(cell, weights=weights)


def test_wrong_models() -> None:
    weights = exported("lstm")["layers"][0]["weights"]
    kernel, names = weights[0], "type, name, activation, shape, weights"
    ragged = [kernel[0], kernel[1][:-1], *kernel[2:]]
    for model, message in [
        ({"layers": []}, "model: expected a name 'in_shape', got layers"),
        ({"in_shape": [1]}, "model: expected a name 'layers', got in_shape"),
        ({"in_shape": [1], "layers": {}}, "layers: expected a list, got dict"),
        ({"in_shape": [1], "layers": []}, "layers: expected at least one, got none"),
        ({"in_shape": [1], "layers": [3]}, "layers[0]: expected an object, got int"),
        (
            exported("lstm") | {"in_skip": 1},
            "model: expected no names but in_shape, layers, got in_skip too",
        ),
        (
            exported("lstm") | {"in_shape": [None]},
            "in_shape: expected a list that ends with an integer, got [None]",
        ),
        (
            exported("lstm") | {"in_shape": [2]},
            f"layers[0], kernel: expected 2 rows, the width of what it reads, got {I}",
        ),
        (
            with_dense(exported("lstm")),
            "layers[1], type: expected 'lstm' or 'gru', got 'dense'; index chooses layers",
        ),
        (changed(type=None), "layers[0]: expected a name 'type', got activation, shape, weights"),
        (
            changed(type=["gru"]),
            "layers[0], type: expected 'lstm' or 'gru', got ['gru']; index chooses layers",
        ),
        (changed(units=3), f"layers[0]: expected no names but {names}, got units too"),
        (changed(activation="relu"), "layers[0], activation: expected 'tanh' or '', got 'relu'"),
        (
            changed(weights=weights[:2]),
            "layers[0], weights: expected 3 lists, kernel, recurrent kernel and bias",
        ),
        (
            changed(shape=[None, 5]),
            f"layers[0], recurrent_kernel: expected 5 rows, as shape says, got {H}",
        ),
        (
            with_weight(0, [[1.0] * (4 * H * I)]),
            f"layers[0], kernel: expected shape (*, {4 * H}), got (1, {4 * H * I})",
        ),
        (
            with_weight(0, ragged),
            "layers[0], kernel: expected lists of one length each, got others",
        ),
        (
            with_weight(1, "weights"),
            "layers[0], recurrent_kernel: expected numbers, got str224",
        ),
        (with_weight(2, [None] * (4 * H)), "layers[0], bias: expected numbers, got object"),
        (with_weight(2, [True] * (4 * H)), "layers[0], bias: expected numbers, got bool"),
        (
            with_weight(2, [1e300] * (4 * H)),
            "layers[0], bias: expected finite numbers of float32, got others",
        ),
        (
            with_weight(2, [1.0] * (3 * H), "gru"),
            f"layers[0], bias: expected shape (2, {3 * H}), got ({3 * H},)",
        ),
    ]:
        rejected(ValueError, message, from_rtneural, model)
    mixed = exported("gru", (I, H))
    mixed["layers"] += exported("lstm", (H, H))["layers"]
    rejected(
        ValueError,
        "layers[1]: expected cell gru (reset_after=True), got lstm (peephole=False)",
        *(from_rtneural, mixed),
    )


def test_wrong_indices() -> None:
    model = exported("lstm", (I, H, H))
    for index in (2, -1, [1, 0], [0, 2], [], [0, 0]):
        message = f"index: expected numbers from 0 to 1 that follow each other, got {index}"
        rejected(ValueError, message, from_rtneural, model, index)
    for wrong in ("0", [0.0], True):
        message = f"index: expected an int or a list of them, got {wrong!r}"
        rejected(TypeError, message, from_rtneural, model, wrong)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ('{"layers": [NaN]}', "NaN is no number of JSON"),
        ('{"layers": 1, "layers": 2}', "a name comes twice in one object"),
        ("[" * 100_000, "maximum recursion depth exceeded"),
        ("\xff", "codec can't decode"),
    ],
)
def test_wrong_files(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"^source: expected JSON in .*, got none \(.*{reason}"):
        from_rtneural(path)


def test_what_is_no_object(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text("[]")
    rejected(ValueError, f"source: expected a JSON object in {path}, got list", from_rtneural, path)
    rejected(TypeError, "source: expected a path, got int", from_rtneural, 3)


def test_what_rtneural_does_not_have(tmp_path: Path) -> None:
    for layer, message in [
        (fr.RNN(I, H), "LSTM or GRU, which RTNeural has"),
        (fr.LSTM(I, H, peephole=True), "no peepholes, which RTNeural has not"),
        (fr.LSTM(I, H, coupled=True), "no coupled gates, which RTNeural has not"),
        (fr.LSTM(I, H, proj_size=2), "no projection (proj_size=0), which RTNeural has not"),
        (fr.LSTM(I, H, bidirectional=True), "one direction, which RTNeural has"),
        (fr.GRU(I, H, reset_after=False), "reset_after=True, which RTNeural has"),
    ]:
        rejected(ValueError, f"layer: expected {message}, got {layer!r}", to_rtneural, layer)
    layer = layer_of("gru")
    layer.parameters()["weight_hh_l0"][0, 0] = np.nan
    rejected(
        ValueError,
        "layer, l0: expected finite numbers, as JSON has no others, got others",
        *(to_rtneural, layer, tmp_path / "model.json"),
    )
    assert not list(tmp_path.iterdir())
    assert B == 3
