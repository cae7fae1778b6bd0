"""Arrays of weights, from whichever library: read, checked, and as another library takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedrnn import _core, bf16, cuda_arrays, options

Array = NDArray[Any]


def read(name: str, value: Any, shape: tuple[int | None, ...] | None = None) -> Array:
    """Return floating numbers as a NumPy array; bfloat16 as `fusedrnn.bf16` has it.

    Raises
    ------
    ValueError, TypeError
        Where it is no array on the CPU or a CUDA device, of another shape (None is any length) or
        of a dtype that layers do not have.
    """
    if cuda_arrays.is_on_cuda(value):
        value = cuda_arrays.kind_of(value).read(value)
    array = _core.as_array(name, value, shape)
    if bf16.dtype_name(array) not in options.DTYPES:
        known = ", ".join(options.DTYPES)
        raise TypeError(f"{name}: expected a dtype among {known}, got {array.dtype.name}")
    return array


def zeros_like(array: Array) -> Array:
    """Zeros of the shape and dtype; no bits set are a zero in each of them."""
    return np.zeros(array.shape, array.dtype)


def added(first: Array, second: Array) -> Array:
    """The sum of two arrays of one dtype, rounded once."""
    wide = bf16.cast(first, "float64") + bf16.cast(second, "float64")
    return bf16.cast(wide, bf16.dtype_name(first)).view(first.dtype)


def stacked(*each: Array) -> Array:
    """Arrays of one shape, along a new first axis."""
    return np.stack(each)
