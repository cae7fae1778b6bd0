"""What the modules take beside torch.nn's arguments; the layers of fusedrnn say what it means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from fusedrnn.cells.constants import Activation
from fusedrnn.cells.lstm import CellClipNan
from fusedrnn.layers.noise import RecurrentDropoutMode
from fusedrnn.options import Init, Memory


class Options(TypedDict, total=False):
    """Of every layer of fusedrnn; docs there."""

    compute_dtype: str | None
    memory: Memory
    init: Init


class Noise(Options, total=False):
    """Of layers that may have noise inside."""

    weight_dropout: float
    recurrent_dropout: float
    recurrent_dropout_mode: RecurrentDropoutMode


class RNNOptions(Noise, total=False):
    zoneout: float
    clip: float | None


class GRUOptions(Noise, total=False):
    zoneout: float
    reset_after: bool
    clip: float | None
    activations: Sequence[Activation] | None
    layer_norm: bool


class LSTMOptions(Noise, total=False):
    zoneout: float | tuple[float, float]
    peephole: bool
    coupled: bool
    clip: float | None
    cell_clip: float | None
    cell_clip_nan: CellClipNan
    activations: Sequence[Activation] | None
    layer_norm: bool
    forget_bias: float | None


class IndRNNOptions(Options, total=False):
    nonlinearity: Activation
    clip: float | None


class SLSTMOptions(Options, total=False):
    forget_bias: float | None


class WorldModelGRUOptions(Noise, total=False):
    zoneout: float
    update_bias: float
