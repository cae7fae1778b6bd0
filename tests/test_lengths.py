"""Batches with lengths do the work of the steps that exist, and give the bits of dense calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn.bf16 import cast
from support import same_bits

# A cell's layer, and what makes its walk another one.
LAYERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rnn": (fr.RNN, {}),
    "gru": (fr.GRU, {}),
    "gru-reset-before": (fr.GRU, {"reset_after": False}),
    "gru-normed": (fr.GRU, {"layer_norm": True}),
    "lstm": (fr.LSTM, {}),
    "lstm-projected": (fr.LSTM, {"proj_size": 5}),
    "lstm-normed": (fr.LSTM, {"layer_norm": True}),
    "lstm-heads": (fr.LSTM, {"heads": 2}),
    "indrnn": (fr.IndRNN, {}),
    "mingru": (fr.MinGRU, {}),
    "slstm": (fr.SLSTM, {}),
    "lstm-mixed": (fr.LSTM, {"compute_dtype": "bfloat16"}),
    "gru-mixed": (fr.GRU, {"compute_dtype": "bfloat16"}),
}
MIXED = ["lstm-mixed", "gru-mixed"]  # their arrays are float32
layers = pytest.mark.parametrize("name", [name for name in LAYERS if name not in MIXED])
memories = pytest.mark.parametrize("memory", ["default", "lean"])

# By steps and sequences; orders that sorting, sharing out and chunks meet.
ORDERS: dict[str, Callable[[int, int], NDArray[np.int64]]] = {
    "any": lambda steps, batch: np.random.default_rng(1).integers(0, steps + 1, batch),
    "rising": lambda steps, batch: np.arange(batch) * steps // batch,
    "falling": lambda steps, batch: steps - np.arange(batch) * steps // batch,
    "one long": lambda steps, batch: np.where(np.arange(batch) == batch // 2, steps, 2),
    "half": lambda steps, batch: np.full(batch, steps // 2),
    "none": lambda steps, batch: np.zeros(batch, np.int64),
    "whole": lambda steps, batch: np.full(batch, steps),
}
orders = pytest.mark.parametrize("order", ORDERS)


pytestmark = pytest.mark.usefixtures("keeps_threads")


def layer_of(name: str, size: int, hidden: int, *, num_layers: int = 1, **options: Any) -> Any:
    kind, own = LAYERS[name]
    return kind(size, hidden, num_layers, seed=0, **own | options)


def normal(dtype: str, *shape: int, seed: int = 0) -> Any:
    return cast(np.random.default_rng(seed).standard_normal(shape).astype("float32"), dtype)


def states_of(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


def train(layer: Any, x: Any, dy: Any, dstate: Any = None, **masks: Any) -> dict[str, Any]:
    """Outputs and all gradients by name."""
    y, state, tape = layer.forward(x, **masks)
    ends = {f"state {i}": s for i, s in enumerate(states_of(state))}
    return {"y": y, **ends, **layer.backward(tape, dy, dstate)}


@layers
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sequence_has_the_bits_of_a_dense_call(name: str, dtype: str) -> None:
    """In both directions; what lies in the padding is not read, and results there are zero."""
    steps, batch = 11, 9
    layer = layer_of(name, 3, 14, bidirectional=True, dtype=dtype)
    x, lengths = normal(dtype, steps, batch, 3), ORDERS["any"](steps, batch)
    lengths[:3] = 0, 1, steps
    y, state = layer(x)
    dy, dstate = np.ones_like(y), tuple(np.ones_like(s) for s in states_of(state))
    upstream = (dy, dstate if len(dstate) > 1 else dstate[0])
    padded = np.arange(steps)[:, None] >= lengths
    x[padded] = dy[padded] = np.nan
    got = train(layer, x, *upstream, lengths=lengths)
    same_bits({"y": layer(x, lengths=lengths)[0]}, {"y": got["y"]})
    assert not got["y"][padded].any()
    assert not got["x"][padded].any()
    for b, length in enumerate(lengths):
        if length == 0:
            continue
        of_one = [s[:, b : b + 1].copy() for s in dstate]
        alone = train(
            layer,
            x[:length, b : b + 1],
            dy[:length, b : b + 1],
            tuple(of_one) if len(of_one) > 1 else of_one[0],
        )
        for key in {"y", "x", "h0", "c0"} & got.keys():
            part = got[key][:length, b : b + 1] if key in ("y", "x") else got[key][:, b : b + 1]
            same_bits({key: part}, {key: alone[key]})
        for i in range(len(dstate)):
            same_bits({"": got[f"state {i}"][:, b : b + 1]}, {"": alone[f"state {i}"]})


@memories
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (name, dtype)
        for name in LAYERS
        for dtype in ("float32", "float64", "bfloat16")
        if dtype == "float32" or name not in MIXED
    ],
)
def test_weights_have_the_gradients_of_a_dense_batch(name: str, memory: str, dtype: str) -> None:
    """Of one whose padding has no gradient: rows that are left out are rows of zeros."""
    for steps, batch, order in ((43, 17, "any"), (3, 300, "falling"), (90, 4, "one long")):
        layer = layer_of(name, 5, 18, dtype=dtype, memory=memory)
        lengths = ORDERS[order](steps, batch)
        x = normal(dtype, steps, batch, 5)
        dy = np.random.default_rng(2).standard_normal((steps, batch, layer(x)[0].shape[-1]), "f4")
        dy[np.arange(steps)[:, None] >= lengths] = 0
        got, dense = (
            train(layer, x, cast(dy, dtype), **masks) for masks in ({"lengths": lengths}, {})
        )
        kept = [key for key in got if key not in ("y", "x") and not key.startswith("state")]
        same_bits({key: got[key] for key in kept}, {key: dense[key] for key in kept})


@memories
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_no_sequence_reaches_the_last_steps(dtype: str, memory: str) -> None:
    """Of a reverse run they are the last to bring anything to the gradients of the weights."""
    steps, batch, end = 70, 16, 30
    layer = layer_of("gru", 5, 18, bidirectional=True, dtype=dtype, memory=memory)
    x, dy = normal(dtype, steps, batch, 5), normal(dtype, steps, batch, 36, seed=1)
    got = train(layer, x, dy, lengths=np.full(batch, end))
    dense = train(layer, x[:end], dy[:end])
    kept = [key for key in got if key not in ("y", "x")]
    same_bits({key: got[key] for key in kept}, {key: dense[key] for key in kept})


@pytest.mark.parametrize(
    ("name", "order"),
    [*((name, "any") for name in LAYERS), *(("lstm", order) for order in ORDERS if order != "any")],
)
def test_any_number_of_threads_and_either_memory(name: str, order: str) -> None:
    """A reserve is the same whatever the threads: those of its two passes may be different."""
    steps, batch = 130, 9
    x, lengths = normal("float32", steps, batch, 6), ORDERS[order](steps, batch)
    resets = np.random.default_rng(3).random((steps, batch)) < 0.05
    found = []
    for forward, backward, memory in ((1, 1, "default"), (3, 2, "default"), (2, 3, "lean")):
        layer = layer_of(name, 6, 34, num_layers=2, bidirectional=True, memory=memory)
        fr.set_num_threads(forward)
        y, state, tape = layer.forward(x, lengths=lengths, resets=resets)
        fr.set_num_threads(backward)
        ends = {f"state {i}": s for i, s in enumerate(states_of(state))}
        found.append({"y": y, **ends, **layer.backward(tape, np.ones_like(y))})
    same_bits(found[1], found[0])
    same_bits(found[2], found[0])


@pytest.mark.parametrize("name", ["gru", "lstm-projected", "lstm-normed", "slstm"])
@pytest.mark.parametrize("options", [{}, {"clip_dh": 0.01}, {"return_flow": True}])
@memories
def test_padding_that_shows_the_last_state(name: str, options: Any, memory: str) -> None:
    """Its gradients reach the state that stands still, or the one before a reverse run begins."""
    steps, batch = 17, 5
    layer = layer_of(name, 3, 10, bidirectional=True, dtype="float64", memory=memory)
    x, lengths = normal("float64", steps, batch, 3), np.array([17, 3, 0, 9, 16])
    y, _, tape = layer.forward(x, lengths=lengths, padding="last")
    size = y.shape[-1] // 2
    for b, length in enumerate(lengths):
        shown = y[length - 1, b, :size] if length else np.zeros(size)
        assert (y[length:, b, :size] == shown).all()
        assert not y[length:, b, size:].any()
    dy = normal("float64", *y.shape)
    results = layer.backward(tape, dy, **options)
    grads = results[0] if isinstance(results, tuple) else results
    if "clip_dh" in options:
        return
    # The same, with what the padding brings given to the states at its ends.
    padded = np.arange(steps)[:, None] >= lengths
    brought = np.where(padded[..., None], dy, 0).sum(0)
    dstate = np.stack([brought[:, :size], np.zeros_like(brought[:, size:])])
    others = tuple(np.zeros_like(s) for s in states_of(layer(x)[1])[1:])
    *_, tape = layer.forward(x, lengths=lengths)
    expected = layer.backward(tape, dy, (dstate, *others) if others else dstate)
    expected["h0"][1] += brought[:, size:]
    for key, value in expected.items():
        np.testing.assert_allclose(grads[key], value, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["gru", "lstm"])
@pytest.mark.parametrize(
    "options",
    [{"zoneout": 0.3}, {"recurrent_dropout": 0.3, "recurrent_dropout_mode": "candidate"}],
)
def test_noise_belongs_to_a_sequence_and_a_step(name: str, options: Any) -> None:
    steps, batch = 12, 7
    x, lengths = normal("float32", steps, batch, 3), ORDERS["rising"](steps, batch)
    results = []
    for masks in ({"lengths": lengths}, {}):
        layer = layer_of(name, 3, 10, **options)
        layer.train()
        results.append(layer.forward(x, **masks)[0])
    exists = np.arange(steps)[:, None] < lengths
    same_bits({"y": results[0][exists]}, {"y": results[1][exists]})


@orders
def test_gates_and_cells_of_every_step(order: str) -> None:
    steps, batch = 14, 6
    layer = fr.LSTM(3, 10, seed=0)
    x, lengths = normal("float32", steps, batch, 3), ORDERS[order](steps, batch)
    exists = np.arange(steps)[:, None] < lengths
    _, _, cells, gates = layer(x, lengths=lengths, return_cells=True, return_gates=True)
    _, _, whole_cells, whole_gates = layer(x, return_cells=True, return_gates=True)
    got, whole = {"c": cells, **gates}, {"c": whole_cells, **whole_gates}
    same_bits({k: v[exists] for k, v in got.items()}, {k: v[exists] for k, v in whole.items()})
    assert not any(values[~exists].any() for values in got.values())


@pytest.mark.parametrize("weight_dtype", [None, "bfloat16", "int8"])
@pytest.mark.parametrize("name", ["gru-reset-before", "lstm-projected"])
def test_frozen_weights(name: str, weight_dtype: Any) -> None:
    steps, batch = 9, 8
    frozen = layer_of(name, 6, 20).freeze(weight_dtype)
    x = normal("float32", steps, batch, 6)
    dense = frozen(x)[0]
    for order in ORDERS.values():
        lengths = order(steps, batch)
        y = frozen(x, lengths=lengths)[0]
        exists = np.arange(steps)[:, None] < lengths
        same_bits({"y": y[exists]}, {"y": dense[exists]})
        assert not y[~exists].any()
