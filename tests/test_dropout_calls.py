"""Dropout between layers: its option, and calls below the layers."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn import _core
from support import ALL_LAYERS, same_bits

all_cells = pytest.mark.parametrize("cell", list(ALL_LAYERS))

# --- the option ---


@all_cells
def test_wrong_rates(cell: str) -> None:
    for bad in (-0.1, 1, 1.0, 2, float("nan"), float("inf")):
        message = f"dropout: expected a finite number of at least 0 and below 1, got {bad}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            ALL_LAYERS[cell](2, 3, 2, dropout=bad)
    for wrong in ("0.5", None, True, [0.5]):
        with pytest.raises(TypeError, match=r"^dropout: expected a number, got "):
            ALL_LAYERS[cell](2, 3, 2, dropout=wrong)
    assert ALL_LAYERS[cell](2, 3, 2, dropout=np.float32(0.5)).dropout == 0.5


@all_cells
def test_a_single_layer_has_nothing_to_drop(cell: str) -> None:
    message = (
        "dropout: 0.5 has no effect on a single layer; it drops what one layer hands to the next"
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$") as caught:
        layer = ALL_LAYERS[cell](2, 3, dropout=0.5, seed=0)
    assert [warning.filename for warning in caught] == [__file__]
    x = np.ones((2, 1, 2), "float32")
    same_bits({"y": layer.forward(x)[0]}, {"y": layer(x)[0]})
    assert layer.dropout_state[1] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ALL_LAYERS[cell](2, 3, dropout=0.0)
        ALL_LAYERS[cell](2, 3, 2, dropout=0.5)


# --- below the layers ---


def network_and_call() -> tuple[Any, Any, tuple[Any, ...]]:
    layer = fr.GRU(2, 3, 2, dtype="float64", seed=0)
    network = layer._stack.network
    return network, np.ones((4, 2, 2)), layer._stack.ordered(layer.parameters())


def test_a_kept_reserve_knows_what_was_dropped() -> None:
    network, x, weights = network_and_call()
    drop = (0.5, 11, 3)
    tape = network.forward(x, weights, save=True, dropout=drop)[3]
    again = _core.Tape(network, x, weights, None, tape.reserve, drop)
    dy = np.ones((4, 2, 3))
    grads = [one.backward(dy, None, None, False)[1] for one in (again, tape)]
    assert all(map(np.array_equal, *grads))
    for other, message in (
        ((0.25, 11, 3), "dropout: expected 0.5, that of the forward call, got 0.25"),
        (None, "dropout: expected 0.5, that of the forward call, got 0"),
        ((0.5, 12, 3), "dropout_seed: expected 11, that of the forward call, got 12"),
        ((0.5, 11, 0), "dropout_step: expected 3, that of the forward call, got 0"),
    ):
        wrong = _core.Tape(network, x, weights, None, tape.reserve, other)
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            wrong.backward(dy, None, None, False)


def test_inference_may_drop() -> None:
    """Below the layers: the same as a training call."""
    network, x, weights = network_and_call()
    drop = (0.5, 11, 0)
    trained = network.forward(x, weights, save=True, dropout=drop)[0]
    assert np.array_equal(network.forward(x, weights, dropout=drop)[0], trained)
    assert not np.array_equal(network.forward(x, weights)[0], trained)


@pytest.mark.parametrize(
    ("drop", "error", "message"),
    [
        ((1.0, 0, 0), ValueError, "dropout: expected at least 0 and below 1, got 1"),
        ((-0.5, 0, 0), ValueError, "dropout: expected at least 0 and below 1, got -0.5"),
        ((float("nan"), 0, 0), ValueError, "dropout: expected at least 0 and below 1, got nan"),
        ((1, 0, 0), TypeError, "dropout: expected a float, got int"),
        ((0.5, 0.5, 0), TypeError, "dropout_seed: expected an int, got float"),
        ((0.5, -1, 0), ValueError, "dropout_seed: expected 0 to 2**64 - 1, got -1"),
        (
            (0.5, 2**64, 0),
            ValueError,
            "dropout_seed: expected 0 to 2**64 - 1, got 18446744073709551616",
        ),
        ((0.5, 0, -1), ValueError, "dropout_step: expected at least 0, got -1"),
        ((0.5, 0), ValueError, "dropout: expected 3 values, got 2"),
        (0.5, TypeError, "dropout: expected a tuple, got float"),
    ],
)
def test_wrong_arguments(drop: Any, error: type[Exception], message: str) -> None:
    network, x, weights = network_and_call()
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        network.forward(x, weights, save=True, dropout=drop)


def test_steps_beyond_32_bits() -> None:
    network, x, weights = network_and_call()
    far = network.forward(x, weights, dropout=(0.5, 1, 2**32 + 5))[0]
    assert np.array_equal(far, network.forward(x, weights, dropout=(0.5, 1, 5))[0])
