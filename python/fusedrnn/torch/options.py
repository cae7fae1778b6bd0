"""What `RNN`, `GRU` and `LSTM` take beside torch.nn's arguments; fusedrnn's say what it means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from fusedrnn.cells.constants import Activation
from fusedrnn.cells.lstm import CellClipNan
from fusedrnn.layers.noise import RecurrentDropoutMode
from fusedrnn.options import Init, Memory


class Options(TypedDict, total=False):
    """Of all three."""

    heads: int
    compute_dtype: str | None
    memory: Memory
    init: Init
    weight_dropout: float
    recurrent_dropout: float
    recurrent_dropout_mode: RecurrentDropoutMode


class RNNOptions(Options, total=False):
    zoneout: float
    clip: float | None


class GRUOptions(Options, total=False):
    zoneout: float
    reset_after: bool
    clip: float | None
    activations: Sequence[Activation] | None
    layer_norm: bool


class LSTMOptions(Options, total=False):
    zoneout: float | tuple[float, float]
    peephole: bool
    coupled: bool
    clip: float | None
    cell_clip: float | None
    cell_clip_nan: CellClipNan
    activations: Sequence[Activation] | None
    layer_norm: bool
    forget_bias: float | None
