"""Functions and layers for JAX: compiled, differentiated and batched as JAX's own::

    lstm = fusedrnn.jax.LSTM(input_size, hidden_size, bidirectional=True)
    params = lstm.init(jax.random.key(0))
    y, (h, c) = lstm.apply(params, x, lengths=lengths)

    y, h = fusedrnn.jax.gru(x, w_ih, w_hh, b_ih, b_hh)       # a single cell, weights as arrays

A whole network is one call of XLA's foreign function interface. `jax.jit`, `jax.grad`, `jax.vmap`,
`jax.jvp`, `jax.hessian` and `jax.shard_map` go through it; the backward pass takes what the forward
pass left and repeats none of it. Vmapped sequences become one larger batch; vmapped weights, and
gradients under vmap, are computed one after the other. Third derivatives, and forward over forward
mode, there are not. `fusedrnn.jax.nnx` has modules for Flax.

It runs on JAX's platforms cpu and cuda, of which the latter no GPU has run yet; on others a program
with these operations is an error when it is compiled. To import it imports JAX, of version 0.10 or
newer.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if importlib.util.find_spec("jax") is None:
    raise ImportError("fusedrnn.jax needs JAX: pip install 'fusedrnn[jax]'")

from fusedrnn.jax import network as _network
from fusedrnn.jax import pytrees as _pytrees
from fusedrnn.jax.functions import (
    gru,
    gru_layer_norm,
    gru_world_model,
    indrnn,
    lstm,
    lstm_layer_norm,
    mingru,
    minlstm,
    rnn,
    slstm,
)
from fusedrnn.jax.layers import (
    GRU,
    LSTM,
    RNN,
    SLSTM,
    IndRNN,
    MinGRU,
    MinLSTM,
    Recurrent,
    WorldModelGRU,
)

if TYPE_CHECKING:
    from fusedrnn.jax import nnx as nnx
else:

    def __getattr__(name: str) -> Any:
        """Import `nnx`, and Flax with it, where it is first used."""
        if name == "nnx":
            return importlib.import_module("fusedrnn.jax.nnx")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SLSTM",
    "IndRNN",
    "MinGRU",
    "MinLSTM",
    "Recurrent",
    "WorldModelGRU",
    "gru",
    "gru_layer_norm",
    "gru_world_model",
    "indrnn",
    "lstm",
    "lstm_layer_norm",
    "mingru",
    "minlstm",
    "rnn",
    "slstm",
]

_pytrees.check_version()
_pytrees.register()
_network.register()
