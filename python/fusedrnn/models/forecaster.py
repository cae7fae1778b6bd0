"""Many to several: quantiles of what comes, from what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fusedrnn import nn
from fusedrnn.models.parts import Encoder, Model, checked, seeds
from fusedrnn.nn.arrays import Array, Dtype
from fusedrnn.nn.losses import quantile_levels


class Forecaster(Model):
    """Says quantiles of each of the next steps, from the last state after a window.

    Parameters
    ----------
    input_size : int
        I of inputs [T, B, I]: the series, and what else is known of each step.
    horizon : int
        N steps ahead.
    quantiles : sequence of Q floats
        In rising order.
    cell : {"rnn", "gru", "lstm"}
    hidden, layers : int
    dropout : float
        Between layers and before the last linear one, while training.
    dtype : "float32" or "float64"
    seed : int, optional
        Seeds every initial weight, and dropout.
    """

    def __init__(
        self,
        input_size: int,
        horizon: int,
        quantiles: Sequence[float] = (0.1, 0.5, 0.9),
        *,
        cell: str = "gru",
        hidden: int = 64,
        layers: int = 1,
        dropout: float = 0.0,
        dtype: Dtype = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__(**checked(
            input_size=input_size, horizon=horizon, cell=cell, hidden=hidden, layers=layers,
            dropout=dropout, dtype=dtype,
        ), quantiles=(levels := quantile_levels(quantiles)))  # fmt: skip
        if not levels or any(a >= b for a, b in pairwise(levels)):
            raise ValueError(f"quantiles: expected some in rising order, got {levels}")
        first, second, third = seeds(seed, 3)
        self.horizon, self.quantiles = horizon, tuple(levels)
        self.encoder = Encoder(
            input_size=input_size, cell=cell, hidden=hidden, layers=layers, dropout=dropout,
            dtype=dtype, seed=first,
        )  # fmt: skip
        self.drop = nn.Dropout(dropout, seed=third)
        self.out = nn.Linear(hidden, horizon * len(self.quantiles), dtype=dtype, seed=second)

    def predict(self, inputs: Any, lengths: Any = None) -> Array:
        """Return the quantiles [B, N, Q] after inputs [T, B, I]; they do not cross."""
        return np.sort(self._shaped(self.out(self.encoder(inputs, lengths)[1])), axis=-1)

    def loss(self, inputs: Any, target: Any, lengths: Any = None) -> float:
        """Return the mean quantile loss of what came, [B, N]."""
        y = self._shaped(self.out(self.encoder(inputs, lengths)[1]))
        return nn.quantile(y, target, self.quantiles)

    def loss_and_gradients(
        self, inputs: Any, target: Any, lengths: Any = None
    ) -> tuple[float, dict[str, Array]]:
        """Return the mean quantile loss of what came, [B, N], and its gradients by parameter."""
        _, last, encoder_tape = self.encoder.forward(inputs, lengths)
        kept, drop_tape = self.drop.forward(last)
        y, out_tape = self.out.forward(kept)
        loss, dy = nn.quantile_grad(self._shaped(y), target, self.quantiles)
        out = self.out.backward(out_tape, dy.reshape(y.shape))
        d_last = self.drop.backward(drop_tape, out["x"])["x"]
        encoder = self.encoder.backward(encoder_tape, dlast=d_last)
        return loss, self.named_gradients(encoder=encoder, out=out)

    def _shaped(self, y: Array) -> Array:
        return y.reshape(len(y), self.horizon, len(self.quantiles))
