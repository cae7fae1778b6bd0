"""Dropout for a sequence's rows, drawn as that between the layers of a stack."""

from __future__ import annotations

from typing import Any

from fusedrnn import _core, options
from fusedrnn.interop import warn_of_lost_gradients
from fusedrnn.layers.dropout import Draws, DropoutMode
from fusedrnn.nn import arrays
from fusedrnn.nn.arrays import Array
from fusedrnn.nn.module import Module, ModuleTape


class Dropout(DropoutMode, Module):
    """Zero each element with a probability, in training alone; divide the others by 1 - rate.

    Which elements, follows from (seed, t, b, unit): any number of threads drops the same, and
    backward draws them again (docs/math.md, section 9, with r = 0). `dropout_state` says where it
    stands, as that of a layer.

    Parameters
    ----------
    rate : float
        From 0 up to, not including, 1.
    seed : int, optional
    """

    def __init__(self, rate: float, *, seed: int | None = None) -> None:
        super().__init__()
        self.rate = options.number("rate", rate, least=0.0, below=1.0)
        self._draws = Draws(0.0, 1, options.seed(seed), self.rate > 0)

    def __repr__(self) -> str:
        return f"Dropout({self.rate!r})"

    def __call__(self, x: Any) -> Array:
        """Return x: at inference nothing is dropped."""
        y = self._rows(x)
        warn_of_lost_gradients(x)
        return y

    def forward(self, x: Any) -> tuple[Array, ModuleTape]:
        """Return y, and what `backward` needs.

        Parameters
        ----------
        x : array [T, B, n], [n_rows, n] (as of one step) or [n]

        Raises
        ------
        ValueError, TypeError
            Where x has other axes or another dtype.
        """
        source = self._rows(x)
        drop = self._next_drop() if self.rate else None
        seed = None if drop is None else drop[1]
        y = source if seed is None else self._dropped(source, seed)
        return y, self.make_tape(shape=source.shape, dtype=source.dtype.name, seed=seed)

    def backward(self, tape: ModuleTape, dy: Any) -> dict[str, Array]:
        """Return the gradient of ``sum(dy * y)``: "x"."""
        saved = self.read_tape(tape)
        dy_ = arrays.like("dy", dy, saved["shape"], saved["dtype"])
        return {"x": dy_ if saved["seed"] is None else self._dropped(dy_, saved["seed"])}

    def _dropped(self, x: Array, seed: int) -> Array:
        rows = arrays.dense(x).reshape((1,) * (3 - x.ndim) + x.shape)
        return _core.nn_dropout(rows, self.rate, seed).reshape(x.shape)

    @staticmethod
    def _rows(x: Any) -> Array:
        source = arrays.floating("x", x)
        if not 1 <= source.ndim <= 3:
            raise ValueError(f"x: expected 1 to 3 dimensions, got shape {source.shape}")
        return source
