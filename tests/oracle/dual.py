"""Dual numbers: a value and its derivative along a direction.

In the place of floats they go through everything here, reverse-mode differentiation too: gradients
of dual numbers are gradients and, as their tangents, second derivatives along the direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable


class Dual:
    """value + tangent * e with e * e = 0; compared by its value."""

    __slots__ = ("tangent", "value")

    def __init__(self, value: float, tangent: float = 0.0) -> None:
        self.value = float(value)
        self.tangent = float(tangent)

    def __add__(self, other: Number) -> Dual:
        b = dual(other)
        return Dual(self.value + b.value, self.tangent + b.tangent)

    def __mul__(self, other: Number) -> Dual:
        b = dual(other)
        return Dual(self.value * b.value, self.value * b.tangent + self.tangent * b.value)

    def __truediv__(self, other: Number) -> Dual:
        b = dual(other)
        quotient = self.value / b.value
        return Dual(quotient, (self.tangent - quotient * b.tangent) / b.value)

    def __pow__(self, power: float) -> Dual:
        return Dual(self.value**power, power * self.value ** (power - 1) * self.tangent)

    def __neg__(self) -> Dual:
        return Dual(-self.value, -self.tangent)

    def __sub__(self, other: Number) -> Dual:
        return self + (-dual(other))

    def __rsub__(self, other: float) -> Dual:
        return dual(other) - self

    def __rtruediv__(self, other: float) -> Dual:
        return dual(other) / self

    def __float__(self) -> float:
        return self.value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Dual, float, int)) and self.value == float(other)

    def __lt__(self, other: Number) -> bool:
        return self.value < float(other)

    def __le__(self, other: Number) -> bool:
        return self.value <= float(other)

    def __gt__(self, other: Number) -> bool:
        return self.value > float(other)

    def __ge__(self, other: Number) -> bool:
        return self.value >= float(other)

    __hash__ = None  # type: ignore[assignment]
    __radd__ = __add__
    __rmul__ = __mul__


Number = float | Dual


def dual(a: Number) -> Dual:
    return a if isinstance(a, Dual) else Dual(a)


def absolute(a: Number) -> Number:
    return -a if math.copysign(1.0, float(a)) < 0 else a


def tangent_of(a: Number) -> float:
    return dual(a).tangent


def _function(
    f: Callable[[float], float], slope: Callable[[float], float]
) -> Callable[[Number], Number]:
    def apply(a: Number) -> Number:
        return Dual(f(a.value), slope(a.value) * a.tangent) if isinstance(a, Dual) else f(a)

    return apply


def _tanh_slope(a: float) -> float:
    e = math.exp(-2.0 * abs(a))  # 1 - tanh**2 without the cancellation
    return 4.0 * e / (1.0 + e) ** 2


exp = _function(math.exp, math.exp)
expm1 = _function(math.expm1, math.exp)
log = _function(math.log, lambda a: 1.0 / a)
log1p = _function(math.log1p, lambda a: 1.0 / (1.0 + a))
tanh = _function(math.tanh, _tanh_slope)
