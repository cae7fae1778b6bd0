"""What all of them make of their array arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fusedrnn import _core, options

Array = NDArray[Any]
Dtype = Literal["float32", "float64"]
DTYPES: tuple[str, ...] = get_args(Dtype)
FLOATING = "dtype float32 or float64"


def dtype(value: object) -> str:
    """The name of a dtype that modules can have."""
    name = options.dtype(value)
    if name not in DTYPES:
        raise ValueError(f"dtype: expected {options.either(map(repr, DTYPES))}, got {name!r}")
    return name


def is_array(value: object) -> bool:
    return isinstance(value, np.ndarray)


def floating(name: str, value: Any, shape: Sequence[int | None] | None = None) -> Array:
    """An array of float32 or float64, in this shape; None stands for any extent."""
    array = _core.as_array(name, value, None if shape is None else tuple(shape))
    if array.dtype.name not in DTYPES:
        found = "bfloat16" if array.dtype.kind == "V" else array.dtype.name
        raise TypeError(f"{name}: expected {FLOATING}, got {found}")
    return array


def last_axis(name: str, value: Any, size: int, dtype: str) -> Array:
    """An array [..., size] of the dtype of a module."""
    array = _core.as_array(name, value, None, dtype)
    if array.ndim == 0 or array.shape[-1] != size:
        raise ValueError(f"{name}: expected shape (..., {size}), got {array.shape}")
    return array


def like(name: str, value: Any, shape: tuple[int, ...], dtype: str) -> Array:
    """An array of exactly this shape and dtype."""
    return _core.as_array(name, value, shape, dtype)


def dense(array: Array, dtype: Any = None) -> Array:
    """The array as the compiled module reads it, or a copy."""
    found: Array = np.require(array, dtype, ["C", "A"])
    return found


def integer_array(name: str, value: Any, shape: Sequence[int | None] | None) -> NDArray[Any]:
    """Integers of any dtype. A sequence of Python's will do, bools will not."""
    if isinstance(value, (list, tuple)):
        try:
            value = np.asarray(value) if len(value) else np.zeros(0, np.int64)
        except ValueError:
            raise ValueError(f"{name}: expected rows of one length, got several") from None
    array = _core.as_array(name, value, None if shape is None else tuple(shape))
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected an integer dtype, got {array.dtype.name}")
    return array


def check_range(
    name: str, array: NDArray[Any], below: int, least: int, where: NDArray[np.bool_] | None = None
) -> None:
    """That integers are from `least` on and below a bound, wherever they are looked at."""
    wrong = (array < least) | (array >= below)
    if where is not None:
        wrong &= where
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        place = str(at[0]) if len(at) == 1 else str(at)
        raise ValueError(
            f"{name}: expected values from {least} to {below - 1}, got {array[at]} at index {place}"
        )


def integers(
    name: str, value: Any, shape: Sequence[int | None] | None, below: int, least: int = 0
) -> NDArray[np.int64]:
    """Integers within a range: classes, indices, lengths."""
    array = integer_array(name, value, shape)
    check_range(name, array, below, least)
    return array.astype(np.int64, order="C", copy=False)


def lengths(name: str, value: Any, batch: int, most: int, least: int = 0) -> NDArray[np.int64]:
    """Lengths [B] from `least` to `most`."""
    return integers(name, value, (batch,), most + 1, least)


def steps_that_count(
    shape: tuple[int, ...], of: str, lengths_: Any, mask: Any
) -> NDArray[np.bool_] | None:
    """Which elements of an array [T, B, ...] count by lengths [B] and a mask, or None for all.

    The mask may have all axes of the array or the first of them; the result has as many axes as
    are needed.
    """
    counts: NDArray[np.bool_] | None = None
    if mask is not None:
        array = _core.as_array("mask", mask)
        if array.dtype not in (np.bool_, np.uint8):
            raise TypeError(f"mask: expected dtype bool or uint8, got {array.dtype.name}")
        if array.ndim == 0 or array.shape != shape[: array.ndim]:
            raise ValueError(
                f"mask: expected shape {shape}, that of {of}, or its first axes, got {array.shape}"
            )
        counts = array.astype(np.bool_)
    if lengths_ is not None:
        if len(shape) < 2:
            raise ValueError(f"lengths: expected None for {of} of shape {shape}, without an axis B")
        ends = lengths("lengths", lengths_, shape[1], shape[0])
        valid = np.arange(shape[0])[:, None] < ends
        if counts is None:
            return valid
        if counts.ndim == 1:
            counts = counts[:, None]
        counts = counts & valid.reshape(valid.shape + (1,) * (counts.ndim - 2))
    return counts


def gradient_to_write(source: Array, of: str, out: Any) -> tuple[Array, Array]:
    """A dense array for the gradient of `source`, and what the user gets of it.

    `out` is None for a new one, or an array that is written and returned; `source` itself is
    allowed, for it is read before it is written.
    """
    if out is None:
        gradient = np.empty(source.shape, source.dtype)
        return gradient, gradient
    array = like("out", out, source.shape, source.dtype.name)
    if not array.flags.writeable:
        raise ValueError("out: expected an array to write to, got one that is read-only")
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise ValueError(
            f"out: expected a dense array, got one of strides {array.strides} for shape "
            f"{array.shape}"
        )
    same = array.ctypes.data == source.ctypes.data and array.strides == source.strides
    if not same and np.may_share_memory(array, source):
        raise ValueError(f"out: expected {of} itself or memory of its own, got a part of {of}")
    return array, out
