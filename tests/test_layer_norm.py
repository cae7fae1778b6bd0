"""Layer normalisation: LSTM and GRU (Ba et al. 2016), and the GRU of world models."""

from __future__ import annotations

from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import fusedrnn as fr
import oracle
import reference
from half_support import Precision, in_double, precisions
from reference import NORMED_VARIANTS
from support import (
    BOUND,
    Arguments,
    backward,
    by_name,
    check,
    directions,
    dtypes,
    forward,
    infer,
    place,
    problem_of,
    same_bits,
)

CELLS = [cell for cell, _ in NORMED_VARIANTS]
STATES = {"lstm_layer_norm": "hc"}  # of others "h"

# A norm magnifies the rounding of float32 where a row has little spread: decision 0013.
NORMED_BOUND = BOUND | {"float32": 5e-6}

cells = pytest.mark.parametrize("cell", CELLS)


def full_problem(cell: str, dtype: str, **shape: Any) -> tuple[Arguments, Arguments]:
    """All that may be given: lengths, resets to a state, a mask; and gradients from above."""
    given, upstream = problem_of(cell, dtype, lengths=True, resets=True, **shape)
    rng = np.random.default_rng(5)
    given["mask"] = rng.random(given["x"].shape[:2]) < 0.8
    units = given["w_hh"].shape[1]
    for s in STATES.get(cell, "h"):
        given[f"reset_{s}"] = rng.standard_normal(units).astype(dtype)
    return given, upstream


def check_against(
    against: Any, cell: str, given: Arguments, upstream: Arguments, **options: Any
) -> None:
    bound = NORMED_BOUND[given["x"].dtype.name]
    got, tape = forward(cell, **given, **options)
    check(got, against.forward(cell, **given, **options), bound)
    same_bits(infer(cell, **given, **options), got)
    wanted = against.gradients(cell, **given, **upstream, **options)
    check(backward(cell, tape, **upstream), wanted, bound)


@cells
@dtypes
@directions
@pytest.mark.parametrize("padding", ["zero", "last"])
@pytest.mark.parametrize("hidden_size", [3, 5, 19])
def test_oracle(cell: str, dtype: str, reverse: bool, padding: str, hidden_size: int) -> None:
    given, upstream = full_problem(
        cell, dtype, steps=6, batch=3, input_size=4, hidden_size=hidden_size
    )
    check_against(oracle, cell, given, upstream, reverse=reverse, padding=padding)


@cells
@dtypes
@directions
def test_bare(cell: str, dtype: str, reverse: bool) -> None:
    """Without states, lengths and resets."""
    given, upstream = problem_of(cell, dtype, steps=4, batch=2, hidden_size=9, initial=False)
    check_against(oracle, cell, given, {"dy": upstream["dy"]}, reverse=reverse)


# Below, at and above vectors, panels and tiles; more steps than a block of them.
@cells
@dtypes
@directions
@pytest.mark.parametrize(
    ("steps", "batch", "input_size", "hidden_size"),
    [(3, 2, 7, 15), (3, 5, 3, 16), (30, 9, 11, 37), (7, 33, 20, 64), (150, 1, 3, 130)],
)
def test_reference(
    cell: str,
    dtype: str,
    reverse: bool,
    steps: int,
    batch: int,
    input_size: int,
    hidden_size: int,
) -> None:
    given, upstream = full_problem(
        cell, dtype, steps=steps, batch=batch, input_size=input_size, hidden_size=hidden_size
    )
    check_against(reference, cell, given, upstream, reverse=reverse)


@cells
@hypothesis.given(
    reverse=st.booleans(),
    shape=st.fixed_dictionaries(
        {
            "steps": st.integers(0, 12),
            "batch": st.integers(0, 20),
            "input_size": st.integers(3, 70),
            "hidden_size": st.integers(3, 70),
            "initial": st.booleans(),
            "seed": st.integers(0, 1000),
        }
    ),
)
def test_random_configurations(cell: str, reverse: bool, shape: Arguments) -> None:
    given, upstream = full_problem(cell, "float64", **shape)
    check_against(reference, cell, given, upstream, reverse=reverse)


@cells
@dtypes
def test_few_units(cell: str, dtype: str) -> None:
    """A row of one number is its bias, one of two a sign each: of gradients rounding is left."""
    for hidden_size in (1, 2):
        given, upstream = full_problem(
            cell, dtype, steps=3, batch=4, input_size=6, hidden_size=hidden_size
        )
        got, tape = forward(cell, **given)
        check(got, oracle.forward(cell, **given), 50 * BOUND[dtype])
        wanted = oracle.gradients(cell, **given, **upstream)
        for name, gradient in backward(cell, tape, **upstream).items():
            error = np.abs(gradient - np.array(wanted[name])).max()
            assert error <= 500 * BOUND[dtype], f"{name}: {error}"
            assert np.isfinite(gradient).all()


@cells
@dtypes
def test_rows_without_variance(cell: str, dtype: str) -> None:
    """Their normalised numbers are zeros, and nothing is divided by zero."""
    given, upstream = problem_of(cell, dtype, steps=4, batch=3, hidden_size=6, initial=False)
    given["x"][:] = 0
    given["w_hh"][:] = 0
    got, tape = forward(cell, **given)
    check(got, oracle.forward(cell, **given), BOUND[dtype])
    wanted = oracle.gradients(cell, **given, **upstream)
    check(backward(cell, tape, **upstream), wanted, BOUND[dtype])
    equal = given | {"w_ih": np.ones_like(given["w_ih"]), "x": np.ones_like(given["x"])}
    check(infer(cell, **equal), got, BOUND[dtype])


@cells
def test_scales_and_shifts_do_not_matter(cell: str) -> None:
    """But for epsilon: a product times a number, and with a number added, is normalised alike."""
    given, _ = problem_of(cell, "float64", steps=5, batch=3, input_size=4, hidden_size=6)
    plain = infer(cell, **given)
    scaled = given | {name: given[name] * 1e6 for name in ("w_ih", "w_hh")}
    large = infer(cell, **scaled)
    assert reference.relative_error(large["y"], plain["y"]) < 1e-2
    # A number more in each row of w_ih, for an input that is 1: beside 1e6 epsilon is nothing.
    ones = np.ones((5, 3, 1))
    shifted = scaled | {"x": np.concatenate([given["x"], ones], axis=2)}
    shifted["w_ih"] = np.concatenate([scaled["w_ih"], np.full((len(given["w_ih"]), 1), 1e6)], 1)
    assert reference.relative_error(infer(cell, **shifted)["y"], large["y"]) < 1e-12


@dtypes
@directions
def test_cells_of_every_step(dtype: str, reverse: bool) -> None:
    given, upstream = full_problem(
        "lstm_layer_norm", dtype, steps=6, batch=3, input_size=4, hidden_size=9
    )
    upstream["dc"] = np.random.default_rng(2).standard_normal((6, 3, 9)).astype(dtype)
    options = {"reverse": reverse, "return_cells": True}
    got, tape = forward("lstm_layer_norm", **given, **options)
    assert list(got) == ["y", "h_n", "c_n", "c"]
    check(got, oracle.forward("lstm_layer_norm", **given, **options), BOUND[dtype])
    wanted = oracle.gradients("lstm_layer_norm", **given, **upstream, reverse=reverse)
    check(backward("lstm_layer_norm", tape, **upstream), wanted, BOUND[dtype])


@cells
@precisions
def test_sixteen_bits(cell: str, precision: Precision) -> None:
    """Against the reference that rounds where the package does."""
    for steps, batch, input_size, hidden_size in ((6, 3, 4, 5), (12, 9, 24, 40)):
        given, upstream = full_problem(
            cell,
            precision.dtype,
            steps=steps,
            batch=batch,
            input_size=input_size,
            hidden_size=hidden_size,
        )
        got, tape = forward(cell, **given, **precision.options)
        grads = backward(cell, tape, **upstream)
        assert {value.dtype for value in (*got.values(), *grads.values())} == {given["x"].dtype}
        rounding = {"rounding": place().precision(precision).rounding}
        wanted = reference.forward(cell, **given, **rounding)
        check(in_double(got), in_double(wanted), precision.bound)
        wanted = reference.gradients(cell, **given, **upstream, **rounding)
        check(in_double(grads), in_double(wanted), precision.bound)


@cells
@dtypes
def test_memory(cell: str, dtype: str) -> None:
    """With memory="lean" the same bits."""
    given, upstream = full_problem(cell, dtype, steps=300, batch=9, input_size=4, hidden_size=11)
    results = []
    for memory in ("lean", "default"):
        got, tape = forward(cell, **given, memory=memory)
        results.append(got | backward(cell, tape, **upstream))
    same_bits(*results)


@cells
@dtypes
def test_a_sequence_alone_or_in_a_batch(cell: str, dtype: str) -> None:
    given, _ = problem_of(cell, dtype, steps=7, batch=13, input_size=21, hidden_size=33)
    together = infer(cell, **given)
    for b in range(13):
        one = {"x": given["x"][:, b : b + 1]}
        one |= {f"{s}0": given[f"{s}0"][b : b + 1] for s in STATES.get(cell, "h")}
        rows = {name: value[..., b : b + 1, :] for name, value in together.items()}
        place().check_alike(infer(cell, **given | one), rows)


@cells
def test_threads_do_not_change_a_bit(cell: str) -> None:
    before, results = fr.get_num_threads(), []
    for batch in (1, 6):
        given, upstream = full_problem(
            cell, "float32", steps=30, batch=batch, input_size=64, hidden_size=128
        )
        try:
            for threads in (1, 2, 3):
                fr.set_num_threads(threads)
                got, tape = forward(cell, **given)
                results.append(got | backward(cell, tape, **upstream))
        finally:
            fr.set_num_threads(before)
        same_bits(results[-2], results[-3])
        same_bits(results[-1], results[-3])


@cells
def test_gates(cell: str) -> None:
    given, _ = problem_of(cell, "float64", steps=4, batch=3, hidden_size=6)
    y, *_, tape = getattr(fr, f"{cell}_forward")(**given)
    gates = tape.gates()
    names = {"lstm_layer_norm": "ifgo", "gru_layer_norm": "rzn", "gru_world_model": "rnz"}[cell]
    assert list(gates) == list(names)
    if cell != "lstm_layer_norm":
        before = np.concatenate([given["h0"][None], y[:-1]])
        new = gates["z"] if cell == "gru_world_model" else 1 - gates["z"]
        made = new * gates["n"] + (1 - new) * before
        assert reference.relative_error(made, y) < 1e-12


def test_wrong_arguments() -> None:
    given, _ = problem_of("lstm_layer_norm", "float32", steps=3, batch=2, hidden_size=6)
    for name, length in (("g_ih", 24), ("b_hh", 24), ("g_c", 6), ("b_c", 6)):
        message = rf"^{name}: expected shape \({length},\), got \({length - 1},\)$"
        with pytest.raises(ValueError, match=message):
            fr.lstm_layer_norm(**given | {name: given[name][1:]})
        with pytest.raises((TypeError, ValueError), match=f"^{name}: expected .*, got none"):
            fr.lstm_layer_norm(**given | {name: None})
    _, _, tape = fr.lstm_layer_norm_forward(**given)
    with pytest.raises(ValueError, match=r"^dc_n: expected shape \(2, 6\), got \(1, 6\)$"):
        fr.lstm_layer_norm_backward(tape, dc_n=np.zeros((1, 6), "float32"))
    with pytest.raises(ValueError, match=r"^tape: expected the tape of gru_layer_norm_forward"):
        fr.gru_layer_norm_backward(tape)  # type: ignore[arg-type]


@cells
def test_gradients_in_given_arrays(cell: str) -> None:
    given, upstream = problem_of(cell, "float32", steps=3, batch=2, hidden_size=6)
    *_, tape = getattr(fr, f"{cell}_forward")(**given)
    function = getattr(fr, f"{cell}_backward")
    wanted = by_name(function(tape, **upstream))
    out = {name: np.full_like(value, np.nan) for name, value in wanted.items()}
    same_bits(by_name(function(tape, **upstream, out=out)), wanted)
    same_bits(out, wanted)
