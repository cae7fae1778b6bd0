"""Single sequences without an axis for a batch, as batches of one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from support import (
    LAYERS,
    Arguments,
    backward,
    directions,
    dtypes,
    forward,
    infer,
    problem_of,
    same_bits,
    variants,
)
from test_sequences import LETTERS, hard_problem, one_or_pair

OF_SEQUENCES = ("x", "mask", "resets", "dy", "dc", "y", "c", "dx")
OF_STATES = ("h0", "c0", "dh_n", "dc_n", "h_n", "c_n", "dh0", "dc0")


def without_batch(arrays: Arguments) -> Arguments:
    """The same arguments or results of the one sequence of a batch."""
    alone = dict(arrays)
    for name in arrays:
        if name in OF_SEQUENCES:
            alone[name] = np.ascontiguousarray(arrays[name][:, 0])
        elif name in OF_STATES:
            alone[name] = np.ascontiguousarray(arrays[name][0])
    if "lengths" in arrays:
        alone["lengths"] = int(arrays["lengths"][0])
    return alone


def one_sequence(cell: str, dtype: str = "float32", **shape: Any) -> tuple[Arguments, Arguments]:
    given, upstream = hard_problem(cell, dtype, **({"steps": 7, "batch": 1} | shape))
    given["lengths"] = np.array([5])
    return given, upstream


@variants
@dtypes
@directions
def test_functions(cell: str, options: Arguments, dtype: str, reverse: bool) -> None:
    given, upstream = one_sequence(cell, dtype, input_size=3, hidden_size=9)
    options = {"reverse": reverse, **options}
    if cell == "lstm":
        options["return_cells"] = True
    wanted, tape = forward(cell, **given, **options)
    wanted_grads = backward(cell, tape, **upstream)
    got, tape = forward(cell, **without_batch(given), **options)
    same_bits(got, without_batch(wanted))
    same_bits(infer(cell, **without_batch(given), **options), without_batch(wanted))
    grads = backward(cell, tape, **without_batch(upstream))
    same_bits(grads, without_batch(wanted_grads))


def test_lengths_of_every_kind() -> None:
    given, _ = one_sequence("gru")
    alone = without_batch(given)
    wanted = infer("gru", **alone)
    for lengths in (np.int64(5), np.array(5), np.array(5, "uint8")):
        same_bits(infer("gru", **(alone | {"lengths": lengths})), wanted)
    for steps in range(8):
        y, _ = fr.gru(**(alone | {"lengths": steps}))
        assert not y[steps:].any()
    as_bytes = {name: alone[name].astype("uint8") for name in ("mask", "resets")}
    same_bits(infer("gru", **(alone | as_bytes)), wanted)


def test_no_masks_and_no_states() -> None:
    given, _ = problem_of("lstm", "float32", batch=1, initial=False)
    alone = without_batch(given)
    same_bits(infer("lstm", **alone), without_batch(infer("lstm", **given)))
    _, state = fr.lstm(**alone)
    assert [part.shape for part in state] == [(3,), (3,)]


def test_strides() -> None:
    """Views that cannot be read as they lie."""
    given, _ = one_sequence("lstm", input_size=4)
    alone = without_batch(given)
    wanted = infer("lstm", **alone)
    x = np.asfortranarray(alone["x"])
    assert not x.flags.c_contiguous
    apart = np.zeros((2, 3), "float32", "F")
    apart[1] = alone["h0"]
    same_bits(infer("lstm", **(alone | {"x": x, "h0": apart[1]})), wanted)


def test_given_arrays_are_written() -> None:
    given, upstream = one_sequence("lstm")
    alone, above = without_batch(given), without_batch(upstream)
    y, state, c, tape = fr.lstm_forward(**alone, return_cells=True)
    out = (np.empty_like(y), tuple(map(np.empty_like, state)), np.empty_like(c))
    got = fr.lstm(**alone, return_cells=True, out=out)
    assert got[0] is out[0]
    assert np.array_equal(out[2], c)
    grads = fr.lstm_backward(tape, **above)
    mine = {name: np.empty_like(getattr(grads, name)) for name in ("dx", "dc0", "dreset_h")}
    again = fr.lstm_backward(tape, **above, out=mine)
    assert again.dx is mine["dx"]
    for name, array in mine.items():
        assert np.array_equal(array, getattr(grads, name))


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers(cell: str, batch_first: bool, bidirectional: bool) -> None:
    layer = LAYERS[cell](3, 5, 2, batch_first=batch_first, bidirectional=bidirectional, seed=0)
    random = np.random.default_rng(0)
    runs = 4 if bidirectional else 2
    x = random.standard_normal((6, 3)).astype("float32")
    letters = LETTERS[cell]
    state = [random.standard_normal((runs, 5)).astype("float32") for _ in letters]
    masks = {"mask": random.random(6) < 0.7, "resets": random.random(6) < 0.3}
    axis = 0 if batch_first else 1

    def batched(array: Any) -> Any:
        return np.expand_dims(array, axis)

    many = {name: batched(mask) for name, mask in masks.items()}
    shown = {"return_cells": True} if cell == "lstm" else {}
    *wanted, tape = layer.forward(
        batched(x), one_or_pair([s[:, None] for s in state]), [4], **many, **shown
    )
    *got, other = layer.forward(x, one_or_pair(state), 4, **masks, **shown)
    frozen = layer.freeze()(x, one_or_pair(state), 4, **masks, **shown)
    for results in (got, frozen, layer(x, one_or_pair(state), 4, **masks, **shown)):
        assert np.array_equal(batched(results[0]), wanted[0])
        pairs = zip(as_tuple(results[1]), as_tuple(wanted[1]), strict=True)
        assert all(np.array_equal(ours[:, None], theirs) for ours, theirs in pairs)
        if shown:
            assert np.array_equal(batched(results[2]), wanted[2])
    dy = random.standard_normal(got[0].shape).astype("float32")
    upstream = {"dcells": 2 * dy} if shown else {}
    grads = layer.backward(other, dy, one_or_pair(state), **upstream)
    expected = layer.backward(
        tape,
        batched(dy),
        one_or_pair([s[:, None] for s in state]),
        **{name: batched(value) for name, value in upstream.items()},
    )
    assert grads["x"].shape == (6, 3)
    for name, value in expected.items():
        ours = grads[name]
        if name == "x":
            ours = batched(ours)
        elif name in ("h0", "c0"):
            ours = ours[:, None]
        assert np.array_equal(ours, value), name
    if cell != "rnn":
        for name, gate in other.gates().items():
            assert gate.shape == (6, 5)
            assert np.array_equal(batched(gate), tape.gates()[name])


def as_tuple(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_steps(cell: str) -> None:
    layer = LAYERS[cell](3, 5, 2, seed=0)
    x = np.random.default_rng(0).standard_normal((6, 3)).astype("float32")
    y, last = layer(x)
    for stepped in (layer, layer.freeze()):
        state = None
        for t in range(6):
            y_t, state = stepped.step(x[t], state)
            assert y_t.shape == (5,)
            assert np.array_equal(y_t, y[t])
        for ours, theirs in zip(as_tuple(state), as_tuple(last), strict=True):
            assert np.array_equal(ours, theirs)
    out = (
        np.empty(5, "float32"),
        one_or_pair([np.empty((2, 5), "float32") for _ in as_tuple(last)]),
    )
    frozen = layer.freeze()
    frozen.step(x[0], out=out)
    assert np.array_equal(out[0], y[0])
    frozen.step(x[1], out[1], out=out)
    assert np.array_equal(out[0], y[1])


def test_other_libraries() -> None:
    torch = pytest.importorskip("torch")
    jax = pytest.importorskip("jax")
    given, upstream = one_sequence("lstm")
    alone, above = without_batch(given), without_batch(upstream)
    y, _, tape = fr.lstm_forward(**alone)
    dx = fr.lstm_backward(tape, **above).dx
    for of, kind in ((torch.tensor, torch.Tensor), (jax.numpy.asarray, jax.Array)):
        its = {name: of(value) if np.ndim(value) else value for name, value in alone.items()}
        got, _, tape = fr.lstm_forward(**its)
        assert isinstance(got, kind)
        assert np.array_equal(np.asarray(got), y)
        grads = fr.lstm_backward(tape, **{name: of(value) for name, value in above.items()})
        assert np.array_equal(np.asarray(grads.dx), dx)
        its["lengths"] = of(5)
        assert np.array_equal(np.asarray(fr.lstm(**its)[0]), y)


def test_truncated() -> None:
    layer = fr.LSTM(3, 5, seed=0)
    x = np.random.default_rng(0).standard_normal((7, 3)).astype("float32")
    mask = np.array([1, 1, 0, 1, 1, 1, 0], bool)
    ours = list(fr.tbptt(layer, x, k1=3, k2=5, mask=mask, lengths=6))
    theirs = list(fr.tbptt(layer, x[:, None], k1=3, k2=5, mask=mask[:, None], lengths=[6]))
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a.y[:, None], b.y)
        grads, expected = a.backward(a.y), b.backward(b.y)
        assert grads.keys() == expected.keys()
        assert np.array_equal(grads["weight_hh_l0"], expected["weight_hh_l0"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"h0": np.zeros((1, 3), "f4")}, r"h0: expected shape \(3,\), got \(1, 3\)"),
        ({"c0": np.zeros(4, "f4")}, r"c0: expected shape \(3,\), got \(4,\)"),
        ({"mask": np.zeros((7, 1), bool)}, r"mask: expected shape \(7,\), got \(7, 1\)"),
        ({"resets": np.zeros(6, bool)}, r"resets: expected shape \(7,\), got \(6,\)"),
        ({"x": np.zeros((7, 4), "f4")}, r"x: expected shape \(7, 2\), got \(7, 4\)"),
        ({"lengths": [5]}, r"lengths: expected shape \(\), got \(1,\)"),
        ({"lengths": 8}, r"lengths: expected values from 0 to T = 7, got 8 at index 0"),
        ({"lengths": -1}, r"lengths: expected values from 0 to T = 7, got -1 at index 0"),
        (
            {"out": (np.zeros((7, 1, 3), "f4"), (np.zeros(3, "f4"), np.zeros(3, "f4")))},
            r"out\[0\]: expected shape \(7, 3\), got \(7, 1, 3\)",
        ),
    ],
    ids=str,
)
def test_wrong_arguments(wrong: Arguments, message: str) -> None:
    given, _ = one_sequence("lstm")
    with pytest.raises(ValueError, match=rf"^{message}$"):
        fr.lstm(**(without_batch(given) | wrong))


def test_wrong_arguments_of_other_calls() -> None:
    given, _ = one_sequence("lstm")
    _, _, tape = fr.lstm_forward(**without_batch(given))
    with pytest.raises(ValueError, match=r"^dy: expected shape \(7, 3\), got \(7, 1, 3\)$"):
        fr.lstm_backward(tape, np.zeros((7, 1, 3), "float32"))
    with pytest.raises(ValueError, match=r"^dh_n: expected shape \(3,\), got \(1, 3\)$"):
        fr.lstm_backward(tape, None, np.zeros((1, 3), "float32"))
    with pytest.raises(TypeError, match=r"^lengths: expected .*, got float$"):
        fr.lstm(**(without_batch(given) | {"lengths": 5.0}))
    layer = fr.GRU(2, 3, seed=0)
    x = given["x"][:, 0]
    with pytest.raises(ValueError, match=r"^state: expected shape \(1, 3\), got \(1, 1, 3\)$"):
        layer(x, np.zeros((1, 1, 3), "float32"))
    with pytest.raises(ValueError, match=r"^mask: expected shape \(7,\), got \(7, 1\)$"):
        layer(x, mask=np.ones((7, 1), bool))
    with pytest.raises(ValueError, match=r"^state: expected shape \(1, 3\), got \(1, 1, 3\)$"):
        layer.freeze().step(x[0], np.zeros((1, 1, 3), "float32"))
