"""Clipping by the global norm, the learning rate, and Adam (Kingma & Ba, ICLR 2015)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.floating[Any]]

WARM_UP_STEPS = 50
DECAY_FROM_STEP = 150


def clip_by_global_norm(gradients: Mapping[str, Array], limit: float) -> float:
    """Scale all gradients in place so that their common norm is at most ``limit``.

    Returns
    -------
    float
        The norm before clipping (Pascanu, Mikolov & Bengio, ICML 2013); not finite where a
        gradient is not, and then nothing is scaled.
    """
    norm = math.sqrt(sum(float(np.square(g).sum()) for g in gradients.values()))
    if math.isfinite(norm) and norm > limit:
        for gradient in gradients.values():
            np.multiply(gradient, limit / norm, out=gradient)
    return norm


def learning_rate(base: float, step: int) -> float:
    """Return the rate of update number ``step`` (from 1).

    It rises linearly, stays at ``base``, then falls with the inverse square root of the step: it
    depends on no total, so that training can be continued at any time.
    """
    return base * min(1.0, step / WARM_UP_STEPS, math.sqrt(DECAY_FROM_STEP / step))


class Adam:
    """Adam over named arrays that are updated in place.

    Attributes
    ----------
    step : int
        Updates done.
    first, second : dict of arrays
        Running means of the gradients and of their squares, by parameter name.
    """

    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, parameters: Mapping[str, Array]) -> None:
        self._parameters = parameters
        self.step = 0
        self.first = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.second = {name: np.zeros_like(value) for name, value in parameters.items()}

    def update(self, gradients: Mapping[str, Array], rate: float) -> None:
        """Move every parameter one step against its gradient, at learning rate ``rate``."""
        self.step += 1
        # The two bias corrections, folded into the rate and into epsilon.
        correction = math.sqrt(1.0 - self.BETA2**self.step)
        rate *= correction / (1.0 - self.BETA1**self.step)
        epsilon = self.EPSILON * correction
        for name, value in self._parameters.items():
            gradient, first, second = gradients[name], self.first[name], self.second[name]
            scratch = np.multiply(gradient, 1.0 - self.BETA1)
            first *= self.BETA1
            first += scratch
            np.multiply(gradient, gradient, out=scratch)
            scratch *= 1.0 - self.BETA2
            second *= self.BETA2
            second += scratch
            np.sqrt(second, out=scratch)
            scratch += epsilon
            np.divide(first, scratch, out=scratch)
            scratch *= rate
            np.subtract(value, scratch, out=value)
