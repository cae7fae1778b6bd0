"""Matrix products on the engine's own kernels.

``x @ w.T`` would do too, but the threads of NumPy's BLAS keep spinning for a while after a product
and take the cores from the engine's threads, and its sums depend on their number. This way there is
one pool of threads, and results are the same bits whatever its size and however many rows there
are. An RNN with the identity as its activation, of one step from a zero state, is such a product;
as many heads as units leave its recurrent weights a single column.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fusedrnn import _core
from fusedrnn.nn.arrays import Array

# Columns of a result at a time. The recurrent product that adds nothing costs by their square; what
# a call costs counts where there are few rows.
_COLUMNS, _COLUMNS_OF_FEW = 128, 1024
_FEW_ROWS = 128
# Terms of a sum at a time, so that long sums of float32 lose no more than short ones.
_TERMS = 4096


def times(x: Array, w: Array, bias: Array | None = None) -> Array:
    """Return ``x @ w.T + bias``, [n, m], of x [n, k], w [m, k] and bias [m]."""
    (rows, terms), columns = x.shape, len(w)
    y = np.empty((rows, columns), x.dtype)
    if not rows or not columns or not terms:
        y[...] = 0 if bias is None else bias
        return y
    at_once = _COLUMNS_OF_FEW if rows < _FEW_ROWS else _COLUMNS
    for first in range(0, columns, at_once):
        part = slice(first, min(first + at_once, columns))
        width = part.stop - first
        network, recurrent = _network(terms, width, x.dtype.name)
        parameters = w[part], recurrent, None if bias is None else bias[part], None
        network.forward(x[None], parameters, y=y[None, :, part])
    return y


def sum_of_products(a: Array, b: Array) -> Array:
    """Return ``a.T @ b``, [m, k], of a [n, m] and b [n, k]: a gradient of weights."""
    total = np.zeros((a.shape[1], b.shape[1]), a.dtype)
    for first in range(0, len(a), _TERMS):
        part = slice(first, first + _TERMS)
        product = times(np.ascontiguousarray(a[part].T), np.ascontiguousarray(b[part].T))
        total = product if first == 0 else total + product
    return total


def sum_of_rows(a: Array) -> Array:
    """Return ``a.sum(axis=0)`` of a [n, m]: a gradient of biases, summed in float64."""
    total: Array = a.sum(axis=0, dtype=np.float64).astype(a.dtype)
    return total


@lru_cache(maxsize=256)
def _network(terms: int, columns: int, dtype: str) -> tuple[_core.Network, Array]:
    run = ("rnn_identity", False, 0, 1, 0, 0, terms, columns, 0, columns, (), ())
    return _core.Network([run], dtype), np.zeros((columns, 1), dtype)
