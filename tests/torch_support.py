"""What the tests of fusedrnn.torch share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

import fusedrnn.torch as bridge

LAYERS = ("RNN", "LSTM", "GRU")
CELLS = ("RNNCell", "LSTMCell", "GRUCell")
# Of each module beside torch.nn's, and of options that change the cell: constructor and options.
OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "indrnn": (bridge.IndRNN, {}),
    "mingru": (bridge.MinGRU, {}),
    "minlstm": (bridge.MinLSTM, {}),
    "slstm": (bridge.SLSTM, {}),
    "world model gru": (bridge.WorldModelGRU, {}),
    "gru, reset before": (bridge.GRU, {"reset_after": False}),
    "gru, layer norm": (bridge.GRU, {"layer_norm": True}),
    "lstm, peephole": (bridge.LSTM, {"peephole": True}),
    "lstm, coupled": (bridge.LSTM, {"coupled": True}),
    "lstm, layer norm": (bridge.LSTM, {"layer_norm": True}),
    "lstm, clipped": (bridge.LSTM, {"cell_clip": 0.5}),
    "rnn, softsign": (bridge.RNN, {"nonlinearity": "softsign"}),
    "gru, heads": (bridge.GRU, {"heads": 3}),
}


def pair(name: str, *sizes: int, **options: Any) -> tuple[Any, Any]:
    """torch.nn's module and ours, of the same random parameters, none of them zero."""
    torch.manual_seed(11)
    theirs = getattr(torch.nn, name)(*sizes, **options)
    torch.manual_seed(11)
    return theirs, getattr(bridge, name)(*sizes, **options)


def variants(name: str) -> Iterator[dict[str, Any]]:
    """torch.nn's options, those of structure with one another."""
    for layers, two, first, bias in itertools.product((1, 2), *([(False, True)] * 3)):
        options = {"num_layers": layers, "bidirectional": two, "batch_first": first, "bias": bias}
        yield options
        if name == "LSTM":
            yield options | {"proj_size": 2}
        if name == "RNN":
            yield options | {"nonlinearity": "relu"}


def check_same(ours: Any, theirs: Any, tolerance: float = 1e-10) -> None:
    """Tensors in any nest: shapes, dtypes, numbers."""
    mine, yours = tree_leaves(ours), tree_leaves(theirs)
    assert len(mine) == len(yours)
    for a, b in zip(mine, yours, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def total(results: Any) -> torch.Tensor:
    """A scalar in which each result has a weight of its own."""
    leaves = [leaf for leaf in tree_leaves(results) if isinstance(leaf, torch.Tensor)]
    found = [leaf for leaf in leaves if leaf.is_floating_point()]
    return torch.stack([(i + 1) * leaf.sin().sum() for i, leaf in enumerate(found)]).sum()


def gradients(module: Any, results: Any, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """Of `total` with respect to inputs and parameters."""
    wanted = [*inputs, *module.parameters()]
    return list(torch.autograd.grad(total(results), wanted, retain_graph=True))
