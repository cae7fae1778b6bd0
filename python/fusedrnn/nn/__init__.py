"""What models need around the recurrent layers: NumPy arrays in and out, forward and backward.

    embed = nn.Embedding(vocabulary, 64)                     # modules have parameters
    y, tape = embed.forward(indices)
    grads = embed.backward(tape, dy)                         # by the parameters' names

    loss, dlogits = nn.cross_entropy_grad(logits, targets)   # losses have none

    nn.save_checkpoint(path, model, optimizer)               # safetensors, whole or not at all

Letters: T time steps, B sequences, S steps of a memory, V classes, E, I, O, A sizes, N heads.
Arrays are float32 or float64, [T, B, ...] as those of the layers.

================  ===========================================================
``module``        `Module`, and modules made of others
``products``      matrix products on the engine's kernels
``linear``        `Linear`, `Embedding`
``dropout``       `Dropout`
``attention``     `Attention`, `MultiHeadAttention`
``losses``        cross-entropy, mean squared and quantile loss
``ctc``           connectionist temporal classification
``checkpoints``   a training in one file
================  ===========================================================
"""

from fusedrnn.nn.attention import Attention, Memory, MemoryGradient, MultiHeadAttention
from fusedrnn.nn.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from fusedrnn.nn.ctc import ctc, ctc_grad
from fusedrnn.nn.dropout import Dropout
from fusedrnn.nn.embedding import Embedding, RowGradient
from fusedrnn.nn.linear import Linear
from fusedrnn.nn.losses import (
    cross_entropy,
    cross_entropy_grad,
    mse,
    mse_grad,
    quantile,
    quantile_grad,
)
from fusedrnn.nn.module import Module, ModuleTape, Sequential, TimeDistributed

__all__ = [
    "Attention",
    "Checkpoint",
    "Dropout",
    "Embedding",
    "Linear",
    "Memory",
    "MemoryGradient",
    "Module",
    "ModuleTape",
    "MultiHeadAttention",
    "RowGradient",
    "Sequential",
    "TimeDistributed",
    "cross_entropy",
    "cross_entropy_grad",
    "ctc",
    "ctc_grad",
    "load_checkpoint",
    "mse",
    "mse_grad",
    "quantile",
    "quantile_grad",
    "save_checkpoint",
]
