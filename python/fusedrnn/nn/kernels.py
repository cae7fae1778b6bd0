"""NumPy forms of what the compiled module is to do."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn.nn.arrays import Array


def philox(key: int, counters: Array) -> Array:
    words = counters.astype(np.uint64)
    a, b, c, d = (words[..., i] for i in range(4))
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for step in range(10):
        even = np.uint64((key + step * 0x9E3779B9) & 0xFFFFFFFF)
        odd = np.uint64(((key >> 32) + step * 0xBB67AE85) & 0xFFFFFFFF)
        first, second = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = (
            (second >> half) ^ b ^ even,
            second & low,
            (first >> half) ^ d ^ odd,
            first & low,
        )
    return np.stack([a, b, c, d], axis=-1)


def dropout(x: Array, rate: float, seed: int) -> Array:
    steps, batch, width = x.shape
    counters = np.zeros((steps, batch, -(-width // 4), 4), np.uint64)
    counters[..., 0] = np.arange(counters.shape[2])
    counters[..., 1] = np.arange(batch)[:, None]
    counters[..., 2] = np.arange(steps)[:, None, None]
    kept = philox(seed, counters).reshape(steps, batch, -1)[..., :width] >= rate * 2.0**32
    return np.where(kept, x * x.dtype.type(1 / (1 - rate)), x.dtype.type(0))


def cross_entropy(
    logits: Array, targets: Array, counts: Any, smoothing: float, scale: float, gradient: Any
) -> Array:
    n, v = logits.shape
    every = np.arange(n)
    counts = np.ones(n, bool) if counts is None else counts.astype(bool)
    classes = np.where(counts, targets, 0)
    with np.errstate(all="ignore"):
        top = logits.max(axis=1, keepdims=True)
        shifted = logits - top
        sums = np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64)
        logs = np.log(sums[:, 0])
        losses = logs - (1 - smoothing) * shifted[every, classes]
        if smoothing:
            losses = losses - smoothing * shifted.mean(axis=1, dtype=np.float64)
        if gradient is not None:
            gradient[...] = np.exp(shifted) / sums * scale - smoothing * scale / v
            gradient[every, classes] -= (1 - smoothing) * scale
            gradient[~counts] = 0
    return np.where(counts, losses, 0.0)


def ctc(
    logits: Array,
    targets: Array,
    lengths: Array,
    target_lengths: Array,
    blank: int,
    scales: Array,
    zero_infinity: bool,
    gradient: Any,
) -> Array:
    _steps, batch, _ = logits.shape
    losses = np.zeros(batch)
    for b in range(batch):
        t_end, count = int(lengths[b]), int(target_lengths[b])
        label = np.full(2 * count + 1, blank)
        label[1::2] = targets[b, :count]
        states = len(label)
        x = logits[:t_end, b].astype(np.float64)
        with np.errstate(all="ignore"):
            p = x - np.logaddexp.reduce(x, axis=1, keepdims=True)
            skip = np.zeros(states, bool)
            skip[2:] = (label[2:] != blank) & (label[2:] != label[:-2])
            alpha = np.full((t_end + 1, states), -np.inf)
            beta = np.full((t_end + 1, states), -np.inf)
            if t_end == 0:
                loss = 0.0 if count == 0 else np.inf
            else:
                alpha[0, :2] = p[0, label[:2]]
                for t in range(1, t_end):
                    a = alpha[t - 1].copy()
                    a[1:] = np.logaddexp(a[1:], alpha[t - 1, :-1])
                    a[2:] = np.where(skip[2:], np.logaddexp(a[2:], alpha[t - 1, :-2]), a[2:])
                    alpha[t] = a + p[t, label]
                loss = -np.logaddexp.reduce(alpha[t_end - 1, -2:])
            if gradient is not None:
                gradient[:, b] = 0
            bad = np.isposinf(loss)
            if gradient is not None and t_end and not (bad and zero_infinity):
                beta[t_end - 1, -2:] = 0
                for t in range(t_end - 2, -1, -1):
                    after = beta[t + 1] + p[t + 1, label]
                    c = after.copy()
                    c[:-1] = np.logaddexp(c[:-1], after[1:])
                    c[:-2] = np.where(skip[2:], np.logaddexp(c[:-2], after[2:]), c[:-2])
                    beta[t] = c
                occupied = np.exp(alpha[:t_end] + beta[:t_end] + loss)
                g = np.exp(p)
                for s in range(states):
                    g[:, label[s]] -= occupied[:, s]
                gradient[:t_end, b] = g * scales[b]
        losses[b] = 0.0 if bad and zero_infinity else loss
    return losses


def _softmax(scores: Array, lengths: Array) -> Array:
    """Of [T,B,N,S], over the first lengths[b] of the last axis."""
    valid = np.arange(scores.shape[3]) < lengths[:, None, None]
    scores = np.where(valid, scores, -np.inf)
    e = np.exp(scores - scores.max(axis=3, keepdims=True))
    return np.asarray(e / e.sum(axis=3, keepdims=True))


def dot_attention(query: Array, keys: Array, values: Array, lengths: Array, scale: float) -> Any:
    scores = np.einsum("tbnd,sbnd->tbns", query, keys) * query.dtype.type(scale)
    weights = _softmax(scores, lengths)
    return np.einsum("tbns,sbnd->tbnd", weights, _cut(values, lengths)), weights


def _cut(values: Array, lengths: Array) -> Array:
    valid = np.arange(len(values))[:, None, None, None] < lengths[:, None, None]
    return np.where(valid, values, values.dtype.type(0))


def _score_gradients(
    values: Array, lengths: Array, weights: Array, dy: Array, dweights: Any
) -> tuple[Array, Array]:
    dvalues = np.einsum("tbns,tbnd->sbnd", weights, dy)
    da = np.einsum("tbnd,sbnd->tbns", dy, _cut(values, lengths))
    if dweights is not None:
        da = da + dweights
    valid = np.arange(weights.shape[3]) < lengths[:, None, None]
    da = np.where(valid, da, da.dtype.type(0))
    return weights * (da - (weights * da).sum(axis=3, keepdims=True)), dvalues


def dot_attention_backward(
    query: Array,
    keys: Array,
    values: Array,
    lengths: Array,
    scale: float,
    weights: Array,
    dy: Array,
    dweights: Any,
) -> Any:
    ds, dvalues = _score_gradients(values, lengths, weights, dy, dweights)
    ds = ds * query.dtype.type(scale)
    dquery = np.einsum("tbns,sbnd->tbnd", ds, _cut(keys, lengths))
    return dquery, np.einsum("tbns,tbnd->sbnd", ds, query), dvalues


def additive_attention(query: Array, keys: Array, v: Array, values: Array, lengths: Array) -> Any:
    scores = np.tanh(query[:, None] + keys[None]) @ v  # [T,S,B]
    weights = _softmax(scores.transpose(0, 2, 1)[:, :, None], lengths)
    y = np.einsum("tbns,sbnd->tbnd", weights, _cut(values[:, :, None], lengths))
    return y[:, :, 0], weights[:, :, 0]


def additive_attention_backward(
    query: Array,
    keys: Array,
    v: Array,
    values: Array,
    lengths: Array,
    weights: Array,
    dy: Array,
    dweights: Any,
) -> Any:
    dweights = None if dweights is None else dweights[:, :, None]
    ds, dvalues = _score_gradients(
        values[:, :, None], lengths, weights[:, :, None], dy[:, :, None], dweights
    )
    valid = (np.arange(len(keys))[:, None] < lengths)[:, :, None]
    u = np.tanh(query[:, None] + np.where(valid, keys, keys.dtype.type(0))[None])  # [T,S,B,A]
    ds = ds[:, :, 0].transpose(0, 2, 1)[..., None]  # [T,S,B,1]
    da = ds * v * (1 - u * u)
    return da.sum(axis=1), da.sum(axis=0), (ds * u).sum(axis=(0, 1, 2)), dvalues[:, :, 0]
