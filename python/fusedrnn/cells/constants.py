"""The constants of cells: limits, and activations in the place of the usual ones.

A plain cell has the usual activations and no limits. Any others are constants of a general cell,
which computes the same where they are usual, a little slower.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

from fusedrnn import options

# The compiled module's numbers of them (fusedrnn_activation), and the defaults of alpha and beta:
# those of ONNX's operators of these names; for affine and scaled_tanh there are none.
Name = Literal[
    "sigmoid",
    "tanh",
    "relu",
    "identity",
    "hard_sigmoid",
    "softsign",
    "softplus",
    "leaky_relu",
    "elu",
    "affine",
    "scaled_tanh",
    "thresholded_relu",
]
NAMES: tuple[Name, ...] = get_args(Name)
DEFAULTS: dict[str, tuple[float, ...]] = {
    "hard_sigmoid": (0.2, 0.5),
    "leaky_relu": (0.01,),
    "elu": (1.0,),
    "affine": (1.0, 0.0),
    "scaled_tanh": (1.0, 1.0),
    "thresholded_relu": (1.0,),
}
# What a message calls them.
_NUMBERS = ("none", "alpha", "alpha and beta")

# As a user gives it: a name, or a tuple of it with alpha and beta.
Activation = Name | tuple[Name] | tuple[Name, float] | tuple[Name, float, float]
# With all its numbers.
Full = tuple[Any, ...]
_LEAST_LIMIT = 1e-9
_BY_NAME: dict[str, Full] = {name: (name, *DEFAULTS.get(name, ())) for name in NAMES}


def activation(name: str, value: object) -> Full:
    """An activation with its numbers, those that were left out the defaults."""
    if isinstance(value, str):
        if (known := _BY_NAME.get(value)) is not None:
            return known
        value = (value,)
    if not isinstance(value, tuple):
        wanted = "a name, or a tuple of it with alpha and beta"
        raise TypeError(f"{name}: expected {wanted}, got {type(value).__name__}")
    if not value:
        raise ValueError(f"{name}: expected a name and its numbers, got ()")
    kind = options.choice(name, value[0], NAMES)
    defaults = DEFAULTS.get(kind, ())
    if len(value) - 1 > len(defaults):
        raise ValueError(
            f"{name}: expected {_NUMBERS[len(defaults)]} after {kind!r}, "
            f"got {len(value) - 1} numbers"
        )
    given = tuple(options.number(name, number) for number in value[1:])
    return (kind, *given, *defaults[len(given) :])


def activations(value: object, letters: str, usual: tuple[str, ...]) -> tuple[Full, ...] | None:
    """One activation for each letter; None where they are the usual ones."""
    if value is None:
        return None
    form = f"a tuple of {len(usual)} activations ({', '.join(letters)})"
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"activations: expected {form}, got {type(value).__name__}")
    if len(value) != len(usual):
        raise ValueError(f"activations: expected {form}, got {len(value)}")
    full = tuple(activation(f"activations[{i}]", each) for i, each in enumerate(value))
    return None if full == tuple((kind,) for kind in usual) else full


def limit(name: str, value: object) -> float | None:
    """A number of at least 1e-9; None for none, as infinity is."""
    if value is None:
        return None
    number = options.real(name, value)
    if not number >= _LEAST_LIMIT:
        raise ValueError(f"{name}: expected None or a number of at least 1e-9, got {value}")
    return None if number == math.inf else number


def shown_all(value: object, letters: str, usual: tuple[str, ...]) -> tuple[Activation, ...] | None:
    """What `activations` says, as a user would give it; None where they are the usual ones."""
    full = activations(value, letters, usual)
    return None if full is None else tuple(map(shown, full))


def shown(full: Full) -> Activation:
    """An activation as a user would give it."""
    return full if len(full) > 1 else full[0]


def numbers(
    limits: Sequence[float | None], each: Sequence[Full] | None, usual: tuple[str, ...] = ()
) -> tuple[float, ...]:
    """In the compiled module's order: limits, then kind, alpha and beta of each activation.

    None are the usual ones.
    """
    flat = [math.inf if number is None else number for number in limits]
    return (*flat, *(_of_usual(usual) if each is None else _of_activations(each)))


def _of_activations(each: Sequence[Full]) -> tuple[float, ...]:
    flat: list[float] = []
    for kind, *given in each:
        flat += [float(NAMES.index(kind)), *given, *[0.0] * (2 - len(given))]
    return tuple(flat)


@functools.cache  # small calls notice it
def _of_usual(names: tuple[str, ...]) -> tuple[float, ...]:
    return _of_activations([(name,) for name in names])
