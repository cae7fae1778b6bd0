"""Gradients by name, in the forms in which this package's functions and layers return them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fusedrnn.options import STATES

# Of x, of states and of what attention reads: as the backward of a layer or module calls them, and
# as that of a function does.
_INPUTS = (
    "x",
    "query",
    "memory",
    "values",
    *(f"{s}0" for s in STATES),
    *(f"reset_{s}" for s in STATES),
)
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
