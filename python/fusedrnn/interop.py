"""Which kind of array a result should be.

Arrays come in as NumPy arrays or through the DLPack protocol, and the compiled module reads them
where they lie. On the CPU results are made as NumPy arrays and handed back as the kind of array
that `x` was, again without a copy; those of bfloat16, which NumPy cannot export, by the compiled
module's own `__dlpack__`. On a CUDA device the library of `x` makes them (`fusedrnn.cuda_arrays`),
or where it offers no way to, its `from_dlpack` takes them over.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np

from fusedrnn import _core, bf16

A = TypeVar("A")  # the kind of array that x is, which the results are as well


def converter_to_kind_of(x: A) -> Callable[[Any], A]:
    """How a result of the compiled module becomes an array of the kind of `x`, sharing its memory.

    NumPy arrays stay as they are. Other arrays with `__dlpack__` are given to `from_dlpack` of
    their array API namespace (`x.__array_namespace__()`; JAX), or else of the top-level package of
    their class or of its nearest base that has one (PyTorch). Where neither exists, the result is a
    NumPy array. No package is imported for this, for the one that made `x` already is; only a NumPy
    array of bfloat16 asks for ml_dtypes.
    """
    if isinstance(x, np.ndarray):
        return as_it_is if x.dtype.char in "efd" else bf16.for_numpy
    return partial(_export, _from_dlpack_of(x))


def as_it_is(array: Any) -> Any:
    """The array."""
    return array


def _from_dlpack_of(x: A) -> Callable[[Any], A] | None:
    if not hasattr(x, "__dlpack__"):
        return None
    namespace = getattr(x, "__array_namespace__", None)
    candidates = [] if namespace is None else [namespace()]
    for base in type(x).__mro__:
        candidates.append(sys.modules.get(base.__module__.partition(".")[0]))
    for module in candidates:
        from_dlpack: Callable[[Any], A] | None = getattr(module, "from_dlpack", None)
        if from_dlpack is not None:
            return from_dlpack
    return None


def _export(from_dlpack: Callable[[Any], A] | None, array: Any) -> Any:
    if isinstance(array, np.ndarray):
        if from_dlpack is None:
            return bf16.for_numpy(array)
        return from_dlpack(array if array.dtype.kind == "f" else _core.LentArray(array))
    if isinstance(array, _core.LentArray) and from_dlpack is not None:
        return from_dlpack(array)
    return array  # made by the library of x


def warn_of_lost_gradients(*arrays: Any) -> None:
    """Warn where PyTorch would expect a gradient of a call that saves nothing for one.

    Among the arrays are tuples and lists of them, and None. The warning names the line that called
    the package: Python shows it once for each.
    """
    for array in arrays:
        if type(array) is np.ndarray or array is None or not wants_gradient(array):
            continue
        torch = sys.modules.get("torch")
        if torch is None or not torch.is_grad_enabled():
            return
        warnings.warn(
            "a tensor requires a gradient, but PyTorch's autograd does not see this call: its "
            "results require none. The modules of fusedrnn.torch train with autograd; or take the "
            "gradients from forward and backward, of a loss from its *_grad, or call it under "
            "torch.no_grad()",
            UserWarning,
            stacklevel=_level_of_caller(),
        )
        return


def wants_gradient(array: Any) -> bool:
    """Whether PyTorch's autograd watches an array, or one of a tuple or list of them."""
    if isinstance(array, (tuple, list)):
        return any(map(wants_gradient, array))
    return type(array) is not np.ndarray and getattr(array, "requires_grad", None) is True


def _level_of_caller() -> int:
    """The level, as the caller of this gives it to `warnings.warn`, of the line outside of here."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_globals.get("__name__", "").partition(".")[0] == "fusedrnn"
    ):
        level, frame = level + 1, frame.f_back
    return level
