"""The three ways to compute in 16 bits, their problems and what may be expected of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  # NumPy knows the name "bfloat16" from here on
import numpy as np
import pytest

import reference
from reference import COMPUTED_IN, STORED_IN, Rounding
from support import (
    Arguments,
    backward,
    check,
    forward,
    joined,
    place,
    problem_of,
    with_zero_biases,
)

# Bits of the significand, the hidden one included: roundings are off by 2^-bits at most.
UNIT = {"bfloat16": 2.0**-8, "float16": 2.0**-11}


class Precision(NamedTuple):
    """A dtype with a compute_dtype."""

    dtype: str
    compute: str | None
    rounding: Rounding
    unit: float  # the largest relative error of one rounding
    bound: float  # against a reference that rounds at the same places

    @property
    def options(self) -> Arguments:
        return {} if self.compute is None else {"compute_dtype": self.compute}


# The reference sums in float64. Where a value lies half-way between two 16-bit numbers the kernels
# may round it to the other one, and what follows from it differs by a part of the unit: a quarter
# of bfloat16's at most, for few values lie so; half of float16's, which is nearer to float32.
PRECISIONS = {
    "bfloat16": Precision("bfloat16", None, STORED_IN["bfloat16"], UNIT["bfloat16"], 1e-3),
    "float16": Precision("float16", None, STORED_IN["float16"], UNIT["float16"], 2.5e-4),
    "mixed": Precision("float32", "bfloat16", COMPUTED_IN["bfloat16"], UNIT["bfloat16"], 1e-3),
}
precisions = pytest.mark.parametrize("precision", PRECISIONS.values(), ids=list(PRECISIONS))
halves = pytest.mark.parametrize("dtype", ["bfloat16", "float16"])


def half_problem(cell: str, precision: Precision, **shape: Any) -> tuple[Arguments, Arguments]:
    """As `problem_of`, with weights that keep roundings from growing over the steps."""
    return problem_of(cell, precision.dtype, 0.5, **shape)


def check_rounded(
    cell: str,
    problem: Arguments,
    upstream: Arguments,
    precision: Precision,
    *,
    together: bool = False,
    **options: Any,
) -> None:
    """Outputs and gradients against the reference that rounds where the package does."""
    got, tape = forward(cell, **problem, **options, **precision.options)
    grads = backward(cell, tape, **upstream)
    for results in (got, grads):
        assert {value.dtype for value in results.values()} == {problem["x"].dtype}
    precision = place().precision(precision)
    rounding = {"rounding": precision.rounding}
    expected = reference.forward(cell, **problem, **options, **rounding)
    full = with_zero_biases(problem)
    expected_grads = reference.gradients(cell, **full, **upstream, **options, **rounding)
    if together:
        got, expected, grads, expected_grads = map(
            in_double, (got, expected, grads, expected_grads)
        )
    check(got, expected, precision.bound)
    check(grads, expected_grads, precision.bound)


def in_double(arrays: Arguments) -> Arguments:
    return joined({name: np.asarray(value, np.float64) for name, value in arrays.items()})
