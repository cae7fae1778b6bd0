"""The values that a layer's parameters begin with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from fusedrnn.options import Init

INITS: tuple[Init, ...] = get_args(Init)


@dataclass(frozen=True)
class Initial:
    """How parameters begin.

    `init` is as the layers say, a seed one of `numpy.random.default_rng`; `bias` is the number of a
    gate block, and what its biases add up to. Those of a layer that is `normalised` are zeros
    otherwise.
    """

    init: str
    seed: int | None
    bias: tuple[int, float] | None = None
    normalised: bool = False
    heads: int = 1

    def generator(self) -> np.random.Generator:
        """Return what the parameters are drawn from, in their order."""
        return np.random.default_rng(self.seed)

    def draw(
        self, random: np.random.Generator, kind: str, shape: tuple[int, ...], hidden_size: int
    ) -> NDArray[np.float64]:
        """Return values for one parameter; `kind` is the compiled module's name of it."""
        values = self._draw(random, kind, shape, hidden_size)
        if self.bias is not None and kind in ("b_ih", "b_hh", "b"):
            gate, total = self.bias
            block = values[gate * hidden_size : (gate + 1) * hidden_size]
            block[...] = 0.0 if kind == "b_hh" else total
        return values

    def _draw(
        self, random: np.random.Generator, kind: str, shape: tuple[int, ...], hidden_size: int
    ) -> NDArray[np.float64]:
        if kind[0] == "g":
            return np.ones(shape)
        if kind[0] == "b" and (self.normalised or self.init == "orthogonal"):
            return np.zeros(shape)
        if self.init == "orthogonal":
            if kind == "w_hh":
                if len(shape) != 2:
                    raise ValueError(
                        "init: expected 'uniform' for recurrent weights that are no matrix, "
                        "got 'orthogonal'"
                    )
                rows = hidden_size // self.heads  # of a gate's block
                blocks = range(0, shape[0], rows)
                return np.concatenate([_orthogonal(random, rows, shape[1]) for _ in blocks])
            if kind == "w_hr":
                return _orthogonal(random, *shape)
            if kind == "w_ih":
                bound = math.sqrt(6 / sum(shape))
                return random.uniform(-bound, bound, shape)
        bound = hidden_size**-0.5
        return random.uniform(-bound, bound, shape)


def _orthogonal(random: np.random.Generator, rows: int, columns: int) -> NDArray[np.float64]:
    """Uniformly distributed among the orthogonal matrices (Mezzadri 2007).

    Of one that is not square the rows or columns, whichever are fewer, are orthonormal.
    """
    tall = random.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    q *= np.sign(np.diagonal(r))
    return np.asarray(q if rows >= columns else q.T)
