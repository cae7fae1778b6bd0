"""Noise inside layers that are trained: what their constructors take of it."""

from __future__ import annotations

from typing import Any

from fusedrnn import options

# The arguments of constructors, where there is no noise.
QUIET: dict[str, Any] = {"weight_dropout": 0.0}


class Noisy:
    """A layer that may have noise.

    Attributes
    ----------
    Read-only.

    weight_dropout : float
    """

    weight_dropout: float

    def _noise(self, *, weight_dropout: object) -> tuple[float, ...]:
        """Set the attributes; return what the compiled module takes for each run."""
        self.weight_dropout = options.number("weight_dropout", weight_dropout, least=0.0, below=1.0)
        return (self.weight_dropout,)
