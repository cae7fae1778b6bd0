"""Losses of `fusedrnn.nn` against the oracle, themselves and NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle.nn as oracle
import reference
from fusedrnn import nn
from support import BOUND, dtypes, same_bits

REDUCTIONS = ("mean", "sum", "batch_mean")
reductions = pytest.mark.parametrize("reduction", REDUCTIONS)
T, B, V = 4, 3, 7
LENGTHS = np.array([4, 0, 2])


def divisor(reduction: str, number: int, batch: int = B) -> float:
    return {"mean": number, "sum": 1, "batch_mean": batch}[reduction]


def logits_of(dtype: str, shape: tuple[int, ...] = (T, B, V), scale: float = 3.0) -> Any:
    return (np.random.default_rng(0).standard_normal(shape) * scale).astype(dtype)


def check(got: Any, expected: Any, dtype: str) -> None:
    assert np.asarray(got).shape == np.asarray(expected).shape
    assert reference.relative_error(got, expected) <= BOUND[dtype]


# --- cross-entropy ---


@dtypes
@reductions
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy(dtype: str, reduction: Any, smoothing: float) -> None:
    logits = logits_of(dtype)
    targets = np.random.default_rng(1).integers(0, V, (T, B))
    targets[0, 0] = -100
    mask = np.ones((T, B), bool)
    mask[3, 0] = False
    steps = [(1, 0), (2, 0), (0, 2), (1, 2)]

    def loss(x: Any) -> Any:
        each = [oracle.cross_entropy(x[t][b], int(targets[t, b]), smoothing) for t, b in steps]
        return oracle.total(each) * (1 / divisor(reduction, len(steps)))

    expected, grads = oracle.gradients(loss, {"x": logits})
    options: dict[str, Any] = {
        "lengths": LENGTHS,
        "mask": mask,
        "ignore_index": -100,
        "label_smoothing": smoothing,
        "reduction": reduction,
    }
    before = logits.copy()
    got, gradient = nn.cross_entropy_grad(logits, targets, **options)
    same_bits({"logits": logits}, {"logits": before})
    check(got, expected, dtype)
    check(gradient, grads["x"], dtype)
    assert nn.cross_entropy(logits, targets, **options) == got
    # In the place of the logits.
    again, overwritten = nn.cross_entropy_grad(logits, targets, **options, out=logits)
    assert again == got
    assert overwritten is logits
    same_bits({"": logits}, {"": gradient})


@dtypes
@pytest.mark.parametrize("classes", [1, 2, 3, 5, 15, 16, 17, 31, 33, 63, 64, 65, 129, 2049])
def test_cross_entropy_of_any_number_of_classes(dtype: str, classes: int) -> None:
    logits = logits_of(dtype, (6, classes), 10.0)
    targets = np.random.default_rng(1).integers(0, classes, 6)
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    log_p = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    right = np.arange(classes) == targets[:, None]
    expected = -np.sum(log_p * (0.8 * right + 0.2 / classes))
    got, gradient = nn.cross_entropy_grad(
        logits, targets, reduction="sum", label_smoothing=0.2, out=np.full_like(logits, np.nan)
    )
    assert got == pytest.approx(expected, rel=BOUND[dtype], abs=1e-12)
    error = np.abs(gradient - (np.exp(log_p) - 0.8 * right - 0.2 / classes)).max()
    assert error <= 50 * np.finfo(dtype).eps  # of exponentials of logarithms down to -40


@dtypes
@pytest.mark.parametrize("classes", [1, 7, 16, 31, 48, 100])
def test_cross_entropy_finds_the_largest_wherever_it_is(dtype: str, classes: int) -> None:
    logits = np.eye(classes, dtype=dtype) * np.dtype(dtype).type(1e4)
    got, gradient = nn.cross_entropy_grad(logits, np.arange(classes))
    assert got == 0
    assert not gradient.any()


def test_cross_entropy_of_extremes() -> None:
    logits = np.array([[1e30, -1e30, 0], [-np.inf, 0, 0], [88, 89, 700]], np.float32)
    got, gradient = nn.cross_entropy_grad(logits, [0, 1, 2], reduction="sum")
    assert got == pytest.approx(np.log(2), rel=1e-6)
    np.testing.assert_allclose(gradient, [[0, 0, 0], [0, -0.5, 0.5], [0, 0, 0]], atol=1e-6)


def test_cross_entropy_keeps_nan_to_its_row() -> None:
    logits = logits_of("float32", (3, 40))
    logits[1, 39] = np.nan
    got, gradient = nn.cross_entropy_grad(logits, [0, 1, 2])
    assert np.isnan(got)
    assert np.isnan(gradient).all(axis=1).tolist() == [False, True, False]
    # Where the row does not count, it does not.
    got, gradient = nn.cross_entropy_grad(logits, [0, 1, 2], mask=np.array([1, 0, 1], np.uint8))
    assert np.isfinite(got)
    assert np.isfinite(gradient).all()
    assert not gradient[1].any()


@dtypes
def test_cross_entropy_has_the_same_bits_whatever_the_threads(dtype: str) -> None:
    logits, targets = logits_of(dtype, (300, 2, 500)), np.arange(600).reshape(300, 2) % 500
    before = fr.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            fr.set_num_threads(threads)
            loss, gradient = nn.cross_entropy_grad(logits, targets)
            results.append({"loss": np.array(loss), "gradient": gradient})
    finally:
        fr.set_num_threads(before)
    same_bits(results[1], results[0])
    same_bits(results[2], results[0])


def test_cross_entropy_of_other_layouts() -> None:
    logits, targets = logits_of("float32"), np.arange(T * B).reshape(T, B) % V
    expected = nn.cross_entropy_grad(logits, targets)
    swapped = np.asfortranarray(logits), np.asfortranarray(targets)
    got = nn.cross_entropy_grad(*swapped)
    assert got[0] == expected[0]
    same_bits({"": got[1]}, {"": expected[1]})


# --- mean squared and quantile loss ---


@dtypes
@reductions
@pytest.mark.parametrize("masked", ["steps", "elements"])
def test_mse(dtype: str, reduction: Any, masked: str) -> None:
    y, target = logits_of(dtype), logits_of(dtype)[::-1].copy()
    mask = np.ones((T, B, V) if masked == "elements" else (T, B), bool)
    mask[0, 0] = False
    if masked == "elements":
        mask[1, 0, :3] = False
    valid = (np.arange(T)[:, None] < LENGTHS)[..., None] & mask.reshape(T, B, -1)
    counts = [tuple(i) for i in np.argwhere(np.broadcast_to(valid, y.shape))]
    y[3, 1] = np.nan

    def loss(x: Any) -> Any:
        each = [oracle.squared(x[t][b][i], float(target[t, b, i])) for t, b, i in counts]
        return oracle.total(each) * (1 / divisor(reduction, len(counts)))

    expected, grads = oracle.gradients(loss, {"x": y})
    options: dict[str, Any] = {"lengths": LENGTHS, "mask": mask, "reduction": reduction}
    got, gradient = nn.mse_grad(y, target, **options)
    check(got, expected, dtype)
    check(gradient, grads["x"], dtype)
    assert gradient.dtype == dtype
    assert nn.mse(y, target, **options) == got


@dtypes
@reductions
def test_quantile(dtype: str, reduction: Any) -> None:
    levels = [0.1, 0.5, 0.9]
    y, target = logits_of(dtype, (T, B, 3)), -logits_of(dtype, (T, B))
    y[0, 0, 1] = target[0, 0]  # where the loss has a kink
    counts = [(t, b) for t in range(T) for b in range(B) if t < LENGTHS[b]]

    def loss(x: Any) -> Any:
        each = [
            oracle.pinball(x[t][b][i], float(target[t, b]), q)
            for t, b in counts
            for i, q in enumerate(levels)
        ]
        return oracle.total(each) * (1 / divisor(reduction, 3 * len(counts)))

    expected, grads = oracle.gradients(loss, {"x": y})
    grads["x"][0][0][1] = 0.0
    options: dict[str, Any] = {"lengths": LENGTHS, "reduction": reduction}
    got, gradient = nn.quantile_grad(y, target, levels, **options)
    check(got, expected, dtype)
    check(gradient, grads["x"], dtype)
    assert gradient.dtype == dtype
    assert nn.quantile(y, target, levels, **options) == got


def test_the_quantile_is_the_minimum() -> None:
    target = np.random.default_rng(0).standard_normal(2000)
    y = np.zeros((1, 2))
    for step in range(400):
        shown = np.broadcast_to(y, (2000, 2))
        _, gradient = nn.quantile_grad(shown, target, [0.2, 0.9])
        y = y - gradient.sum(axis=0) * 8 / (1 + step / 20)
    np.testing.assert_allclose(y[0], np.quantile(target, [0.2, 0.9]), atol=0.01)


# --- CTC ---


def oracle_ctc(
    logits: Any, targets: Any, lengths: Any, counts: Any, reduction: str, blank: int
) -> tuple[float, Any]:
    def loss(x: Any) -> Any:
        each = []
        for b, (length, count) in enumerate(zip(lengths, counts, strict=True)):
            rows = [x[t][b] for t in range(length)]
            value = oracle.ctc(rows, targets[b, :count].tolist(), blank)
            assert value is not None
            each.append(value * (1 / max(count, 1) if reduction == "mean" else 1.0))
        return oracle.total(each) * (1.0 if reduction == "sum" else 1 / len(each))

    return oracle.gradients(loss, {"x": logits})


@dtypes
@reductions
@pytest.mark.parametrize("blank", [0, 2])
def test_ctc(dtype: str, reduction: Any, blank: int) -> None:
    logits = logits_of(dtype, (5, 4, 3), 1.5)
    labels = np.array([[1, 1], [1, 0], [0, 1], [-7, 99]])
    labels = np.where(labels == 0, 2 - blank, labels)  # the label that is not the blank
    lengths, counts = np.array([5, 4, 2, 3]), np.array([2, 1, 2, 0])
    expected, grad = oracle_ctc(logits, labels, lengths, counts, reduction, blank)
    options: dict[str, Any] = {"blank": blank, "reduction": reduction}
    got, gradient = nn.ctc_grad(logits, labels, lengths, counts, **options)
    check(got, expected, dtype)
    check(gradient, grad["x"], dtype)
    assert nn.ctc(logits, labels, lengths, counts, **options) == got
    again, overwritten = nn.ctc_grad(logits, labels, lengths, counts, **options, out=logits)
    assert again == got
    assert overwritten is logits
    same_bits({"": logits}, {"": gradient})


@dtypes
@pytest.mark.parametrize("count", [0, 1, 2, 5, 9])
def test_ctc_counts_alignments(dtype: str, count: int) -> None:
    """All paths as likely as one another; of T steps, (T + L) over (T - L) give L other labels."""
    steps, classes = 12, 11
    labels = np.arange(1, count + 1)[None]
    got = nn.ctc(np.zeros((steps, 1, classes), dtype), labels, reduction="sum")
    alignments = math.comb(steps + count, steps - count)
    assert got == pytest.approx(steps * math.log(classes) - math.log(alignments), rel=1e-12)


def test_ctc_of_what_cannot_be() -> None:
    logits = logits_of("float32", (4, 4, 5))
    labels = np.array([[1, 1, 2], [3, 3, 3], [1, 2, 3], [1, 2, 3]])
    lengths = [4, 4, 2, 0]  # of the second, blanks would be needed between
    got, gradient = nn.ctc_grad(logits, labels, lengths, reduction="sum")
    assert got == np.inf
    assert np.isfinite(gradient[:, 0]).all()
    assert np.isnan(gradient[:, 1]).all()
    assert np.isnan(gradient[:2, 2]).all()
    assert not gradient[2:, 2].any()
    assert not gradient[:, 3].any()
    alone = nn.ctc_grad(logits[:, :1].copy(), labels[:1], reduction="sum")
    got, gradient = nn.ctc_grad(logits, labels, lengths, reduction="sum", zero_infinity=True)
    assert got == alone[0]
    same_bits({"": gradient[:, :1].copy()}, {"": alone[1]})
    assert not gradient[:, 1:].any()
    none = np.zeros((4, 0), np.int64)
    assert nn.ctc(logits, none, [0] * 4, reduction="sum") == 0.0


def test_losses_of_no_sequence() -> None:
    none = np.zeros((5, 0, 4), np.float32)
    got, gradient = nn.ctc_grad(none, np.zeros((0, 2**40), np.int8), reduction="sum")
    assert (got, gradient.shape) == (0.0, none.shape)
    got, gradient = nn.cross_entropy_grad(none, np.zeros((5, 0), int), reduction="sum")
    assert (got, gradient.shape) == (0.0, none.shape)
    got, gradient = nn.mse_grad(none, none, reduction="sum")
    assert (got, gradient.shape) == (0.0, none.shape)


def test_ctc_keeps_nan_to_its_sequence() -> None:
    logits = logits_of("float64", (6, 2, 5))
    logits[3, 1, 4] = np.nan
    got, gradient = nn.ctc_grad(logits, [[1, 2], [2, 3]], zero_infinity=True)
    assert np.isnan(got)
    assert np.isfinite(gradient[:, 0]).all()
    assert np.isnan(gradient[:, 1]).all()


def test_ctc_has_the_same_bits_whatever_the_threads_and_the_batch() -> None:
    logits = logits_of("float32", (60, 6, 30))
    labels = np.random.default_rng(0).integers(1, 30, (6, 12))
    before = fr.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 4):
            fr.set_num_threads(threads)
            _, gradient = nn.ctc_grad(logits, labels, reduction="sum")
            results.append(gradient)
    finally:
        fr.set_num_threads(before)
    same_bits({"": results[1]}, {"": results[0]})
    same_bits({"": results[2]}, {"": results[0]})
    _, alone = nn.ctc_grad(logits[:, 4:5].copy(), labels[4:5], reduction="sum")
    same_bits({"": alone}, {"": results[0][:, 4:5].copy()})
