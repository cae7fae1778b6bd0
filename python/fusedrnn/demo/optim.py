"""The learning rate from update to update."""

from __future__ import annotations

import math

WARM_UP_STEPS = 50
DECAY_FROM_STEP = 150


def learning_rate(base: float, step: int) -> float:
    """Return the rate of update number ``step`` (from 1).

    It rises linearly, stays at ``base``, then falls with the inverse square root of the step: it
    depends on no total, so that training can be continued at any time.
    """
    return base * min(1.0, step / WARM_UP_STEPS, math.sqrt(DECAY_FROM_STEP / step))
