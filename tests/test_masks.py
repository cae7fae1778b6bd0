"""Masks with holes, what y shows of steps that do not exist, and bytes for bools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle
from fusedrnn import convert
from support import (
    BOUND,
    LAYERS,
    Arguments,
    backward,
    check,
    check_function,
    directions,
    dtypes,
    forward,
    infer,
    place,
    problem_of,
    same_bits,
    stack_of,
    variants,
)

paddings = pytest.mark.parametrize("padding", ["zero", "last"])


def masked_problem(cell: str, dtype: str, **shape: Any) -> tuple[Arguments, Arguments]:
    """Lengths, resets and holes; sequence 0 has no step that exists."""
    given, upstream = problem_of(cell, dtype, **shape, lengths=True, resets=True)
    T, B = given["x"].shape[:2]
    given["mask"] = np.random.default_rng(5).random((T, B)) < 0.6
    given["mask"][:, 0] = False
    return given, upstream


@variants
@dtypes
@directions
@paddings
def test_oracle(cell: str, options: Arguments, dtype: str, reverse: bool, padding: str) -> None:
    given, upstream = masked_problem(cell, dtype, steps=9, batch=4, input_size=2, hidden_size=3)
    check_function(
        cell, given, upstream, oracle, reverse=reverse, padding=padding, together=True, **options
    )


@variants
@dtypes
@directions
@paddings
def test_reference(cell: str, options: Arguments, dtype: str, reverse: bool, padding: str) -> None:
    given, upstream = masked_problem(cell, dtype, steps=31, batch=9, input_size=5, hidden_size=21)
    check_function(cell, given, upstream, reverse=reverse, padding=padding, **options)


@variants
@directions
def test_a_mask_leaves_steps_out(cell: str, options: Arguments, reverse: bool) -> None:
    """Results and gradients are those of the sequence without the steps that do not exist."""
    given, upstream = problem_of(
        cell, "float32", steps=12, batch=1, input_size=4, hidden_size=9, resets=True
    )
    exists = np.array([0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0, 0], bool)
    options = {"reverse": reverse, **options}
    got, tape = forward(cell, **given, mask=exists[:, None], **options)
    grads = backward(cell, tape, **upstream)
    short = given | {name: given[name][exists] for name in ("x", "resets")}
    wanted, other = forward(cell, **short, **options)
    wanted_grads = backward(cell, other, **(upstream | {"dy": upstream["dy"][exists]}))
    for results in (got, grads):
        for name in results.keys() & {"y", "dx"}:
            assert not results[name][~exists].any()
            results[name] = np.ascontiguousarray(results[name][exists])
    place().check_alike(got, wanted)
    check(grads, wanted_grads, BOUND["float32"])


@variants
@directions
@paddings
def test_lengths_as_a_mask(cell: str, options: Arguments, reverse: bool, padding: str) -> None:
    given, upstream = problem_of(
        cell, "float32", steps=8, batch=5, input_size=3, hidden_size=7, lengths=True, resets=True
    )
    options = {"reverse": reverse, "padding": padding, **options}
    wanted, tape = forward(cell, **given, **options)
    wanted_grads = backward(cell, tape, **upstream)
    mask = np.arange(8)[:, None] < given.pop("lengths")
    got, tape = forward(cell, **given, mask=mask, **options)
    same_bits(got, wanted)
    same_bits(backward(cell, tape, **upstream), wanted_grads)


@variants
@paddings
def test_layers(cell: str, options: Arguments, padding: str) -> None:
    given, upstream = stack_of(
        cell, "float64", steps=7, batch=3, input_size=4, hidden_size=5, lengths=True, resets=True
    )
    mask = np.random.default_rng(0).random((7, 3)) < 0.7
    layer = LAYERS[cell](4, 5, 2, bidirectional=True, dtype="float64", **options)
    layer.load_state_dict(given["parameters"])
    states = [given[f"{s}0"] for s in ("h", "c") if f"{s}0" in given]
    state = tuple(states) if len(states) == 2 else states[0]
    masks: Any = {name: given[name] for name in ("lengths", "resets")}
    masks |= {"mask": mask, "padding": padding}
    y, last, tape = layer.forward(given["x"], state, **masks)
    again, _ = layer(given["x"], state, **masks)
    assert np.array_equal(again, y)
    frozen, _ = layer.freeze()(given["x"], state, **masks)
    assert np.array_equal(frozen, y)
    wanted = oracle.stack(
        cell, given["x"], given["parameters"], **masks, **named(states), **options
    )
    check({"y": y}, {"y": wanted["y"]}, BOUND["float64"])
    for name, value in zip(
        ("h_n", "c_n"), last if isinstance(last, tuple) else (last,), strict=False
    ):
        check({name: value}, {name: wanted[name]}, BOUND["float64"])
    dstate = tuple(upstream[f"d{s}_n"] for s in ("h", "c")[: len(states)])
    grads = layer.backward(tape, upstream["dy"], dstate if len(dstate) == 2 else dstate[0])
    wanted_grads = oracle.stack_gradients(
        cell, given["x"], given["parameters"], **masks, **named(states), **upstream, **options
    )
    check({name: grads[name] for name in wanted_grads}, wanted_grads, BOUND["float64"])


def named(states: list[Any]) -> Arguments:
    return {f"{s}0": value for s, value in zip("hc", states, strict=False)}


def test_batch_first() -> None:
    layer = fr.GRU(3, 4, batch_first=True, seed=0)
    other = fr.GRU(3, 4, seed=0)
    x = np.random.default_rng(0).standard_normal((2, 6, 3)).astype("float32")
    mask = np.random.default_rng(1).random((2, 6)) < 0.5
    y, _ = layer(x, mask=mask, padding="last")
    wanted, _ = other(x.swapaxes(0, 1).copy(), mask=mask.T, padding="last")
    assert np.array_equal(y, wanted.swapaxes(0, 1))


def test_threads_do_not_change_a_bit() -> None:
    given, upstream = masked_problem("lstm", "float32", steps=20, batch=6, hidden_size=200)
    results = []
    for threads in (1, 2):
        fr.set_num_threads(threads)
        got, tape = forward("lstm", **given, padding="last")
        results.append(got | backward("lstm", tape, **upstream))
    fr.set_num_threads(2)
    same_bits(results[1], results[0])


def test_what_is_not_there_is_not_read() -> None:
    given, upstream = masked_problem("gru", "float32", steps=6, batch=3, hidden_size=5)
    wanted, tape = forward("gru", **given)
    wanted_grads = backward("gru", tape, **upstream)
    exists = given["mask"] & (np.arange(6)[:, None] < given["lengths"])
    given["x"][~exists] = np.nan
    upstream["dy"][~exists] = np.nan
    got, tape = forward("gru", **given)
    same_bits(got, wanted)
    same_bits(backward("gru", tape, **upstream), wanted_grads)


def test_bytes_are_bools() -> None:
    given, _ = masked_problem("lstm", "float32", steps=6, batch=3, hidden_size=5)
    wanted = infer("lstm", **given)
    as_bytes = {name: given[name].astype("uint8") * 3 for name in ("mask", "resets")}
    same_bits(infer("lstm", **(given | as_bytes)), wanted)


def test_wrong_masks() -> None:
    given, _ = masked_problem("rnn", "float32", steps=4, batch=3)
    for name in ("mask", "resets"):
        wrong = given | {name: np.zeros((4, 2), bool)}
        with pytest.raises(ValueError, match=rf"^{name}: expected shape \(4, 3\), got \(4, 2\)$"):
            fr.rnn(**wrong)
        wrong = given | {name: np.zeros((4, 3), "float32")}
        message = rf"^{name}: expected dtype bool or uint8, got float32$"
        with pytest.raises(TypeError, match=message):
            fr.rnn(**wrong)
    with pytest.raises(ValueError, match=r"^padding: expected 'zero' or 'last', got 'same'$"):
        fr.rnn(**given, padding="same")
    with pytest.raises(TypeError, match=r"^padding: expected a str, got int$"):
        fr.LSTM(2, 3)(np.zeros((4, 3, 2), "float32"), padding=0)


# Keras' own get_weights(), of a variable of JAX.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
@pytest.mark.parametrize("go_backwards", [False, True], ids=["forth", "back"])
def test_keras(kind: str, go_backwards: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras's masks, with its outputs that stand still."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    layer = getattr(keras.layers, kind)(5, return_sequences=True, go_backwards=go_backwards)
    random = np.random.default_rng(3)
    x = random.standard_normal((2, 9, 3)).astype("float32")
    mask = random.random((2, 9)) < 0.6
    layer.build(x.shape)
    wanted = keras.ops.convert_to_numpy(layer(x, mask=mask))
    ours = convert.from_keras(layer, go_backwards=go_backwards)
    if go_backwards:
        x, mask = np.ascontiguousarray(x[:, ::-1]), mask[:, ::-1]
    y, _ = ours(x, mask=mask, padding="last")
    assert np.allclose(y, wanted, atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
def test_keras_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras's Bidirectional tells its layers to show zeros."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    layer = keras.layers.Bidirectional(keras.layers.GRU(5, return_sequences=True))
    random = np.random.default_rng(3)
    x = random.standard_normal((2, 9, 3)).astype("float32")
    mask = random.random((2, 9)) < 0.6
    layer.build(x.shape)
    y, _ = convert.from_keras(layer)(x, mask=mask)
    assert np.allclose(y, keras.ops.convert_to_numpy(layer(x, mask=mask)), atol=1e-5)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@directions
def test_16_bits_stand_still(cell: str, name: str, reverse: bool) -> None:
    """What y shows of steps that do not exist has a gradient in every format."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    narrow = np.dtype(getattr(ml_dtypes, name, name))
    given, upstream = masked_problem(
        cell, "float32", steps=9, batch=5, input_size=4, hidden_size=19
    )

    def rounded(arguments: Arguments) -> tuple[Arguments, Arguments]:
        stored = {n: v.astype(narrow) if v.dtype.kind == "f" else v for n, v in arguments.items()}
        return stored, {
            n: v.astype("float32") if v.dtype == narrow else v for n, v in stored.items()
        }

    (stored, exact), (above, exact_above) = rounded(given), rounded({"dy": upstream["dy"]})
    _, tape = forward(cell, **stored, reverse=reverse, padding="last")
    _, exact_tape = forward(cell, **exact, reverse=reverse, padding="last")
    got = backward(cell, tape, **above)
    expected = backward(cell, exact_tape, **exact_above)
    check({n: v.astype("float32") for n, v in got.items()}, expected, 0.03)
