"""Dropout between layers: its masks, its gradients, its state."""

from __future__ import annotations

import copy
import os
import pickle
import re
import warnings
from typing import Any

import ml_dtypes  # noqa: F401  # NumPy knows the name "bfloat16" from here on
import numpy as np
import pytest

import fusedrnn as fr
from reference.dropout import dropped, kept, philox
from support import ALL_LAYERS, BOUND, LAYERS, Arguments, Host, check, place, same_bits

cells = pytest.mark.parametrize("cell", list(LAYERS))
all_cells = pytest.mark.parametrize("cell", list(ALL_LAYERS))
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])

T, B, I, H, L = 7, 3, 5, 11, 3  # noqa: E741
RATE = 0.375


pytestmark = pytest.mark.usefixtures("keeps_threads")


def inside(layer: Any) -> Any:
    """The layer itself, where `place` gave one that takes NumPy arrays to a device."""
    return getattr(layer, "layer", layer)


def layer_of(cell: str, num_layers: int = L, hidden: int = H, **options: Any) -> Any:
    options = {"dropout": RATE, "dtype": "float64", "seed": 3} | options
    return place().layer(cell, I, hidden, num_layers, **options)


def call_of(
    cell: str,
    dtype: str = "float64",
    directions: int = 1,
    *,
    hidden: int = H,
    unbatched: bool = False,
) -> Arguments:
    """x, dy and the state, with its gradient, of a stack of L layers."""
    rng = np.random.default_rng(0)
    batches = () if unbatched else (B,)

    def draw(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(dtype)

    def state() -> Any:
        parts = [draw(L * directions, *batches, hidden) for _ in ("hc" if cell == "lstm" else "h")]
        return tuple(parts) if len(parts) > 1 else parts[0]

    return {
        "x": draw(T, *batches, I),
        "dy": draw(T, *batches, directions * hidden),
        "state": state(),
        "dstate": state(),
    }


def rows_of(state: Any, begin: int, end: int) -> Any:
    return tuple(s[begin:end] for s in state) if isinstance(state, tuple) else state[begin:end]


def joined(states: list[Any]) -> Any:
    if isinstance(states[0], tuple):
        return tuple(map(np.concatenate, zip(*states, strict=True)))
    return np.concatenate(states)


def by_single_layers(
    layer: Any, call: Arguments, drop: tuple[float, int, int], dtype: str, **masks: Any
) -> tuple[Any, Any, Arguments]:
    """y, the state and the gradients of a stack, layer by layer, the masks by NumPy."""
    cell = type(inside(layer)).__name__.lower()
    directions = 2 if inside(layer).bidirectional else 1
    parameters, hidden = layer.state_dict(), inside(layer).hidden_size
    rate, seed, step = drop
    unbatched = call["x"].ndim == 2

    def masked(values: Any, row: int) -> Any:
        whole = values[:, None] if unbatched else values
        whole = dropped(whole, rate, seed, row, step, dtype).astype(dtype)
        return whole[:, 0] if unbatched else whole

    below, singles, tapes, states, width = call["x"], [], [], [], I
    for k in range(L):
        single = place().layer(
            cell, width, hidden, 1, bidirectional=directions == 2, dtype=dtype, seed=0
        )
        own = {
            name.replace(f"_l{k}", "_l0"): value
            for name, value in parameters.items()
            if re.search(rf"_l{k}(_|$)", name)
        }
        single.load_state_dict(own)
        state = rows_of(call["state"], k * directions, (k + 1) * directions)
        y, state_n, tape = single.forward(below, state, **masks)
        singles.append(single)
        tapes.append(tape)
        states.append(state_n)
        below, width = masked(y, k + 1) if k + 1 < L else y, directions * hidden

    above, found, first = call["dy"], {}, []
    for k in reversed(range(L)):
        dstate = rows_of(call["dstate"], k * directions, (k + 1) * directions)
        grads = singles[k].backward(tapes[k], above, dstate)
        above = grads.pop("x")
        if k:
            above = masked(above, k)
        letters = [name for name in ("h0", "c0") if name in grads]
        first.append({name: grads.pop(name) for name in letters})
        found |= {name.replace("_l0", f"_l{k}"): value for name, value in grads.items()}
    initial = {name: np.concatenate([one[name] for one in reversed(first)]) for name in first[0]}
    return below, joined(states), {"x": above, **initial, **found}


def alike(got: Arguments, expected: Arguments) -> None:
    """The same bits; on a device up to what a product by another kernel may differ in."""
    if next(iter(expected.values())).dtype.name in BOUND or isinstance(place(), Host):
        place().check_alike(got, expected)
    else:
        results = ({k: v.astype("float64") for k, v in r.items()} for r in (got, expected))
        check(*results, 0.02)


def flat(state: Any) -> dict[str, Any]:
    return {str(i): s for i, s in enumerate(state if isinstance(state, tuple) else (state,))}


# --- the random numbers ---


def test_philox_known_answers() -> None:
    """Those that are published with the generator (Random123's kat_vectors)."""
    for key, counter, expected in (
        ((0, 0), (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0xFFFFFFFF,) * 4,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ):
        assert tuple(map(int, philox(key, counter))) == expected


def test_masks_are_random() -> None:
    """The share of what is kept, and that rows, steps, sequences and units differ."""
    draws = [kept(0.3, seed, row, (40, 20, 50)) for seed in (1, 2) for row in (1, 2)]
    for mask in draws:
        assert abs(mask.mean() - 0.7) < 0.01
        for axis in range(3):
            assert abs(np.mean(mask == np.roll(mask, 1, axis)) - 0.58) < 0.02
    for i, mask in enumerate(draws):
        assert all(abs(np.mean(mask == other) - 0.58) < 0.02 for other in draws[:i])


# --- against single layers ---


@cells
@dtypes
@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "both"])
def test_single_layers(cell: str, dtype: str, bidirectional: bool) -> None:
    """To the bit: what single layers compute, with NumPy's masks between them."""
    layer = layer_of(cell, dtype=dtype, bidirectional=bidirectional)
    call = call_of(cell, dtype, 2 if bidirectional else 1)
    for number in range(2):
        seed, calls = inside(layer).dropout_state
        assert calls == number
        y, state, tape = layer.forward(call["x"], call["state"])
        grads = layer.backward(tape, call["dy"], call["dstate"])
        expected = by_single_layers(layer, call, (RATE, (seed + number) % 2**64, 0), dtype)
        alike({"y": y}, {"y": expected[0]})
        alike(flat(state), flat(expected[1]))
        assert grads.keys() == expected[2].keys()
        alike(grads, expected[2])


@cells
@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "both"])
def test_masks_of_steps(cell: str, bidirectional: bool) -> None:
    """Lengths, holes and resets; what a step that does not exist holds stays zero."""
    layer = layer_of(cell, bidirectional=bidirectional)
    call = call_of(cell, directions=2 if bidirectional else 1)
    rng = np.random.default_rng(1)
    masks = {
        "lengths": np.array([T, 0, 4]),
        "mask": rng.random((T, B)) < 0.8,
        "resets": rng.random((T, B)) < 0.2,
    }
    seed, _ = inside(layer).dropout_state
    y, state, tape = layer.forward(call["x"], call["state"], **masks)
    grads = layer.backward(tape, call["dy"], call["dstate"])
    expected = by_single_layers(layer, call, (RATE, seed, 0), "float64", **masks)
    alike({"y": y}, {"y": expected[0]})
    alike(flat(state), flat(expected[1]))
    alike(grads, expected[2])


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("hidden", [1, 127, 128, 129, 259])
def test_widths(hidden: int, dtype: str) -> None:
    """Rows that are drawn in one piece, in several, and with a rest."""
    layer = layer_of("rnn", hidden=hidden, dtype=dtype)
    call = call_of("rnn", dtype, hidden=hidden)
    seed, _ = inside(layer).dropout_state
    y, _, tape = layer.forward(call["x"], call["state"])
    grads = layer.backward(tape, call["dy"], call["dstate"])
    expected = by_single_layers(layer, call, (RATE, seed, 0), dtype)
    alike({"y": y}, {"y": expected[0]})
    alike(grads, expected[2])


@cells
def test_unbatched(cell: str) -> None:
    layer, call = layer_of(cell), call_of(cell, unbatched=True)
    seed, _ = inside(layer).dropout_state
    y, _, tape = layer.forward(call["x"], call["state"])
    grads = layer.backward(tape, call["dy"], call["dstate"])
    expected = by_single_layers(layer, call, (RATE, seed, 0), "float64")
    alike({"y": y}, {"y": expected[0]})
    alike(grads, expected[2])


@all_cells
def test_every_layer_has_it(cell: str) -> None:
    """Elements of the middle row are gone, by a last layer that shows what it reads."""
    layer = ALL_LAYERS[cell](I, H, 2, dropout=RATE, dtype="float64", seed=0)
    assert layer.dropout == RATE
    assert repr(layer).endswith(f"({I}, {H}, num_layers=2, dropout={RATE}, dtype='float64')")
    with pytest.raises(AttributeError, match="dropout"):
        layer.dropout = 0.1
    x = np.random.default_rng(0).standard_normal((T, B, I))
    seed, _ = layer.dropout_state
    y, _, tape = layer.forward(x)
    assert tape.core.dropout == (RATE, seed, 0)
    assert not np.array_equal(y, layer(x)[0])
    # A step of the loss along the gradient, by differences through the same masks.
    dy = np.random.default_rng(1).standard_normal(y.shape)
    grads = layer.backward(tape, dy)
    direction = np.random.default_rng(2).standard_normal(x.shape)
    sums = []
    for sign in (-1, 1):
        layer.dropout_state = (seed, 0)
        sums.append(np.sum(dy * layer.forward(x + sign * 1e-6 * direction)[0]))
    assert np.isclose((sums[1] - sums[0]) / 2e-6, np.sum(grads["x"] * direction), rtol=1e-6)


def test_batch_first_drops_the_same() -> None:
    one, other = layer_of("gru"), layer_of("gru", batch_first=True)
    call = call_of("gru")
    y, _, tape = one.forward(call["x"])
    y_b, _, tape_b = other.forward(np.ascontiguousarray(call["x"].swapaxes(0, 1)))
    same_bits({"y": y_b.swapaxes(0, 1)}, {"y": y})
    grads, grads_b = one.backward(tape), other.backward(tape_b)
    same_bits({"w": grads_b["weight_ih_l0"]}, {"w": grads["weight_ih_l0"]})


@pytest.mark.parametrize(
    "rate", [5e-324, 1e-300, 2.0**-33, 2.0**-32, 0.5, 1 - 2.0**-32, 1 - 2.0**-53]
)
def test_extreme_rates(rate: float) -> None:
    """From a rate that drops nothing but a zero to one that drops everything."""
    layer, call = layer_of("rnn", dropout=rate), call_of("rnn")
    seed, _ = inside(layer).dropout_state
    y, _, tape = layer.forward(call["x"], call["state"])
    expected = by_single_layers(layer, call, (rate, seed, 0), "float64")
    alike({"y": y}, {"y": expected[0]})
    grads = layer.backward(tape, call["dy"], call["dstate"])
    alike(grads, expected[2])


def test_what_is_dropped_is_zero_whatever_it_was() -> None:
    layer = layer_of("rnn", 2)
    parameters = layer.state_dict()
    parameters["bias_ih_l0"][2] = np.nan
    layer.load_state_dict(parameters)
    seed, _ = inside(layer).dropout_state
    y, _, _ = layer.forward(np.ones((1, 40, I)))
    expected = kept(RATE, seed, 1, (1, 40, H))[0, :, 2]
    assert 0 < expected.sum() < 40
    assert np.array_equal(np.isnan(y[0]), np.repeat(expected[:, None], H, axis=1))


def test_empty() -> None:
    layer = layer_of("lstm")
    for shape in ((0, B, I), (T, 0, I)):
        y, _, tape = layer.forward(np.zeros(shape))
        assert y.shape == (*shape[:2], H)
        assert layer.backward(tape)["x"].shape == shape


# --- threads ---


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_threads_give_the_same_bits(dtype: str) -> None:
    """Rows large enough that their elements are shared out among threads, too."""
    x = np.random.default_rng(0).standard_normal((64, 9, 5)).astype(dtype)
    results = []
    for threads in (1, 2, 3):
        fr.set_num_threads(threads)
        layer = fr.GRU(5, 258, 2, dropout=0.5, dtype=dtype, seed=0)
        y, _, tape = layer.forward(x)
        results.append({"y": y, **layer.backward(tape, np.ones_like(y))})
    for other in results[1:]:
        same_bits(other, results[0])


def test_calls_at_the_same_time_draw_apart() -> None:
    """Each call of many threads takes a number of its own."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    layer = layer_of("rnn", 2)
    x = np.ones((2, 1, I))
    with ThreadPoolExecutor(4) as pool:
        tapes = list(pool.map(lambda _: layer.forward(x)[2], range(64)))
    seed, calls = layer.dropout_state
    assert calls == 64
    wanted = {(seed + k) % 2**64 for k in range(64)}
    assert {tape.core.dropout[1] for tape in tapes} == wanted


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_can_draw() -> None:
    """Although another thread held the lock as it was born."""
    from fusedrnn.layers.dropout import Draws  # noqa: PLC0415

    layer = layer_of("rnn", 2)
    with Draws._lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        child = os.fork()
        if child == 0:
            os._exit(0 if layer.dropout_state[1] == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0


# --- training and inference ---


@cells
def test_inference_drops_nothing(cell: str) -> None:
    layer, plain = layer_of(cell), layer_of(cell, dropout=0.0)
    x, state = (call_of(cell)[name] for name in ("x", "state"))
    expected, _, _ = plain.forward(x, state)
    assert inside(layer).training
    same_bits({"y": layer(x, state)[0]}, {"y": expected})
    assert not np.array_equal(layer.forward(x, state)[0], expected)
    steps = []
    for x_t in x:
        y_t, state = layer.step(x_t, state)
        steps.append(y_t)
    alike({"y": np.stack(steps)}, {"y": expected})
    assert inside(layer).dropout_state[1] == 1
    assert inside(plain).dropout_state[1] == 0


@cells
def test_train_and_eval(cell: str) -> None:
    layer, plain = layer_of(cell), layer_of(cell, dropout=0.0)
    x = call_of(cell)["x"]
    expected = plain.forward(x)[0]
    own = inside(layer)
    assert own.eval() is own
    assert own.training is False
    y, _, tape = layer.forward(x)
    same_bits({"y": y}, {"y": expected})
    same_bits(layer.backward(tape, y), plain.backward(plain.forward(x)[2], y))
    assert own.train() is own
    assert own.training is True
    assert not np.array_equal(layer.forward(x)[0], expected)
    assert own.train(mode=False).training is False
    with pytest.raises(TypeError, match=r"^mode: expected a bool, got int$"):
        own.train(1)
    assert own.training is False
    with pytest.raises(AttributeError):
        own.training = True


def test_a_frozen_layer_drops_nothing() -> None:
    layer = fr.LSTM(I, H, L, dropout=RATE, dtype="float64", seed=3)
    x = call_of("lstm")["x"]
    frozen = layer.freeze()
    assert repr(frozen) == f"{layer!r}.freeze()"
    same_bits({"y": frozen(x)[0]}, {"y": layer(x)[0]})
    assert layer.dropout_state[1] == 0


def test_tapes_drop_as_their_own_calls() -> None:
    """In whatever order, as often as wanted, and whatever the layer does in between."""
    layer, call = layer_of("lstm"), call_of("lstm")
    runs = [layer.forward(call["x"]) for _ in range(3)]
    ys = [y for y, _, _ in runs]
    assert not any(np.array_equal(ys[i], ys[j]) for i in range(3) for j in range(i))
    grads = [layer.backward(tape, call["dy"]) for _, _, tape in runs]
    inside(layer).eval()
    inside(layer).dropout_state = (1, 2)
    for (_, _, tape), expected in reversed(list(zip(runs, grads, strict=True))):
        same_bits(layer.backward(tape, call["dy"]), expected)


# --- its state ---


def train(layer: Any, steps: int) -> list[Any]:
    """Descend a few times; the outputs on the way."""
    call, ys = call_of("gru"), []
    for _ in range(steps):
        y, _, tape = layer.forward(call["x"])
        grads = layer.backward(tape, y - call["dy"])
        parameters = layer.parameters()
        for name in parameters:
            parameters[name] -= 0.1 * grads[name]
        ys.append(y)
    return ys


def test_resumed_training_is_uninterrupted_training() -> None:
    """By a layer of another seed with weights and dropout state; by a pickle; by a copy."""
    whole = train(layer_of("gru"), 6)
    layer = layer_of("gru")
    same_bits({"y": np.stack(train(layer, 3))}, {"y": np.stack(whole[:3])})
    other = layer_of("gru", seed=99)
    assert other.dropout_state != layer.dropout_state
    other.load_state_dict(layer.state_dict())
    other.dropout_state = layer.dropout_state
    assert not set(layer.state_dict()) - set(layer.parameters())
    for resumed in (other, pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), layer):
        same_bits({"y": np.stack(train(resumed, 3))}, {"y": np.stack(whole[3:])})


def test_copies_keep_their_mode() -> None:
    layer = layer_of("gru")
    layer.eval()
    for twin in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), copy.copy(layer)):
        assert twin.training is False
        twin.train()
        assert layer.training is False


def test_seeds() -> None:
    """One for each seed of a layer, or of its own; the weights are as without dropout."""
    states = {fr.GRU(2, 3, 2, dropout=0.5, seed=seed).dropout_state for seed in (0, 1, None, None)}
    assert len(states) == 4
    assert all(0 <= seed < 2**64 and calls == 0 for seed, calls in states)
    with_dropout, plain = (fr.GRU(2, 3, 2, dropout=p, seed=7) for p in (0.5, 0.0))
    same_bits(with_dropout.state_dict(), plain.state_dict())
    assert with_dropout.dropout_state == plain.dropout_state


def test_the_seed_of_a_call_wraps() -> None:
    layer = layer_of("rnn")
    inside(layer).dropout_state = [2**64 - 1, 1]
    assert inside(layer).dropout_state == (2**64 - 1, 1)
    assert layer.forward(call_of("rnn")["x"])[2].core.dropout == (RATE, 0, 0)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (7, TypeError, "dropout_state: expected a pair (seed, calls), got int"),
        ((1,), ValueError, "dropout_state: expected a pair (seed, calls), got 1 values"),
        ((1.0, 2), TypeError, "dropout_state[0]: expected an int, got float"),
        ((-1, 2), ValueError, "dropout_state[0]: expected at least 0, got -1"),
        (
            (2**64, 2),
            ValueError,
            "dropout_state[0]: expected less than 2**64, got 18446744073709551616",
        ),
        ((1, True), TypeError, "dropout_state[1]: expected an int, got bool"),
        ((1, -2), ValueError, "dropout_state[1]: expected at least 0, got -2"),
    ],
)
def test_wrong_states(value: Any, error: type[Exception], message: str) -> None:
    layer = layer_of("rnn")
    before = layer.dropout_state
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        layer.dropout_state = value
    assert layer.dropout_state == before
