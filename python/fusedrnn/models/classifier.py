"""Many to one, and many to many in step: a class for a sequence, or a label for each step."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn import nn
from fusedrnn.models.parts import Encoder, Model, checked, seeds
from fusedrnn.nn import arrays
from fusedrnn.nn.arrays import Array, Dtype


class _Reader(Model):
    """An encoder, and a linear layer over what it says."""

    def __init__(
        self,
        classes: int,
        *,
        input_size: int | None = None,
        vocabulary: int | None = None,
        cell: str = "gru",
        embedding: int = 32,
        hidden: int = 64,
        layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.0,
        dtype: Dtype = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__(**checked(
            classes=classes, input_size=input_size, vocabulary=vocabulary, cell=cell,
            embedding=embedding, hidden=hidden, layers=layers, bidirectional=bidirectional,
            dropout=dropout, dtype=dtype,
        ))  # fmt: skip
        first, second, third = seeds(seed, 3)
        self.encoder = Encoder(
            input_size=input_size, vocabulary=vocabulary, cell=cell, embedding=embedding,
            hidden=hidden, layers=layers, bidirectional=bidirectional, dropout=dropout,
            dtype=dtype, seed=first,
        )  # fmt: skip
        self.drop = nn.Dropout(dropout, seed=second)
        self.out = nn.Linear(self.encoder.output_size, classes, dtype=dtype, seed=third)

    def _labels(self, labels: Any, logits: Array, lengths: Any = None) -> Array:
        """Labels of logits [..., C], in range wherever there are steps."""
        found = arrays.integer_array("labels", labels, logits.shape[:-1])
        valid = None if lengths is None else np.arange(len(logits))[:, None] < np.asarray(lengths)
        arrays.check_range("labels", found, logits.shape[-1], 0, valid)
        return found

    def _shares(self, logits: Array) -> Array:
        chances = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(chances / chances.sum(axis=-1, keepdims=True))


class Classifier(_Reader):
    """Says to which class a sequence belongs, from the last state of each direction.

    Parameters
    ----------
    classes : int
        C.
    input_size : int, optional
        I of inputs that are vectors, [T, B, I]; either this or `vocabulary`.
    vocabulary : int, optional
        V of inputs that are indices, [T, B].
    cell : {"rnn", "gru", "lstm"}
    embedding : int
        Size of the embedding of indices.
    hidden, layers : int
    bidirectional : bool
    dropout : float
        Between layers and before the last linear one, while training.
    dtype : "float32" or "float64"
    seed : int, optional
        Seeds every initial weight, and dropout.
    """

    def logits(self, inputs: Any, lengths: Any = None) -> Array:
        """Return the logits [B, C]."""
        return self.out(self.encoder(inputs, lengths)[1])

    def predict(self, inputs: Any, lengths: Any = None) -> Array:
        """Return the probabilities [B, C] of the classes.

        Parameters
        ----------
        inputs : array of int [T, B], or array [T, B, I]
        lengths : integers [B], optional
        """
        return self._shares(self.logits(inputs, lengths))

    def loss(self, inputs: Any, labels: Any, lengths: Any = None) -> float:
        """Return the mean cross-entropy of labels [B]."""
        logits = self.logits(inputs, lengths)
        return nn.cross_entropy(logits, self._labels(labels, logits))

    def loss_and_gradients(
        self, inputs: Any, labels: Any, lengths: Any = None
    ) -> tuple[float, dict[str, Array]]:
        """Return the mean cross-entropy of labels [B], and its gradients by parameter."""
        _, last, encoder_tape = self.encoder.forward(inputs, lengths)
        kept, drop_tape = self.drop.forward(last)
        logits, out_tape = self.out.forward(kept)
        loss, d_logits = nn.cross_entropy_grad(logits, self._labels(labels, logits), out=logits)
        out = self.out.backward(out_tape, d_logits)
        d_last = self.drop.backward(drop_tape, out["x"])["x"]
        encoder = self.encoder.backward(encoder_tape, dlast=d_last)
        return loss, self.named_gradients(encoder=encoder, out=out)


class Tagger(_Reader):
    """Says a label for each step of a sequence; both directions read the whole sequence first.

    Parameters
    ----------
    classes : int
        C labels.
    input_size, vocabulary, cell, embedding, hidden, layers, bidirectional, dropout, dtype, seed
        As of `Classifier`.
    """

    def logits(self, inputs: Any, lengths: Any = None) -> Array:
        """Return the logits [T, B, C]."""
        return self.out(self.encoder(inputs, lengths)[0])

    def predict(self, inputs: Any, lengths: Any = None) -> Array:
        """Return the probabilities [T, B, C] of the labels.

        Parameters
        ----------
        inputs : array of int [T, B], or array [T, B, I]
        lengths : integers [B], optional
        """
        return self._shares(self.logits(inputs, lengths))

    def loss(self, inputs: Any, labels: Any, lengths: Any = None) -> float:
        """Return the mean cross-entropy of labels [T, B], over the steps that there are."""
        logits = self.logits(inputs, lengths)
        labels = self._labels(labels, logits, lengths)
        return nn.cross_entropy(logits, labels, lengths=lengths)

    def loss_and_gradients(
        self, inputs: Any, labels: Any, lengths: Any = None
    ) -> tuple[float, dict[str, Array]]:
        """Return the mean cross-entropy of labels [T, B], and its gradients by parameter."""
        y, _, encoder_tape = self.encoder.forward(inputs, lengths)
        kept, drop_tape = self.drop.forward(y)
        logits, out_tape = self.out.forward(kept)
        labels = self._labels(labels, logits, lengths)
        loss, d_logits = nn.cross_entropy_grad(logits, labels, lengths=lengths, out=logits)
        out = self.out.backward(out_tape, d_logits)
        dy = self.drop.backward(drop_tape, out["x"])["x"]
        encoder = self.encoder.backward(encoder_tape, dy)
        return loss, self.named_gradients(encoder=encoder, out=out)
