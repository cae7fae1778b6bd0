"""Frozen layers with smaller weights, against NumPy with the operands of its products rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support import LAYERS, Arguments, outputs, same_bits, variants

I, H, L, T, B = 13, 37, 2, 6, 5  # noqa: E741

# Within float32's accuracy of the reference. Where a sum is near the middle of two rounded values,
# the two sides may round a state of the next step apart; the bound leaves room for a few of those.
BOUNDS = {"bfloat16": 2e-3, "int8": 4e-3}
# What rounding costs at these sizes, against float32.
LOSSES = {"bfloat16": 2e-2, "int8": 3e-2}

weight_dtypes = pytest.mark.parametrize("weight_dtype", list(BOUNDS))


def to_bfloat16(values: Any) -> Any:
    """The nearest bfloat16, ties to even, as float64."""
    bits = np.asarray(values, "float32").view("uint32").astype("uint64")
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return bits.astype("uint32").view("float32").astype("float64")


def to_int8(values: Any) -> Any:
    """Each row rounded to 127 steps on either side of zero, as float64."""
    rows = np.asarray(values, "float64")
    scale = np.abs(rows).max(axis=-1, keepdims=True) / 127
    return np.rint(rows / np.where(scale == 0, 1, scale)) * scale


ROUND = {"bfloat16": to_bfloat16, "int8": to_int8}


def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


def reference_layer(cell: str, options: Arguments, weights: Any, x: Any, state: Any, rounded: Any):
    """One layer over a sequence in float64; every operand of a product passes through `rounded`."""
    w_ih, w_hh, b_ih, b_hh = weights
    w_ih, w_hh = rounded(w_ih), rounded(w_hh)
    h, c = state
    size = h.shape[-1]
    y = []
    for x_t in x:
        a = rounded(x_t) @ w_ih.T + b_ih
        u = rounded(h) @ w_hh.T + b_hh
        if cell == "rnn":
            activation = {
                "tanh": np.tanh,
                "sigmoid": sigmoid,
                "relu": lambda v: np.maximum(v, 0),
                "identity": lambda v: v,
            }[options.get("nonlinearity", "tanh")]
            h = activation(a + u)
        elif cell == "gru":
            r, z = (sigmoid((a + u)[:, k * size : (k + 1) * size]) for k in (0, 1))
            u_n = r * u[:, 2 * size :]
            if not options.get("reset_after", True):
                u_n = rounded(r * h) @ w_hh[2 * size :].T + b_hh[2 * size :]
            h = (1 - z) * np.tanh(a[:, 2 * size :] + u_n) + z * h
        else:
            i, f, g, o = np.split(a + u, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        y.append(h)
    return np.stack(y)


def problem(cell: str, options: Arguments) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(1)
    layer = LAYERS[cell](I, H, L, seed=0, **options)
    x = rng.standard_normal((T, B, I)).astype("float32")
    h, c = (rng.uniform(-1, 1, (L, B, H)).astype("float32") for _ in range(2))
    return layer, x, (h, c) if cell == "lstm" else h


def relative_error(got: Any, expected: Any) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@variants
@weight_dtypes
def test_rounded_operands(cell: str, options: Arguments, weight_dtype: str) -> None:
    layer, x, state = problem(cell, options)
    y, _ = layer.freeze(weight_dtype)(x, state)
    h, c = state if cell == "lstm" else (state, state)
    expected, parameters = x.astype("float64"), layer.parameters()
    for k in range(L):
        names = (f"{name}_l{k}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        weights = [parameters[name].astype("float64") for name in names]
        initial = (h[k].astype("float64"), c[k].astype("float64"))
        rounded = ROUND[weight_dtype]
        expected = reference_layer(cell, options, weights, expected, initial, rounded)
    exact, _ = layer(x, state)
    assert relative_error(y, expected) <= BOUNDS[weight_dtype]
    # It is rounded at all, and not by more than that costs.
    assert 1e-5 < relative_error(y, exact) <= LOSSES[weight_dtype]
    assert relative_error(y, expected) < relative_error(y, exact) / 4


@variants
@weight_dtypes
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 8, 9])
def test_steps_give_the_bits_of_a_run(
    cell: str, options: Arguments, weight_dtype: str, batch: int
) -> None:
    layer = LAYERS[cell](I, H, L, seed=0, **options)
    frozen = layer.freeze(weight_dtype)
    x = np.random.default_rng(2).standard_normal((T, batch, I)).astype("float32")
    y, last = frozen(x)
    state = None
    for t in range(T):
        y_t, state = frozen.step(x[t], state)
        same_bits({"y": y_t}, {"y": y[t]})
    same_bits(outputs(y, state), outputs(y, last))


@weight_dtypes
@pytest.mark.parametrize("cell", list(LAYERS))
def test_both_directions_with_lengths_and_resets(cell: str, weight_dtype: str) -> None:
    layer = LAYERS[cell](I, H, L, seed=0, bidirectional=True)
    x = np.random.default_rng(3).standard_normal((T, B, I)).astype("float32")
    masks = {"lengths": [6, 1, 0, 4, 6], "resets": np.eye(T, B, -2, dtype=bool)}
    got, _ = layer.freeze(weight_dtype)(x, **masks)
    expected, _ = layer(x, **masks)
    assert 1e-5 < relative_error(got, expected) <= LOSSES[weight_dtype]
    assert not got[:, 2].any()


@weight_dtypes
@pytest.mark.parametrize("cell", list(LAYERS))
def test_extreme_values(cell: str, weight_dtype: str) -> None:
    """Rows of zeros have no scale; a value that is not a number stays in its sequence."""
    layer = LAYERS[cell](I, H, 1, seed=0)
    for value in layer.parameters().values():
        value[: H // 2] = 0
    frozen = layer.freeze(weight_dtype)
    x = np.random.default_rng(4).standard_normal((4, I)).astype("float32")
    x[1] = 0
    clean, _ = frozen.step(x)
    assert np.isfinite(clean).all()
    exact, _ = layer.step(x)
    assert relative_error(clean, exact) <= LOSSES[weight_dtype]
    for bad in (np.nan, np.inf):
        x[2, 3] = bad
        got, _ = frozen.step(x)
        same_bits({"y": got[[0, 1, 3]]}, {"y": clean[[0, 1, 3]]})
    x[2, 3] = np.nan
    assert np.isnan(frozen.step(x)[0][2, H // 2 :]).any()
