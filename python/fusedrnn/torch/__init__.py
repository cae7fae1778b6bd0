"""Modules for PyTorch: layers and cells with torch.nn's constructors, parameters and calls::

    rnn = fusedrnn.torch.LSTM(input_size, hidden_size, batch_first=True)  # in the place of torch.nn
    y, (h, c) = rnn(x)

    fusedrnn.torch.replace(model)        # or every one in a model, in place

They train with autograd, as float32, float64, bfloat16 or float16, on the CPU and on CUDA devices,
and work under `torch.compile`, `torch.export` and `torch.func`. Beside torch.nn's arguments they
take the options of fusedrnn's layers (``peephole=True``, ``layer_norm=True``, ...), and calls take
`lengths`, `resets`, `mask` and others.

To import this module imports PyTorch, of version 2.6 or newer; to import fusedrnn does not.
"""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("torch") is None:
    raise ImportError("fusedrnn.torch needs PyTorch: pip install 'fusedrnn[torch]'")

from fusedrnn.torch.cells import GRUCell, LSTMCell, RNNCell
from fusedrnn.torch.layers import (
    GRU,
    LSTM,
    RNN,
    SLSTM,
    IndRNN,
    MinGRU,
    MinLSTM,
    WorldModelGRU,
)
from fusedrnn.torch.replacing import Replaced, replace

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SLSTM",
    "GRUCell",
    "IndRNN",
    "LSTMCell",
    "MinGRU",
    "MinLSTM",
    "RNNCell",
    "Replaced",
    "WorldModelGRU",
    "replace",
]
