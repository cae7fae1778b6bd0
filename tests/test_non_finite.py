"""A number that is infinite, or none, reaches what it reaches by the equations and nothing else.

What is and what is not finite is compared with the reference, for one such number in each array in
turn, at sizes that leave lanes, pairs of k and blocks to be filled up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle
import reference
from half_support import PRECISIONS, Precision
from reference import EXACT
from support import Arguments, backward, forward, infer, place, problem_of, same_bits, variants

PLAIN = {
    name: Precision(name, None, EXACT, 0.0, 0.0) for name in ("float32", "float64")
} | PRECISIONS
precisions = pytest.mark.parametrize("precision", PLAIN.values(), ids=list(PLAIN))
# Units and inputs: an odd one of each among them, and a vector and a little more.
SIZES = [(1, 1), (5, 3), (8, 7), (17, 9)]


def spoilt(arrays: Arguments, name: str, value: float, rng: Any) -> Arguments:
    array = arrays[name].copy()
    array[tuple(rng.integers(n) for n in array.shape)] = value
    return arrays | {name: array}


def finite(results: Arguments) -> dict[str, Any]:
    return {name: np.isfinite(np.asarray(value, np.float64)) for name, value in results.items()}


@variants
@precisions
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_what_it_reaches(cell: str, options: Arguments, precision: Precision) -> None:
    """In outputs and gradients, with lengths and resets that keep it from some."""
    rounding = {"rounding": place().precision(precision).rounding}
    rng = np.random.default_rng(5)
    for hidden_size, input_size in SIZES:
        shape = {"steps": 3, "batch": 6, "hidden_size": hidden_size, "input_size": input_size}
        problem, upstream = problem_of(
            cell, precision.dtype, 0.5, **shape, lengths=True, resets=True, seed=1
        )
        for name in sorted(problem | upstream):
            if name in {"lengths", "resets"}:
                continue
            for value in (np.nan, np.inf, -np.inf):
                given, above = (
                    spoilt(arrays, name, value, rng) if name in arrays else arrays
                    for arrays in (problem, upstream)
                )
                got, tape = forward(cell, **given, **options, **precision.options)
                got |= backward(cell, tape, **above)
                expected = reference.forward(cell, **given, **options, **rounding)
                expected |= reference.gradients(cell, **given, **above, **options, **rounding)
                where = f"{name} {value} {hidden_size=}"
                for result, pattern in finite(expected).items():
                    np.testing.assert_array_equal(finite(got)[result], pattern, f"{where} {result}")


@variants
def test_the_oracle_agrees_with_the_reference(cell: str, options: Arguments) -> None:
    rng = np.random.default_rng(6)
    problem, upstream = problem_of(
        cell, "float64", 0.5, steps=3, batch=3, lengths=True, resets=True, seed=2
    )
    for name in sorted(problem | upstream):
        if name in {"lengths", "resets"}:
            continue
        given, above = (
            spoilt(arrays, name, np.nan, rng) if name in arrays else arrays
            for arrays in (problem, upstream)
        )
        got = oracle.forward(cell, **given, **options)
        got |= oracle.gradients(cell, **given, **above, **options)
        expected = reference.forward(cell, **given, **options)
        expected |= reference.gradients(cell, **given, **above, **options)
        for result, pattern in finite(expected).items():
            np.testing.assert_array_equal(finite(got)[result], pattern, f"{name} {result}")


@precisions
@pytest.mark.parametrize("hidden_size", [1, 9, 16, 17])
def test_relu_of_nan(precision: Precision, hidden_size: int) -> None:
    """It is NaN, and its gradient is what comes from above: zero only where the value is."""
    relu: Arguments = {"nonlinearity": "relu", **precision.options}
    problem, _ = problem_of(
        "rnn", precision.dtype, steps=1, batch=4, hidden_size=hidden_size, initial=False
    )
    for name in ("x", "w_ih", "w_hh"):
        problem[name][...] = 0
    values = np.array([np.nan, 1, 0, -1])
    problem["b_ih"][...] = 0
    problem["b_hh"][...] = 0
    problem["w_ih"][:, 0] = 1
    problem["x"][0, :, 0] = values
    for upstream, expected in ((2, [2, 2, 0, 0]), (np.nan, [np.nan, np.nan, 0, 0])):
        got, tape = forward("rnn", **problem, **relu)
        y = np.asarray(got["y"], np.float64)[0]
        np.testing.assert_array_equal(y, np.repeat([[np.nan], [1], [0], [0]], hidden_size, 1))
        same_bits(infer("rnn", **problem, **relu), got)
        dy = np.full((1, 4, hidden_size), upstream).astype(precision.dtype)
        dx = np.asarray(backward("rnn", tape, dy=dy)["dx"], np.float64)[0, :, 0]
        np.testing.assert_array_equal(dx, hidden_size * np.array(expected))


def test_relu_as_in_torch() -> None:
    torch = pytest.importorskip("torch")
    x = torch.tensor([[[float("nan")], [1.0], [0.0], [-1.0]]])
    w_ih, w_hh = torch.ones(1, 1), torch.zeros(1, 1)
    for upstream in (2.0, float("nan")):
        module = torch.nn.RNN(1, 1, nonlinearity="relu", bias=False)
        module.load_state_dict({"weight_ih_l0": w_ih, "weight_hh_l0": w_hh})
        leaf = x.clone().requires_grad_()
        y, _ = module(leaf)
        dy = torch.full_like(y, upstream)
        y.backward(dy)
        got, _, tape = fr.rnn_forward(x, w_ih, w_hh, nonlinearity="relu")
        grads = fr.rnn_backward(tape, dy)
        np.testing.assert_array_equal(got.numpy(), y.detach().numpy())
        np.testing.assert_array_equal(grads.dx.numpy(), leaf.grad.numpy())
