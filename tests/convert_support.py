"""What the tests of every converter need: layers of random weights, and comparisons."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from reference import relative_error
from support import same_bits

T, B, I, H = 5, 3, 4, 6  # noqa: E741
# Against another library's sums, in float32 (by norm).
BOUND = 1e-5
# Gates in this package's order, as a reader of docs/math.md has them.
GATES = {"rnn": ["h"], "gru": ["r", "z", "n"], "lstm": ["i", "f", "g", "o"]}
LAYERS: dict[str, Any] = {"rnn": fr.RNN, "gru": fr.GRU, "lstm": fr.LSTM, "indrnn": fr.IndRNN}


def layer_of(cell: str, **options: Any) -> Any:
    """A layer whose weights and biases are all random, and none near another."""
    return LAYERS[cell](I, H, seed=7, **options)


def sequence(layer: Any, seed: int = 1) -> np.ndarray[Any, Any]:
    """Input as the layer takes it, [T,B,I] or [B,T,I]."""
    shape = (B, T, layer.input_size) if layer.batch_first else (T, B, layer.input_size)
    return np.random.default_rng(seed).standard_normal(shape).astype(layer.dtype)


def states(layer: Any, seed: int = 2) -> list[np.ndarray[Any, Any]]:
    """h0, and c0 of an LSTM."""
    runs = layer.num_layers * (2 if layer.bidirectional else 1)
    rng = np.random.default_rng(seed)
    count = 2 if isinstance(layer, fr.LSTM) else 1
    return [rng.standard_normal((runs, B, layer.hidden_size)).astype(layer.dtype)] + [
        rng.standard_normal((runs, B, layer.hidden_size)).astype(layer.dtype)
        for _ in range(count - 1)
    ]


def blocks(cell: str, array: Any) -> dict[str, Any]:
    """The rows of each gate of one of the layer's own arrays."""
    return dict(zip(GATES[cell], np.split(array, len(GATES[cell])), strict=True))


def same_layer(got: Any, expected: Any) -> None:
    """Equal options and equal bits of each weight."""
    assert repr(got) == repr(expected)
    same_bits(got.state_dict(), expected.state_dict())


def close(got: Any, expected: Any, bound: float = BOUND) -> None:
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    assert relative_error(got, expected) <= bound


def rejected(
    error: type[Exception], message: str, function: Callable[..., Any], *args: Any, **options: Any
) -> None:
    """The whole message is this one."""
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        function(*args, **options)
