"""Which kind of array a result should be.

Arrays come in as NumPy arrays or through the DLPack protocol, and the compiled module reads them
where they lie. Results are made as NumPy arrays and handed back as the kind of array that `x` was,
again without a copy; those of bfloat16, which NumPy cannot export, by the compiled module's own
`__dlpack__`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np

from fusedrnn import _core, bf16

A = TypeVar("A")  # the kind of array that x is, which the results are as well


def converter_to_kind_of(x: A) -> Callable[[Any], A]:
    """How a NumPy result becomes an array of the kind of `x`, sharing its memory.

    NumPy arrays stay as they are. Other arrays with `__dlpack__` are given to `from_dlpack` of
    their array API namespace (`x.__array_namespace__()`; JAX), or else of the top-level package of
    their class or of its nearest base that has one (PyTorch). Where neither exists, the result is a
    NumPy array. No package is imported for this, for the one that made `x` already is; only a NumPy
    array of bfloat16 asks for ml_dtypes.
    """
    if isinstance(x, np.ndarray) or not hasattr(x, "__dlpack__"):
        return bf16.for_numpy
    namespace = getattr(x, "__array_namespace__", None)
    candidates = [] if namespace is None else [namespace()]
    for base in type(x).__mro__:
        candidates.append(sys.modules.get(base.__module__.partition(".")[0]))
    for module in candidates:
        from_dlpack: Callable[[Any], A] | None = getattr(module, "from_dlpack", None)
        if from_dlpack is not None:
            return partial(_export, from_dlpack)
    return bf16.for_numpy


def _export(from_dlpack: Callable[[Any], A], array: Any) -> A:
    return from_dlpack(array if array.dtype.kind == "f" else _core.LentArray(array))
