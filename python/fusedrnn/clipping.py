"""Clipping of gradients, so that one that exploded does not ruin the parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fusedrnn import _core, gradients, options


def clip_grad_norm(grads: Any, max_norm: float, *, error_if_nonfinite: bool = False) -> float:
    """Scale the gradients of parameters in place, so that their common norm is at most `max_norm`.

    Parameters
    ----------
    grads : mapping of arrays, or what a function such as `lstm_backward` returns
        Gradients of parameters. Those of inputs and states, by their names, are neither counted nor
        changed. Arrays that can be written to: of NumPy, PyTorch or CuPy, on any device.
    max_norm : float
        At least 0; ``inf`` only measures.
    error_if_nonfinite : bool
        Whether a norm that is no finite number is an error.

    Returns
    -------
    float
        The Euclidean norm of all of them together, before. Where it is infinite or NaN no gradient
        has been changed: no factor would bring it to `max_norm`, and none hides which one it is.

    Raises
    ------
    ValueError
        For a `max_norm` that is negative or NaN, a norm that is not finite, and an array under two
        names, which would be scaled twice.
    TypeError
        For something else than gradients, or an array that is not floating or cannot be written to.

    References
    ----------
    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
    ICML (2013), algorithm 1.

    Examples
    --------
    >>> grads = {"weight": np.array([3.0, 4.0]), "x": np.array([100.0])}
    >>> fr.clip_grad_norm(grads, 1.0)
    5.0
    >>> grads["weight"].round(6).tolist(), grads["x"].tolist()
    ([0.6, 0.8], [100.0])
    """
    limit = _limit("max_norm", max_norm)
    options.flag("error_if_nonfinite", error_if_nonfinite)
    arrays = _parameters(grads)
    norm = math.hypot(*(_norm(array) for array in arrays.values())) if arrays else 0.0
    if error_if_nonfinite and not math.isfinite(norm):
        raise ValueError(f"grads: expected a finite norm, got {norm}")
    if math.isfinite(norm) and norm > limit:
        for array in arrays.values():
            array[...] *= limit / norm
    return norm


def clip_grad_value(grads: Any, clip_value: float) -> None:
    """Move every number of the gradients of parameters, in place, to within +-`clip_value`.

    Parameters
    ----------
    grads
        As in `clip_grad_norm`.
    clip_value : float
        At least 0.

    Raises
    ------
    ValueError, TypeError
        As `clip_grad_norm`.
    """
    limit = _limit("clip_value", clip_value)
    for array in _parameters(grads).values():
        if isinstance(array, np.ndarray):
            np.clip(array, -limit, limit, out=array)
        else:
            array[...] = array.clip(-limit, limit)


def _limit(name: str, value: object) -> float:
    limit = options.real(name, value)
    if not limit >= 0:
        raise ValueError(f"{name}: expected at least 0, got {value}")
    return limit


def _parameters(grads: Any) -> dict[str, Any]:
    given = gradients.by_name(grads)
    arrays = {k: v for k, v in given.items() if k not in gradients.OF_INPUTS and v is not None}
    names: dict[int, str] = {}
    for name, array in arrays.items():
        if isinstance(array, np.ndarray):
            if not array.flags.writeable:
                raise ValueError(f"{name}: expected an array to write to, got a read-only one")
        elif not _is_changed_in_place(array):
            raise TypeError(f"{name}: expected an array to write to, got {type(array).__name__}")
        if "float" not in str(array.dtype):
            raise TypeError(f"{name}: expected a floating dtype, got {array.dtype}")
        other = names.setdefault(id(array), name)
        if other != name:
            raise ValueError(f"{name}: expected an array of its own, got that of {other}")
    return arrays


def _is_changed_in_place(array: Any) -> bool:
    """False for arrays of JAX, of which `*=` makes new ones, and for what is no array."""
    if not hasattr(array, "clip") or not getattr(array, "ndim", 0):
        return False
    before = after = array[:0]
    after *= 1
    return bool(after is before)


def _norm(array: Any) -> float:
    """In float64, where the array is, and without overflow."""
    if 0 in array.shape:
        return 0.0
    if isinstance(array, np.ndarray) and array.dtype.name in ("float32", "float64"):
        squares = _core.sum_of_squares(np.require(array, None, ["C", "A"]))
        if 1e-290 < squares < math.inf:
            return math.sqrt(squares)
    if isinstance(array, np.ndarray) or not hasattr(array, "double"):
        numbers = abs(array.astype(np.float64))
    else:
        numbers = array.double().abs()
    largest = float(numbers.max())
    if not 0 < largest < math.inf:
        return largest
    numbers /= largest
    # Not by BLAS, whose threads would take the cores from the engine's for a while afterwards.
    numbers *= numbers
    return largest * math.sqrt(float(numbers.sum()))
