"""What the tests of fusedrnn.jax share: arrays, plain layers beside ours, comparisons."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

T, B, I, H = 5, 3, 4, 6  # noqa: E741


@contextlib.contextmanager
def jax_of_tests(x64: bool = True) -> Iterator[None]:
    """JAX that compiles quickly, and with its 64-bit types."""
    wanted = {"jax_enable_x64": x64, "jax_disable_most_optimizations": True}
    before = {name: jax.config.read(name) for name in wanted}
    for name, value in wanted.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def random(seed: int, *shape: int, dtype: str = "float64") -> Any:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


def close(got: Any, expected: Any, tolerance: float = 1e-12) -> None:
    """Trees of the same arrays, relative to the largest number of each."""
    left, right = jax.tree.leaves(got), jax.tree.leaves(expected)
    assert len(left) == len(right)
    for pair in zip(left, right, strict=True):
        one, other = (np.asarray(leaf, np.float64) for leaf in pair)
        assert one.shape == other.shape
        scale = max(1.0, float(np.abs(other).max(initial=0)))
        assert np.abs(one - other).max(initial=0) <= tolerance * scale


def lstm_weights(seed: int = 1) -> list[Any]:
    return [random(seed, 4 * H, I), random(seed + 1, 4 * H, H), *random(seed + 2, 2, 4 * H)]


def scanned_lstm(x: Any, weights: list[Any], h: Any, c: Any) -> tuple[Any, tuple[Any, Any]]:
    """The LSTM as JAX's own operations."""
    w_ih, w_hh, b_ih, b_hh = weights

    def step(state: tuple[Any, Any], x_t: Any) -> tuple[tuple[Any, Any], Any]:
        h, c = state
        i, f, g, o = jax.numpy.split(x_t @ w_ih.T + b_ih + h @ w_hh.T + b_hh, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
        h = jax.nn.sigmoid(o) * jax.numpy.tanh(c)
        return (h, c), h

    state, y = jax.lax.scan(step, (h, c), x)
    return y, state
