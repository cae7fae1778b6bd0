"""From one step to a sequence, and from a sequence to layers: lengths, resets, directions.

Everything here works on nested lists of scalars and never asks whether they are floats or `Var`s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .autodiff import Scalar
from .cells import CELLS, State
from .vector import Vector, zeros

Nested = Any  # a scalar, or a list of these: [T][B][I], [G*H][I], ...


def state_sizes(
    cell: str, weights: Mapping[str, Nested], options: Mapping[str, Any]
) -> tuple[int, ...]:
    """Elements of each state: h is what w_hh multiplies, others have one element per gate row."""
    units = len(weights["w_ih"]) // (CELLS[cell].gates - bool(options.get("coupled")))
    w_hh = weights.get("w_hh", [0.0])
    width = len(w_hh[0]) if isinstance(w_hh[0], list) else units  # a matrix, or none
    return (width, *(units for _ in CELLS[cell].states[1:]))


def run(
    cell: str,
    x: Nested,
    initial: Mapping[str, Nested],
    weights: Mapping[str, Nested],
    *,
    lengths: Sequence[int] | None,
    resets: Sequence[Sequence[bool]] | None,
    reverse: bool,
    options: Mapping[str, Any],
    mask: Sequence[Sequence[bool]] | None = None,
    padding: str = "zero",
) -> dict[str, Nested]:
    """One direction of one layer.

    `initial` holds h0 (and c0, ...), whose number of rows is the batch. Returns y, h_n (and c_n,
    ...).
    """
    step, states = CELLS[cell].step, CELLS[cell].states
    sizes = state_sizes(cell, weights, options)
    batch = len(initial["h0"])
    y: Nested = [[[0.0] * sizes[0] for _ in range(batch)] for _ in x]
    final: dict[str, Nested] = {f"{s}_n": [] for s in states}

    for b in range(batch):
        length = len(x) if lengths is None else lengths[b]
        state: State = tuple(Vector(initial[f"{s}0"][b]) for s in states)
        crossed = False  # in reverse: whether the step before stands behind a reset
        for t in reversed(range(len(x))) if reverse else range(len(x)):
            if t < length and (mask is None or mask[t][b]):
                begins = resets is not None and resets[t][b]
                if crossed if reverse else begins:
                    state = tuple(map(zeros, sizes))
                crossed = begins
                state = step(Vector(x[t][b]), state, **weights, **options)
                y[t][b] = list(state[0])
            elif padding == "last":
                y[t][b] = list(state[0])
        for name, value in zip(states, state, strict=True):
            final[f"{name}_n"].append(list(value))
    return {"y": y, **final}


def run_stack(
    cell: str,
    x: Nested,
    initial: Mapping[str, Nested],
    parameters: Mapping[str, Nested],
    *,
    lengths: Sequence[int] | None,
    resets: Sequence[Sequence[bool]] | None,
    options: Mapping[str, Any],
    mask: Sequence[Sequence[bool]] | None = None,
    padding: str = "zero",
) -> dict[str, Nested]:
    """Layers, each reading the directions of the one below side by side; states [L*D][B][H]."""
    runs: list[dict[str, Nested]] = []
    for suffixes in layer_suffixes(parameters):
        layer: list[dict[str, Nested]] = []
        for suffix in suffixes:
            states = {name: value[len(runs) + len(layer)] for name, value in initial.items()}
            layer.append(
                run(
                    cell,
                    x,
                    states,
                    layer_weights(parameters, suffix),
                    lengths=lengths,
                    resets=resets,
                    reverse=suffix.endswith("_reverse"),
                    options=options,
                    mask=mask,
                    padding=padding,
                )
            )
        runs += layer
        x = [
            [_side_by_side(r["y"][t][b] for r in layer) for b in range(len(x[t]))]
            for t in range(len(x))
        ]
    return {"y": x, **{f"{s}_n": [r[f"{s}_n"] for r in runs] for s in CELLS[cell].states}}


def _side_by_side(rows: Iterable[list[Scalar]]) -> list[Scalar]:
    return [element for row in rows for element in row]


def layer_suffixes(parameters: Mapping[str, Nested]) -> list[list[str]]:
    """The directions of every layer, as PyTorch's names end: [['_l0', '_l0_reverse'], ...]."""
    layers: list[list[str]] = []
    while f"weight_ih_l{len(layers)}" in parameters:
        both = (f"_l{len(layers)}", f"_l{len(layers)}_reverse")
        layers.append([suffix for suffix in both if f"weight_ih{suffix}" in parameters])
    return layers


def layer_weights(parameters: Mapping[str, Nested], suffix: str) -> dict[str, Nested]:
    """PyTorch's weight_ih_l0 is the function's w_ih, bias_ih_l0 its b_ih."""
    names = {
        "weight_ih": "w_ih",
        "weight_hh": "w_hh",
        "bias_ih": "b_ih",
        "bias_hh": "b_hh",
        "weight_peephole": "w_peephole",
        "weight_hr": "w_hr",
    }
    return {
        short: parameters[long + suffix]
        for long, short in names.items()
        if long + suffix in parameters
    }
