"""Weights from and to Keras 3, on its backend of JAX."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from convert_support import (
    B,
    H,
    I,
    T,
    blocks,
    close,
    layer_of,
    rejected,
    same_layer,
    sequence,
)
from fusedrnn.convert import from_keras, to_keras

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras")

# Keras' own get_weights(), of a variable of JAX.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("rnn", {}),
    ("rnn", {"nonlinearity": "relu"}),
    ("rnn", {"nonlinearity": "sigmoid"}),
    ("rnn", {"nonlinearity": "identity"}),
    ("gru", {}),
    ("gru", {"reset_after": False}),
    ("lstm", {}),
]
variants = pytest.mark.parametrize(("cell", "options"), VARIANTS)
biases = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
KINDS = {"rnn": keras.layers.SimpleRNN, "gru": keras.layers.GRU, "lstm": keras.layers.LSTM}
ACTIVATIONS = {"tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "identity": "linear"}


@pytest.fixture(autouse=True)
def _no_initial_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would be compiled anew for each shape, to be overwritten."""
    for kind in (keras.initializers.Orthogonal, keras.initializers.GlorotUniform):
        monkeypatch.setattr(
            kind, "__call__", lambda _self, shape, dtype=None: keras.ops.zeros(shape, dtype)
        )


def keras_layer(cell: str, *, units: int = H, built: bool = True, **options: Any) -> Any:
    """Of random weights, biases too."""
    nonlinearity = options.pop("nonlinearity", None)
    if nonlinearity:
        options["activation"] = ACTIVATIONS[nonlinearity]
    layer = KINDS[cell](units, return_sequences=True, **options)
    layer.unroll = True  # a loop of JAX is compiled anew for each layer
    return randomised(layer) if built else layer


def randomised(layer: Any, input_size: int = I) -> Any:
    layer.build((None, None, input_size))
    rng = np.random.default_rng(4)
    layer.set_weights(
        [rng.uniform(-0.5, 0.5, w.shape).astype(w.dtype) for w in layer.get_weights()]
    )
    return layer


def unrolled(model: Any) -> Any:
    for layer in model.layers:
        for each in (
            layer,
            *(getattr(layer, f"{d}_layer", layer) for d in ("forward", "backward")),
        ):
            each.unroll = True
    return model


def check_same_function(theirs: Any, layer: Any) -> None:
    assert layer.batch_first
    x = sequence(layer)
    close(layer(x)[0], keras.ops.convert_to_numpy(theirs(x)))


@variants
@biases
def test_a_layer(cell: str, options: dict[str, Any], bias: bool) -> None:
    theirs = keras_layer(cell, use_bias=bias, **options)
    layer = from_keras(theirs)
    assert repr(layer) == repr(layer_of(cell, bias=bias, batch_first=True, **options))
    check_same_function(theirs, layer)


@variants
@biases
def test_both_directions(cell: str, options: dict[str, Any], bias: bool) -> None:
    inner = keras_layer(cell, use_bias=bias, built=False, **options)
    theirs = randomised(keras.layers.Bidirectional(inner))
    layer = from_keras(theirs)
    assert layer.bidirectional
    check_same_function(theirs, layer)


@variants
def test_a_layer_that_goes_backwards(cell: str, options: dict[str, Any]) -> None:
    theirs = keras_layer(cell, go_backwards=True, **options)
    layer = from_keras(theirs, go_backwards=True)
    x = sequence(layer)
    expected = keras.ops.convert_to_numpy(theirs(x))
    close(layer(x[:, ::-1])[0], expected)
    back = unrolled(to_keras(layer, go_backwards=True))
    close(keras.ops.convert_to_numpy(back(x)), expected)
    assert back.layers[0].go_backwards


@pytest.mark.parametrize(
    ("cell", "options", "shape"),
    [(*variant, {}) for variant in VARIANTS]
    + [
        ("lstm", {}, {"bidirectional": True, "bias": False}),
        ("gru", {}, {"num_layers": 2, "bidirectional": True}),
        ("gru", {"reset_after": False}, {"num_layers": 2}),
    ],
)
def test_to_keras_and_back(cell: str, options: dict[str, Any], shape: dict[str, Any]) -> None:
    layer = layer_of(cell, batch_first=True, **options, **shape)
    model = unrolled(to_keras(layer))
    assert len(model.layers) == layer.num_layers
    check_same_function(model, layer)
    back = from_keras(model)
    assert repr(back) == repr(layer)
    check_same_function(model, back)
    summed = {
        name: array + layer.state_dict()[name.replace("_ih", "_hh")]
        for name, array in layer.state_dict().items()
        if name.startswith("bias_ih")
    }
    for name, array in back.state_dict().items():
        if (cell == "gru" and layer.reset_after) or "bias" not in name:
            np.testing.assert_array_equal(array, layer.state_dict()[name])
        else:  # Keras has one bias
            np.testing.assert_array_equal(array, summed.get(name, 0 * array))


def test_final_states() -> None:
    layer = layer_of("lstm", batch_first=True)
    theirs = keras.layers.LSTM(H, return_state=True)
    theirs.build((None, None, I))
    theirs.set_weights(to_keras(layer).get_weights())
    x = sequence(layer)
    _, h, c = theirs(x)
    _, (h_n, c_n) = layer(x)
    close(h_n[0], h)
    close(c_n[0], c)


# Keras' sources: kernels [.., G*H] in these orders.
ORDERS = {"rnn": "h", "gru": "zrn", "lstm": "ifgo"}


@pytest.mark.parametrize("cell", ORDERS)
def test_gates(cell: str) -> None:
    layer = layer_of(cell)
    own = layer.state_dict()
    kernel, recurrent, bias = to_keras(layer).get_weights()
    for k, gate in enumerate(ORDERS[cell]):
        at = slice(k * H, (k + 1) * H)
        np.testing.assert_array_equal(kernel[:, at].T, blocks(cell, own["weight_ih_l0"])[gate])
        np.testing.assert_array_equal(recurrent[:, at].T, blocks(cell, own["weight_hh_l0"])[gate])
        b_ih, b_hh = (blocks(cell, own[f"bias_{s}_l0"])[gate] for s in ("ih", "hh"))
        if cell == "gru":
            np.testing.assert_array_equal(bias[:, at], np.stack([b_ih, b_hh]))
        else:
            np.testing.assert_array_equal(bias[at], b_ih + b_hh)


@variants
@biases
@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
def test_lists_of_weights(cell: str, options: dict[str, Any], bias: bool, both: bool) -> None:
    theirs: Any = keras_layer(cell, use_bias=bias, built=False, **options)
    theirs = randomised(keras.layers.Bidirectional(theirs) if both else theirs)
    given = dict(options)
    if bias:
        given.pop("reset_after", None)
    elif cell == "gru":
        given.setdefault("reset_after", True)
    same_layer(from_keras(theirs.get_weights(), cell=cell, **given), from_keras(theirs))


def test_a_stack_and_a_wrapped_cell() -> None:
    cell = keras.layers.GRUCell(H)
    layers = [randomised(keras.layers.RNN(cell, return_sequences=True, unroll=True))]
    layers.append(randomised(keras.layers.GRU(H, dropout=0.5, unroll=True), H))
    layer = from_keras(layers)
    assert repr(layer) == f"GRU({I}, {H}, num_layers=2, batch_first=True)"
    x = sequence(layer)
    y, _ = layer(x)
    close(y[:, -1], keras.ops.convert_to_numpy(layers[1](layers[0](x))))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dtypes(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # float64 JAX has in a mode of its own.
    monkeypatch.undo()  # not all initial values there are exist in 16 bits
    layer = layer_of("gru", dtype=dtype, batch_first=True)
    same_layer(from_keras(to_keras(layer)), layer)


def test_one_rounding_of_a_summed_bias() -> None:
    layer = layer_of("lstm", dtype="bfloat16")
    own = {name: value.astype(np.float32) for name, value in layer.state_dict().items()}
    *_, bias = to_keras(layer).get_weights()
    expected = own["bias_ih_l0"] + own["bias_hh_l0"]
    np.testing.assert_array_equal(bias, expected.astype(bias.dtype))


# Errors


def test_layers_with_what_ours_do_not_have() -> None:
    sequential = keras.Sequential(
        [keras.Input((None, I)), keras.layers.LSTM(H), keras.layers.Dense(2)]
    )
    forth, back = (keras_layer("gru", go_backwards=b) for b in (False, True))
    kinds = "LSTM, GRU, SimpleRNN, RNN around one of their cells, or Bidirectional"
    for source, error, message in [
        (
            keras_layer("lstm", activation="relu"),
            ValueError,
            "source: expected the activation 'tanh', got 'relu'",
        ),
        (
            keras_layer("gru", recurrent_activation="hard_sigmoid"),
            ValueError,
            "source: expected the recurrent_activation 'sigmoid', got 'hard_sigmoid'",
        ),
        (
            keras_layer("rnn", activation="elu"),
            ValueError,
            "source: expected the activation 'tanh' or 'relu' or 'sigmoid' or 'linear', got 'elu'",
        ),
        (
            keras_layer("lstm", built=False),
            ValueError,
            "source: expected a layer that is built, got one without weights",
        ),
        (back, ValueError, "source: expected go_backwards=False, as is said, got True"),
        (
            randomised(
                keras.layers.Bidirectional(keras_layer("gru", built=False), merge_mode="sum")
            ),
            ValueError,
            "source: expected merge_mode 'concat', got 'sum'",
        ),
        (keras.layers.Dense(3), TypeError, f"source: expected {kinds}, got Dense"),
        (sequential, TypeError, f"source[1]: expected {kinds}, got Dense"),
        (
            [randomised(keras.layers.GRU(H)), randomised(keras.layers.GRU(H), H)],
            ValueError,
            "source[0]: expected return_sequences=True below another layer, got False",
        ),
        (
            [forth, keras_layer("lstm")],
            ValueError,
            "source[1]: expected cell gru (reset_after=True), got lstm (peephole=False)",
        ),
        ([forth, forth], ValueError, f"source[1]: expected input size {H}, got {I}"),
        (
            [forth, randomised(keras.layers.Bidirectional(keras_layer("gru", built=False)), H)],
            ValueError,
            "source: expected layers of one direction, or all of two, got GRU, Bidirectional",
        ),
        (
            fr.LSTM(I, H),
            TypeError,
            "source: expected a recurrent layer of Keras 3, a keras.Sequential or a list, got LSTM",
        ),
        (
            3,
            TypeError,
            "source: expected a recurrent layer of Keras 3, a keras.Sequential or a list, got int",
        ),
    ]:
        rejected(error, message, from_keras, source)
    rejected(
        ValueError,
        "source: expected go_backwards=True, as is said, got False",
        *(from_keras, forth),
        go_backwards=True,
    )
    rejected(
        ValueError,
        "cell: expected None for a Keras layer, got 'gru'",
        from_keras,
        forth,
        cell="gru",
    )
    both = randomised(keras.layers.Bidirectional(keras_layer("gru", built=False)))
    rejected(
        ValueError,
        "go_backwards: expected False for two directions, got True",
        *(from_keras, both),
        go_backwards=True,
    )


def test_wrong_lists_of_weights() -> None:
    lstm, gru = keras_layer("lstm").get_weights(), keras_layer("gru").get_weights()
    for source, given, error, message in [
        (
            lstm,
            {},
            ValueError,
            "cell: expected 'rnn', 'gru' or 'lstm' with a list of arrays, got None",
        ),
        (
            lstm,
            {"cell": "indrnn"},
            ValueError,
            "cell: expected 'rnn', 'gru' or 'lstm', got 'indrnn'",
        ),
        (
            [],
            {"cell": "lstm"},
            ValueError,
            "source: expected 2 or 3 arrays, or 4 or 6 of two directions, got 0",
        ),
        (
            lstm,
            {"cell": "gru"},
            ValueError,
            f"source, kernel: expected shape (*, {3 * H}), got ({I}, {4 * H})",
        ),
        (
            [lstm[0], lstm[1], lstm[2][:-1]],
            {"cell": "lstm"},
            ValueError,
            f"source, bias: expected shape ({4 * H},), got ({4 * H - 1},)",
        ),
        (
            [*gru, *gru[:2], gru[2][0]],
            {"cell": "gru"},
            ValueError,
            f"source[3:6], bias: expected shape (2, {3 * H}), got ({3 * H},)",
        ),
        (
            lstm[:2] * 2 + [1],
            {"cell": "lstm"},
            ValueError,
            "source: expected 2 or 3 arrays, or 4 or 6 of two directions, got 5",
        ),
        (
            gru[:2],
            {"cell": "gru"},
            ValueError,
            "reset_after: expected a bool for a GRU without bias, got None",
        ),
        (
            gru,
            {"cell": "gru", "reset_after": False},
            ValueError,
            "reset_after: expected True, as the bias of the GRU shows, got False",
        ),
        (
            gru,
            {"cell": "gru", "nonlinearity": "relu"},
            ValueError,
            "nonlinearity: expected None for the gru, got 'relu'",
        ),
        (
            lstm,
            {"cell": "lstm", "reset_after": True},
            ValueError,
            "reset_after: expected None for the lstm, got True",
        ),
    ]:
        rejected(error, message, from_keras, source, **given)


def test_what_keras_does_not_have() -> None:
    for layer, message in [
        (fr.IndRNN(I, H), "RNN, GRU or LSTM, which Keras has"),
        (fr.LSTM(I, H, peephole=True), "no peepholes, which Keras has not"),
        (fr.LSTM(I, H, coupled=True), "no coupled gates, which Keras has not"),
        (fr.LSTM(I, H, proj_size=2), "no projection (proj_size=0), which Keras has not"),
    ]:
        rejected(ValueError, f"layer: expected {message}, got {layer!r}", to_keras, layer)
    layer = fr.GRU(I, H, 2)
    rejected(
        ValueError,
        f"go_backwards: expected False but for one layer of one direction, got {layer!r}",
        *(to_keras, layer),
        go_backwards=True,
    )
    assert (B, T) == (3, 5)
