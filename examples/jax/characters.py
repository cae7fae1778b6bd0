"""A character model in JAX: one jitted training step, with optax.

    python characters.py [--text FILE]

Parameters are a dict of arrays, the recurrent layers' a part of it, so that optax, `jax.grad` and
`jax.jit` see one tree. Pieces of the text follow one another in each row of the batch, and the
state goes along with them: gradients end where a piece ends, memory does not. Donated arguments let
XLA write the new parameters over the old ones. It needs `pip install 'fusedrnn[jax]' optax`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fusedrnn.jax as fj
from fusedrnn.cli.characters import default_text

Parameters = dict[str, Any]
WIDTH = 48  # of what stands for a character


def init(rnn: fj.LSTM, vocabulary: int, key: jax.Array) -> Parameters:
    embedding, layers, head = jax.random.split(key, 3)
    return {
        "embedding": 0.1 * jax.random.normal(embedding, (vocabulary, WIDTH)),
        "rnn": rnn.init(layers),
        "head": jax.random.normal(head, (rnn.hidden_size, vocabulary)) / rnn.hidden_size**0.5,
    }


def loss_of(
    parameters: Parameters, rnn: fj.LSTM, text: jax.Array, state: Any
) -> tuple[jax.Array, Any]:
    """Nats a character of pieces [T + 1, B], and the state after them."""
    x = parameters["embedding"][text[:-1]]
    y, state = rnn.apply(parameters["rnn"], x, state)
    scores = y @ parameters["head"]
    return optax.softmax_cross_entropy_with_integer_labels(scores, text[1:]).mean(), state


@partial(jax.jit, static_argnames=("rnn", "optimizer"), donate_argnames=("parameters", "moments"))
def train_step(
    parameters: Parameters,
    moments: Any,
    state: Any,
    text: jax.Array,
    *,
    rnn: fj.LSTM,
    optimizer: optax.GradientTransformation,
) -> tuple[Parameters, Any, Any, jax.Array]:
    differentiated = jax.value_and_grad(loss_of, has_aux=True)
    (loss, state), gradients = differentiated(parameters, rnn, text, state)
    updates, moments = optimizer.update(gradients, moments, parameters)
    return optax.apply_updates(parameters, updates), moments, state, loss


def pieces(text: np.ndarray, batch: int, length: int) -> Iterator[np.ndarray]:
    """[T + 1, B]: of each row the next piece, and the character that follows it."""
    rows = text[: len(text) // batch * batch].reshape(batch, -1)
    for begin in range(0, rows.shape[1] - length, length):
        yield rows[:, begin : begin + length + 1].T


def main(arguments: Sequence[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, help="a file; else a text that comes with fusedrnn")
    parser.add_argument("--passes", type=int, default=3, help="over the text")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=32, help="characters of a piece")
    parser.add_argument("--hidden", type=int, default=128)
    o = parser.parse_args(arguments)
    words = o.text.read_text(encoding="utf-8") if o.text else default_text()
    characters, numbers = np.unique(list(words), return_inverse=True)
    training, held_out = np.split(numbers.astype(np.int32), [len(numbers) * 9 // 10])

    rnn = fj.LSTM(WIDTH, o.hidden, num_layers=2)
    parameters = init(rnn, len(characters), jax.random.key(0))
    steps = o.passes * sum(1 for _ in pieces(training, o.batch, o.length))
    rate = optax.cosine_decay_schedule(6e-3, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    moments = optimizer.init(parameters)
    zero = jnp.zeros((2, o.batch, o.hidden))
    for number in range(o.passes):
        state, losses = (zero, zero), []
        for text in pieces(training, o.batch, o.length):
            parameters, moments, state, loss = train_step(
                parameters, moments, state, text, rnn=rnn, optimizer=optimizer
            )
            losses.append(loss)
        sys.stdout.write(f"pass {number + 1}: {np.mean(losses) / math.log(2):.3f} bits\n")

    loss, _ = jax.jit(loss_of, static_argnames="rnn")(parameters, rnn, held_out[:, None], None)
    bits = float(loss) / math.log(2)
    sys.stdout.write(f"{bits:.4f} bits a character of text held out\n")
    return bits


if __name__ == "__main__":
    main()
