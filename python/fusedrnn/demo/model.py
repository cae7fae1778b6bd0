"""The language model: embedding, stacked recurrent layer, linear layer, softmax cross-entropy.

Letters: T time steps, B batch, E embedding size, H hidden size, V vocabulary size, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

import fusedrnn
from fusedrnn import nn
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


class CharModel(nn.Module):
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
        super().__init__()
        self.config = config
        # A forget gate that starts open lets gradients reach back early.
        options: dict[str, Any] = {"forget_bias": 1.0} if config.cell == "lstm" else {}
        seeds = [int(word) for word in np.random.SeedSequence(seed).generate_state(3)]
        self.embed = nn.Embedding(config.vocabulary, config.embedding, dtype=dtype, seed=seeds[0])
        self.rnn = CELLS[config.cell](
            config.embedding, config.hidden, config.layers, dtype=dtype, seed=seeds[1], **options
        )
        self.out = nn.Linear(config.hidden, config.vocabulary, dtype=dtype, seed=seeds[2])
        self.out.parameters()["bias"][...] = 0.0  # no character is likelier before it was seen

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
        y, state = self.rnn(self.embed(inputs), state)
        return nn.cross_entropy(self.out(y), targets, reduction="batch_mean"), state

    def loss_and_gradients(
        self, inputs: Indices, targets: Indices, state: State = None
    ) -> tuple[float, dict[str, Array], State]:
        """Return what `loss` returns, and the loss's gradients under the parameters' names.

        No gradient flows into ``state``: back-propagation is truncated at the chunk's start.
        """
        x, embed_tape = self.embed.forward(inputs)
        y, state, rnn_tape = self.rnn.forward(x, state)
        logits, out_tape = self.out.forward(y)
        loss, d_logits = nn.cross_entropy_grad(logits, targets, reduction="batch_mean", out=logits)
        out = self.out.backward(out_tape, d_logits)
        rnn = self.rnn.backward(rnn_tape, out["x"])
        embed = self.embed.backward(embed_tape, rnn["x"])
        return loss, self.named_gradients(embed=embed, rnn=rnn, out=out), state

    def step(self, inputs: Indices, state: State = None) -> tuple[Array, State]:
        """Return the logits ``[B, V]`` of what follows ``inputs`` ``[B]``, and the new state."""
        y, state = self.rnn.step(self.embed(inputs), state)
        return self.out(y), state
