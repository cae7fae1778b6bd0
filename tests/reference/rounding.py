"""Where 16-bit types and `compute_dtype` round (docs/math.md, section 13), as functions of float64.

Sums and gate maths, which the package does in float32, stay float64 here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Round = Callable[[Array], Array]


class Format(NamedTuple):
    """A binary floating type: bits of the significand, least and greatest exponent."""

    bits: int
    least: int
    greatest: int


FORMATS = {
    "bfloat16": Format(8, -126, 127),
    "float16": Format(11, -14, 15),
    "float32": Format(24, -126, 127),
}


def rounded(values: ArrayLike, dtype: str) -> Array:
    """The nearest numbers of `dtype`, ties to even, subnormal numbers and infinities included."""
    exact = np.asarray(values, dtype=np.float64)
    bits, least, greatest = FORMATS[dtype]
    _, exponent = np.frexp(exact)  # of a significand below 1
    last_place = np.maximum(exponent - 1, least) - (bits - 1)
    nearest = np.ldexp(np.rint(np.ldexp(exact, -last_place)), last_place)
    overflows = np.abs(nearest) >= 2.0 ** (greatest + 1)
    return np.where(overflows, np.copysign(np.inf, exact), nearest)


# What is smaller than this, the row's scale being a denormal, counts as zero.
LEAST_INT8 = 127 * 2.0**-126


def quantised(values: ArrayLike) -> Array:
    """Each row in 127 steps on either side of zero (docs/quantisation.md)."""
    rows = np.asarray(values, dtype=np.float64)
    largest = np.max(np.abs(rows), axis=-1, keepdims=True)
    scale = np.where(largest < LEAST_INT8, 0.0, largest / 127)
    return np.asarray(np.rint(rows / np.where(scale == 0.0, np.inf, scale)) * scale)


def _exactly(values: Array) -> Array:
    return values


class Rounding(NamedTuple):
    """What happens to the values of each kind."""

    operand: Round = _exactly  # x, h, r * h and weights as a product reads them
    state: Round = _exactly  # h as it leaves a step
    gates: Round = _exactly  # what forward saves of a step for backward
    delta: Round = _exactly  # gradients of a and u, as products and sums read them
    result: Round = _exactly  # the last state and every gradient, as they leave a call


EXACT = Rounding()
_TO_BFLOAT16 = partial(rounded, dtype="bfloat16")
_TO_FLOAT16 = partial(rounded, dtype="float16")

# By dtype; by compute_dtype of float32 arrays.
STORED_IN = {
    "bfloat16": Rounding(*5 * [_TO_BFLOAT16]),
    # Its range ends where gradients begin.
    "float16": Rounding(*5 * [_TO_FLOAT16])._replace(delta=_exactly),
}
COMPUTED_IN = {
    "bfloat16": Rounding(operand=_TO_BFLOAT16, gates=_TO_BFLOAT16, delta=_TO_BFLOAT16),
}

# Frozen weights by their dtype.
FROZEN_IN = {
    "bfloat16": Rounding(operand=_TO_BFLOAT16),
    "int8": Rounding(operand=quantised),
}

# As STORED_IN and COMPUTED_IN, on a CUDA device, where gates are kept as they are.
STORED_IN_ON_CUDA = {
    name: rounding._replace(gates=_exactly) for name, rounding in STORED_IN.items()
}
COMPUTED_IN_ON_CUDA = {"bfloat16": COMPUTED_IN["bfloat16"]._replace(gates=_exactly)}
