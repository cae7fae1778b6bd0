"""The language model: embedding, stacked recurrent layer, linear layer, softmax cross-entropy.

Letters: T time steps, B batch, E embedding size, H hidden size, V vocabulary size, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

import fusedrnn
from fusedrnn.demo.linear import Linear
from fusedrnn.demo.text import Indices

Array: TypeAlias = npt.NDArray[np.floating[Any]]
#: Recurrent state between chunks: h ``[L, B, H]``, for LSTM the pair (h, c); None means zeros.
State: TypeAlias = Array | tuple[Array, Array] | None

CELLS = {"rnn": fusedrnn.RNN, "gru": fusedrnn.GRU, "lstm": fusedrnn.LSTM}


@dataclass(frozen=True)
class ModelConfig:
    """The sizes that a model's parameters follow from."""

    cell: str
    vocabulary: int
    embedding: int
    hidden: int
    layers: int


class CharModel:
    """Predicts the next character from the characters before it.

    Parameters
    ----------
    config : ModelConfig
    seed : int
        Seeds every initial weight.
    dtype : "float32" or "float64"
    """

    def __init__(
        self, config: ModelConfig, seed: int, dtype: Literal["float32", "float64"] = "float32"
    ) -> None:
        self.config = config
        # A forget gate that starts open lets gradients reach back early.
        options: dict[str, Any] = {"forget_bias": 1.0} if config.cell == "lstm" else {}
        self.rnn = CELLS[config.cell](
            config.embedding, config.hidden, config.layers, dtype=dtype, seed=seed, **options
        )
        rng = np.random.default_rng(seed)
        bound = config.hidden**-0.5
        shape = config.vocabulary, config.hidden
        self.embedding = rng.standard_normal((config.vocabulary, config.embedding)).astype(dtype)
        self.out = Linear(
            rng.uniform(-bound, bound, shape).astype(dtype), np.zeros(config.vocabulary, dtype)
        )

    def parameters(self) -> dict[str, Array]:
        """Return every parameter by name: the arrays themselves, to be updated in place."""
        return {
            "embedding": self.embedding,
            **{f"rnn.{name}": value for name, value in self.rnn.parameters().items()},
            "out.weight": self.out.weight,
            "out.bias": self.out.bias,
        }

    def loss(self, inputs: Indices, targets: Indices, state: State = None) -> tuple[float, State]:
        """Return the cross-entropy in nats, summed over time, averaged over the batch.

        Parameters
        ----------
        inputs, targets : array of int, [T, B]
            ``targets[t]`` is what should follow ``inputs[t]``.
        state : State
            As an earlier call left it.

        Returns
        -------
        loss : float
        state : State
            After the last step.
        """
        y, state = self.rnn(self.embedding[inputs], state)
        loss, _ = _cross_entropy(self.out(self._rows(y)), targets)
        return loss, state

    def loss_and_gradients(
        self, inputs: Indices, targets: Indices, state: State = None
    ) -> tuple[float, dict[str, Array], State]:
        """Return what `loss` returns, and the loss's gradients under the parameters' names.

        No gradient flows into ``state``: back-propagation is truncated at the chunk's start.
        """
        y, state, rnn_tape = self.rnn.forward(self.embedding[inputs], state)
        logits, out_tape = self.out.forward(self._rows(y))
        loss, d_logits = _cross_entropy(logits, targets)
        out = self.out.backward(out_tape, d_logits)
        rnn = self.rnn.backward(rnn_tape, out.dx.reshape(y.shape))
        gradients = {
            "embedding": _sum_rows(inputs, rnn["x"], self.config.vocabulary),
            **{f"rnn.{name}": rnn[name] for name in self.rnn.parameters()},
            "out.weight": out.dw,
            "out.bias": out.db,
        }
        return loss, gradients, state

    def step(self, inputs: Indices, state: State = None) -> tuple[Array, State]:
        """Return the logits ``[B, V]`` of what follows ``inputs`` ``[B]``, and the new state."""
        y, state = self.rnn.step(self.embedding[inputs], state)
        return self.out(y), state

    def _rows(self, y: Array) -> Array:
        return y.reshape(-1, self.config.hidden)


def _cross_entropy(logits: Array, targets: Indices) -> tuple[float, Array]:
    """Return the summed cross-entropy over the batch size, and its gradient by the logits.

    ``logits`` ``[T*B, V]`` are overwritten: the gradient, softmax minus one-hot, takes their
    place.
    """
    batch = targets.shape[1]
    rows, columns = np.arange(len(logits)), targets.reshape(-1)
    logits -= logits.max(axis=1, keepdims=True)
    picked = logits[rows, columns]
    exponentials = np.exp(logits, out=logits)
    sums = exponentials.sum(axis=1, keepdims=True)
    # Summed in float64: a chunk has thousands of terms.
    loss = float(np.sum(np.log(sums[:, 0]) - picked, dtype=np.float64)) / batch
    gradient = np.divide(exponentials, sums * batch, out=logits)
    gradient[rows, columns] -= 1.0 / batch
    return loss, gradient


def _sum_rows(indices: Indices, rows: Array, count: int) -> Array:
    """Return ``out`` with ``out[i]`` the sum of the rows whose index is i, ``[count, E]``.

    Sorted and reduced by segment: some fifty times faster than ``np.add.at``, and unlike a
    one-hot product its cost does not grow with the vocabulary.
    """
    flat = indices.reshape(-1)
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    out = np.zeros((count, rows.shape[-1]), rows.dtype)
    if len(first):
        out[ordered[first]] = np.add.reduceat(rows.reshape(len(flat), -1)[order], first, axis=0)
    return out
