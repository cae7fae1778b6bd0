"""Vectors of scalars, so that the cells read like their equations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from .autodiff import Scalar, dot


class Vector:
    """A fixed list of scalars with elementwise arithmetic."""

    __slots__ = ("items",)

    def __init__(self, items: Iterable[Scalar]) -> None:
        self.items = list(items)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Scalar]:
        return iter(self.items)

    def __add__(self, other: Vector) -> Vector:
        return Vector(a + b for a, b in zip(self, other, strict=True))

    def __mul__(self, other: Vector) -> Vector:
        return Vector(a * b for a, b in zip(self, other, strict=True))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(a - b for a, b in zip(self, other, strict=True))

    def __rsub__(self, number: float) -> Vector:
        return Vector(number - a for a in self)

    def map(self, f: Callable[[Scalar], Scalar]) -> Vector:
        return Vector(f(a) for a in self)

    def blocks(self, count: int) -> list[Vector]:
        """Cut into `count` equal parts: the gates."""
        size = len(self) // count
        assert size * count == len(self), f"{len(self)} elements do not make {count} blocks"
        return [Vector(self.items[k * size : (k + 1) * size]) for k in range(count)]


def zeros(size: int) -> Vector:
    return Vector([0.0] * size)


def affine(weight: Sequence[Sequence[Scalar]], v: Vector, bias: Sequence[Scalar] | None) -> Vector:
    """weight @ v + bias, a missing bias being zero."""
    product = Vector(dot(row, v.items) for row in weight)
    return product if bias is None else product + Vector(bias)
