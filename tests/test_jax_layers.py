"""fusedrnn.jax's layers: against fusedrnn's, with noise, their first values, errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fusedrnn as fr
import fusedrnn.jax as fj
from jax_support import B, H, I, T, close, jax_of_tests, random

LAYERS: list[tuple[str, dict[str, Any]]] = [
    ("RNN", {"nonlinearity": "relu", "bias": False}),
    ("GRU", {"reset_after": False, "bidirectional": True}),
    ("GRU", {"layer_norm": True, "memory": "lean"}),
    ("LSTM", {"bidirectional": True, "batch_first": True}),
    ("LSTM", {"proj_size": 2, "peephole": True, "bidirectional": True}),
    ("LSTM", {"coupled": True, "cell_clip": 0.3, "activations": ["sigmoid", "relu", "tanh"]}),
    ("LSTM", {"heads": 3, "init": "orthogonal", "forget_bias": 1.0}),
    ("IndRNN", {}),
    ("MinGRU", {"bidirectional": True}),
    ("MinLSTM", {}),
    ("SLSTM", {"heads": 2}),
    ("WorldModelGRU", {}),
]
NOISY: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {"dropout": 0.4, "bidirectional": True}),
    ("LSTM", {"zoneout": (0.2, 0.3), "weight_dropout": 0.5, "recurrent_dropout": 0.3}),
    ("GRU", {"recurrent_dropout": 0.3, "recurrent_dropout_mode": "candidate"}),
]
layers = pytest.mark.parametrize(("name", "options"), LAYERS)


@pytest.fixture(autouse=True)
def _jax() -> Iterator[None]:
    with jax_of_tests():
        yield


def pair(name: str, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """A layer of two here, fusedrnn's, and parameters of both."""
    layer = getattr(fj, name)(I, H, 2, dtype="float64", **options)
    plain = getattr(fr, name)(I, H, 2, dtype="float64", seed=4, **options)
    params = {key: np.asarray(value) for key, value in plain.parameters().items()}
    return layer, plain, params


def inputs(plain: Any, cells: bool) -> tuple[Any, dict[str, Any]]:
    """x and every option of a call that this layer has."""
    sizes, runs = plain._stack.network.state_sizes, plain._stack.num_runs
    state = tuple(random(i, runs, B, n) for i, n in enumerate(sizes))
    reset = tuple(random(9 + i, runs, n) for i, n in enumerate(sizes))
    axes = (B, T) if plain.batch_first else (T, B)
    options = {
        "state": state if len(sizes) > 1 else state[0],
        "reset_state": reset if len(sizes) > 1 else reset[0],
        "lengths": np.array([5, 0, 3]),
        "resets": np.random.default_rng(0).random(axes) < 0.3,
        "mask": np.random.default_rng(1).random(axes) < 0.8,
        "padding": "last",
    }
    return random(7, *axes, I), options | ({"return_cells": True} if cells else {})


@layers
def test_results_and_gradients_are_the_bits_of_fusedrnns_layer(
    name: str, options: dict[str, Any]
) -> None:
    layer, plain, params = pair(name, options)
    cells = len(plain._states) > 1
    x, given = inputs(plain, cells)
    y, state, *shown, tape = plain.forward(x, **given)
    upstream = jax.tree.map(lambda r: random(r.size, *r.shape), (y, state, *shown))
    gradients = plain.backward(
        tape, upstream[0], upstream[1], **({"dcells": _one(upstream[2:])} if cells else {})
    )

    @jax.jit
    def loss(params: Any, x: Any, state: Any) -> Any:
        found = layer.apply(params, x, **given | {"state": state})
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(upstream), strict=True)
        return sum((r * u).sum() for r, u in pairs), found

    found = jax.grad(loss, (0, 1, 2), has_aux=True)(params, x, given["state"])
    (dparams, dx, dstate), results = found
    close(results, (y, state, *shown), 0)
    close(dparams, {key: gradients[key] for key in params}, 0)
    close(dx, gradients["x"], 0)
    close(dstate, [gradients[f"{s}0"] for s in plain._states], 0)


def _one(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else values


def test_single_sequences() -> None:
    layer, plain, params = pair("LSTM", {"bidirectional": True, "batch_first": True})
    x, h, c = random(1, T, I), random(2, 4, H), random(3, 4, H)
    given = {"lengths": 3, "resets": np.arange(T) == 2, "return_cells": True}
    close(layer.apply(params, x, (h, c), **given), plain(x, (h, c), **given), 0)


@pytest.mark.parametrize(("name", "options"), NOISY)
def test_noise_is_drawn_by_a_key(name: str, options: dict[str, Any]) -> None:
    layer, plain, params = pair(name, options)
    x, key = random(1, T, B, I), jax.random.key(3)
    close(layer.apply(params, x), plain(x), 0)
    first, second = (int(word) for word in jax.random.bits(key, (2,), jnp.uint32))
    stack = plain._stack
    draws = (plain.dropout, first << 32 | second, 0)
    y, states, _, _ = stack.network.forward(x, stack.ordered(plain.parameters()), dropout=draws)
    found = jax.jit(lambda key: layer.apply(params, x, key=key))(key)
    close(found, (y, list(states)), 0)
    again = layer.apply(params, x, key=jax.random.key(5))
    assert np.abs(again[0] - found[0]).max() > 1e-3

    def loss(params: Any) -> Any:
        return (layer.apply(params, x, key=key)[0] ** 2).sum()

    # Both modes draw as the forward pass did.
    along = jax.tree.map(lambda p: random(p.size, *p.shape), params)
    slope = sum(
        jax.tree.leaves(jax.tree.map(lambda g, a: (g * a).sum(), jax.grad(loss)(params), along))
    )
    close(jax.jvp(loss, (params,), (along,))[1], slope, 1e-12)
    moved = [loss(jax.tree.map(lambda p, a, s=s: p + s * a, params, along)) for s in (-1e-6, 1e-6)]
    close((moved[1] - moved[0]) / 2e-6, slope, 1e-6)
    keys = jax.random.split(key, 2)
    drawn = jax.vmap(lambda key: layer.apply(params, x, key=key)[0])(keys)
    close(drawn[1], layer.apply(params, x, key=keys[1])[0], 0)
    same = jax.vmap(lambda x: layer.apply(params, x, key=key)[0])(np.stack([x, x]))
    close(same, jnp.stack([found[0]] * 2), 0)


@pytest.mark.parametrize(("name", "options"), [LAYERS[i] for i in (0, 2, 6, 7)])
def test_first_values_are_distributed_as_fusedrnns(name: str, options: dict[str, Any]) -> None:
    layer = getattr(fj, name)(24, 48, **options)
    plain = getattr(fr, name)(24, 48, seed=0, **options)
    params, values = jax.jit(layer.init)(jax.random.key(0)), plain.parameters()
    assert list(layer.shapes()) == list(values)
    assert set(params) == set(values)
    for key, value in params.items():
        expected = np.asarray(values[key])
        assert value.shape == expected.shape
        assert value.dtype == "float32"
        got = np.asarray(value)
        spread = 6 * expected.std() / expected.size**0.5 + 1e-6
        assert abs(got.std() - expected.std()) < spread
        assert abs(got.mean() - expected.mean()) < spread
        if options.get("init") != "orthogonal":
            assert abs(np.abs(got).max() - np.abs(expected).max()) < spread
        elif key.startswith("weight_hh"):
            block = got[:16]  # of a gate's head
            close(block @ block.T, np.eye(16), 1e-5)
    several = jax.eval_shape(jax.vmap(layer.init), jax.random.split(jax.random.key(0), 3))
    assert all(several[key].shape == (3, *value.shape) for key, value in params.items())


def test_descriptions_are_values() -> None:
    layer = fj.LSTM(I, H, 2, activations=["sigmoid", "tanh", "tanh"], bidirectional=True)
    same = fj.LSTM(I, H, num_layers=2, bidirectional=True, activations=["sigmoid", "tanh", "tanh"])
    assert layer == same
    assert hash(layer) == hash(same)
    assert layer != fj.LSTM(I, H)
    assert fj.GRU(I, H) != fj.MinGRU(I, H)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other == layer
        assert repr(other) == repr(fr.LSTM(I, H, 2, bidirectional=True))
    assert (layer.hidden_size, layer.bidirectional, layer.memory) == (H, True, "default")
    with pytest.raises(AttributeError, match="'LSTM' object has no attribute 'hidden'"):
        _ = layer.hidden
    assert layer.shapes()["weight_ih_l1_reverse"] == (4 * H, 2 * H)

    @jax.jit
    def run(layer: Any, params: Any, x: Any) -> Any:
        return layer.apply(params, x)[0]

    params, x = layer.init(jax.random.key(0)), random(1, T, B, I, dtype="float32")
    close(run(layer, params, x), layer.apply(params, x)[0], 0)


def test_weights_of_several_models() -> None:
    layer, _, params = pair("GRU", {})
    x = random(1, T, B, I)
    several = jax.tree.map(lambda p: jnp.stack([p, 0.5 * p]), params)
    found = jax.vmap(lambda p: layer.apply(p, x)[0])(several)
    close(found[1], layer.apply(jax.tree.map(lambda p: 0.5 * p, params), x)[0], 0)


def test_training_lowers_the_loss() -> None:
    layer = fj.GRU(I, 16, 2)
    params, x = layer.init(jax.random.key(0)), random(1, T, 8, I, dtype="float32")
    goal = np.cumsum(x, 0)[..., :1]

    def loss(params: Any) -> Any:
        return ((layer.apply(params, x)[0].mean(-1, keepdims=True) - goal) ** 2).mean()

    @jax.jit
    def step(params: Any, _: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, gradients), value

    _, losses = jax.lax.scan(step, params, None, 60)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"params": None}, TypeError, "params: expected a mapping, got NoneType"),
        ({"params": {}}, ValueError, "params: expected the parameters of LSTM(4, 6, dtype="),
        ({"x": np.zeros((T, B, 9))}, ValueError, f"x: expected shape {(T, B, I)}, got {(T, B, 9)}"),
        ({"x": np.zeros((T, B, I), "f4")}, TypeError, "weight_ih_l0: expected dtype float32 as x"),
        ({"state": np.zeros((1, B, H))}, TypeError, "state: expected a pair (h, c), got ndarray"),
        ({"state": (np.zeros((1, 2, H)), None)}, ValueError, "state[0]: expected shape (1, 3, 6)"),
        ({"reset_state": (None, np.zeros(H))}, ValueError, "reset_state[1]: expected shape (1, 6)"),
        ({"lengths": [1, 2, 3.5]}, TypeError, "lengths: expected an integer dtype"),
        ({"mask": np.zeros((B, T), bool)}, ValueError, "mask: expected shape (5, 3), got (3, 5)"),
        ({"padding": None}, TypeError, "padding: expected"),
        ({"return_cells": 1}, TypeError, "return_cells: expected"),
    ],
)
def test_errors_of_calls(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    layer = fj.LSTM(I, H, dtype="float64")
    given = {"params": layer.init(jax.random.key(0)), "x": random(1, T, B, I)} | changed
    with pytest.raises(error) as caught:
        jax.eval_shape(lambda: layer.apply(**given))
    assert str(caught.value).startswith(message)


def test_no_sequences_with_lengths() -> None:
    layer = fj.GRU(I, H)
    y, state = layer.apply(layer.init(jax.random.key(0)), np.zeros((T, 0, I), "f4"), lengths=[])
    assert (y.shape, state.shape) == ((T, 0, H), (1, 0, H))


def test_other_errors() -> None:
    layer = fj.LSTM(I, H)
    params = layer.init(jax.random.key(0)) | {"weight_hh_l0": jnp.zeros((1, 1))}
    with pytest.raises(ValueError, match=r"weight_hh_l0: expected shape \(24, 6\), got \(1, 1\)"):
        layer.apply(params, random(1, T, B, I, dtype="float32"))
    with pytest.raises(TypeError, match="device: expected an option of LSTM, got another"):
        fj.LSTM(I, H, device="cpu")
    with pytest.raises(TypeError, match="hiden: expected an option"):
        fj.LSTM(I, H, hiden=3)
    with pytest.raises(ValueError, match="hidden_size: expected at least 1, got 0"):
        fj.LSTM(I, 0)
    with pytest.raises(ValueError, match=r"return_cells: expected False for GRU\(4, 6\)"):
        fj.GRU(I, H).apply({}, None, return_cells=True)
    jax.config.update("jax_enable_x64", False)
    gru, x = fj.GRU(I, H), random(1, T, B, I, dtype="float32")
    params = gru.init(jax.random.key(0))
    # Cut to 32 bits it would be 1.
    too_large = r"lengths: expected values from 0 to T = 5, got 2147483647"
    with pytest.raises((ValueError, RuntimeError), match=too_large):
        jax.block_until_ready(gru.apply(params, x, lengths=np.array([2**32 + 1, 1, 1])))
    with pytest.raises(ValueError, match=r"^lengths: .* out of bounds for int32"):
        gru.apply(params, x, lengths=[2**32 + 1, 1, 1])
    with pytest.raises(ValueError, match="dtype: expected jax_enable_x64 for 'float64', got none"):
        fj.GRU(I, H, dtype="float64").init(jax.random.key(0))
