"""Losses over time, each with its gradient.

``loss`` alone is a float; ``*_grad`` return it and the gradient with respect to the first argument.
Steps count where lengths and a mask say so; the others add nothing, whatever they hold, and have a
gradient of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fusedrnn import _core, options
from fusedrnn.interop import warn_of_lost_gradients
from fusedrnn.nn import arrays
from fusedrnn.nn.arrays import Array

Reduction = Literal["mean", "sum", "batch_mean"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)


def cross_entropy(
    logits: Any,
    targets: Any,
    *,
    lengths: Any = None,
    mask: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> float:
    """Return the softmax cross-entropy of logits, in nats.

    Parameters
    ----------
    logits : array [T, B, V], or [..., V]
        Of float32 or float64; no probabilities, and not normalised.
    targets : array of int [T, B], or [...]
        The right class of each step, 0 to V - 1; of steps that do not count, anything.
    lengths : integers [B], optional
        The steps t < lengths[b] count.
    mask : bool or uint8 array [T, B], or [...], optional
        True where a step counts.
    ignore_index : int, optional
        Steps with this target do not count.
    label_smoothing : float
        The share of the target that is spread evenly over all classes, from 0 to 1 (Szegedy et al.
        2016).
    reduction : {"mean", "sum", "batch_mean"}
        The mean over the steps that count, their sum, or that sum divided by B.

    Raises
    ------
    ValueError, TypeError
        A wrong shape, range or dtype; and a mean of no step.
    """
    loss, _ = _cross_entropy(
        logits, targets, (lengths, mask, ignore_index), label_smoothing, reduction, False, None
    )
    warn_of_lost_gradients(logits)
    return loss


def cross_entropy_grad(
    logits: Any,
    targets: Any,
    *,
    lengths: Any = None,
    mask: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    out: Any = None,
) -> tuple[float, Array]:
    """Return the loss of `cross_entropy`, and its gradient with respect to the logits.

    Parameters
    ----------
    out : array, optional
        Where to write the gradient: a dense array as the logits, or the logits themselves, so that
        an array of [T, B, V] is there once only.
    """
    loss, gradient = _cross_entropy(
        logits, targets, (lengths, mask, ignore_index), label_smoothing, reduction, True, out
    )
    assert gradient is not None
    return loss, gradient


def _cross_entropy(
    logits: Any,
    targets: Any,
    which: tuple[Any, Any, Any],
    label_smoothing: float,
    reduction: str,
    wanted: bool,
    out: Any,
) -> tuple[float, Array | None]:
    source = arrays.floating("logits", logits)
    if source.ndim < 2 or source.shape[-1] == 0:
        raise ValueError(f"logits: expected shape (..., V) with V > 0, got {source.shape}")
    lengths, mask, ignore_index = which
    shape, classes = source.shape[:-1], source.shape[-1]
    smoothing = options.number("label_smoothing", label_smoothing, least=0.0, most=1.0)
    right = arrays.integer_array("targets", targets, shape)
    counts = arrays.steps_that_count(shape, "targets", lengths, mask)
    if counts is not None:
        counts = np.broadcast_to(
            counts.reshape(counts.shape + (1,) * (len(shape) - counts.ndim)), shape
        )
    if ignore_index is not None:
        others = right != options.integer("ignore_index", ignore_index)
        counts = others if counts is None else counts & others
    arrays.check_range("targets", right, classes, 0, counts)
    number = right.size if counts is None else int(counts.sum())
    divisor = _divisor(reduction, number, shape, "targets")
    gradient, result = arrays.gradient_to_write(source, "logits", out) if wanted else (None, None)
    losses = _core.nn_cross_entropy(
        arrays.dense(source).reshape(-1, classes),
        arrays.dense(right, np.int64).reshape(-1),
        None if counts is None else arrays.dense(counts, np.uint8).reshape(-1),
        smoothing,
        1 / divisor,
        None if gradient is None else gradient.reshape(-1, classes),
    )
    return float(losses.sum()) / divisor, result


def mse(
    y: Any, target: Any, *, lengths: Any = None, mask: Any = None, reduction: Reduction = "mean"
) -> float:
    """Return the squared difference of two arrays.

    Parameters
    ----------
    y : array [T, B, n], or [...]
        Of float32 or float64.
    target : array
        In the shape of y.
    lengths : integers [B], optional
        The steps t < lengths[b] count.
    mask : bool or uint8 array [T, B], or in the shape of y, optional
        True where a step or an element counts.
    reduction : {"mean", "sum", "batch_mean"}
        The mean over the elements that count, their sum, or that sum divided by B.

    Raises
    ------
    ValueError, TypeError
        A wrong shape, range or dtype; and a mean of no element.
    """
    loss, _ = mse_grad(y, target, lengths=lengths, mask=mask, reduction=reduction)
    warn_of_lost_gradients(y, target)
    return loss


def mse_grad(
    y: Any, target: Any, *, lengths: Any = None, mask: Any = None, reduction: Reduction = "mean"
) -> tuple[float, Array]:
    """Return the loss of `mse`, and its gradient with respect to y."""
    source = arrays.floating("y", y)
    right = arrays.like("target", target, source.shape, source.dtype.name)
    counts = _of_elements(source.shape, "y", lengths, mask)
    difference = _counted(source - right, counts)
    number = _number(counts, source.shape)
    divisor = _divisor(reduction, number, source.shape, "y")
    loss = float(np.sum(np.square(difference, dtype=np.float64))) / divisor
    return loss, difference * source.dtype.type(2 / divisor)


def quantile(
    y: Any,
    target: Any,
    quantiles: Any,
    *,
    lengths: Any = None,
    mask: Any = None,
    reduction: Reduction = "mean",
) -> float:
    """Return the quantile (pinball) loss: ``max(q e, (q - 1) e)`` with ``e = target - y``.

    Its minimum over y is the quantile q of what the target may be (Koenker and Bassett 1978).

    Parameters
    ----------
    y : array [T, B, Q], or [..., Q]
        Of float32 or float64: for each of Q quantiles a forecast.
    target : array [T, B], or [...]
        What came.
    quantiles : sequence of Q floats
        Each above 0 and below 1.
    lengths, mask, reduction
        As of `mse`; the mask in the shape of the target, or of its first axes. The mean is over all
        Q quantiles of what counts.
    """
    loss, _ = quantile_grad(y, target, quantiles, lengths=lengths, mask=mask, reduction=reduction)
    warn_of_lost_gradients(y, target)
    return loss


def quantile_grad(
    y: Any,
    target: Any,
    quantiles: Any,
    *,
    lengths: Any = None,
    mask: Any = None,
    reduction: Reduction = "mean",
) -> tuple[float, Array]:
    """Return the loss of `quantile`, and its gradient with respect to y; where e is 0, 0."""
    source = arrays.floating("y", y)
    levels = quantile_levels(quantiles)
    if source.ndim < 1 or source.shape[-1] != len(levels):
        raise ValueError(f"y: expected shape (..., {len(levels)}), got {source.shape}")
    shape = source.shape[:-1]
    right = arrays.like("target", target, shape, source.dtype.name)
    counts = _of_elements(shape, "target", lengths, mask)
    error = _counted(right[..., None] - source, None if counts is None else counts[..., None])
    divisor = _divisor(reduction, _number(counts, shape) * len(levels), shape, "target")
    q = np.array(levels, source.dtype)
    loss = float(np.sum(np.maximum(q * error, (q - 1) * error), dtype=np.float64)) / divisor
    slope = np.where(error > 0, -q, np.where(error < 0, 1 - q, error * 0))
    return loss, (slope * source.dtype.type(1 / divisor)).astype(source.dtype)


def quantile_levels(quantiles: Any) -> list[float]:
    # A set would have them in an order of its own.
    if isinstance(quantiles, (str, bytes)) or not isinstance(quantiles, (Sequence, np.ndarray)):
        raise TypeError(
            f"quantiles: expected a sequence of numbers, got {type(quantiles).__name__}"
        )
    levels = [options.real(f"quantiles[{i}]", q) for i, q in enumerate(quantiles)]
    for i, level in enumerate(levels):
        if not 0 < level < 1:
            raise ValueError(f"quantiles[{i}]: expected a number above 0 and below 1, got {level}")
    return levels


def _of_elements(
    shape: tuple[int, ...], of: str, lengths: Any, mask: Any
) -> NDArray[np.bool_] | None:
    """What counts, with as many axes as the shape has."""
    counts = arrays.steps_that_count(shape, of, lengths, mask)
    return (
        None if counts is None else counts.reshape(counts.shape + (1,) * (len(shape) - counts.ndim))
    )


def _counted(values: Array, counts: NDArray[np.bool_] | None) -> Array:
    # Not a product: what does not count may be NaN.
    return values if counts is None else np.where(counts, values, values.dtype.type(0))


def _number(counts: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> int:
    return int(np.prod(shape)) if counts is None else int(np.broadcast_to(counts, shape).sum())


def _divisor(reduction: str, number: int, shape: tuple[int, ...], of: str) -> float:
    options.choice("reduction", reduction, REDUCTIONS)
    if reduction == "sum":
        return 1.0
    if reduction == "mean":
        if not number:
            raise ValueError(
                f"{of}: expected something that counts for the mean, got none in shape {shape}"
            )
        return float(number)
    if len(shape) < 2 or not shape[1]:
        raise ValueError(
            f"{of}: expected an axis B of at least 1 for reduction='batch_mean', got shape {shape}"
        )
    return float(shape[1])
