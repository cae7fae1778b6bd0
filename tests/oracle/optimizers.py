"""Optimisers, one number at a time: what a parameter becomes as its gradients come in.

Each function returns the parameter after every update. `rates` are the learning rates, one for each
gradient; letters as in the equations of Kingma and Ba (2015) and Tieleman and Hinton (2012).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Numbers = Sequence[float]


def sgd(
    p: float,
    gradients: Numbers,
    rates: Numbers,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> list[float]:
    after, m = [], 0.0
    for gradient, rate in zip(gradients, rates, strict=True):
        g = gradient + weight_decay * p
        m = momentum * m + g
        p -= rate * (g + momentum * m if nesterov else m)
        after.append(p)
    return after


def adam(
    p: float,
    gradients: Numbers,
    rates: Numbers,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> list[float]:
    after, m, v = [], 0.0, 0.0
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        g = gradient
        if decoupled:
            p -= rate * weight_decay * p
        else:
            g += weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        unbiased_m, unbiased_v = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        p -= rate * unbiased_m / (math.sqrt(unbiased_v) + eps)
        after.append(p)
    return after


def rms_prop(
    p: float,
    gradients: Numbers,
    rates: Numbers,
    *,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    centered: bool = False,
    weight_decay: float = 0.0,
) -> list[float]:
    after, m, v, mean = [], 0.0, 0.0, 0.0
    for gradient, rate in zip(gradients, rates, strict=True):
        g = gradient + weight_decay * p
        v = alpha * v + (1 - alpha) * g * g
        mean = alpha * mean + (1 - alpha) * g
        spread = v - mean * mean if centered else v
        m = momentum * m + g / (math.sqrt(max(spread, 0.0)) + eps)
        p -= rate * m
        after.append(p)
    return after
