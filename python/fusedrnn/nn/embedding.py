"""Embeddings: a row of numbers for each of many symbols."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedrnn import _core, options
from fusedrnn.nn import arrays
from fusedrnn.nn.arrays import Array, Dtype
from fusedrnn.nn.module import Module, ModuleTape


@dataclass(frozen=True, eq=False)
class RowGradient:
    """The gradient of a matrix of which a few rows were used; of all others it is 0.

    Added to another gradient of that matrix, of either kind, it gives an array.

    Attributes
    ----------
    indices : array of int [n]
        In rising order, each once.
    rows : array [n, E]
    count : int
        Rows of the matrix.
    """

    indices: NDArray[np.int64]
    rows: Array
    count: int

    __array_ufunc__ = None  # an array to which it is added leaves that to `__radd__`

    def __add__(self, other: Any) -> Array:
        total: Array = self.dense() + (other.dense() if isinstance(other, RowGradient) else other)
        return total

    __radd__ = __add__

    def dense(self) -> Array:
        """Return the gradient [count, E], as optimisers take it."""
        gradient = np.zeros((self.count, self.rows.shape[1]), self.rows.dtype)
        gradient[self.indices] = self.rows
        return gradient


class Embedding(Module):
    """A table of V rows; its output are the rows of the indices it is given.

    Parameters
    ----------
    num_embeddings, embedding_size : int
        V and E.
    padding_index : int, optional
        A row that begins as zeros and gets no gradient.
    dtype : "float32" or "float64"
    seed : int, optional
        Seeds the initial weights, standard normal as PyTorch's.

    Attributes
    ----------
    weight : array [V, E]
    """

    weight: Array

    def __init__(
        self,
        num_embeddings: int,
        embedding_size: int,
        *,
        padding_index: int | None = None,
        dtype: Dtype = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = options.size("num_embeddings", num_embeddings)
        self.embedding_size = options.size("embedding_size", embedding_size)
        self.dtype = arrays.dtype(dtype)
        self.padding_index: int | None = None
        random = np.random.default_rng(options.seed(seed))
        shape = self.num_embeddings, self.embedding_size
        weight = random.standard_normal(shape).astype(self.dtype)
        if padding_index is not None:
            self.padding_index = options.count("padding_index", padding_index)
            if self.padding_index >= self.num_embeddings:
                raise ValueError(
                    f"padding_index: expected below {self.num_embeddings}, got {padding_index}"
                )
            weight[self.padding_index] = 0
        self.add_parameter("weight", weight)

    def __repr__(self) -> str:
        extra = "" if self.padding_index is None else f", padding_index={self.padding_index}"
        extra += "" if self.dtype == "float32" else f", dtype={self.dtype!r}"
        return f"Embedding({self.num_embeddings}, {self.embedding_size}{extra})"

    def __call__(self, indices: Any) -> Array:
        """Return the rows [..., E] of indices [...]."""
        y: Array = self.weight[self._indices(indices)]
        return y

    def forward(self, indices: Any) -> tuple[Array, ModuleTape]:
        """Return the rows [..., E] of indices [...], and what `backward` needs.

        Raises
        ------
        ValueError, TypeError
            Where an index is not from 0 to V - 1, or no integer.
        """
        found = self._indices(indices)
        return self.weight[found], self.make_tape(indices=found)

    def backward(self, tape: ModuleTape, dy: Any, *, sparse: bool = False) -> dict[str, Any]:
        """Return the gradient of ``sum(dy * y)``: "weight", an array [V, E].

        With ``sparse=True`` a `RowGradient`: of the rows that were used alone, each the sum of all
        its uses in their order.
        """
        indices: NDArray[np.int64] = self.read_tape(tape)["indices"]
        shape = *indices.shape, self.embedding_size
        dy_ = arrays.like("dy", dy, shape, self.dtype).reshape(-1, self.embedding_size)
        places, rows = self._places(indices.reshape(-1)), arrays.dense(dy_)
        if not options.flag("sparse", sparse):
            return {"weight": _core.nn_sum_of_rows(places, rows, self.num_embeddings)}
        counts = np.bincount(places[places >= 0], minlength=self.num_embeddings)
        used = np.flatnonzero(counts)
        number = np.full(self.num_embeddings + 1, -1)  # the last one is that of no place
        number[used] = np.arange(len(used))
        sums = _core.nn_sum_of_rows(number[places], rows, len(used))
        return {"weight": RowGradient(used, sums, self.num_embeddings)}

    def _indices(self, indices: Any) -> NDArray[np.int64]:
        return arrays.integers("indices", indices, None, self.num_embeddings)

    def _places(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the gradients of the indices go: that of padding nowhere."""
        if self.padding_index is None:
            return indices
        return np.where(indices == self.padding_index, -1, indices)
