"""Noise inside layers that are trained: what their constructors take of it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

from fusedrnn import options

# The arguments of constructors, where there is no noise.
QUIET: dict[str, Any] = {
    "weight_dropout": 0.0,
    "zoneout": 0.0,
    "recurrent_dropout": 0.0,
    "recurrent_dropout_mode": "state",
}
RecurrentDropoutMode = Literal["state", "candidate"]
MODES: tuple[RecurrentDropoutMode, ...] = get_args(RecurrentDropoutMode)


class Noisy:
    """A layer that may have noise.

    Attributes
    ----------
    Read-only.

    weight_dropout : float
    zoneout : float, or of a layer with a cell state a pair of them
    recurrent_dropout : float
    recurrent_dropout_mode : str
    """

    weight_dropout: float
    zoneout: float | tuple[float, float]
    recurrent_dropout: float
    recurrent_dropout_mode: RecurrentDropoutMode
    _states: ClassVar[tuple[str, ...]]
    _modes: ClassVar[tuple[RecurrentDropoutMode, ...]] = MODES
    _drops_candidate: bool

    def _noise(
        self,
        *,
        weight_dropout: object,
        zoneout: object,
        recurrent_dropout: object,
        recurrent_dropout_mode: object,
    ) -> tuple[float, ...]:
        """Set the attributes; return what the compiled module takes for each run."""
        self.weight_dropout = options.number("weight_dropout", weight_dropout, least=0.0, below=1.0)
        self.zoneout = self._zoneout(zoneout)
        both = len(self._states) > 1
        h, c = self.zoneout if isinstance(self.zoneout, tuple) else (self.zoneout,) * 2
        self.recurrent_dropout = options.number(
            "recurrent_dropout", recurrent_dropout, least=0.0, below=1.0
        )
        mode = options.choice("recurrent_dropout_mode", recurrent_dropout_mode, self._modes)
        self.recurrent_dropout_mode = mode  # type: ignore[assignment]
        candidate, state = self.recurrent_dropout, 0.0
        if mode == "state":
            candidate, state = state, candidate
        self._drops_candidate = candidate > 0
        return self.weight_dropout, h, c if both else 0.0, candidate, state

    def _zoneout(self, value: object) -> float | tuple[float, float]:
        def rate(name: str, number: object) -> float:
            return options.number(name, number, least=0.0, most=1.0)

        if len(self._states) == 1 or not isinstance(value, (tuple, list)):
            return rate("zoneout", value)
        h, c = options.values("zoneout", self._states, value)
        return rate("zoneout[0]", h), rate("zoneout[1]", c)
