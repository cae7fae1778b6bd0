"""Clipping of gradients by their common norm, and number by number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr

PARAMETERS = ("dw_ih", "dw_hh", "db_ih", "db_hh")


def gradients(dtype: str = "float32") -> Any:
    rng = np.random.default_rng(0)
    x, w_ih, w_hh = (rng.standard_normal(s).astype(dtype) for s in ((6, 2, 3), (16, 3), (16, 4)))
    y, _, tape = fr.lstm_forward(x, w_ih, w_hh)
    return fr.lstm_backward(tape, y)


def norm_of(arrays: list[Any]) -> float:
    return math.sqrt(sum(float((np.asarray(a, np.float64) ** 2).sum()) for a in arrays))


def test_norm() -> None:
    grads, before = gradients(), gradients()
    expected = norm_of([getattr(before, name) for name in PARAMETERS])
    assert fr.clip_grad_norm(grads, expected / 4) == pytest.approx(expected, rel=1e-12)
    for name in PARAMETERS:
        np.testing.assert_allclose(getattr(grads, name), getattr(before, name) / 4, rtol=1e-6)
    assert norm_of([getattr(grads, name) for name in PARAMETERS]) == pytest.approx(expected / 4)
    for name in ("dx", "dh0", "dc0"):  # are no parameters'
        assert np.array_equal(getattr(grads, name), getattr(before, name))


@pytest.mark.parametrize("limit", [1e9, math.inf])
def test_small_gradients_stay_as_they_are(limit: float) -> None:
    grads, before = gradients(), gradients()
    fr.clip_grad_norm(grads, limit)
    assert all(np.array_equal(getattr(grads, n), getattr(before, n)) for n in PARAMETERS)


def test_of_a_layer() -> None:
    layer = fr.GRU(3, 4, 2, seed=0)
    y, _, tape = layer.forward(np.ones((5, 2, 3), "float32"))
    grads, before = layer.backward(tape, y), layer.backward(tape, y)
    expected = norm_of([before[name] for name in layer.parameters()])
    assert fr.clip_grad_norm(grads, 0.1) == pytest.approx(expected)
    assert norm_of([grads[name] for name in layer.parameters()]) == pytest.approx(0.1)
    assert np.array_equal(grads["x"], before["x"])
    assert np.array_equal(grads["h0"], before["h0"])


def test_against_torch() -> None:
    torch = pytest.importorskip("torch")
    grads = gradients()
    parameters = []
    for name in PARAMETERS:
        parameter = torch.nn.Parameter(torch.zeros_like(torch.tensor(getattr(grads, name))))
        parameter.grad = torch.tensor(getattr(grads, name))
        parameters.append(parameter)
    total = torch.nn.utils.clip_grad_norm_(parameters, 0.5)
    assert fr.clip_grad_norm(grads, 0.5) == pytest.approx(float(total), rel=1e-6)
    for name, parameter in zip(PARAMETERS, parameters, strict=True):
        np.testing.assert_allclose(getattr(grads, name), parameter.grad.numpy(), rtol=1e-5)
    tensors = {name: torch.tensor(getattr(gradients(), name)) for name in PARAMETERS}
    fr.clip_grad_norm(tensors, 0.5)
    for name in PARAMETERS:
        np.testing.assert_allclose(tensors[name].numpy(), getattr(grads, name), rtol=1e-5)
    fr.clip_grad_value(tensors, 1e-3)
    assert all(float(tensor.abs().max()) <= 1.0001e-3 for tensor in tensors.values())


def test_numbers_that_would_overflow() -> None:
    huge = {"a": np.full(4, 1e200), "b": np.full(3, 1e-200)}
    assert fr.clip_grad_norm(huge, 1.0) == pytest.approx(2e200)
    np.testing.assert_allclose(huge["a"], 0.5)
    tiny = {"a": np.full(4, 1e-200)}
    assert fr.clip_grad_norm(tiny, 1.0) == pytest.approx(2e-200)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_tensors_whose_own_sums_would_overflow(dtype: str) -> None:
    """900 times 1000 is no float16, though 30 and the norm are."""
    torch = pytest.importorskip("torch")
    value = 3e30 if dtype == "float32" else 30.0
    grads = {"a": torch.full((1000,), value, dtype=getattr(torch, dtype)), "b": torch.zeros(0, 3)}
    number = float(grads["a"][0])
    assert fr.clip_grad_norm(grads, 1.0) == pytest.approx(number * math.sqrt(1000), rel=1e-12)
    assert torch.allclose(grads["a"].double(), torch.tensor(1000.0**-0.5).double(), rtol=4e-3)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_norm_that_is_not_finite(wrong: float) -> None:
    grads = {"a": np.array([1.0, wrong]), "b": np.ones(2)}
    with pytest.raises(ValueError, match=r"^grads: expected a finite norm, got (nan|inf)$"):
        fr.clip_grad_norm(grads, 1.0, error_if_nonfinite=True)
    assert np.array_equal(grads["b"], np.ones(2))
    assert not math.isfinite(fr.clip_grad_norm(grads, 1.0))
    assert np.array_equal(grads["a"], [1.0, wrong], equal_nan=True)
    assert np.array_equal(grads["b"], np.ones(2))


def test_value() -> None:
    grads, before = gradients(), gradients()
    fr.clip_grad_value(grads, 0.05)
    for name in PARAMETERS:
        assert np.array_equal(getattr(grads, name), np.clip(getattr(before, name), -0.05, 0.05))
    assert np.array_equal(grads.dx, before.dx)


def test_bfloat16() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    grads = {"a": np.full((2, 8), 3, ml_dtypes.bfloat16)}
    assert fr.clip_grad_norm(grads, 6.0) == 12.0
    assert np.array_equal(grads["a"].astype(float), np.full((2, 8), 1.5))


def test_errors() -> None:
    grads = {"a": np.ones(3)}
    with pytest.raises(ValueError, match=r"^max_norm: expected at least 0, got -1$"):
        fr.clip_grad_norm(grads, -1)
    with pytest.raises(ValueError, match=r"^max_norm: expected at least 0, got nan$"):
        fr.clip_grad_norm(grads, math.nan)
    with pytest.raises(TypeError, match=r"^clip_value: expected a number, got str$"):
        fr.clip_grad_value(grads, "1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^grads: expected gradients by name, got list$"):
        fr.clip_grad_norm([np.ones(3)], 1.0)
    with pytest.raises(TypeError, match=r"^a: expected an array to write to, got list$"):
        fr.clip_grad_norm({"a": [1.0]}, 1.0)
    for what in (np.array([3, 4]), np.ones(2, complex)):
        with pytest.raises(TypeError, match=r"^a: expected a floating dtype, got (int|complex)"):
            fr.clip_grad_norm({"a": what}, 1.0)
    with pytest.raises(ValueError, match=r"^b: expected an array of its own, got that of a$"):
        fr.clip_grad_norm({"a": grads["a"], "b": grads["a"]}, 0.1)
    with pytest.raises(TypeError, match=r"^error_if_nonfinite: expected a bool, got int$"):
        fr.clip_grad_norm(grads, 1.0, error_if_nonfinite=1)  # type: ignore[arg-type]
    assert fr.clip_grad_norm({"a": np.array(-3.0)}, 1.0) == 3.0
    frozen = np.ones(3)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"^b: expected an array to write to, got a read-only one"):
        fr.clip_grad_norm(grads | {"b": frozen}, 0.1)
    assert np.array_equal(grads["a"], np.ones(3))
    jax = pytest.importorskip("jax.numpy")
    with pytest.raises(TypeError, match=r"^a: expected an array to write to, got ArrayImpl$"):
        fr.clip_grad_norm({"a": jax.ones(3)}, 0.1)
