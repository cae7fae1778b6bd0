"""Gradients by name, in the forms in which this package's functions and layers return them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

# Of x and of states: what a layer's backward calls so, and what a function's does.
_INPUTS = ("x", "h0", "c0", "reset_h", "reset_c")
OF_INPUTS = frozenset(_INPUTS) | frozenset(f"d{name}" for name in _INPUTS)


def is_record(grads: object) -> bool:
    """Whether it is what a function such as `lstm_backward` returns."""
    return dataclasses.is_dataclass(grads) and not isinstance(grads, type)


def by_name(grads: Any) -> Mapping[str, Any]:
    """The arrays of a mapping, or of what a function such as `lstm_backward` returns.

    Raises
    ------
    TypeError
        For anything else.
    """
    if is_record(grads):
        return {field.name: getattr(grads, field.name) for field in dataclasses.fields(grads)}
    if not isinstance(grads, Mapping):
        raise TypeError(f"grads: expected gradients by name, got {type(grads).__name__}")
    return grads
