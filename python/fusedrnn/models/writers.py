"""One to many: a sequence from a vector or a class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedrnn import _core, nn, options
from fusedrnn.models.parts import Decoder, Model, checked, recurrent, seeds
from fusedrnn.models.sequences import beam_search, check_generator, marked
from fusedrnn.nn import arrays
from fusedrnn.nn.arrays import Array, Dtype

#: Deviations are kept above this, or a step that is always the same would be worth any price.
LEAST_DEVIATION = 1e-2


class Captioner(Model):
    """Writes symbols, such as words, from a vector that says what they are about.

    Parameters
    ----------
    vector_size : int
        F.
    vocabulary : int
        V; index 0 is the mark of beginning and end.
    cell : {"rnn", "gru", "lstm"}
    embedding, hidden, layers : int
    dropout : float
        Between layers and before the last linear one, while training.
    dtype : "float32" or "float64"
    seed : int, optional
        Seeds every initial weight, and dropout.
    """

    def __init__(
        self,
        vector_size: int,
        vocabulary: int,
        *,
        cell: str = "gru",
        embedding: int = 32,
        hidden: int = 64,
        layers: int = 1,
        dropout: float = 0.0,
        dtype: Dtype = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__(**checked(
            vector_size=vector_size, vocabulary=vocabulary, cell=cell, embedding=embedding,
            hidden=hidden, layers=layers, dropout=dropout, dtype=dtype,
        ))  # fmt: skip
        first, second, third = seeds(seed, 3)
        self.decoder = Decoder(
            vector_size, vocabulary, cell=cell, embedding=embedding, hidden=hidden, layers=layers,
            dropout=dropout, dtype=dtype, seed=first,
        )  # fmt: skip
        self.drop = nn.Dropout(dropout, seed=third)
        self.out = nn.Linear(hidden, vocabulary, dtype=dtype, seed=second)

    def loss(self, vectors: Any, targets: Any, lengths: Any = None) -> float:
        """Return the mean cross-entropy of each symbol of the targets, and of their ends.

        Parameters
        ----------
        vectors : array [B, F]
        targets : array of int [T, B]
            Without marks.
        lengths : integers [B], optional
            Of the targets.
        """
        vectors = self._vectors(vectors)
        read, wanted, ends = self._marked(vectors, targets, lengths)
        return nn.cross_entropy(self.out(self.decoder(read, vectors)), wanted, lengths=ends)

    def loss_and_gradients(
        self, vectors: Any, targets: Any, lengths: Any = None
    ) -> tuple[float, dict[str, Array]]:
        """Return the loss, and its gradients by parameter."""
        vectors = self._vectors(vectors)
        read, wanted, ends = self._marked(vectors, targets, lengths)
        h, decoder_tape = self.decoder.forward(read, vectors)
        kept, drop_tape = self.drop.forward(h)
        logits, out_tape = self.out.forward(kept)
        loss, d_logits = nn.cross_entropy_grad(logits, wanted, lengths=ends, out=logits)
        out = self.out.backward(out_tape, d_logits)
        dh = self.drop.backward(drop_tape, out["x"])["x"]
        decoder = self.decoder.backward(decoder_tape, dh)
        return loss, self.named_gradients(decoder=decoder, out=out)

    def generate(
        self, vectors: Any, *, max_length: int = 64, beam: int = 1
    ) -> tuple[list[list[int]], NDArray[np.float64]]:
        """Return what the model writes of each vector [B, F], and its log-probability.

        `max_length`, `beam` and results are those of `Seq2Seq.generate`.
        """
        options.positive("beam", beam)

        def step(symbols: Any, state: Any) -> tuple[Array, Any]:
            h, state = self.decoder.step(symbols, state)
            return self.out(h), state

        source = self._vectors(vectors)
        state = self.decoder.first_state(np.repeat(source, beam, axis=0))
        return beam_search(step, state, len(source), width=beam, max_length=max_length)

    def _vectors(self, vectors: Any) -> Array:
        start = self.decoder.start
        return _core.as_array("vectors", vectors, (None, start.input_size), start.dtype)

    def _marked(self, vectors: Array, targets: Any, lengths: Any) -> tuple[Array, Array, Array]:
        vocabulary = self.out.output_size
        return marked(targets, lengths, batch=len(vectors), vocabulary=vocabulary)


class Sketcher(Model):
    """Draws a stroke of a class, step by step: a much smaller relative of Sketch-RNN.

    A step is a move (dx, dy) and whether it is the last. Each is drawn from what the model says of
    it after those before: a normal distribution of the move, the probability of the end (Graves
    2013, "Generating sequences with recurrent neural networks", of one component).

    Parameters
    ----------
    classes : int
        C.
    cell : {"rnn", "gru", "lstm"}
    embedding : int
        Size of the vector of a class, which every step reads beside the move before.
    hidden, layers : int
    dropout : float
        Between layers and before the last linear one, while training.
    dtype : "float32" or "float64"
    seed : int, optional
        Seeds every initial weight, and dropout.
    """

    def __init__(
        self,
        classes: int,
        *,
        cell: str = "gru",
        embedding: int = 16,
        hidden: int = 64,
        layers: int = 1,
        dropout: float = 0.0,
        dtype: Dtype = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__(**checked(
            classes=classes, cell=cell, embedding=embedding, hidden=hidden, layers=layers,
            dropout=dropout, dtype=dtype,
        ))  # fmt: skip
        first, second, third, fourth = seeds(seed, 4)
        self.dtype = dtype
        self.embed = nn.Embedding(classes, embedding, dtype=dtype, seed=first)
        self.rnn = recurrent(
            cell, 2 + embedding, hidden, layers, dropout=dropout, dtype=dtype, seed=second
        )
        self.drop = nn.Dropout(dropout, seed=fourth)
        self.out = nn.Linear(hidden, 5, dtype=dtype, seed=third)  # mean, log deviation, end

    def loss(self, labels: Any, moves: Any, lengths: Any = None) -> float:
        """Return the mean negative log-likelihood, in nats, of each step.

        Parameters
        ----------
        labels : array of int [B]
        moves : array [T, B, 2]
        lengths : integers [B], optional
            Steps of each stroke, at least 1; the last one is its end.
        """
        labels, moves, ends = self._strokes(labels, moves, lengths)
        y, _ = self.rnn(self._inputs(self.embed(labels), moves))
        return self._likelihood(self.out(y), moves, ends)[0]

    def loss_and_gradients(
        self, labels: Any, moves: Any, lengths: Any = None
    ) -> tuple[float, dict[str, Array]]:
        """Return the loss, and its gradients by parameter."""
        labels, moves, ends = self._strokes(labels, moves, lengths)
        vectors, embed_tape = self.embed.forward(labels)
        y, _, rnn_tape = self.rnn.forward(self._inputs(vectors, moves))
        kept, drop_tape = self.drop.forward(y)
        said, out_tape = self.out.forward(kept)
        loss, d_said = self._likelihood(said, moves, ends)
        out = self.out.backward(out_tape, d_said)
        rnn = self.rnn.backward(rnn_tape, self.drop.backward(drop_tape, out["x"])["x"])
        embed = self.embed.backward(embed_tape, rnn["x"][..., 2:].sum(axis=0))
        return loss, self.named_gradients(embed=embed, rnn=rnn, out=out)

    def generate(
        self,
        labels: Any,
        *,
        max_length: int = 100,
        temperature: float = 1.0,
        generator: np.random.Generator | None = None,
    ) -> list[Array]:
        """Draw a stroke of each label [B]: moves [T, 2], where the last one is the end.

        Parameters
        ----------
        labels : array of int [B]
        max_length : int
        temperature : float
            Multiplies the variance of each move; at 0 it is the mean.
        generator : numpy.random.Generator, optional
        """
        heat = options.real("temperature", temperature)
        if not 0 <= heat < np.inf:
            raise ValueError(f"temperature: expected at least 0, got {temperature}")
        rng = check_generator(generator)
        vectors = self.embed(self._labels(labels))
        batch = len(vectors)
        drawn = np.zeros((options.positive("max_length", max_length), batch, 2), vectors.dtype)
        ends = np.full(batch, max_length)
        state, move = None, np.zeros((batch, 2), vectors.dtype)
        for t in range(max_length):
            y, state = self.rnn.step(np.concatenate([move, vectors], axis=1), state)
            mean, deviation, end = _parts(self.out(y))
            noise = rng.standard_normal(mean.shape).astype(mean.dtype)
            move = drawn[t] = mean + heat**0.5 * deviation * noise
            last = rng.random(batch) < 1 / (1 + np.exp(-end))
            ends = np.where(last & (ends == max_length), t + 1, ends)
            if (ends <= t + 1).all():
                break
        return [drawn[:end, b] for b, end in enumerate(ends)]

    def _labels(self, labels: Any) -> Array:
        return arrays.integers("labels", labels, (None,), self.embed.num_embeddings)

    def _strokes(self, labels: Any, moves: Any, lengths: Any) -> tuple[Array, Array, Array]:
        """The arguments of the loss, checked; zeros beyond the ends, whatever is there."""
        found = self._labels(labels)
        moves = _core.as_array("moves", moves, (None, len(found), 2), self.dtype)
        steps, batch, _ = moves.shape
        if not moves.size:
            raise ValueError(f"moves: expected at least one step, got shape {moves.shape}")
        ends = np.full(batch, steps) if lengths is None else lengths
        ends = arrays.lengths("lengths", ends, batch, steps, least=1)
        valid = np.arange(steps)[:, None] < ends
        return found, np.where(valid[..., None], moves, moves.dtype.type(0)), ends

    def _inputs(self, vectors: Array, moves: Array) -> Array:
        """The move before each one, and the class."""
        before = np.zeros(moves.shape, self.dtype)
        before[1:] = moves[:-1]
        wide = np.broadcast_to(vectors, (len(moves), *vectors.shape))
        return np.concatenate([before, wide], axis=2)

    def _likelihood(self, said: Array, moves: Array, ends: Array) -> tuple[float, Array]:
        t = np.arange(len(said))[:, None]
        counts, last = t < ends, t == ends - 1
        mean, deviation, end = _parts(said)
        off = (moves - mean) / deviation
        share = 1 / (1 + np.exp(-end))
        of_move = off * off / 2 + np.log(deviation) + np.log(2 * np.pi) / 2
        of_end = np.logaddexp(0, np.where(last, -end, end))
        number = counts.sum()
        loss = float(np.sum((of_move.sum(-1) + of_end)[counts], dtype=np.float64)) / number
        slope = (deviation - LEAST_DEVIATION) / deviation  # of the logarithm of the deviation
        d_said = np.concatenate(
            [-off / deviation, (1 - off * off) * slope, (share - last)[..., None]], axis=-1
        )
        d_said = np.where(counts[..., None], d_said / number, 0).astype(said.dtype)
        return loss, d_said


def _parts(said: Array) -> tuple[Array, Array, Array]:
    """Mean [..., 2], deviation [..., 2] and the end's logit [...]."""
    return said[..., :2], np.exp(said[..., 2:4]) + LEAST_DEVIATION, said[..., 4]
