"""Noise inside layers that are trained: by the oracle, and what it must not depend on."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import ml_dtypes  # noqa: F401  # NumPy knows the name "bfloat16" from here on
import numpy as np
import pytest

import fusedrnn as fr
import oracle
from fusedrnn import _core
from fusedrnn.runs import Run
from reference.dropout import philox
from support import BOUND, LAYERS, Arguments, Host, check, place, same_bits

T, B, I, H, L = 6, 3, 3, 5, 2  # noqa: E741
# Cells by the options of their layers; the oracle's are the same but for what PyTorch names.
CELLS: dict[str, tuple[str, Arguments]] = {
    "rnn": ("rnn", {}),
    "gru": ("gru", {}),
    "gru-reset-before": ("gru", {"reset_after": False}),
    "lstm": ("lstm", {}),
    "lstm-peephole": ("lstm", {"peephole": True}),
    "lstm-coupled": ("lstm", {"coupled": True}),
    "lstm-projection": ("lstm", {"proj_size": 3}),
    "lstm-constants": ("lstm", {"clip": 0.8, "cell_clip": 0.9, "peephole": True}),
    "lstm-layer-norm": ("lstm", {"layer_norm": True}),
    "gru-layer-norm": ("gru", {"layer_norm": True}),
    "gru-constants": ("gru", {"activations": ("hard_sigmoid", "softsign")}),
}
NOISES: dict[str, Arguments] = {
    "weights": {"weight_dropout": 0.3},
    "zoneout": {"zoneout": 0.4},
    "candidate": {"recurrent_dropout": 0.35, "recurrent_dropout_mode": "candidate"},
    "state": {"recurrent_dropout": 0.35},
}
CASES = [
    (cell, noise)
    for cell in CELLS
    for noise in NOISES
    if noise != "candidate" or (cell != "rnn" and not cell.endswith("layer-norm"))
]
LAYERS_ONLY = ("peephole", "proj_size", "layer_norm")  # of options: what weights say to the oracle
EVERY: Arguments = {"weight_dropout": 0.3, "zoneout": 0.4, "recurrent_dropout": 0.2}

cells = pytest.mark.parametrize("cell", list(CELLS))
noises = pytest.mark.parametrize("noise", list(NOISES))
cases = pytest.mark.parametrize(("cell", "noise"), CASES)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])


pytestmark = pytest.mark.usefixtures("keeps_threads")


def inside(layer: Any) -> Any:
    """The layer itself, where `place` gave one that takes NumPy arrays to a device."""
    return getattr(layer, "layer", layer)


def layer_of(cell: str, **options: Any) -> Any:
    name, own = CELLS[cell]
    return place().layer(name, I, H, L, **{"dtype": "float64", "seed": 3} | own | options)


def call_of(layer: Any, *, hard: bool = True, steps: int = T, batch: int = B) -> Arguments:
    """x, the masks, the state and upstream gradients of all results, in the layer's dtype."""
    rng = np.random.default_rng(0)
    own = inside(layer)
    runs = L * (2 if own.bidirectional else 1)
    size = getattr(own, "proj_size", 0) or H
    sizes = (size, H)[: len(own._states)]

    def draw(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(own.dtype)

    def state() -> Any:
        parts = tuple(draw(runs, batch, n) for n in sizes)
        return parts if len(parts) > 1 else parts[0]

    call: Arguments = {
        "x": draw(steps, batch, I),
        "state": state(),
        "dy": draw(steps, batch, size * runs // L),
        "dstate": state(),
    }
    if hard:
        call["lengths"] = np.arange(steps, steps - batch, -1)
        call["resets"] = rng.random((steps, batch)) < 1 / 3
        parts = tuple(draw(runs, n) for n in sizes)
        call["reset_state"] = parts if len(parts) > 1 else parts[0]
    return call


def run(layer: Any, call: Arguments) -> tuple[Arguments, Arguments, Any]:
    """Results and gradients by name, and the tape."""
    masks = {name: call[name] for name in ("lengths", "resets", "reset_state") if name in call}
    y, state, tape = layer.forward(call["x"], call["state"], **masks)
    grads = layer.backward(tape, call["dy"], call["dstate"])
    return {"y": y, **named(state, "{}_n")}, grads, tape


def named(state: Any, form: str) -> Arguments:
    parts = state if isinstance(state, tuple) else (state,)
    return {form.format(s): part for s, part in zip("hc", parts, strict=False)}


def expected(
    cell: str, layer: Any, call: Arguments, noise: oracle.Noise
) -> tuple[Arguments, Arguments]:
    """What the oracle says of the same call."""
    name, own = CELLS[cell]
    name += "_layer_norm" if "layer_norm" in own else ""
    options = {key: value for key, value in own.items() if key not in LAYERS_ONLY}
    masks = {key: call[key] for key in ("lengths", "resets") if key in call}
    arguments = {
        **named(wide(call["state"]), "{}0"),
        **(named(wide(call["reset_state"]), "reset_{}") if "reset_state" in call else {}),
        **masks,
        **options,
        "noise": noise,
    }
    parameters = {key: wide(value) for key, value in layer.state_dict().items()}
    x, dy = wide(call["x"]), wide(call["dy"])
    results = oracle.stack(name, x, parameters, **arguments)
    grads = oracle.stack_gradients(
        name, x, parameters, **arguments, dy=dy, **named(wide(call["dstate"]), "d{}_n")
    )
    return as_arrays(results), as_arrays(grads)


def wide(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(wide, value))
    return np.asarray(value).astype("float64")


def as_arrays(results: Arguments) -> Arguments:
    return {name: np.array(value) for name, value in results.items()}


def noise_of(layer: Any, rates: Arguments, **changed: Any) -> oracle.Noise:
    seed, calls = inside(layer).dropout_state
    if rates.get("recurrent_dropout_mode") == "candidate":
        rates = {"candidate_dropout": rates["recurrent_dropout"]}
    return oracle.Noise(**{"seed": (seed + calls) % 2**64} | rates | changed)


def close(got: Arguments, wanted: Arguments, dtype: str, times: float = 1) -> None:
    check({k: wide(v) for k, v in got.items()}, wanted, times * BOUND.get(dtype, 0.05))


# --- against the oracle ---


def test_the_oracle_draws_what_numpy_draws() -> None:
    key, counter = (0xA4093822, 0x299F31D0), (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    numbers = oracle.philox(key, counter)
    assert numbers == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)
    assert numbers == tuple(map(int, philox(key, counter)))


@cases
@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "both"])
def test_against_the_oracle(cell: str, noise: str, bidirectional: bool) -> None:
    """Results and every gradient, with lengths, resets and reset states; call after call."""
    rates = NOISES[noise]
    layer = layer_of(cell, bidirectional=bidirectional, **rates)
    call = call_of(layer)
    for _ in range(2):
        wanted = expected(cell, layer, call, noise_of(layer, rates))
        got, grads, _ = run(layer, call)
        close(got, wanted[0], "float64")
        close(grads, wanted[1], "float64")


@cases
@dtypes
def test_dtypes(cell: str, noise: str, dtype: str) -> None:
    rates = NOISES[noise]
    layer = layer_of(cell, dtype=dtype, **rates)
    call = call_of(layer, hard=False)
    wanted = expected(cell, layer, call, noise_of(layer, rates))
    got, grads, _ = run(layer, call)
    close(got, wanted[0], dtype)
    # Norms of few units that lie close together: one rounding of x and the parameters to float32
    # moves these gradients by up to 6e-6.
    close(grads, wanted[1], dtype, 8 if cell.endswith("layer-norm") else 1)


@pytest.mark.parametrize("rates", [(0.2, 0.6), (0.0, 0.5), (0.5, 0.0), (1.0, 0.0), (0.25, 1.0)])
@pytest.mark.parametrize("cell", ["lstm", "lstm-peephole", "lstm-projection"])
def test_zoneout_of_each_state(cell: str, rates: tuple[float, float]) -> None:
    layer = layer_of(cell, zoneout=rates)
    call = call_of(layer)
    wanted = expected(cell, layer, call, noise_of(layer, {"zoneout": rates}))
    got, grads, _ = run(layer, call)
    close(got, wanted[0], "float64")
    close(grads, wanted[1], "float64")


@pytest.mark.parametrize("training", [True, False])
def test_a_state_that_stays_lets_nothing_through(training: bool) -> None:
    """With a zoneout of 1 not even a NaN."""
    layer = layer_of("lstm", zoneout=1.0)
    inside(layer).train(training)
    call = call_of(layer, hard=False)
    call["x"][2] = np.nan
    got, _, _ = run(layer, call)
    assert np.array_equal(got["y"][-1], call["state"][0][-1])
    same_bits({"c": got["c_n"]}, {"c": call["state"][1]})


def test_masks_are_random() -> None:
    """Shares of what is drawn, and that masks of all kinds, runs, steps and units differ."""
    noise = oracle.Noise(seed=7)
    masks = [
        np.array([[noise.of_run(r)._hits(0.3, kind, t, b, 64) for b in range(8)] for t in range(8)])
        for kind in range(1, 8)
        for r in (0, 1)
    ]
    for i, mask in enumerate(masks):
        assert abs(mask.mean() - 0.3) < 0.03
        for axis in range(3):
            assert abs(np.mean(mask == np.roll(mask, 1, axis)) - 0.58) < 0.05
        assert all(abs(np.mean(mask == other) - 0.58) < 0.05 for other in masks[:i])


@noises
def test_rounded_operands(noise: str) -> None:
    rates = NOISES[noise]
    layer = layer_of("lstm", dtype="float32", compute_dtype="bfloat16", **rates)
    call = call_of(layer)
    wanted = expected("lstm", layer, call, noise_of(layer, rates))
    got, grads, _ = run(layer, call)
    close(got, wanted[0], "bfloat16")
    close(grads, wanted[1], "bfloat16")


# --- training and inference ---


@cases
def test_inference(cell: str, noise: str) -> None:
    """What is expected of the noise, in plain calls, after `eval`, in frozen layers and steps."""
    rates = NOISES[noise]
    layer = layer_of(cell, **rates)
    call = call_of(layer, hard=False)
    wanted = expected(cell, layer, call, noise_of(layer, rates, training=False))
    y, state = layer(call["x"], call["state"])
    close({"y": y, **named(state, "{}_n")}, wanted[0], "float64")
    drawn, _, _ = run(layer, call)
    assert not np.allclose(drawn["y"], y)
    inside(layer).eval()
    got, grads, _ = run(layer, call)
    same_bits({"y": got["y"]}, {"y": y})
    close(grads, wanted[1], "float64")
    state, steps = call["state"], []
    for x_t in call["x"]:
        y_t, state = layer.step(x_t, state)
        steps.append(y_t)
    close({"y": np.stack(steps)}, {"y": wanted[0]["y"]}, "float64")
    assert inside(layer).dropout_state[1] == 1


@cases
def test_frozen(cell: str, noise: str) -> None:
    layer = layer_of(cell, dtype="float32", **NOISES[noise])
    call = call_of(layer, hard=False)
    y = layer(call["x"], call["state"])[0]
    for weight_dtype, bound in ((None, 0.0), ("bfloat16", 0.03), ("int8", 0.05)):
        frozen = layer.freeze(weight_dtype)
        got = frozen(call["x"], call["state"])[0]
        check({"y": got}, {"y": y}, bound)
        state, steps = call["state"], []
        for x_t in call["x"]:
            y_t, state = frozen.step(x_t, state)
            steps.append(y_t)
        same_bits({"y": np.stack(steps)}, {"y": got})


# --- what the draws do not depend on ---


@cases
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_threads_give_the_same_bits(cell: str, noise: str, dtype: str) -> None:
    name, options = CELLS[cell]
    x = np.random.default_rng(0).standard_normal((9, 9, 5)).astype(dtype)
    results = []
    for threads in (1, 2, 3):
        fr.set_num_threads(threads)
        layer = LAYERS[name](5, 70, 2, dtype=dtype, seed=0, **options, **NOISES[noise])
        y, _, tape = layer.forward(x)
        results.append({"y": y, **layer.backward(tape, np.ones_like(y))})
    for other in results[1:]:
        same_bits(other, results[0])


@noises
def test_a_batch_draws_for_each_sequence(noise: str) -> None:
    """The first sequences of a batch draw what they draw without the others."""
    layer = layer_of("gru", **NOISES[noise])
    state = inside(layer).dropout_state
    call = call_of(layer, hard=False)
    y = layer.forward(call["x"])[0]
    inside(layer).dropout_state = state
    same_bits({"y": layer.forward(call["x"][:, :2].copy())[0]}, {"y": y[:, :2]})


@cases
def test_tbptt(cell: str, noise: str) -> None:
    """In one chunk full backpropagation, to the bit; in more what one call draws."""
    layer = layer_of(cell, **NOISES[noise])
    state = inside(layer).dropout_state
    x = call_of(layer, hard=False)["x"]
    y, _, tape = layer.forward(x)
    grads = layer.backward(tape, np.ones_like(y))
    for k in (T, 2):
        inside(layer).dropout_state = state
        chunks = list(fr.tbptt(layer, x, k1=k, k2=T))
        same_bits({"y": np.concatenate([chunk.y for chunk in chunks])}, {"y": y})
        got = chunks[-1].backward(np.ones_like(chunks[-1].y))
        if k == T:
            same_bits(got, grads)
        assert inside(layer).dropout_state[1] == 1


# --- with lean memory, and over dual numbers ---


@cases
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_lean_memory(cell: str, noise: str, dtype: str) -> None:
    """The bits of the default."""
    rates = NOISES[noise]
    got, expected = (
        run(layer, call_of(layer, steps=40, batch=3))[:2]
        for layer in (
            layer_of(cell, dtype=dtype, memory=memory, **rates) for memory in ("lean", "default")
        )
    )
    for a, b in zip(got, expected, strict=True):
        if dtype in BOUND or isinstance(place(), Host):
            place().check_alike(a, b)
        else:
            close(a, {key: wide(value) for key, value in b.items()}, dtype)


@cases
def test_second_derivatives(cell: str, noise: str) -> None:
    """Through the masks of the tape's call, by differences of gradients through the same."""
    layer = inside(layer_of(cell, **NOISES[noise]))
    call = call_of(layer, hard=False)
    for training in (True, False):
        layer.train(training)
        state = layer.dropout_state
        direction = np.random.default_rng(1).standard_normal(call["x"].shape)

        def grads(x: Any, state: Any = state) -> Any:
            layer.dropout_state = state
            return run(layer, call | {"x": x})[1]

        layer.dropout_state = state
        _, _, tape = layer.forward(call["x"], call["state"])
        second = layer.double_backward(tape, {"x": direction}, call["dy"], call["dstate"])
        step = 1e-5
        above, below = (grads(call["x"] + sign * step * direction) for sign in (1, -1))
        for name, value in above.items():
            wanted = (value - below[name]) / (2 * step)
            assert np.linalg.norm(second[name] - wanted) <= 1e-5 * (1 + np.linalg.norm(wanted)), (
                name
            )


# --- its state ---


def train(layer: Any, steps: int) -> list[Any]:
    """Descend a few times; the outputs on the way."""
    call, ys = call_of(layer), []
    for _ in range(steps):
        got, grads, _ = run(layer, call)
        parameters = layer.parameters()
        for name in parameters:
            parameters[name] -= 0.1 * grads[name]
        ys.append(got["y"])
    return ys


@noises
def test_resumed_training_is_uninterrupted_training(noise: str) -> None:
    whole = train(layer_of("lstm", **NOISES[noise]), 6)
    layer = layer_of("lstm", **NOISES[noise])
    same_bits({"y": np.stack(train(layer, 3))}, {"y": np.stack(whole[:3])})
    other = layer_of("lstm", seed=99, **NOISES[noise])
    other.load_state_dict(layer.state_dict())
    other.dropout_state = layer.dropout_state
    for resumed in (other, pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), layer):
        same_bits({"y": np.stack(train(resumed, 3))}, {"y": np.stack(whole[3:])})


def test_tapes_draw_as_their_own_calls() -> None:
    layer = layer_of("gru", dropout=0.2, **EVERY)
    call = call_of(layer)
    runs = [run(layer, call) for _ in range(3)]
    assert not np.array_equal(runs[0][0]["y"], runs[1][0]["y"])
    for _, grads, tape in reversed(runs):
        same_bits(layer.backward(tape, call["dy"], call["dstate"]), grads)


# --- the options ---


@pytest.mark.parametrize("cell", list(LAYERS))
def test_options_are_kept_and_shown(cell: str) -> None:
    layer = LAYERS[cell](I, H, **EVERY, seed=0)
    for twin in (layer, pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), copy.copy(layer)):
        for name, value in EVERY.items():
            assert getattr(twin, name) == value
            assert f"{name}={value!r}" in repr(twin)
    with pytest.raises(AttributeError, match="weight_dropout"):
        layer.weight_dropout = 0.1
    plain = LAYERS[cell](I, H, seed=0)
    assert repr(plain) == f"{type(plain).__name__}({I}, {H})"
    same_bits(layer.state_dict(), plain.state_dict())


@pytest.mark.parametrize("cell", list(LAYERS))
@pytest.mark.parametrize("name", ["weight_dropout", "recurrent_dropout"])
def test_wrong_rates(cell: str, name: str) -> None:
    for bad in (-0.1, 1, 2, float("nan"), float("inf")):
        message = f"{name}: expected a finite number of at least 0 and below 1, got {bad}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            LAYERS[cell](2, 3, **{name: bad})
    for wrong in ("0.5", None, True, [0.5]):
        with pytest.raises(TypeError, match=rf"^{name}: expected a number, got "):
            LAYERS[cell](2, 3, **{name: wrong})


@pytest.mark.parametrize("cell", list(LAYERS))
def test_wrong_zoneout(cell: str) -> None:
    for bad in (-0.1, 1.5, float("nan"), float("inf")):
        message = f"zoneout: expected a finite number of at least 0 and at most 1, got {bad}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            LAYERS[cell](2, 3, zoneout=bad)
    for wrong in ("0.5", None, True):
        with pytest.raises(TypeError, match=r"^zoneout: expected a number, got "):
            LAYERS[cell](2, 3, zoneout=wrong)


def test_wrong_modes() -> None:
    for layer, wanted in ((fr.RNN, "'state'"), (fr.GRU, "'state' or 'candidate'")):
        message = f"recurrent_dropout_mode: expected {wanted}, got 'units'"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            layer(2, 3, recurrent_dropout_mode="units")  # type: ignore[arg-type]
    message = "recurrent_dropout_mode: expected 'state', got 'candidate'"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fr.RNN(2, 3, recurrent_dropout_mode="candidate")  # type: ignore[arg-type]


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_candidate_that_is_dropped_leaves_the_state(cell: str) -> None:
    """Infinite candidates, of activations that have them, are zero there."""
    acts = ("sigmoid", "identity") if cell == "gru" else ("sigmoid", "identity", "tanh")
    rates = NOISES["candidate"]
    layer = LAYERS[cell](2, 5, dtype="float64", seed=0, activations=acts, **rates)
    rows = slice(10, 15)  # n, and g
    layer.parameters()["bias_ih_l0"][rows] = np.inf
    seed, _ = layer.dropout_state
    _, state, _ = layer.forward(np.ones((1, 3, 2)))
    last = state if cell == "gru" else state[1]
    noise = oracle.Noise(seed=seed, candidate_dropout=rates["recurrent_dropout"])
    for b in range(3):
        mask = noise.of_step(0, b, (oracle.zeros(5),))["candidate_mask"]
        assert np.array_equal(last[0, b] == 0, np.array(list(mask)) == 0)


def test_wrong_pairs_of_zoneout() -> None:
    with pytest.raises(TypeError, match=r"^zoneout: expected a number, got tuple$"):
        fr.GRU(2, 3, zoneout=(0.5, 0.5))  # type: ignore[arg-type]
    message = "zoneout: expected a pair (h, c), got 1 values"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fr.LSTM(2, 3, zoneout=(0.5,))  # type: ignore[arg-type]
    message = "zoneout[1]: expected a finite number of at least 0 and at most 1, got 2"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fr.LSTM(2, 3, zoneout=(0.5, 2))
    layer = fr.LSTM(2, 3, zoneout=(0.5, 0), seed=0)
    assert layer.zoneout == (0.5, 0.0)
    assert repr(layer) == "LSTM(2, 3, zoneout=(0.5, 0.0))"


# --- below the layers ---

# The compiled module's numbers of a run's noise.
KINDS = ("weight_dropout", "zoneout_h", "zoneout_c", "candidate_dropout", "recurrent_dropout")


def network_of(*noise: float, cell: str = "gru") -> Any:
    noise = tuple(map(float, noise)) + (0.0,) * (len(KINDS) - len(noise))
    return _core.Network(Run(cell, False, 0, 1, 0, 0, 2, 3, 0, 1, (), noise).record(), "float64")


def test_a_kept_reserve_knows_what_was_drawn() -> None:
    network, x = network_of(0.5), np.ones((4, 2, 2))
    weights = (np.ones((9, 2)), np.ones((9, 3)), None, None)
    tape = network.forward(x, weights, save=True, dropout=(0.0, 11, 3))[3]
    again = _core.Tape(network, x, weights, None, tape.reserve, (0.0, 11, 3))
    again.backward(np.ones((4, 2, 3)), None, None, False)
    for drop, message in (
        (None, "training: expected 1, that of the forward call, got 0"),
        ((0.0, 12, 3), "dropout_seed: expected 11, that of the forward call, got 12"),
        ((0.0, 11, 0), "dropout_step: expected 3, that of the forward call, got 0"),
    ):
        wrong = _core.Tape(network, x, weights, None, tape.reserve, drop)
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            wrong.backward(None, None, None, False)
    for other in (
        network_of(0.25),
        network_of(),
        network_of(0.5, 0.5),
        network_of(0.5, 0, 0, 0, 0.1),
    ):
        wrong = _core.Tape(other, x, weights, None, tape.reserve, (0.0, 11, 3))
        wanted = "what a forward call of this network|[0-9]+ bytes, for this network"
        with pytest.raises(ValueError, match=f"^reserve: expected ({wanted})"):
            wrong.backward(None, None, None, False)


@pytest.mark.parametrize(
    ("noise", "cell", "message"),
    [
        ((1.0,), "gru", "weight_dropout: expected at least 0 and below 1, got 1"),
        ((-0.5,), "gru", "weight_dropout: expected at least 0 and below 1, got -0.5"),
        ((float("nan"),), "gru", "weight_dropout: expected at least 0 and below 1, got nan"),
        (
            (0.5,),
            "indrnn_relu",
            "weight_dropout: expected 0 (indrnn_relu has no matrix w_hh), got 0.5",
        ),
        (
            (0.5,),
            "mingru_linear",
            "weight_dropout: expected 0 (mingru_linear has no matrix w_hh), got 0.5",
        ),
        ((0, 1.5), "gru", "zoneout_h: expected at least 0 and at most 1, got 1.5"),
        ((0, 0, -0.5), "lstm", "zoneout_c: expected at least 0 and at most 1, got -0.5"),
        ((0, 0, float("nan")), "lstm", "zoneout_c: expected at least 0 and at most 1, got nan"),
        ((0, 0, 0.5), "gru", "zoneout_c: expected 0 (gru has no state but h), got 0.5"),
        ((0, 0, 0, 1), "gru_general", "candidate_dropout: expected at least 0 and below 1, got 1"),
        (
            (0, 0, 0, 0.5),
            "gru",
            "candidate_dropout: expected 0 (gru has no candidate to drop), got 0.5",
        ),
        (
            (0, 0, 0, 0.5),
            "rnn_general",
            "candidate_dropout: expected 0 (rnn_general has no candidate to drop), got 0.5",
        ),
        ((0, 0, 0, 0, -1), "gru", "recurrent_dropout: expected at least 0 and below 1, got -1"),
        (
            (0, 0, 0, 0, 0.5),
            "mingru_linear",
            "recurrent_dropout: expected 0 (mingru_linear has no matrix w_hh), got 0.5",
        ),
        ((0,) * 9, "gru", "pack expected 32 items for packing (got 36)"),
    ],
)
def test_wrong_noise(noise: Any, cell: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"{re.escape(message)}$"):
        network_of(*noise, cell=cell)


def test_dropped_weights_are_zero_whatever_they_were() -> None:
    """A NaN among the weights that are dropped reaches nothing."""
    network, x = network_of(0.5), np.ones((2, 1, 2))
    ones = np.ones((9, 3))
    noise = oracle.Noise(seed=5, weight_dropout=0.5)
    gone = np.array(noise.weights(ones.tolist())) == 0
    assert 0 < gone.sum() < gone.size
    y = network.forward(x, (np.ones((9, 2)), ones, None, None), dropout=(0.0, 5, 0))[0]
    broken = np.where(gone, np.nan, ones)
    again = network.forward(x, (np.ones((9, 2)), broken, None, None), dropout=(0.0, 5, 0))[0]
    same_bits({"y": again}, {"y": y})
