"""`fusedrnn.nn` against PyTorch, computed in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import reference
from fusedrnn import nn
from support import BOUND, dtypes, same_bits


def random(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def check(got: Any, expected: Any, dtype: str) -> None:
    assert np.asarray(got).shape == np.asarray(expected).shape
    assert reference.relative_error(got, expected) <= BOUND[dtype]


@dtypes
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy(dtype: str, smoothing: float) -> None:
    logits, targets = random((60, 301), dtype), np.arange(60) * 5
    targets[7] = -100
    wide = torch.tensor(logits.astype(np.float64), requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        wide, torch.tensor(targets), label_smoothing=smoothing
    )
    expected.backward()
    options: dict[str, Any] = {"ignore_index": -100, "label_smoothing": smoothing}
    got, gradient = nn.cross_entropy_grad(logits, targets, **options)
    assert wide.grad is not None
    check(got, expected.item(), dtype)
    check(gradient, wide.grad.numpy(), dtype)
    # Tensors in the place of arrays.
    of_tensors = nn.cross_entropy_grad(
        torch.tensor(logits), torch.tensor(targets, dtype=torch.int32), **options
    )
    same_bits({"": of_tensors[1]}, {"": gradient})


@dtypes
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("longest", [1, 2, 3, 4, 8, 20])
def test_ctc_against_torch(dtype: str, reduction: Any, longest: int) -> None:
    rng = np.random.default_rng(longest)
    steps, batch, classes = 45, 5, 9
    logits = random((steps, batch, classes), dtype) * np.dtype(dtype).type(2)
    labels = rng.integers(1, 4, (batch, longest))  # few, so that some follow themselves
    counts = np.minimum([longest, 1, 0, longest, max(longest - 1, 1)], longest)
    lengths = np.array([45, 30, 20, 40, 41])
    wide = torch.tensor(logits.astype(np.float64), requires_grad=True)
    expected = torch.nn.functional.ctc_loss(
        torch.log_softmax(wide, -1),
        torch.tensor(labels),
        torch.tensor(lengths),
        torch.tensor(counts),
        reduction=reduction,
    )
    expected.backward()
    got, gradient = nn.ctc_grad(logits, labels, lengths, counts, reduction=reduction)
    assert wide.grad is not None
    check(got, expected.item(), dtype)
    check(gradient, wide.grad.numpy(), dtype)


def test_ctc_of_long_sequences() -> None:
    """Probabilities far below the least float64."""
    logits = random((3000, 2, 20), "float32") * np.float32(4)
    labels = np.random.default_rng(0).integers(1, 20, (2, 50))
    wide = torch.tensor(logits.astype(np.float64), requires_grad=True)
    ends = torch.tensor([3000, 2000]), torch.tensor([50, 50])
    expected = torch.nn.functional.ctc_loss(
        torch.log_softmax(wide, -1), torch.tensor(labels), *ends, reduction="sum"
    )
    expected.backward()
    assert expected.item() > 1000
    got, gradient = nn.ctc_grad(logits, labels, [3000, 2000], reduction="sum")
    assert wide.grad is not None
    check(got, expected.item(), "float32")
    check(gradient, wide.grad.numpy(), "float32")


def test_multi_head_attention_is_that_of_torch() -> None:
    module = nn.MultiHeadAttention(16, 16, 4, seed=0)
    theirs = torch.nn.MultiheadAttention(16, 4)
    p = {name: torch.tensor(value) for name, value in module.parameters().items()}
    names = ("query", "key", "value")
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p[f"{name}.weight"] for name in names]))
        theirs.in_proj_bias.copy_(torch.cat([p[f"{name}.bias"] for name in names]))
        theirs.out_proj.weight.copy_(p["out.weight"])
        theirs.out_proj.bias.copy_(p["out.bias"])
    query, memory = random((7, 3, 16), "float32"), random((9, 3, 16), "float32", 1)
    lengths = np.array([9, 4, 1])
    padding = torch.tensor(np.arange(9) >= lengths[:, None])
    expected, weights = theirs(
        torch.tensor(query),
        torch.tensor(memory),
        torch.tensor(memory),
        key_padding_mask=padding,
        average_attn_weights=False,
    )
    y, got = module(query, memory, lengths, return_weights=True)
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(got.transpose(1, 2, 0, 3), weights.detach().numpy(), atol=1e-6)
