"""Connectionist temporal classification."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn import _core, options
from fusedrnn.interop import warn_of_lost_gradients
from fusedrnn.nn import arrays
from fusedrnn.nn.arrays import Array
from fusedrnn.nn.losses import REDUCTIONS, Reduction


def ctc(
    logits: Any,
    targets: Any,
    lengths: Any = None,
    target_lengths: Any = None,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
    reduction: Reduction = "mean",
) -> float:
    """Return the CTC loss: of each sequence minus the logarithm of its labels' probability.

    All alignments count that give the labels once repetitions are merged and blanks dropped (Graves
    et al. 2006). The softmax over classes is part of it.

    Parameters
    ----------
    logits : array [T, B, V]
        Of float32 or float64; normalised or not.
    targets : array of int [B, L]
        Labels, 0 to V - 1 but not the blank, from the left; what is beyond `target_lengths` is not
        looked at.
    lengths : integers [B], optional
        Steps of each sequence, 0 to T; T where absent.
    target_lengths : integers [B], optional
        Labels of each sequence, 0 to L; L where absent.
    blank : int
        The class that stands for no label.
    zero_infinity : bool
        Whether a sequence too short for its labels, whose loss is infinite, has loss and gradient
        0; its gradient is NaN otherwise.
    reduction : {"mean", "sum", "batch_mean"}
        The mean over sequences of the loss divided by the number of labels (at least 1), as
        PyTorch's; the sum of the losses; or the sum divided by B.

    Raises
    ------
    ValueError, TypeError
        A wrong shape, range or dtype; and a mean of no sequence.
    """
    loss, _ = _ctc(
        logits, targets, (lengths, target_lengths), blank, zero_infinity, reduction, False, None
    )
    warn_of_lost_gradients(logits)
    return loss


def ctc_grad(
    logits: Any,
    targets: Any,
    lengths: Any = None,
    target_lengths: Any = None,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
    reduction: Reduction = "mean",
    out: Any = None,
) -> tuple[float, Array]:
    """Return the loss of `ctc`, and its gradient with respect to the logits.

    Parameters
    ----------
    out : array, optional
        Where to write the gradient: a dense array as the logits, or the logits themselves.
    """
    loss, gradient = _ctc(
        logits, targets, (lengths, target_lengths), blank, zero_infinity, reduction, True, out
    )
    assert gradient is not None
    return loss, gradient


def _ctc(
    logits: Any,
    targets: Any,
    of: tuple[Any, Any],
    blank: int,
    zero_infinity: bool,
    reduction: str,
    wanted: bool,
    out: Any,
) -> tuple[float, Array | None]:
    source = arrays.floating("logits", logits, (None, None, None))
    steps, batch, classes = source.shape
    if not classes:
        raise ValueError(f"logits: expected shape (T, B, V) with V > 0, got {source.shape}")
    void = options.count("blank", blank)
    if void >= classes:
        raise ValueError(f"blank: expected below V = {classes}, got {void}")
    labels = arrays.integer_array("targets", targets, (batch, None))
    ends = np.full(batch, steps) if of[0] is None else of[0]
    ends = arrays.lengths("lengths", ends, batch, steps)
    counts = np.full(batch, labels.shape[1]) if of[1] is None else of[1]
    counts = arrays.lengths("target_lengths", counts, batch, labels.shape[1])
    if not batch:  # nobody has labels, whatever the shape says
        labels = labels[:, :0]
    used = np.arange(labels.shape[1]) < counts[:, None]
    arrays.check_range("targets", labels, classes, 0, used)
    if (used & (labels == void)).any():
        at = tuple(int(i) for i in np.argwhere(used & (labels == void))[0])
        raise ValueError(f"targets: expected labels that are not blank = {void}, got one at {at}")
    flag = options.flag("zero_infinity", zero_infinity)
    options.choice("reduction", reduction, REDUCTIONS)
    if reduction != "sum" and not batch:
        raise ValueError(f"logits: expected at least one sequence, got shape {source.shape}")
    scales = np.ones(batch)
    if reduction != "sum":
        scales /= batch
    if reduction == "mean":
        scales /= np.maximum(counts, 1)
    gradient, result = arrays.gradient_to_write(source, "logits", out) if wanted else (None, None)
    losses = _core.nn_ctc(
        arrays.dense(source),
        arrays.dense(labels, np.int64),
        ends,
        counts,
        void,
        scales,
        flag,
        gradient,
    )
    return float((losses * scales).sum()), result
