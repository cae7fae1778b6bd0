"""The CUDA Array Interface, version 3: how arrays without `__dlpack__` show their memory."""

from __future__ import annotations

import operator
from typing import Any, NoReturn

import numpy as np

from fusedrnn import _core


def lend(name: str, array: Any, device: int) -> _core.LentArray:
    """Return what lends the array by DLPack, behind the stream that it was made on.

    `device` is where it lies if it has no elements, and so no address; -1: on the CPU.
    """

    def refuse(what: str, got: object) -> NoReturn:
        raise TypeError(f"{name}: expected a __cuda_array_interface__ with {what}, got {got}")

    def integers(value: object) -> list[int]:
        if not isinstance(value, tuple) or not all(hasattr(n, "__index__") for n in value):
            refuse("tuples of ints", type(value).__name__)
        return [operator.index(n) for n in value]

    shown = array.__cuda_array_interface__
    if not isinstance(shown, dict):
        refuse("a dict", type(shown).__name__)
    if shown.get("mask") is not None:
        refuse("no mask", type(shown["mask"]).__name__)
    shape, data, text = integers(shown.get("shape")), shown.get("data"), shown.get("typestr")
    if not isinstance(data, tuple) or len(data) != 2 or not isinstance(data[0], int):
        refuse("data", type(data).__name__)
    numeric = isinstance(text, str) and len(text) > 2 and text[1] in "biufc"
    dtype = np.dtype(text) if numeric else None
    if dtype is None or not dtype.isnative:
        refuse("a typestr of numbers in the machine's byte order", repr(text))
    steps = shown.get("strides")
    if steps is None:
        strides = [int(np.prod(shape[axis + 1 :], dtype=object)) for axis in range(len(shape))]
    else:
        steps = integers(steps)
        if len(steps) != len(shape):
            refuse("a stride an axis", "other strides")
        if any(step % dtype.itemsize for step in steps):
            refuse("strides of whole elements", "others")
        strides = [step // dtype.itemsize for step in steps]
    stream = shown.get("stream")
    if stream is not None and operator.index(stream) == 0:
        refuse("a stream that is not 0, which could be either default", 0)
    address, read_only = data
    return _core.LentArray(
        name, address, shape, strides, dtype, bool(read_only), stream, device, owner=array
    )
