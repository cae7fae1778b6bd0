"""What the functions promise beyond accuracy: bits, padding, tapes, strides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import reference
from reference import (
    NORMED_VARIANT_IDS,
    NORMED_VARIANTS,
    VARIANT_IDS,
    VARIANTS,
    random_problem,
)
from support import (
    BOUND,
    HARD,
    Arguments,
    backward,
    check,
    directions,
    dtypes,
    forward,
    infer,
    problem_of,
    same_bits,
    sequence_of,
)

variants = pytest.mark.parametrize(
    ("cell", "options"), VARIANTS + NORMED_VARIANTS, ids=VARIANT_IDS + NORMED_VARIANT_IDS
)


@variants
@dtypes
@directions
def test_a_sequence_alone_or_in_a_batch(
    cell: str, options: Arguments, dtype: str, reverse: bool
) -> None:
    """Bit for bit, outputs and the gradients that belong to the sequence."""
    for batch, hidden_size in ((2, 7), (2, 150), (4, 117), (5, 33), (13, 16), (20, 65)):
        shape = {"steps": 7, "batch": batch, "input_size": 21, "hidden_size": hidden_size}
        problem, upstream = problem_of(cell, dtype, **shape, **HARD, seed=8)
        got, tape = forward(cell, **problem, **options, reverse=reverse)
        grads = backward(cell, tape, **upstream)
        for b in range(batch):
            one = {name: sequence_of(name, value, b) for name, value in problem.items()}
            above = {name: sequence_of(name, value, b) for name, value in upstream.items()}
            alone, tape = forward(cell, **one, **options, reverse=reverse)
            same_bits(alone, {name: sequence_of(name, value, b) for name, value in got.items()})
            alone_grads = backward(cell, tape, **above)
            for name in {"dx", "dh0", "dc0"} & grads.keys():
                same_bits({name: alone_grads[name]}, {name: sequence_of(name, grads[name], b)})


@variants
@dtypes
@directions
def test_every_element_of_the_outputs_is_written(
    cell: str, options: Arguments, dtype: str, reverse: bool
) -> None:
    problem, upstream = problem_of(cell, dtype, batch=5, hidden_size=9, **HARD, seed=9)
    nan = {
        name: np.full_like(value, np.nan)
        for name, value in forward(cell, **problem, **options, reverse=reverse)[0].items()
    }
    y, *states = nan.values()
    out = (y, tuple(states) if cell.startswith("lstm") else states[0])
    got, tape = forward(cell, **problem, **options, reverse=reverse, out=out)
    assert all(got[name] is value for name, value in nan.items())
    same_bits(nan, infer(cell, **problem, **options, reverse=reverse))

    nan = {
        name: np.full_like(value, np.nan)
        for name, value in backward(cell, tape, **upstream).items()
    }
    grads = backward(cell, tape, **upstream, out=nan)
    assert all(grads[name] is value for name, value in nan.items())
    expected = reference.gradients(cell, **problem, **upstream, **options, reverse=reverse)
    check(grads, expected, BOUND[dtype])


@variants
@dtypes
def test_every_element_is_written_where_there_is_no_step(
    cell: str, options: Arguments, dtype: str
) -> None:
    """The last states and the gradients, into arrays of NaN; nothing is left of them."""
    problem, _ = problem_of(cell, dtype, steps=0, batch=5, hidden_size=9, initial=False)
    names = ("h_n", "c_n") if cell.startswith("lstm") else ("h_n",)
    states = tuple(np.full((5, 9), np.nan, dtype) for _ in names)
    y = np.empty((0, 5, 9), dtype)
    got, tape = forward(
        cell, **problem, **options, out=(y, states if len(states) > 1 else states[0])
    )
    assert all(not got[name].any() for name in names)
    shapes = {name: value.shape for name, value in backward(cell, tape).items()}
    grads = backward(
        cell, tape, out={name: np.full(shape, np.nan, dtype) for name, shape in shapes.items()}
    )
    assert all(not value.any() for value in grads.values())


@variants
@dtypes
@directions
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_padding_is_never_read(
    cell: str, options: Arguments, dtype: str, reverse: bool, poison: float
) -> None:
    problem, upstream = problem_of(cell, dtype, batch=7, hidden_size=17, **HARD, seed=10)
    clean, tape = forward(cell, **problem, **options, reverse=reverse)
    clean_grads = backward(cell, tape, **upstream)

    steps = np.arange(len(problem["x"]))
    padding = steps[:, None] >= problem["lengths"]
    assert padding.any()
    problem["x"][padding] = poison
    upstream["dy"][padding] = poison
    got, tape = forward(cell, **problem, **options, reverse=reverse)
    same_bits(got, clean)
    assert not got["y"][padding].any()
    grads = backward(cell, tape, **upstream)
    same_bits(grads, clean_grads)
    assert not grads["dx"][padding].any()


@variants
@dtypes
def test_what_a_reset_cuts_off_is_never_read(cell: str, options: Arguments, dtype: str) -> None:
    problem, upstream = problem_of(cell, dtype, batch=4, hidden_size=17, seed=11)
    problem["resets"] = np.zeros(problem["x"].shape[:2], dtype=np.bool_)
    problem["resets"][0] = True
    zeros = {name: np.zeros_like(problem[name]) for name in problem.keys() & {"h0", "c0"}}
    clean, _ = forward(cell, **(problem | zeros), **options)
    nan = {name: np.full_like(value, np.nan) for name, value in zeros.items()}
    got, tape = forward(cell, **(problem | nan), **options)
    same_bits(got, clean)
    grads = backward(cell, tape, **upstream)
    assert all(np.isfinite(gradient).all() for gradient in grads.values())
    assert not any(grads[f"d{name}"].any() for name in zeros)


@variants
@dtypes
def test_chunks_with_carried_state(cell: str, options: Arguments, dtype: str) -> None:
    """Truncated BPTT runs the same bits as one long sequence; chained, its gradients too."""
    problem, upstream = problem_of(
        cell, dtype, steps=11, batch=6, input_size=10, hidden_size=18, resets=True, seed=12
    )
    whole, whole_tape = forward(cell, **problem, **options)
    tapes, parts, carried = [], [], problem
    cut = {"x", "resets"}
    for chunk in (slice(0, 4), slice(4, 11)):
        carried = carried | {name: problem[name][chunk] for name in cut}
        got, tape = forward(cell, **carried, **options)
        carried = carried | {name.replace("_n", "0"): got[name] for name in got if name != "y"}
        tapes.append(tape)
        parts.append(got)
    y = np.concatenate([part["y"] for part in parts])
    same_bits({**parts[-1], "y": y}, whole)

    last = backward(cell, tapes[1], **(upstream | {"dy": upstream["dy"][4:]}))
    above = {name.replace("0", "_n"): last[name] for name in last if name in ("dh0", "dc0")}
    first = backward(cell, tapes[0], dy=upstream["dy"][:4], **above)
    together = {
        name: np.concatenate([first[name], last[name]])
        if name == "dx"
        else first[name]
        if name in ("dh0", "dc0")
        else first[name] + last[name]
        for name in first
    }
    bound = BOUND[dtype]
    check(together, backward(cell, whole_tape, **upstream), bound)


@variants
@dtypes
@directions
def test_tape(cell: str, options: Arguments, dtype: str, reverse: bool) -> None:
    """It may be used twice, its outputs may be changed, and saving it changes no bit."""
    problem, upstream = problem_of(cell, dtype, batch=6, hidden_size=21, **HARD, seed=13)
    expected = infer(cell, **problem, **options, reverse=reverse)
    got, tape = forward(cell, **problem, **options, reverse=reverse)
    same_bits(got, expected)
    grads = backward(cell, tape, **upstream)
    for value in got.values():
        value[...] = np.nan
    biases = {"b_ih", "b_hh"} if (cell, options) in VARIANTS else set()  # others are read again
    for name in problem.keys() & (biases | {"h0", "c0", "lengths", "resets"}):
        problem[name][...] = 1
    same_bits(backward(cell, tape, **upstream), grads)


@variants
def test_a_tape_keeps_its_arrays_alive(cell: str, options: Arguments) -> None:
    problem, upstream = random_problem(cell, batch=6, hidden_size=50, seed=14)
    expected = reference.gradients(cell, **problem, **upstream, **options)
    _, tape = forward(cell, **{name: value.copy() for name, value in problem.items()}, **options)
    churn = [np.full_like(value, np.nan) for value in problem.values() for _ in range(5)]
    check(backward(cell, tape, **upstream), expected, 1e-12)
    del churn


@variants
def test_inputs_are_not_written(cell: str, options: Arguments) -> None:
    problem, upstream = random_problem(cell, **HARD, seed=15)
    before = {name: value.copy() for name, value in (problem | upstream).items()}
    for value in (problem | upstream).values():
        value.flags.writeable = False
    _, tape = forward(cell, **problem, **options)
    backward(cell, tape, **upstream)
    same_bits(problem | upstream, before)


@variants
def test_strided_inputs(cell: str, options: Arguments) -> None:
    """Any strides give the same bits: padded rows, other orders, reversed axes, wide steps."""
    problem, upstream = random_problem(cell, batch=4, input_size=5, hidden_size=6, **HARD, seed=16)
    expected, tape = forward(cell, **problem, **options)
    expected_grads = backward(cell, tape, **upstream)
    for strided in (rows_padded, fortran_order, reversed_axes, every_second):
        views = {name: strided(value) for name, value in problem.items()}
        got, tape = forward(cell, **views, **options)
        same_bits(got, expected)
        above = {name: strided(value) for name, value in upstream.items()}
        same_bits(backward(cell, tape, **above), expected_grads)


def rows_padded(value: Any) -> Any:
    wide = np.ones((*value.shape[:-1], value.shape[-1] + 3), value.dtype)
    wide[..., : value.shape[-1]] = value
    return wide[..., : value.shape[-1]]


def fortran_order(value: Any) -> Any:
    return np.asfortranarray(value)


def reversed_axes(value: Any) -> Any:
    return np.ascontiguousarray(np.flip(value))[(slice(None, None, -1),) * value.ndim]


def every_second(value: Any) -> Any:
    spread = np.ones([2 * n for n in value.shape], value.dtype)
    spread[(slice(None, None, 2),) * value.ndim] = value
    return spread[(slice(None, None, 2),) * value.ndim]
