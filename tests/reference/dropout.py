"""Which elements of a row between layers are dropped (docs/math.md, section 9)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .rounding import Array, rounded

Words = NDArray[np.uint32]


def philox(key: Sequence[int], counters: ArrayLike) -> Words:
    """Philox4x32-10 (Salmon et al. 2011) of counters [..., 4], by a key of two words."""
    words = np.asarray(counters, dtype=np.uint64)
    a, b, c, d = (words[..., i] for i in range(4))
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    for step in range(10):
        even, odd = (
            np.uint64((word + step * weyl) & 0xFFFFFFFF)
            for word, weyl in zip(key, (0x9E3779B9, 0xBB67AE85), strict=True)
        )
        first, second = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = (
            (second >> half) ^ b ^ even,
            second & low,
            (first >> half) ^ d ^ odd,
            first & low,
        )
    return np.stack([a, b, c, d], axis=-1).astype(np.uint32)


def kept(
    rate: float, seed: int, row: int, shape: tuple[int, int, int], step: int = 0
) -> NDArray[np.bool_]:
    """Whether each element [T,B,n] of a row stays; the row that layer k writes is k + 1."""
    steps, batch, width = shape
    blocks = -(-width // 4)
    counters = np.empty((steps, batch, blocks, 4), np.uint64)
    counters[..., 0] = np.arange(blocks)
    counters[..., 1] = np.arange(batch)[:, None]
    counters[..., 2] = (step + np.arange(steps))[:, None, None] % 2**32
    counters[..., 3] = row
    numbers = philox((seed % 2**32, seed >> 32), counters).reshape(steps, batch, -1)
    return np.asarray(numbers[..., :width] >= rate * 2.0**32)


def dropped(
    values: ArrayLike, rate: float, seed: int, row: int, step: int = 0, dtype: str = "float64"
) -> Array:
    """Values [T,B,n] of a row, or their gradients, as they are handed on."""
    array = np.asarray(values).astype(np.float64)
    scale = 1 / (1 - rate)
    if dtype != "float64":  # the factor and the product are float32, of two such numbers exact here
        scale = float(np.float32(scale))
        array = rounded(rounded(array * scale, "float32"), dtype)
    else:
        array = array * scale
    shape = (array.shape[0], array.shape[1], array.shape[2])
    return np.where(kept(rate, seed, row, shape, step), array, 0.0)
