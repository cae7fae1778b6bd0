"""bfloat16 in NumPy arrays, which have no such type of their own.

Inside the package its elements lie in arrays of `BITS`, a type that the compiled module knows as
bfloat16. A user of NumPy gives and sees `ml_dtypes.bfloat16`. That package is imported only where
an array has to be made for such a user, so that nobody who computes with PyTorch or JAX needs it.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedrnn import _core

Array = NDArray[Any]

BITS = _core.empty((0,), "bfloat16").dtype


def for_numpy(array: Any) -> Any:
    """The array as a user of NumPy wants it, sharing its memory.

    Raises
    ------
    ImportError
        Where it holds bfloat16 and the package ml_dtypes is missing.
    """
    dtype = array.dtype
    return array.view(_dtype_of_users()) if dtype is BITS or dtype == BITS else array


@functools.cache
def _dtype_of_users() -> Any:
    try:
        import ml_dtypes  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "bfloat16 in NumPy arrays needs the package ml_dtypes, which cannot be imported: "
            "pip install ml_dtypes"
        ) from error
    return np.dtype(ml_dtypes.bfloat16)


def from_file(value: Any) -> Any:
    """The value, or where it is what a file of NumPy's (.npz) makes of bfloat16 its numbers.

    Such a file keeps the two bytes of each element and forgets their type.
    """
    plain = isinstance(value, np.ndarray) and value.dtype == np.dtype("V2")
    return value.view(BITS) if plain else value


def dtype_name(array: Array) -> str:
    """The name of an array's dtype, "bfloat16" for both of its forms."""
    return "bfloat16" if array.dtype == BITS else array.dtype.name


def cast(array: Array, dtype: str) -> Array:
    """A copy in `dtype`, from any floating type that `_core.as_array` takes.

    To bfloat16 values go through float32, as in ml_dtypes and PyTorch; each rounding is to nearest,
    ties to even.
    """
    source = array if array.dtype.kind == "f" else _widened(array)
    return _rounded(source.astype(np.float32)) if dtype == "bfloat16" else source.astype(dtype)


def _widened(array: Array) -> Array:
    """bfloat16 is the upper half of a float32."""
    return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _rounded(array: Array) -> Array:
    bits = array.view(np.uint32)
    # Half of the last place that stays, less one where that place is even. A carry into the
    # exponent is right; of a NaN the upper half is kept, made quiet lest it become an infinity.
    upper = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(array), bits >> 16 | 0x40, upper).astype(np.uint16).view(BITS)
