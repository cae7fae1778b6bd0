"""Fused RNN, GRU and LSTM kernels, forward and backward::

    y, h_n, tape = fusedrnn.gru_forward(x, w_ih, w_hh)      # one layer, one direction
    grads = fusedrnn.gru_backward(tape, dy)

    layer = fusedrnn.LSTM(input_size, hidden_size)          # parameters, stacks, both directions
    y, state = layer(x)

    y, state, tape = layer.forward(x)                       # training
    optimizer = fusedrnn.Adam(layer.parameters(), lr=1e-3)
    optimizer.step(layer.backward(tape, dy))

    frozen = layer.freeze()                                 # weights packed once, for streaming
    y_t, state = frozen.step(x_t, state)
    frozen.save("model.frnn")                               # one file, for load_frozen and for C

    from fusedrnn import nn                                 # losses, attention, checkpoints
    from fusedrnn import models                             # whole models of these

    import fusedrnn.torch                                   # modules for PyTorch, with autograd
    import fusedrnn.jax                                     # functions and layers for JAX

Arrays may be NumPy's, or anything with `__dlpack__` on the CPU or a CUDA device; results are of the
kind of `x`.
"""

from __future__ import annotations

# First of all: it may have to say why the rest cannot be imported.
from fusedrnn import _program

# isort: split
import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from fusedrnn import _cuda_library
from fusedrnn import cuda_arrays as cuda_arrays
from fusedrnn import interop as interop
from fusedrnn import schedules as schedules
from fusedrnn._core import get_num_threads, set_num_threads
from fusedrnn.cells.gru import (
    GRU,
    GRUGradients,
    gru,
    gru_backward,
    gru_double_backward,
    gru_forward,
    gru_jvp,
)
from fusedrnn.cells.gru_layer_norm import (
    LayerNormGRUGradients,
    gru_layer_norm,
    gru_layer_norm_backward,
    gru_layer_norm_double_backward,
    gru_layer_norm_forward,
    gru_layer_norm_jvp,
)
from fusedrnn.cells.gru_world_model import (
    WorldModelGRU,
    WorldModelGRUGradients,
    gru_world_model,
    gru_world_model_backward,
    gru_world_model_double_backward,
    gru_world_model_forward,
    gru_world_model_jvp,
)
from fusedrnn.cells.indrnn import (
    IndRNN,
    IndRNNGradients,
    indrnn,
    indrnn_backward,
    indrnn_double_backward,
    indrnn_forward,
    indrnn_jvp,
)
from fusedrnn.cells.lstm import (
    LSTM,
    lstm,
    lstm_backward,
    lstm_double_backward,
    lstm_forward,
    lstm_jvp,
)
from fusedrnn.cells.lstm_gradients import (
    LSTMGradients,
    PeepholeLSTMGradients,
    PeepholeProjectionLSTMGradients,
    ProjectionLSTMGradients,
)
from fusedrnn.cells.lstm_layer_norm import (
    LayerNormLSTMGradients,
    lstm_layer_norm,
    lstm_layer_norm_backward,
    lstm_layer_norm_double_backward,
    lstm_layer_norm_forward,
    lstm_layer_norm_jvp,
)
from fusedrnn.cells.mingru import (
    MinGRU,
    MinGRUGradients,
    mingru,
    mingru_backward,
    mingru_double_backward,
    mingru_forward,
    mingru_jvp,
)
from fusedrnn.cells.minlstm import (
    MinLSTM,
    MinLSTMGradients,
    minlstm,
    minlstm_backward,
    minlstm_double_backward,
    minlstm_forward,
    minlstm_jvp,
)
from fusedrnn.cells.rnn import (
    RNN,
    RNNGradients,
    rnn,
    rnn_backward,
    rnn_double_backward,
    rnn_forward,
    rnn_jvp,
)
from fusedrnn.cells.slstm import (
    SLSTM,
    SLSTMGradients,
    slstm,
    slstm_backward,
    slstm_double_backward,
    slstm_forward,
    slstm_jvp,
)
from fusedrnn.clipping import clip_grad_norm, clip_grad_value
from fusedrnn.functional import Tape
from fusedrnn.information import (
    __version__,
    get_cmake_dir,
    get_include,
    get_pkgconfig_dir,
    info,
    release_memory,
)
from fusedrnn.layers import Frozen, LayerTape, load_frozen
from fusedrnn.optimizers import SGD, Adam, AdamW, RMSprop
from fusedrnn.truncated import Chunk, tbptt

if TYPE_CHECKING:
    from fusedrnn import convert as convert
    from fusedrnn import jax as jax
    from fusedrnn import models as models
    from fusedrnn import nn as nn
    from fusedrnn import torch as torch
else:

    def __getattr__(name: str) -> Any:
        """Import these where they are first used: most programs use none of them."""
        if name in ("convert", "jax", "models", "nn", "torch"):
            return importlib.import_module(f"fusedrnn.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "SLSTM",
    "Adam",
    "AdamW",
    "Chunk",
    "Frozen",
    "GRUGradients",
    "IndRNN",
    "IndRNNGradients",
    "LSTMGradients",
    "LayerNormGRUGradients",
    "LayerNormLSTMGradients",
    "LayerTape",
    "MinGRU",
    "MinGRUGradients",
    "MinLSTM",
    "MinLSTMGradients",
    "PeepholeLSTMGradients",
    "PeepholeProjectionLSTMGradients",
    "ProjectionLSTMGradients",
    "RMSprop",
    "RNNGradients",
    "SLSTMGradients",
    "Tape",
    "WorldModelGRU",
    "WorldModelGRUGradients",
    "__version__",
    "clip_grad_norm",
    "clip_grad_value",
    "get_cmake_dir",
    "get_include",
    "get_num_threads",
    "get_pkgconfig_dir",
    "gru",
    "gru_backward",
    "gru_double_backward",
    "gru_forward",
    "gru_jvp",
    "gru_layer_norm",
    "gru_layer_norm_backward",
    "gru_layer_norm_double_backward",
    "gru_layer_norm_forward",
    "gru_layer_norm_jvp",
    "gru_world_model",
    "gru_world_model_backward",
    "gru_world_model_double_backward",
    "gru_world_model_forward",
    "gru_world_model_jvp",
    "indrnn",
    "indrnn_backward",
    "indrnn_double_backward",
    "indrnn_forward",
    "indrnn_jvp",
    "info",
    "load_frozen",
    "lstm",
    "lstm_backward",
    "lstm_double_backward",
    "lstm_forward",
    "lstm_jvp",
    "lstm_layer_norm",
    "lstm_layer_norm_backward",
    "lstm_layer_norm_double_backward",
    "lstm_layer_norm_forward",
    "lstm_layer_norm_jvp",
    "mingru",
    "mingru_backward",
    "mingru_double_backward",
    "mingru_forward",
    "mingru_jvp",
    "minlstm",
    "minlstm_backward",
    "minlstm_double_backward",
    "minlstm_forward",
    "minlstm_jvp",
    "release_memory",
    "rnn",
    "rnn_backward",
    "rnn_double_backward",
    "rnn_forward",
    "rnn_jvp",
    "set_num_threads",
    "slstm",
    "slstm_backward",
    "slstm_double_backward",
    "slstm_forward",
    "slstm_jvp",
    "tbptt",
]

_cuda_library.use_installed()
_program.imported()


def __dir__() -> list[str]:
    """Return what is meant for users: not the modules that the package happens to consist of."""
    special = {name for name in globals() if name.startswith("__") and name.endswith("__")}
    modules = {"convert", "cuda_arrays", "interop", "models", "nn", "schedules"}
    modules |= {name for name in ("jax", "torch") if importlib.util.find_spec(name) is not None}
    return sorted({*__all__, *modules, *special} - {"__main__"})
