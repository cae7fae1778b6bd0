"""Noise inside layers that are trained: what their constructors take of it."""

from __future__ import annotations

from typing import Any, ClassVar

from fusedrnn import options

# The arguments of constructors, where there is no noise.
QUIET: dict[str, Any] = {"weight_dropout": 0.0, "zoneout": 0.0}


class Noisy:
    """A layer that may have noise.

    Attributes
    ----------
    Read-only.

    weight_dropout : float
    zoneout : float, or of a layer with a cell state a pair of them
    """

    weight_dropout: float
    zoneout: float | tuple[float, float]
    _states: ClassVar[tuple[str, ...]]

    def _noise(self, *, weight_dropout: object, zoneout: object) -> tuple[float, ...]:
        """Set the attributes; return what the compiled module takes for each run."""
        self.weight_dropout = options.number("weight_dropout", weight_dropout, least=0.0, below=1.0)
        self.zoneout = self._zoneout(zoneout)
        both = len(self._states) > 1
        h, c = self.zoneout if isinstance(self.zoneout, tuple) else (self.zoneout,) * 2
        return self.weight_dropout, h, c if both else 0.0

    def _zoneout(self, value: object) -> float | tuple[float, float]:
        def rate(name: str, number: object) -> float:
            return options.number(name, number, least=0.0, most=1.0)

        if len(self._states) == 1 or not isinstance(value, (tuple, list)):
            return rate("zoneout", value)
        h, c = options.values("zoneout", self._states, value)
        return rate("zoneout[0]", h), rate("zoneout[1]", c)
