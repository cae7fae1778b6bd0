"""Many to many in step: the next character after each one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fusedrnn import nn, options
from fusedrnn.models.parts import Model, checked, recurrent, seeds
from fusedrnn.models.sequences import check_draw, check_generator, draw
from fusedrnn.nn import arrays
from fusedrnn.nn.arrays import Array, Dtype


class CharModel(Model):
    """A language model over characters, or any symbols: what follows those before.

    Embedding, recurrent layers, linear layer, softmax cross-entropy. A state is that of its
    recurrent layer ([L, B, H]; of an LSTM a pair (h, c)); None is zeros.

    Parameters
    ----------
    vocabulary : int
        V.
    cell : {"rnn", "gru", "lstm"}
    embedding, hidden, layers : int
        E, H, L.
    dropout : float
        Between layers and before the last linear one, while training.
    dtype : "float32" or "float64"
    seed : int, optional
        Seeds every initial weight, and dropout.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        cell: str = "gru",
        embedding: int = 64,
        hidden: int = 256,
        layers: int = 1,
        dropout: float = 0.0,
        dtype: Dtype = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__(**checked(
            vocabulary=vocabulary, cell=cell, embedding=embedding, hidden=hidden, layers=layers,
            dropout=dropout, dtype=dtype,
        ))  # fmt: skip
        first, second, third, fourth = seeds(seed, 4)
        self.embed = nn.Embedding(vocabulary, embedding, dtype=dtype, seed=first)
        self.rnn = recurrent(
            cell, embedding, hidden, layers, dropout=dropout, dtype=dtype, seed=second
        )
        self.drop = nn.Dropout(dropout, seed=fourth)
        self.out = nn.Linear(hidden, vocabulary, dtype=dtype, seed=third)
        self.out.parameters()["bias"][...] = 0.0  # no character is likelier before it was seen

    def loss(self, inputs: Any, targets: Any, state: Any = None) -> tuple[float, Any]:
        """Return the cross-entropy in nats, summed over time, averaged over the batch.

        Parameters
        ----------
        inputs, targets : array of int [T, B]
            ``targets[t]`` is what should follow ``inputs[t]``.
        state : optional
            As an earlier call left it.

        Returns
        -------
        loss : float
        state
            After the last step.
        """
        y, state = self.rnn(self.embed(self._inputs(inputs)), state)
        return nn.cross_entropy(self.out(y), targets, reduction="batch_mean"), state

    def loss_and_gradients(
        self, inputs: Any, targets: Any, state: Any = None
    ) -> tuple[float, dict[str, Array], Any]:
        """Return the loss, its gradients under the parameters' names, and the state.

        No gradient flows into ``state``: back-propagation is truncated at the chunk's start.
        """
        x, embed_tape = self.embed.forward(self._inputs(inputs))
        y, state, rnn_tape = self.rnn.forward(x, state)
        kept, drop_tape = self.drop.forward(y)
        logits, out_tape = self.out.forward(kept)
        loss, d_logits = nn.cross_entropy_grad(logits, targets, reduction="batch_mean", out=logits)
        out = self.out.backward(out_tape, d_logits)
        rnn = self.rnn.backward(rnn_tape, self.drop.backward(drop_tape, out["x"])["x"])
        embed = self.embed.backward(embed_tape, rnn["x"])
        return loss, self.named_gradients(embed=embed, rnn=rnn, out=out), state

    def step(self, inputs: Any, state: Any = None) -> tuple[Array, Any]:
        """Return the logits [B, V] of what follows inputs [B], and the new state."""
        indices = arrays.integers("inputs", inputs, (None,), self.embed.num_embeddings)
        y, state = self.rnn.step(self.embed(indices), state)
        return self.out(y), state

    def generate(
        self,
        prompt: Any,
        count: int | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        never: tuple[int, ...] = (),
        generator: np.random.Generator | None = None,
    ) -> Iterator[int]:
        """Write what may follow the prompt, one symbol at a time, as it is drawn.

        Parameters
        ----------
        prompt : integers [n]
            At least one.
        count : int, optional
            How many symbols; without an end where absent.
        temperature, top_k, top_p
            As of `draw`.
        never : tuple of int
            Symbols that are not drawn.
        generator : numpy.random.Generator, optional

        Yields
        ------
        int

        Raises
        ------
        ValueError, TypeError
            Where an argument is out of its range, at the call already.
        """
        vocabulary = self.embed.num_embeddings
        indices = arrays.integers("prompt", prompt, (None,), vocabulary)
        if not len(indices):
            raise ValueError("prompt: expected at least one index, got none")
        count = None if count is None else options.count("count", count)
        check_draw(temperature, top_k, top_p)
        chosen = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        others = arrays.integers("never", never, (None,), vocabulary)
        if len(np.unique(others)) == vocabulary:
            raise ValueError(f"never: expected fewer than all {vocabulary} symbols, got all")
        return self._written(indices, count, chosen, others, check_generator(generator))

    def _inputs(self, inputs: Any) -> Array:
        return arrays.integers("inputs", inputs, (None, None), self.embed.num_embeddings)

    def _written(
        self,
        prompt: Any,
        count: int | None,
        chosen: Any,
        never: Array,
        generator: np.random.Generator,
    ) -> Iterator[int]:
        frozen = self.rnn.freeze()  # weights are packed once, not at every step
        state: Any = None
        for index in prompt[:-1]:
            _, state = frozen.step(self.embed([index]), state)
        index, done = int(prompt[-1]), 0
        while count is None or done < count:
            y, state = frozen.step(self.embed([index]), state)
            logits = self.out(y)[0].astype(np.float64)
            logits[never] = -np.inf
            index = draw(logits, generator, **chosen)
            yield index
            done += 1
