"""The NumPy reference against the oracle, on every combination of what a call may carry."""

import itertools

import numpy as np
import pytest

import oracle
import reference
from reference import (
    NEWER_VARIANT_IDS,
    NEWER_VARIANTS,
    NORMED_VARIANT_IDS,
    NORMED_VARIANTS,
    VARIANT_IDS,
    VARIANTS,
    random_problem,
    random_stack,
    relative_error,
)

BOUND = 1e-12
variants = pytest.mark.parametrize(
    ("cell", "options"),
    VARIANTS + NEWER_VARIANTS + NORMED_VARIANTS,
    ids=VARIANT_IDS + NEWER_VARIANT_IDS + NORMED_VARIANT_IDS,
)
COMBINATIONS = [
    dict(zip(("lengths", "resets", "initial", "bias"), flags, strict=True))
    for flags in itertools.product([False, True], repeat=4)
]


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert relative_error(actual[name], value) < BOUND, name


@variants
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_every_combination_of_arguments(cell, options, reverse):
    options = {**options, "reverse": reverse}
    for seed, combination in enumerate(COMBINATIONS):
        problem, upstream = random_problem(cell, **combination, seed=seed)
        assert_same(
            reference.forward(cell, **problem, **options),
            oracle.forward(cell, **problem, **options),
        )
        assert_same(
            reference.gradients(cell, **problem, **upstream, **options),
            oracle.gradients(cell, **problem, **upstream, **options),
        )


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "mingru", "minlstm", "slstm"])
def test_each_upstream_gradient_alone(cell):
    problem, upstream = random_problem(cell, lengths=True, resets=True)
    for name, value in upstream.items():
        assert_same(
            reference.gradients(cell, **problem, **{name: value}),
            oracle.gradients(cell, **problem, **{name: value}),
        )


@variants
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("given", [False, True], ids=["bare", "everything"])
def test_stacks(cell, options, bidirectional, given):
    names = ("lengths", "resets", "initial", "bias")
    problem, upstream = random_stack(
        cell, num_layers=3, bidirectional=bidirectional, **dict.fromkeys(names, given)
    )
    assert_same(
        reference.stack(cell, **problem, **options), oracle.stack(cell, **problem, **options)
    )
    assert_same(
        reference.stack_gradients(cell, **problem, **upstream, **options),
        oracle.stack_gradients(cell, **problem, **upstream, **options),
    )


@pytest.mark.parametrize("module", [oracle, reference], ids=lambda m: m.__name__)
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_nothing_in_the_padding_is_read(module, cell, reverse):
    problem, upstream = random_problem(cell, lengths=True, resets=True)
    clean = module.gradients(cell, **problem, **upstream, reverse=reverse)
    padding = np.arange(len(problem["x"]))[:, None] >= problem["lengths"]
    assert padding.any()
    problem["x"][padding] = np.nan
    upstream["dy"][padding] = np.nan
    problem["resets"] ^= padding
    dirty = module.gradients(cell, **problem, **upstream, reverse=reverse)
    assert not np.asarray(dirty["dx"])[padding].any()
    for name, value in clean.items():
        np.testing.assert_array_equal(dirty[name], value, err_msg=name)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("sizes", [{"steps": 0}, {"batch": 0}, {"steps": 0, "batch": 0}])
def test_no_steps_and_no_sequences(cell, sizes):
    problem, upstream = random_problem(cell, **sizes, lengths=True, resets=True)
    out = reference.forward(cell, **problem)
    grads = reference.gradients(cell, **problem, **upstream)
    assert out["y"].shape == (*problem["x"].shape[:2], 3)
    np.testing.assert_array_equal(out["h_n"], problem["h0"])
    np.testing.assert_array_equal(grads["dh0"], upstream["dh_n"])
    assert grads["dx"].shape == problem["x"].shape
    assert not grads["dw_ih"].any()
    assert oracle.forward(cell, **problem)["h_n"] == problem["h0"].tolist()


def test_an_argument_that_means_nothing_is_refused():
    problem, upstream = random_problem("lstm")
    gru, _ = random_problem("gru")
    with pytest.raises(TypeError, match="nonlinearity"):
        reference.forward("lstm", **problem, nonlinearity="relu")
    with pytest.raises(TypeError, match="c0"):
        reference.forward("gru", **gru, c0=problem["c0"])
    with pytest.raises(TypeError, match="c_n"):
        reference.gradients("gru", **gru, dc_n=upstream["dc_n"])


def test_relative_error_is_strict():
    assert relative_error([3.0, 4.0], [3.0, 4.0]) == 0.0
    assert relative_error([3.0, 4.5], [3.0, 4.0]) == pytest.approx(0.1)
    assert relative_error([0.25], [0.0]) == 0.25
    assert not relative_error([np.nan], [1.0]) < 1.0
    with pytest.raises(AssertionError, match="shape"):
        relative_error([[1.0]], [1.0])


def test_random_problems_reach_the_corners():
    problem, _ = random_problem("gru", lengths=True, resets=True)
    assert {0, 5} <= set(problem["lengths"].tolist())
    seeds = [random_problem("gru", lengths=True, resets=True, seed=s)[0] for s in range(16)]
    assert any(p["resets"][0, b] and p["lengths"][b] for p in seeds for b in range(3))
    assert any(
        p["resets"][p["lengths"][b], b] for p in seeds for b in range(3) if p["lengths"][b] < 5
    )
