"""Layers and cells under torch.onnx.export: ONNX's own nodes, one a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusedrnn.convert.onnx import SPECIAL
from fusedrnn.convert.onnx_models import attributes_of
from fusedrnn.convert.weights import ONNX_GATES, ONNX_PEEPHOLES, cell_of

_VERSION = 14  # of the operators; the exporter knows none of theirs after its own opset's
_NUM_STATES = {"rnn": 1, "gru": 1, "lstm": 2}


def _reordered(blocks: Tensor, source: str, target: str) -> Tensor:
    """As `fusedrnn.convert.weights.reorder`."""
    parts = dict(zip(source, blocks.chunk(len(source)), strict=True))
    zeros = torch.zeros_like(parts[source[0]])
    return torch.cat([parts.get(gate, zeros) for gate in target])


def nodes(
    layer: Any,
    x: Tensor,
    weights: Sequence[Tensor | None],
    states: Sequence[Tensor | None],
    masks: Sequence[Tensor | None],
    unusual: bool,
) -> list[Tensor]:
    """Y and the states after the last step of a network, by nodes RNN, GRU and LSTM.

    Parameters
    ----------
    layer : Layer
        fusedrnn's, without values.
    x, weights, states, masks
        As the compiled module takes them; masks are lengths, mask and resets.
    unusual : bool
        Whether the call asks for what no node has.

    Raises
    ------
    ValueError
        Where the nodes do not have the cell, an option or an argument.
    """
    cell = cell_of(layer, "ONNX", tuple(_NUM_STATES), SPECIAL)
    lengths, *others = masks
    if unusual or any(mask is not None for mask in others):
        raise ValueError(
            "expected a call with nothing but lengths beside hx, of a module in evaluation, got "
            "more, which ONNX's nodes have not"
        )
    op_type = cell.name.upper()
    directions = 2 if layer.bidirectional else 1
    attributes = attributes_of(cell, layer.hidden_size, directions)
    sequence_lens = None if lengths is None else lengths.to(torch.int32)
    per_run = [name for run, name, _, _ in layer._stack.network.parameters if run == 0]
    runs = [
        dict(zip(per_run, weights[begin : begin + len(per_run)], strict=True))
        for begin in range(0, len(weights), len(per_run))
    ]

    def stacked(name: str, rows: slice, source: str, target: str) -> Tensor | None:
        each = [run.get(name) for run in runs[rows]]
        given = [one for one in each if one is not None]
        return torch.stack([_reordered(one, source, target) for one in given]) if given else None

    T, B = x.shape[0], x.shape[1]
    shape = (directions, B, layer.hidden_size)
    ends: list[list[Tensor]] = [[] for _ in range(_NUM_STATES[cell.name])]
    for k in range(layer.num_layers):
        rows = slice(k * directions, (k + 1) * directions)
        order = cell.gates, ONNX_GATES[cell.name]
        biases = [stacked(name, rows, *order) for name in ("b_ih", "b_hh")]
        given = [bias for bias in biases if bias is not None]
        inputs = [
            x,
            stacked("w_ih", rows, *order),
            stacked("w_hh", rows, *order),
            torch.cat(given, 1) if given else None,
            sequence_lens,
            *(None if state is None else state[rows] for state in states),
        ]
        if cell.name == "lstm":
            inputs.append(stacked("w_peephole", rows, cell.peepholes, ONNX_PEEPHOLES))
        while inputs[-1] is None:
            inputs.pop()
        y, *states_n = torch.onnx.ops.symbolic_multi_out(
            op_type,
            inputs,
            attributes,
            dtypes=[x.dtype] * (1 + len(ends)),
            shapes=[(T, *shape), *[shape] * len(ends)],
            version=_VERSION,
        )
        x = y.squeeze(1) if directions == 1 else y.transpose(1, 2).flatten(2)
        for end, state in zip(ends, states_n, strict=True):
            end.append(state)
    return [x, *(torch.cat(end) if len(end) > 1 else end[0] for end in ends)]
