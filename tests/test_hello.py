"""The lecture's own example: after "hell", the letters "ello" are learnt to certainty.

A. Karpathy, "The unreasonable effectiveness of recurrent neural networks" (2015): a vocabulary of
four letters, one-hot, and the next letter as the target. The second l must give another letter than
the first, so only a network that carries its state can do it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support import LAYERS, Arguments, variants

VOCABULARY = "helo"
TEXT = np.array([VOCABULARY.index(letter) for letter in "hello"])


def softmax(logits: Any) -> Any:
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def learn(cell: str, options: Arguments, dtype: str) -> Any:
    """Probabilities [4 steps, 4 letters] after 300 steps of Adam (Kingma and Ba 2015)."""
    layer = LAYERS[cell](4, 8, dtype=dtype, seed=0, **options)
    readout = np.random.default_rng(0).uniform(-0.3, 0.3, (4, 8)).astype(dtype)
    parameters = layer.parameters() | {"readout": readout}
    first = {name: np.zeros_like(value) for name, value in parameters.items()}
    second = {name: np.zeros_like(value) for name, value in parameters.items()}
    x = np.eye(4, dtype=dtype)[TEXT[:-1], None]
    target = np.eye(4, dtype=dtype)[TEXT[1:], None]

    for step in range(1, 301):
        y, _, tape = layer.forward(x)
        dlogits = softmax(y @ readout.T) - target
        grads = layer.backward(tape, dlogits @ readout)
        grads["readout"] = np.einsum("tbv,tbh->vh", dlogits, y)
        for name, value in parameters.items():
            first[name] += 0.1 * (grads[name] - first[name])
            second[name] += 0.001 * (grads[name] ** 2 - second[name])
            unbiased = np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8
            value[...] -= 0.02 * first[name] / (1 - 0.9**step) / unbiased
    return softmax(layer(x)[0] @ readout.T)[:, 0]


@variants
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hello(cell: str, options: Arguments, dtype: str) -> None:
    probabilities = learn(cell, options, dtype)
    assert "".join(VOCABULARY[k] for k in probabilities.argmax(axis=1)) == "ello"
    assert probabilities[np.arange(4), TEXT[1:]].min() > 0.99
