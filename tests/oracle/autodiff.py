"""Scalar reverse-mode differentiation.

A `Var` remembers the values it was computed from and the slope towards each. Plain numbers are
constants: every function here takes either, and stays a number as long as no `Var` is involved.
Numbers are floats, or dual ones (`dual.py`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

from . import dual
from .dual import Dual, Number

Edges = tuple[tuple["Var", Number], ...]

_creation = itertools.count()


class Var:
    """A number with its place in the computation; hashed and compared by identity.

    `limit`: the largest magnitude of its gradient, which is cut off there before it goes on.
    """

    __slots__ = ("edges", "limit", "order", "value")

    def __init__(self, value: Number, edges: Edges = (), limit: float = math.inf) -> None:
        self.value: Number = value if isinstance(value, Dual) else float(value)
        self.edges = edges
        self.limit = limit
        self.order = next(_creation)  # an operand is always older than its result

    def __add__(self, other: Scalar) -> Var:
        if isinstance(other, Var):
            return Var(self.value + other.value, ((self, 1.0), (other, 1.0)))
        return Var(self.value + other, ((self, 1.0),))

    def __mul__(self, other: Scalar) -> Var:
        if isinstance(other, Var):
            return Var(self.value * other.value, ((self, other.value), (other, self.value)))
        return Var(self.value * other, ((self, other),))

    def __neg__(self) -> Var:
        return self * -1.0

    def __sub__(self, other: Scalar) -> Var:
        return self + (-other)

    def __rsub__(self, other: Number) -> Var:
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__


Scalar = Var | Number


def value_of(a: Scalar) -> Number:
    return a.value if isinstance(a, Var) else a


def dot(p: Sequence[Scalar], q: Sequence[Scalar]) -> Scalar:
    """Sum of p[k] * q[k], as one node rather than 2n."""
    pairs = list(zip(p, q, strict=True))
    zero: Number = 0.0
    value = sum((value_of(a) * value_of(b) for a, b in pairs), zero)
    edges = [(a, value_of(b)) for a, b in pairs if isinstance(a, Var)]
    edges += [(b, value_of(a)) for a, b in pairs if isinstance(b, Var)]
    return Var(value, tuple(edges)) if edges else value


def elementary(
    f: Callable[[Number], Number], slope: Callable[[Number], Number]
) -> Callable[[Scalar], Scalar]:
    def apply(a: Scalar) -> Scalar:
        return Var(f(a.value), ((a, slope(a.value)),)) if isinstance(a, Var) else f(a)

    return apply


def _sigmoid(a: Number) -> Number:
    e = dual.exp(-dual.absolute(a))  # never overflows
    return (1.0 if a >= 0.0 else e) / (1.0 + e)


def _sigmoid_slope(a: Number) -> Number:
    e = dual.exp(-dual.absolute(a))  # s * (1 - s) without the cancellation in 1 - s
    return e / (1.0 + e) ** 2


def _tanh_slope(a: Number) -> Number:
    return 4.0 * _sigmoid_slope(2.0 * a)  # tanh(a) = 2 s(2a) - 1


sigmoid = elementary(_sigmoid, _sigmoid_slope)
tanh = elementary(dual.tanh, _tanh_slope)
exp = elementary(dual.exp, dual.exp)
log = elementary(dual.log, lambda a: 1.0 / a)
inverse_sqrt = elementary(lambda a: a**-0.5, lambda a: -0.5 * a**-1.5)
reciprocal = elementary(lambda a: 1.0 / a, lambda a: -1.0 / (a * a))


def relu(a: Scalar) -> Scalar:
    """max(a, 0): at the kink and below it a constant, as in PyTorch, which `a <= 0` is not for NaN.

    A constant, not a slope of 0: nothing comes through, not even a NaN from above.
    """
    if value_of(a) <= 0.0:
        return Var(0.0) if isinstance(a, Var) else 0.0
    return Var(a.value, ((a, 1.0),)) if isinstance(a, Var) else a


def backpropagate(seeds: Iterable[tuple[Scalar, float]]) -> dict[Var, Number]:
    """Gradient of sum(seed * output) for every `Var` that the outputs depend on.

    An output that is a constant contributes nothing, whatever its seed.
    """
    grad: dict[Var, Number] = {}
    for output, seed in seeds:
        if isinstance(output, Var):
            grad[output] = grad.get(output, 0.0) + seed

    reached, pending = set(grad), list(grad)
    while pending:
        for parent, _ in pending.pop().edges:
            if parent not in reached:
                reached.add(parent)
                pending.append(parent)

    # Newest first: every use of a value is summed up before the value is left behind.
    for node in sorted(reached, key=lambda v: v.order, reverse=True):
        grad[node] = min(max(grad[node], -node.limit), node.limit)
        for parent, slope in node.edges:
            grad[parent] = grad.get(parent, 0.0) + slope * grad[node]
    return grad
