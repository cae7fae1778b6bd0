"""The cell state of every step, and reset states, with their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle
import reference
from half_support import Precision, half_problem, in_double, precisions
from support import (
    BOUND,
    LAYERS,
    Arguments,
    backward,
    check,
    directions,
    dtypes,
    forward,
    infer,
    joined,
    outputs,
    place,
    problem_of,
    same_bits,
    stack_of,
    variants,
    with_zero_biases,
)
from test_lstm_variants import options_of, problem_with
from test_lstm_variants import variants as lstm_variants

paddings = pytest.mark.parametrize("padding", ["zero", "last"])
LETTERS = {"rnn": ("h",), "gru": ("h",), "lstm": ("h", "c")}


def with_sequences(
    given: Arguments, upstream: Arguments, letters: tuple[str, ...], seed: int = 3
) -> None:
    """Add reset states, and an upstream gradient of c."""
    random = np.random.default_rng(seed)
    T, B = given["x"].shape[:2]
    for letter in letters:
        like = upstream[f"d{letter}_n"]
        given[f"reset_{letter}"] = random.standard_normal(like.shape[-1]).astype(like.dtype)
    if "c" in letters:
        like = upstream["dc_n"]
        upstream["dc"] = random.standard_normal((T, B, like.shape[-1])).astype(like.dtype)


def hard_problem(cell: str, dtype: str, **shape: Any) -> tuple[Arguments, Arguments]:
    """Lengths, a mask with holes, resets, and what a reset puts in the place of the state."""
    given, upstream = problem_of(cell, dtype, **shape, lengths=True, resets=True)
    T, B = given["x"].shape[:2]
    given["mask"] = np.random.default_rng(5).random((T, B)) < 0.7
    with_sequences(given, upstream, LETTERS[cell])
    return given, upstream


def check_against(
    against: Any, cell: str, given: Arguments, upstream: Arguments, bound: float, **options: Any
) -> None:
    if "c" in LETTERS[cell]:
        options["return_cells"] = True
    got, tape = forward(cell, **given, **options)
    same_bits(infer(cell, **given, **options), got)
    wanted = against.forward(cell, **given, **options)
    check(joined(got), joined(wanted), bound)
    options.pop("return_cells", None)
    wanted = against.gradients(cell, **with_zero_biases(given), **upstream, **options)
    grads = backward(cell, tape, **upstream)
    assert grads.keys() == wanted.keys()
    for name in sorted(grads):
        if name.startswith("dreset"):  # also by itself
            check({name: grads[name]}, {name: wanted[name]}, 4 * bound)
    check(joined(grads), joined(wanted), bound)


@variants
@dtypes
@directions
@paddings
def test_oracle(cell: str, options: Arguments, dtype: str, reverse: bool, padding: str) -> None:
    given, upstream = hard_problem(cell, dtype, steps=8, batch=4, input_size=2, hidden_size=3)
    options = {"reverse": reverse, "padding": padding, **options}
    check_against(oracle, cell, given, upstream, BOUND[dtype], **options)


@variants
@dtypes
@directions
@paddings
def test_reference(cell: str, options: Arguments, dtype: str, reverse: bool, padding: str) -> None:
    given, upstream = hard_problem(cell, dtype, steps=23, batch=9, input_size=5, hidden_size=21)
    options = {"reverse": reverse, "padding": padding, **options}
    check_against(reference, cell, given, upstream, 2 * BOUND[dtype], **options)


@lstm_variants
@dtypes
@directions
def test_lstm_variants(variant: str, dtype: str, reverse: bool) -> None:
    given, upstream = problem_with(variant, dtype, steps=6, batch=3, input_size=2, hidden_size=5)
    with_sequences(given, upstream, ("h", "c"))
    options = {"reverse": reverse, **options_of(variant)}
    check_against(oracle, "lstm", given, upstream, BOUND[dtype], **options)


@precisions
@pytest.mark.parametrize("cell", ["gru", "lstm"])
@directions
def test_16_bits(precision: Precision, cell: str, reverse: bool) -> None:
    given, upstream = half_problem(
        cell, precision, steps=9, batch=5, input_size=6, hidden_size=18, lengths=True, resets=True
    )
    with_sequences(given, upstream, LETTERS[cell])
    shown = {"return_cells": True} if cell == "lstm" else {}
    got, tape = forward(cell, **given, **shown, reverse=reverse, **precision.options)
    grads = backward(cell, tape, **upstream)
    precision = place().precision(precision)
    exact = {"reverse": reverse, "rounding": precision.rounding}
    wanted = reference.forward(cell, **given, **shown, **exact)
    wanted_grads = reference.gradients(cell, **with_zero_biases(given), **upstream, **exact)
    check(in_double(got), in_double(wanted), precision.bound)
    check(in_double(grads), in_double(wanted_grads), precision.bound)


@variants
@directions
def test_no_batch_of_one_sequence_has_cells_of_its_own(
    cell: str, options: Arguments, reverse: bool
) -> None:
    """A sequence's results do not depend on the others."""
    given, _ = hard_problem(cell, "float32", steps=7, batch=3, hidden_size=17)
    options = {"reverse": reverse, **options}
    if cell == "lstm":
        options["return_cells"] = True
    got = infer(cell, **given, **options)
    of_sequence = ("x", "mask", "resets")
    for b in range(3):
        one = given | {name: given[name][:, b : b + 1] for name in of_sequence}
        one |= {name: given[name][b : b + 1] for name in ("h0", "c0", "lengths") if name in given}
        alone = infer(cell, **one, **options)
        wanted = {
            name: np.ascontiguousarray(
                value[:, b : b + 1] if name in ("y", "c") else value[b : b + 1]
            )
            for name, value in got.items()
        }
        place().check_alike(alone, wanted)


def test_plain_calls_are_the_same() -> None:
    """What is asked for besides changes no bit of the rest."""
    given, upstream = problem_of("lstm", "float32", steps=6, batch=5, hidden_size=33, resets=True)
    plain, tape = forward("lstm", **given)
    plain_grads = backward("lstm", tape, **upstream)
    got, tape = forward("lstm", **given, return_cells=True)
    c = got.pop("c")
    same_bits(got, plain)
    assert np.array_equal(c[-1], got["c_n"])
    same_bits(backward("lstm", tape, **upstream), plain_grads)
    zeros = {name: np.zeros(33, "float32") for name in ("reset_h", "reset_c")}
    got, tape = forward("lstm", **given, **zeros)
    same_bits(got, plain)
    grads = backward("lstm", tape, **upstream, dc=np.zeros_like(c))
    same_bits({name: grads[name] for name in plain_grads}, plain_grads)


@directions
def test_a_reset_state_at_every_step(reverse: bool) -> None:
    """Each step is a sequence of its own, from the same initial state."""
    given, upstream = problem_of("lstm", "float64", steps=5, batch=3, hidden_size=4)
    with_sequences(given, upstream, ("h", "c"))
    given["resets"] = np.ones((5, 3), bool)
    got, tape = forward("lstm", **given, return_cells=True, reverse=reverse)
    fresh = {
        f"{s}0": np.broadcast_to(given[f"reset_{s}"], (15, 4)).astype("float64") for s in ("h", "c")
    }
    weights = {name: given[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")}
    one, other = forward("lstm", x=given["x"].reshape(1, 15, -1), **weights, **fresh)
    first = 4 if reverse else None  # in reverse the first step's state crosses no boundary
    for t in range(5):
        if t == first:
            continue
        check({"h": got["y"][t]}, {"h": one["y"].reshape(5, 3, 4)[t]}, 1e-14)
    if reverse:
        return
    del upstream["dh_n"], upstream["dc_n"]
    grads = backward("lstm", tape, **upstream)
    dy, dc = (upstream[name].reshape(1, 15, 4) for name in ("dy", "dc"))
    wanted = backward("lstm", other, dy=dy, dc=dc)
    for s in ("h", "c"):
        check({s: grads[f"dreset_{s}"]}, {s: wanted[f"d{s}0"].sum(0)}, 1e-13)
        assert not grads[f"d{s}0"].any()


@variants
def test_layers(cell: str, options: Arguments) -> None:
    for bidirectional in (False, True):
        check_layers(cell, options, bidirectional)


def check_layers(cell: str, options: Arguments, bidirectional: bool) -> None:
    letters = LETTERS[cell]
    given, upstream = stack_of(
        cell,
        "float64",
        bidirectional=bidirectional,
        steps=6,
        batch=3,
        input_size=4,
        hidden_size=5,
        lengths=True,
        resets=True,
    )
    runs, width = (4, 10) if bidirectional else (2, 5)
    random = np.random.default_rng(1)
    reset = {f"reset_{s}": random.standard_normal((runs, 5)) for s in letters}
    options = dict(options)
    layer = LAYERS[cell](4, 5, 2, bidirectional=bidirectional, dtype="float64", **options)
    layer.load_state_dict(given["parameters"])
    state = one_or_pair([given[f"{s}0"] for s in letters])
    masks: Any = {
        "lengths": given["lengths"],
        "resets": given["resets"],
        "reset_state": one_or_pair(list(reset.values())),
    }
    shown = {"return_cells": True} if cell == "lstm" else {}
    if shown:
        upstream["dc"] = random.standard_normal((6, 3, width))
    results = layer.forward(given["x"], state, **masks, **shown)
    tape = results[-1]
    got = outputs(*results[:-1])
    same_bits(outputs(*layer(given["x"], state, **masks, **shown)), got)
    same_bits(outputs(*layer.freeze()(given["x"], state, **masks, **shown)), got)
    call = {name: value for name, value in given.items() if name not in ("x", "parameters")}
    for against in (oracle, reference):
        wanted = against.stack(
            cell, given["x"], given["parameters"], **call, **reset, **shown, **options
        )
        check(got, wanted, BOUND["float64"])
        wanted_grads = against.stack_gradients(
            cell, given["x"], given["parameters"], **call, **reset, **upstream, **options
        )
        dcells = {"dcells": upstream["dc"]} if shown else {}
        dstate = one_or_pair([upstream[f"d{s}_n"] for s in letters])
        grads = layer.backward(tape, upstream["dy"], dstate, **dcells)
        check(grads, wanted_grads, BOUND["float64"])


def one_or_pair(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


def test_layers_with_the_batch_first() -> None:
    ours = fr.LSTM(3, 4, batch_first=True, bidirectional=True, seed=0)
    other = fr.LSTM(3, 4, bidirectional=True, seed=0)
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 6, 3)).astype("float32")
    dcells = random.standard_normal((2, 6, 8)).astype("float32")
    y, state, cells, tape = ours.forward(x, return_cells=True)
    wanted = other.forward(x.swapaxes(0, 1).copy(), return_cells=True)
    assert np.array_equal(cells, wanted[2].swapaxes(0, 1))
    assert np.array_equal(y, wanted[0].swapaxes(0, 1))
    grads = ours.backward(tape, dcells=dcells)
    expected = other.backward(wanted[-1], dcells=dcells.swapaxes(0, 1).copy())
    expected["x"] = np.ascontiguousarray(expected["x"].swapaxes(0, 1))
    same_bits({name: np.ascontiguousarray(g) for name, g in grads.items()}, expected)
    out = (np.empty_like(y), tuple(map(np.empty_like, state)), np.empty_like(cells))
    given = ours(x, return_cells=True, out=out)
    assert given[2] is out[2]
    assert np.array_equal(out[2], cells)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_threads_do_not_change_a_bit(cell: str) -> None:
    given, upstream = hard_problem(cell, "float32", steps=20, batch=6, hidden_size=200)
    shown = {"return_cells": True} if cell == "lstm" else {}
    results = []
    for threads in (1, 2):
        fr.set_num_threads(threads)
        got, tape = forward(cell, **given, **shown)
        results.append(got | backward(cell, tape, **upstream))
    fr.set_num_threads(2)
    same_bits(results[1], results[0])


def test_given_arrays_are_written() -> None:
    given, upstream = hard_problem("lstm", "float32", steps=4, batch=3, hidden_size=5)
    y, state, c, tape = fr.lstm_forward(**given, return_cells=True)
    out = (np.empty_like(y), tuple(map(np.empty_like, state)), np.empty_like(c))
    again = fr.lstm(**given, return_cells=True, out=out)
    assert again[2] is out[2]
    assert np.array_equal(out[2], c)
    grads = fr.lstm_backward(tape, **upstream)
    mine = {name: np.empty_like(getattr(grads, name)) for name in ("dreset_h", "dreset_c")}
    others = fr.lstm_backward(tape, **upstream, out=mine)
    assert others.dreset_c is mine["dreset_c"]
    assert np.array_equal(mine["dreset_h"], grads.dreset_h)


def test_empty() -> None:
    for steps, batch in ((0, 3), (4, 0)):
        given, upstream = hard_problem("lstm", "float32", steps=steps, batch=batch)
        got, tape = forward("lstm", **given, return_cells=True)
        assert got["c"].shape == (steps, batch, 3)
        grads = backward("lstm", tape, **upstream)
        assert not grads["dreset_h"].any()
        assert grads["dreset_c"].shape == (3,)


def test_what_was_not_given_has_no_gradient() -> None:
    given, upstream = problem_of("lstm", "float32", resets=True)
    grads = fr.lstm_backward(fr.lstm_forward(**given)[-1], **upstream)
    assert grads.dreset_h is None
    assert grads.dreset_c is None
    _, _, tape = fr.lstm_forward(**given, reset_c=np.ones(3, "float32"))
    grads = fr.lstm_backward(tape, **upstream)
    assert grads.dreset_h is None
    assert grads.dreset_c.shape == (3,)
    with pytest.raises(ValueError, match=r"^out: expected names among .*, got 'dreset_h'"):
        fr.lstm_backward(tape, out={"dreset_h": np.ones(3, "float32")})


def test_wrong_arguments() -> None:
    given, _ = problem_of("lstm", "float32", steps=4, batch=3, hidden_size=3)
    _, _, tape = fr.lstm_forward(**given)
    with pytest.raises(ValueError, match=r"^reset_h: expected shape \(3,\), got \(4,\)$"):
        fr.lstm(**given, reset_h=np.zeros(4, "float32"))
    with pytest.raises(TypeError, match=r"^reset_c: expected dtype float32 .*, got float64;"):
        fr.lstm(**given, reset_c=np.zeros(3))
    with pytest.raises(TypeError, match=r"^return_cells: expected a bool, got int$"):
        fr.lstm(**given, return_cells=1)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"^dc: expected shape \(4, 3, 3\), got \(4, 3, 2\)$"):
        fr.lstm_backward(tape, dc=np.zeros((4, 3, 2), "float32"))
    y = np.zeros((4, 3, 3), "float32")
    state = (np.zeros((3, 3), "float32"), np.zeros((3, 3), "float32"))
    message = r"^out: expected a tuple \(y, \(h_n, c_n\), c\), got 2 values$"
    with pytest.raises(ValueError, match=message):
        fr.lstm(**given, return_cells=True, out=(y, state))
    with pytest.raises(ValueError, match=r"c: expected .*apart from y|share|overlap"):
        fr.lstm(**given, return_cells=True, out=(y, state, y))


def test_wrong_arguments_of_layers() -> None:
    x = np.zeros((4, 3, 2), "float32")
    gru, lstm = fr.GRU(2, 5, seed=0), fr.LSTM(2, 5, seed=0)
    message = r"^return_cells: expected False for GRU\(2, 5\), which has no state but h$"
    with pytest.raises(ValueError, match=message):
        gru(x, return_cells=True)
    message = r"^dcells: expected None for GRU\(2, 5\), which has no state but h$"
    with pytest.raises(ValueError, match=message):
        gru.backward(gru.forward(x)[-1], dcells=x)
    with pytest.raises(ValueError, match=r"^reset_state: expected shape \(1, 5\), got \(5,\)$"):
        gru(x, reset_state=np.zeros(5, "float32"))
    with pytest.raises(TypeError, match=r"^reset_state: expected a pair \(h, c\), got ndarray$"):
        lstm(x, reset_state=np.zeros((1, 5), "float32"))
    with pytest.raises(ValueError, match=r"^dcells: expected shape \(4, 3, 5\), got \(4, 3, 2\)$"):
        lstm.backward(lstm.forward(x)[-1], dcells=x)
