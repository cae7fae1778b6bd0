"""The functions: outputs and every gradient against the oracle and the reference."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import oracle
from reference import random_problem
from support import (
    DTYPES,
    HARD,
    Arguments,
    backward,
    check,
    check_function,
    directions,
    dtypes,
    forward,
    infer,
    problem_of,
    variants,
)


@variants
@dtypes
@directions
@pytest.mark.parametrize("resets", [False, True], ids=["", "resets"])
@pytest.mark.parametrize("lengths", [False, True], ids=["", "lengths"])
def test_oracle(
    cell: str, options: Arguments, dtype: str, reverse: bool, resets: bool, lengths: bool
) -> None:
    problem, upstream = problem_of(cell, dtype, lengths=lengths, resets=resets, seed=1)
    check_function(cell, problem, upstream, oracle, reverse=reverse, **options)


@variants
@dtypes
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("initial", [False, True], ids=["", "initial"])
def test_optional_inputs(
    cell: str, options: Arguments, dtype: str, bias: bool, initial: bool
) -> None:
    problem, upstream = problem_of(cell, dtype, bias=bias, initial=initial, seed=2)
    check_function(cell, problem, upstream, oracle, **options)


@pytest.mark.parametrize("absent", ["b_ih", "b_hh", "h0", "c0"])
def test_one_optional_input_absent(absent: str) -> None:
    problem, upstream = random_problem("lstm", seed=3)
    del problem[absent]
    check_function("lstm", problem, upstream)


@variants
def test_absent_upstream_gradients_are_zero(cell: str, options: Arguments) -> None:
    problem, upstream = random_problem(cell, **HARD, seed=4)
    _, tape = forward(cell, **problem, **options)
    for left_out in upstream:
        rest = {name: value for name, value in upstream.items() if name != left_out}
        zero = {left_out: np.zeros_like(upstream[left_out])}
        check(backward(cell, tape, **rest), backward(cell, tape, **rest, **zero), bound=0.0)
    assert not any(np.any(gradient) for gradient in backward(cell, tape).values())


# No multiple of 4, 8 or 16, and their neighbours; the batches straddle every tile height.
@variants
@dtypes
@directions
@pytest.mark.parametrize(
    ("hidden_size", "batch", "input_size"),
    [(1, 1, 1), (3, 13, 5), (7, 2, 33), (16, 5, 16), (17, 8, 3), (33, 4, 100), (100, 6, 17)],
)
def test_sizes(
    cell: str,
    options: Arguments,
    dtype: str,
    reverse: bool,
    hidden_size: int,
    batch: int,
    input_size: int,
) -> None:
    sizes = {"hidden_size": hidden_size, "batch": batch, "input_size": input_size}
    problem, upstream = problem_of(cell, dtype, 0.5, steps=6, **sizes, **HARD, seed=5)
    together = dtype == "float32" and hidden_size == 1  # a gradient may be one sum of few terms
    check_function(cell, problem, upstream, together=together, reverse=reverse, **options)


@variants
@dtypes
def test_every_small_batch(cell: str, options: Arguments, dtype: str) -> None:
    for batch in range(1, 14):
        problem, upstream = problem_of(
            cell, dtype, steps=3, batch=batch, input_size=9, hidden_size=19, seed=batch
        )
        check_function(cell, problem, upstream, **options)


@variants
@dtypes
@directions
def test_one_step(cell: str, options: Arguments, dtype: str, reverse: bool) -> None:
    problem, upstream = problem_of(cell, dtype, steps=1, batch=4, hidden_size=20, **HARD, seed=6)
    check_function(cell, problem, upstream, reverse=reverse, **options)


@variants
@dtypes
def test_long(cell: str, options: Arguments, dtype: str) -> None:
    """Many more steps than any block of them that an engine may take at once."""
    problem, upstream = problem_of(
        cell, dtype, steps=150, batch=3, input_size=8, hidden_size=24, **HARD, seed=7
    )
    check_function(cell, problem, upstream, **options)


@variants
@dtypes
def test_sums_over_many_rows(cell: str, options: Arguments, dtype: str) -> None:
    """The gradients of weights sum more terms than can be added up one after the other."""
    problem, upstream = problem_of(
        cell, dtype, steps=3, batch=6000, input_size=8, hidden_size=8, seed=8
    )
    check_function(cell, problem, upstream, **options)


@variants
@dtypes
@directions
def test_empty(cell: str, options: Arguments, dtype: str, reverse: bool) -> None:
    for shape in ({"steps": 0}, {"batch": 0}, {"steps": 0, "batch": 0}):
        problem, upstream = problem_of(cell, dtype, **shape, **HARD)
        check_function(cell, problem, upstream, reverse=reverse, **options)
    problem, _ = problem_of(cell, dtype, steps=0)
    assert np.array_equal(infer(cell, **problem, **options)["h_n"], problem["h0"])


@variants
@hypothesis.given(
    dtype=st.sampled_from(DTYPES),
    reverse=st.booleans(),
    shape=st.fixed_dictionaries(
        {
            "steps": st.integers(0, 20),
            "batch": st.integers(0, 20),
            "input_size": st.integers(1, 70),
            "hidden_size": st.integers(1, 70),
            "bias": st.booleans(),
            "initial": st.booleans(),
            "lengths": st.booleans(),
            "resets": st.booleans(),
            "seed": st.integers(0, 1000),
        }
    ),
)
def test_random_configurations(
    cell: str, options: Arguments, dtype: str, reverse: bool, shape: Arguments
) -> None:
    # In float32 a sum of few terms may cancel, and a saturated gate's slope is 1 minus almost 1:
    # such problems are ill-conditioned, and with enough examples one is found.
    single = dtype == "float32"
    problem, upstream = problem_of(cell, dtype, 0.5 if single else 1.0, **shape)
    check_function(cell, problem, upstream, together=single, reverse=reverse, **options)


@variants
@dtypes
@pytest.mark.parametrize(("inputs", "units"), [(5, 3), (33, 50), (70, 128)])
def test_a_single_row_has_the_bits_of_one_among_two(
    cell: str, options: Arguments, dtype: str, inputs: int, units: int
) -> None:
    """Its products read weights that are not packed."""
    problem, upstream = problem_of(
        cell, dtype, steps=1, batch=2, input_size=inputs, hidden_size=units, seed=8
    )

    def first(arrays: Arguments) -> Arguments:
        axes = {"x": 1, "dy": 1, "h0": 0, "c0": 0, "dh_n": 0, "dc_n": 0}
        return {
            name: array.take([0], axes[name]) if name in axes else array
            for name, array in arrays.items()
        }

    results, tape = forward(cell, **problem, **options)
    alone, its_tape = forward(cell, **first(problem), **options)
    gradients, its_gradients = (
        backward(cell, tape, **upstream),
        backward(cell, its_tape, **first(upstream)),
    )
    assert np.array_equal(alone["y"][:, 0], results["y"][:, 0])
    assert np.array_equal(its_gradients["dx"][:, 0], gradients["dx"][:, 0])
    for name in ("dh0", *(["dc0"] if "c0" in problem else [])):
        assert np.array_equal(its_gradients[name][0], gradients[name][0])
