"""int8 weights where their scales are at stake: many rows, large sizes, and numbers at the ends.

`test_frozen_weight_dtypes.py` has the promises that they share with bfloat16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import reference
from support import LAYERS, Arguments, outputs, same_bits, variants

cells = pytest.mark.parametrize("cell", list(LAYERS))
# Of a state that is rounded apart near a tie, as in test_frozen_weight_dtypes.py.
BOUND = 4e-3


def normal(shape: tuple[int, ...], seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def quantised_reference(cell: str, layer: Any, options: Arguments, x: Any, **given: Any) -> Any:
    rounding = reference.FROZEN_IN["int8"]
    return reference.stack(cell, x, layer.parameters(), rounding=rounding, **options, **given)


@variants
@pytest.mark.parametrize(
    ("batch", "hidden_size", "num_layers"), [(1, 100, 2), (33, 100, 1), (1, 200, 1), (33, 200, 3)]
)
def test_large_sizes(
    cell: str, options: Arguments, batch: int, hidden_size: int, num_layers: int
) -> None:
    """Against the reference, with lengths and resets; a step gives the bits of a run."""
    layer = LAYERS[cell](50, hidden_size, num_layers, seed=0, **options)
    frozen = layer.freeze("int8")
    x = normal((5, batch, 50), 1)
    rng = np.random.default_rng(2)
    masks = {
        "lengths": np.where(np.arange(batch) % 3, 5, rng.integers(0, 6, batch)),
        "resets": rng.random((5, batch)) < 0.2,
    }
    for given in ({}, masks):
        y, state = frozen(x, **given)
        expected = quantised_reference(cell, layer, options, x, **given)
        for name, value in outputs(y, state).items():
            assert reference.relative_error(value, expected[name]) <= num_layers * BOUND, name
    y, last = frozen(x)
    state = None
    for t in range(5):
        y_t, state = frozen.step(x[t], state)
        same_bits({"y": y_t}, {"y": y[t]})
    same_bits(outputs(y, state), outputs(y, last))


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_threads_share_sequences(cell: str) -> None:
    """Each thread finds the scales of its own: where its first row is not the batch's."""
    frozen = LAYERS[cell](16, 64, seed=0).freeze("int8")
    x = normal((64, 64, 16), 3) * (10.0 ** np.linspace(-2, 1, 64, dtype="float32"))[:, None]
    before = fr.get_num_threads()
    try:
        fr.set_num_threads(1)
        expected = outputs(*frozen(x))
        fr.set_num_threads(2)
        same_bits(outputs(*frozen(x)), expected)
    finally:
        fr.set_num_threads(before)


@pytest.mark.parametrize(("cell", "loss"), [("lstm", 0.02), ("rnn", 0.06)])
def test_sequences_of_different_scales(cell: str, loss: float) -> None:
    """A row is multiplied with its own scale, also where a block of rows covers some twice."""
    layer = LAYERS[cell](40, 24, seed=0)
    rng = np.random.default_rng(4)
    scales = 10 ** rng.uniform(-2, 1, (3, 11, 1))
    x = (normal((3, 11, 40), 5) * scales).astype("float32")
    before = fr.get_num_threads()
    fr.set_num_threads(1)
    try:
        got, _ = layer.freeze("int8")(x)
    finally:
        fr.set_num_threads(before)
    exact, _ = layer(x)
    # 0.83 and 1.7 with the scales of other rows.
    assert reference.relative_error(got, exact) <= loss
    expected = quantised_reference(cell, layer, {}, x)
    assert reference.relative_error(got, expected["y"]) <= BOUND


@variants
@pytest.mark.parametrize("size", [1e-30, 2e-36, 1.4e-36, 3.7e-37, 1e-37, 1.2e-38, 1e-40, 0.0])
def test_tiny_rows(cell: str, options: Arguments, size: float) -> None:
    """Of x, states and weights: down to where their scale is a denormal, from there on zeros."""
    states = "hc" if cell == "lstm" else "h"
    for tiny in ("x", "h0", "weight_ih_l0", "weight_hh_l0"):
        layer = LAYERS[cell](4, 8, seed=0, **options)
        x = normal((2, 3, 4), 6)
        state = {f"{s}0": normal((1, 3, 8), 7) for s in states}
        parameters = layer.parameters()
        array = {"x": x, **state, **parameters}[tiny]
        array[..., 1, :] *= np.float32(size)
        if tiny.startswith("weight"):
            array[:] *= np.float32(size)
        given = tuple(state.values()) if cell == "lstm" else state["h0"]
        y, last = layer.freeze("int8")(x, given)
        expected = quantised_reference(cell, layer, options, x, **state)
        for name, value in outputs(y, last).items():
            assert reference.relative_error(value, expected[name]) <= BOUND, (tiny, name)


@pytest.mark.parametrize("size", [1e-30, 1e-35])
def test_tiny_rows_are_not_lost(size: float) -> None:
    """A large weight brings them back."""
    layer = fr.RNN(4, 8, nonlinearity="identity", bias=False, seed=0)
    layer.parameters()["weight_ih_l0"][:] *= 1e30
    x = normal((1, 3, 4), 8) * np.float32(size)
    got, _ = layer.freeze("int8")(x)
    expected = quantised_reference("rnn", layer, {"nonlinearity": "identity"}, x)["y"]
    assert reference.relative_error(got, expected) <= 1e-6


@cells
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 5, 11])
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0"])
def test_a_weight_that_is_no_number(cell: str, name: str, column: int, value: float) -> None:
    """Its row gives NaN, wherever in the row it stands; the other rows are as they were."""
    hidden_size = 12 if name == "weight_hh_l0" else 8
    layer = LAYERS[cell](12, hidden_size, seed=0)
    x = normal((1, 3, 12), 9)
    clean, _ = layer.freeze("int8")(x)
    layer.parameters()[name][2, column] = value
    got, _ = layer.freeze("int8")(x)
    assert np.isnan(got[0, :, 2]).all()
    others = np.arange(hidden_size) != 2
    same_bits({"y": got[..., others]}, {"y": clean[..., others]})


@cells
def test_a_number_that_is_none_stays_in_its_sequence(cell: str) -> None:
    """In x and in the states, over several steps and layers."""
    frozen = LAYERS[cell](9, 21, 2, seed=0).freeze("int8")
    x, h, c = normal((3, 6, 9), 10), normal((2, 6, 21), 11), normal((2, 6, 21), 12)
    state = (h, c) if cell == "lstm" else h
    clean = outputs(*frozen(x, state))
    for value in (np.nan, np.inf, -np.inf):
        for array in (x, h):
            spoilt = array.copy()
            spoilt[0, 4, 2] = value
            spoilt_state = (spoilt, c) if cell == "lstm" else spoilt
            given = (spoilt, state) if array is x else (x, spoilt_state)
            got = outputs(*frozen(*given))
            others = [0, 1, 2, 3, 5]
            for name in clean:
                same_bits({name: got[name][:, others]}, {name: clean[name][:, others]})
            assert np.isnan(got["y"][0, 4]).any()
