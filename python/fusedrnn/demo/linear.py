"""A linear layer, ``y = x W^T + b``, on this package's own kernels.

An identity RNN of a single step that starts from zero is one: its recurrent weights multiply
nothing. ``x @ W.T`` would do too, but the threads of NumPy's BLAS keep spinning for a while after
a product and take the cores from fusedrnn's threads. This way there is one pool of threads, and the
results are the same bits whatever its size.

Letters: N rows, H inputs, V outputs.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

import fusedrnn

Array: TypeAlias = npt.NDArray[np.floating[Any]]


class LinearGradients(NamedTuple):
    """Gradients of the input ``[N, H]``, the weights ``[V, H]`` and the bias ``[V]``."""

    dx: Array
    dw: Array
    db: Array


class Linear:
    """A linear layer; ``weight`` is ``[V, H]``, ``bias`` ``[V]``, to be updated in place."""

    def __init__(self, weight: Array, bias: Array) -> None:
        self.weight = weight
        self.bias = bias
        self._recurrent = np.zeros((len(weight), len(weight)), weight.dtype)

    def __call__(self, x: Array) -> Array:
        """Return the outputs ``[N, V]`` of ``x`` ``[N, H]``."""
        y, _ = fusedrnn.rnn(
            x[None], self.weight, self._recurrent, self.bias, nonlinearity="identity"
        )
        outputs: Array = y[0]
        return outputs

    def forward(self, x: Array) -> tuple[Array, fusedrnn.Tape[Array]]:
        """Return the outputs and what `backward` needs."""
        y, _, tape = fusedrnn.rnn_forward(
            x[None], self.weight, self._recurrent, self.bias, nonlinearity="identity"
        )
        return y[0], tape

    def backward(self, tape: fusedrnn.Tape[Array], dy: Array) -> LinearGradients:
        """Return the gradients of ``sum(dy * y)``; ``dy`` is ``[N, V]``."""
        grads = fusedrnn.rnn_backward(tape, dy[None])
        return LinearGradients(grads.dx[0], grads.dw_ih, grads.db_ih)
