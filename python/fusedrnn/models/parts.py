"""What the models are made of: a base, an encoder that reads, a decoder that writes.

Letters: T time steps, B sequences, I inputs, E embedding size, H hidden size, W width of what an
encoder says (2 H where it reads both ways), V vocabulary size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fusedrnn
from fusedrnn import _core, nn, options
from fusedrnn.nn import arrays
from fusedrnn.nn.arrays import Array, Dtype
from fusedrnn.nn.module import ModuleTape

CELLS = {"rnn": fusedrnn.RNN, "gru": fusedrnn.GRU, "lstm": fusedrnn.LSTM}


class Model(nn.Module):
    """A module that knows what it was made with: ``type(model)(**model.config())`` is alike."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self._config = config

    def config(self) -> dict[str, Any]:
        """Return the arguments of the constructor but the seed, as JSON can hold them."""
        return dict(self._config)


SIZES = (
    "classes", "embedding", "hidden", "horizon", "input_size", "layers", "source_vocabulary",
    "target_vocabulary", "vector_size", "vocabulary",
)  # fmt: skip


def checked(**config: Any) -> dict[str, Any]:
    """Return the arguments of a constructor, checked under their own names, as JSON has them."""
    return {name: _checked(name, value) for name, value in config.items()}


def _checked(name: str, value: Any) -> Any:
    if name == "cell":
        return options.choice(name, value, tuple(CELLS))
    if name == "dropout":
        return options.number(name, value, least=0.0, below=1.0)
    if name == "dtype":
        return arrays.dtype(value)
    if name in SIZES:
        return None if value is None else options.positive(name, value)
    return options.flag(name, value)


def seeds(seed: int | None, count: int) -> list[int]:
    """Return seeds for the parts of a model."""
    words = np.random.SeedSequence(options.seed(seed)).generate_state(count)
    return [int(word) for word in words]


def recurrent(
    cell: str, input_size: int, hidden: int, layers: int, *, dropout: float, **rest: Any
) -> Any:
    """Return a stack of recurrent layers; the forget gate of an LSTM starts open."""
    kind = CELLS[options.choice("cell", cell, tuple(CELLS))]
    if cell == "lstm":
        rest["forget_bias"] = 1.0  # gradients reach back early
    if layers > 1:  # what it lies between
        rest["dropout"] = dropout
    return kind(input_size, hidden, layers, **rest)


def hidden_state(state: Any) -> Array:
    """Return h [L*D, B, H] of a recurrent layer's state."""
    h: Array = state[0] if isinstance(state, tuple) else state
    return h


class Encoder(nn.Module):
    """Reads sequences: the outputs at every step, and what is known at the end.

    Parameters
    ----------
    input_size : int, optional
        I of inputs [T, B, I]; either this or `vocabulary`.
    vocabulary : int, optional
        V of inputs that are indices [T, B].
    embedding, hidden, layers, cell, bidirectional, dropout, dtype, seed
        As of `Classifier`.

    Attributes
    ----------
    output_size : int
        W.
    """

    def __init__(
        self,
        *,
        input_size: int | None = None,
        vocabulary: int | None = None,
        cell: str = "gru",
        embedding: int = 32,
        hidden: int = 64,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        dtype: Dtype = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if (input_size is None) == (vocabulary is None):
            raise ValueError(
                f"input_size, vocabulary: expected one of them, got {input_size}, {vocabulary}"
            )
        first, second = seeds(seed, 2)
        self.embed: Any = None
        if vocabulary is not None:
            self.embed = nn.Embedding(vocabulary, embedding, dtype=dtype, seed=first)
            input_size = embedding
        assert input_size is not None
        self.rnn = recurrent(
            cell, input_size, hidden, layers, dropout=dropout, bidirectional=bidirectional,
            dtype=dtype, seed=second,
        )  # fmt: skip
        self.directions = 2 if bidirectional else 1
        self.output_size = self.directions * hidden

    def __call__(self, inputs: Any, lengths: Any = None) -> tuple[Array, Array]:
        """Return the outputs [T, B, W], and the top layer's last states [B, W]."""
        inputs = self._inputs(inputs)
        x = inputs if self.embed is None else self.embed(inputs)
        y, state = self.rnn(x, None, lengths)
        return y, self._last(state)

    def forward(self, inputs: Any, lengths: Any = None) -> tuple[Array, Array, ModuleTape]:
        """Return the outputs [T, B, W], the last states [B, W], and what `backward` needs."""
        inputs = self._inputs(inputs)
        x, embed = (inputs, None) if self.embed is None else self.embed.forward(inputs)
        y, state, rnn = self.rnn.forward(x, None, lengths)
        return y, self._last(state), self.make_tape(embed=embed, rnn=rnn, state=state)

    def backward(self, tape: ModuleTape, dy: Any = None, dlast: Any = None) -> dict[str, Array]:
        """Return the gradients of ``sum(dy * y) + sum(dlast * last)``, "x" of vectors as well."""
        saved = self.read_tape(tape)
        dstate: Any = None
        if dlast is not None:
            dh = np.zeros_like(hidden_state(saved["state"]))
            dh[-self.directions :] = dlast.reshape(len(dlast), self.directions, -1).swapaxes(0, 1)
            dstate = (dh, None) if isinstance(saved["state"], tuple) else dh
        rnn = self.rnn.backward(saved["rnn"], dy, dstate)
        if self.embed is None:
            return {"x": rnn["x"]} | self.named_gradients(rnn=rnn)
        return self.named_gradients(embed=self.embed.backward(saved["embed"], rnn["x"]), rnn=rnn)

    def _inputs(self, inputs: Any) -> Array:
        if self.embed is None:
            shape = None, None, self.rnn.input_size
            return _core.as_array("inputs", inputs, shape, self.rnn.dtype)
        return arrays.integers("inputs", inputs, (None, None), self.embed.num_embeddings)

    def _last(self, state: Any) -> Array:
        h = hidden_state(state)[-self.directions :]
        last: Array = h.swapaxes(0, 1).reshape(h.shape[1], self.output_size)
        return last


class Decoder(nn.Module):
    """Writes sequences of symbols from a vector: each symbol is read before the next one.

    The first state of every layer is ``tanh`` of a linear map of the vector.

    Parameters
    ----------
    vector_size, vocabulary : int
        F and V.
    cell, embedding, hidden, layers, dropout, dtype, seed
        As of `Classifier`.
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
        super().__init__()
        first, second, third = seeds(seed, 3)
        self.start = nn.Linear(vector_size, layers * hidden, dtype=dtype, seed=first)
        self.embed = nn.Embedding(vocabulary, embedding, dtype=dtype, seed=second)
        self.rnn = recurrent(
            cell, embedding, hidden, layers, dropout=dropout, dtype=dtype, seed=third
        )

    def first_state(self, vector: Any) -> Any:
        """Return the state before the first step, of vectors [B, F]."""
        return self._state(np.tanh(self.start(vector)))

    def step(self, symbols: Any, state: Any) -> tuple[Array, Any]:
        """Return h [B, H] after reading symbols [B], and the new state."""
        h, state = self.rnn.step(self.embed(symbols), state)
        return h, state

    def __call__(self, symbols: Any, vector: Any) -> Array:
        """Return h [T, B, H] after each of the symbols [T, B]."""
        y: Array = self.rnn(self.embed(symbols), self.first_state(vector))[0]
        return y

    def forward(self, symbols: Any, vector: Any) -> tuple[Array, ModuleTape]:
        """Return h [T, B, H] after each of the symbols [T, B], and what `backward` needs."""
        before, start = self.start.forward(vector)
        first = np.tanh(before)
        x, embed = self.embed.forward(symbols)
        y, _, rnn = self.rnn.forward(x, self._state(first))
        return y, self.make_tape(start=start, first=first, embed=embed, rnn=rnn)

    def backward(self, tape: ModuleTape, dy: Any) -> dict[str, Array]:
        """Return the gradients of ``sum(dy * h)``: "vector", and of all parameters."""
        saved = self.read_tape(tape)
        rnn = self.rnn.backward(saved["rnn"], dy)
        first = saved["first"]
        dfirst = rnn["h0"].swapaxes(0, 1).reshape(first.shape) * (1 - first * first)
        start = self.start.backward(saved["start"], dfirst)
        embed = self.embed.backward(saved["embed"], rnn["x"])
        return {"vector": start["x"]} | self.named_gradients(start=start, embed=embed, rnn=rnn)

    def _state(self, first: Array) -> Any:
        rnn = self.rnn
        h = first.reshape(len(first), rnn.num_layers, rnn.hidden_size).swapaxes(0, 1)
        h = np.ascontiguousarray(h)
        return (h, None) if isinstance(rnn, fusedrnn.LSTM) else h
