"""What models have around the cells, one number at a time: losses, attention, what is dropped.

Functions take nested lists of scalars and return scalars or lists of them; `gradients`
differentiates any function of such lists. CTC is the sum over all alignments, written out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .autodiff import Scalar, Var, backpropagate, dot, exp, log, tanh, value_of
from .noise import philox

Nested = Any
Row = Sequence[Scalar]


def gradients(
    function: Callable[..., Scalar], arrays: Mapping[str, Nested]
) -> tuple[float, dict[str, Nested]]:
    """The value of a function of nested lists by name, and its gradient with respect to each."""
    variables = {name: _map(_listed(value), Var) for name, value in arrays.items()}
    result = function(**variables)
    found = backpropagate([(result, 1.0)])
    grads = {name: _map(value, lambda v: found.get(v, 0.0)) for name, value in variables.items()}
    return float(value_of(result)), grads


def _listed(value: Nested) -> Nested:
    return value.tolist() if hasattr(value, "tolist") else value


def _map(value: Nested, f: Callable[[Any], Any]) -> Nested:
    return [_map(item, f) for item in value] if isinstance(value, list) else f(value)


def total(scalars: Sequence[Scalar]) -> Scalar:
    return dot(scalars, [1.0] * len(scalars)) if scalars else 0.0


def weighted(upstream: Nested, values: Nested) -> Scalar:
    """The sum of all products of the two."""
    upstream = _listed(upstream)
    if not isinstance(values, list):
        return values * upstream  # type: ignore[no-any-return]
    return total([weighted(u, v) for u, v in zip(upstream, values, strict=True)])


def log_sum_exp(row: Row) -> Scalar:
    most = max(value_of(x) for x in row)
    return log(total([exp(x - most) for x in row])) + most


def log_softmax(row: Row) -> list[Scalar]:
    normaliser = log_sum_exp(row)
    return [x - normaliser for x in row]


def softmax(row: Row) -> list[Scalar]:
    return [exp(x) for x in log_softmax(row)]


def cross_entropy(logits: Row, target: int, smoothing: float = 0.0) -> Scalar:
    """Of one step, against a target of which a share is spread evenly over all classes."""
    log_p = log_softmax(logits)
    even = total(log_p) * (1 / len(log_p))
    return -((1 - smoothing) * log_p[target] + smoothing * even)


def squared(y: Scalar, target: float) -> Scalar:
    return (y - target) * (y - target)


def pinball(y: Scalar, target: float, quantile: float) -> Scalar:
    error = target - y
    return error * (quantile if value_of(error) > 0 else quantile - 1)


def merged(path: Sequence[int], blank: int) -> list[int]:
    """What an alignment says: repetitions count once, blanks not at all."""
    return [label for label, _ in itertools.groupby(path) if label != blank]


def ctc(logits: Sequence[Row], labels: Sequence[int], blank: int = 0) -> Scalar | None:
    """Of one sequence; None where no alignment has these labels."""
    log_p = [log_softmax(row) for row in logits]
    classes = range(len(logits[0])) if logits else []
    paths = [
        total([row[label] for row, label in zip(log_p, path, strict=True)])
        for path in itertools.product(classes, repeat=len(log_p))
        if merged(path, blank) == list(labels)
    ]
    return -log_sum_exp(paths) if paths else None


def dot_score(query: Row, key: Row, scale: float = 1.0) -> Scalar:
    return dot(query, key) * scale


def additive_score(query: Row, key: Row, v: Row) -> Scalar:
    """Of a projected query and a projected key."""
    return dot(v, [tanh(q + k) for q, k in zip(query, key, strict=True)])


def attend(
    query: Row, keys: Sequence[Row], values: Sequence[Row], score: Callable[[Row, Row], Scalar]
) -> tuple[list[Scalar], list[Scalar]]:
    """What one query finds, and the weights."""
    weights = softmax([score(query, key) for key in keys])
    columns = zip(*values, strict=True)
    return [dot(weights, column) for column in columns], weights


def linear(x: Row, weight: Sequence[Row], bias: Row | None = None) -> list[Scalar]:
    y = [dot(row, x) for row in weight]
    return y if bias is None else [a + b for a, b in zip(y, bias, strict=True)]


def dropout(x: Row, rate: float, seed: int, t: int, b: int) -> list[Scalar]:
    """Of the row of one step of one sequence."""
    key = (seed % 2**32, seed >> 32)
    numbers = [n for block in range(-(-len(x) // 4)) for n in philox(key, (block, b, t, 0))]
    return [
        value * (0.0 if number < rate * 2.0**32 else 1 / (1 - rate))
        for value, number in zip(x, numbers, strict=False)
    ]
