"""The activations of cells, as ONNX defines them, and the limit of what they are given.

https://onnx.ai/onnx/operators/onnx__RNN.html. An activation is a name, or a name with alpha and
beta; those that are left out are `DEFAULTS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from . import dual
from .autodiff import Scalar, Var, elementary, relu, sigmoid, tanh, value_of

Activation = str | tuple[Any, ...]
Function = Callable[[Scalar], Scalar]

# ONNX's, of the operators of these names; affine and scaled_tanh have none there.
DEFAULTS: dict[str, tuple[float, ...]] = {
    "hard_sigmoid": (0.2, 0.5),
    "leaky_relu": (0.01,),
    "elu": (1.0,),
    "thresholded_relu": (1.0,),
    "affine": (1.0, 0.0),
    "scaled_tanh": (1.0, 1.0),
}


def function_of(activation: Activation) -> Function:
    name, *given = (activation,) if isinstance(activation, str) else activation
    defaults = DEFAULTS.get(name, ())
    return _FUNCTIONS[name](*given, *defaults[len(given) :])


def clipped(a: Scalar, limit: float, limits_nan: bool = False) -> Scalar:
    """Within [-limit, limit]. A constant where it reaches the limit: nothing comes through."""
    value = value_of(a)
    if math.isnan(value) and limits_nan:
        return _constant(a, limit)
    return _constant(a, math.copysign(limit, value)) if dual.absolute(value) >= limit else a


def _constant(like: Scalar, value: float) -> Scalar:
    return Var(value) if isinstance(like, Var) else value


def _identity(a: Scalar) -> Scalar:
    return a


def _hard_sigmoid(alpha: float, beta: float) -> Function:
    def function(a: Scalar) -> Scalar:
        line = alpha * a + beta
        if value_of(line) <= 0.0:
            return _constant(a, 0.0)
        return _constant(a, 1.0) if value_of(line) >= 1.0 else line

    return function


def _leaky_relu(alpha: float) -> Function:
    return lambda a: alpha * a if value_of(a) <= 0.0 else a


def _elu(alpha: float) -> Function:
    below = elementary(lambda v: alpha * dual.expm1(v), lambda v: alpha * dual.exp(v))
    return lambda a: below(a) if value_of(a) <= 0.0 else a


def _thresholded_relu(alpha: float) -> Function:
    return lambda a: _constant(a, 0.0) if value_of(a) < alpha else a


_softsign = elementary(
    lambda v: v / (1.0 + dual.absolute(v)), lambda v: 1.0 / (1.0 + dual.absolute(v)) ** 2
)
_softplus = elementary(
    lambda v: max(v, 0.0) + dual.log1p(dual.exp(-dual.absolute(v))),
    lambda v: value_of(sigmoid(v)),
)

_FUNCTIONS: dict[str, Callable[..., Function]] = {
    "sigmoid": lambda: sigmoid,
    "tanh": lambda: tanh,
    "relu": lambda: relu,
    "identity": lambda: _identity,
    "hard_sigmoid": _hard_sigmoid,
    "softsign": lambda: _softsign,
    "softplus": lambda: _softplus,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "affine": lambda alpha, beta: lambda a: alpha * a + beta,
    "scaled_tanh": lambda alpha, beta: lambda a: alpha * tanh(beta * a),
    "thresholded_relu": _thresholded_relu,
}

NAMES = tuple(_FUNCTIONS)
