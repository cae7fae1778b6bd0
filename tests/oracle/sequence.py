"""From one step to a sequence, and from a sequence to layers: lengths, resets, directions.

Everything here works on nested lists of scalars and never asks whether they are floats or `Var`s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .autodiff import Scalar
from .cells import CELLS, State
from .noise import Noise
from .vector import Vector, zeros

Nested = Any  # a scalar, or a list of these: [T][B][I], [G*H][I], ...


def state_sizes(
    cell: str, weights: Mapping[str, Nested], options: Mapping[str, Any]
) -> tuple[int, ...]:
    """Elements of each state: h is what w_hh multiplies, others have one element per gate row."""
    units = len(weights["w_ih"]) // (CELLS[cell].gates - bool(options.get("coupled")))
    w_hh = weights.get("w_hh", [0.0])
    heads = options.get("heads", 1)
    width = len(w_hh[0]) * heads if isinstance(w_hh[0], list) else units  # a matrix, or none
    return (width, *(units for _ in CELLS[cell].states[1:]))


def block_diagonal(w_hh: Nested, heads: int) -> Nested:
    """The matrix [G*H, H] of which [G*H, H/heads] holds the blocks along each gate's diagonal."""
    size = len(w_hh[0])
    return [
        [0.0] * (head * size) + list(row) + [0.0] * ((heads - 1 - head) * size)
        for number, row in enumerate(w_hh)
        for head in [number // size % heads]
    ]


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
    reset: Mapping[str, Nested] | None = None,
    leave: Callable[[int, State], State] | None = None,
) -> dict[str, Nested]:
    """One direction of one layer.

    `initial` holds h0 (and c0, ...), whose number of rows is the batch; `reset` may hold reset_h
    (and reset_c, ...), what a reset puts in the place of a state instead of zeros. Returns y, h_n
    (and c_n, ...), and of every step the states beyond h (c, ...). `leave(t, state)` is what takes
    the place of each sequence's state when it leaves step t, whether or not the step exists.
    """
    step, states = CELLS[cell].step, CELLS[cell].states
    sizes = state_sizes(cell, weights, options)
    noise: Noise = options.get("noise", Noise())
    heads: int = options.get("heads", 1)
    options = {name: value for name, value in options.items() if name not in ("noise", "heads")}
    if noise.weight_dropout:
        weights = {**weights, "w_hh": noise.weights(weights["w_hh"])}
    if heads > 1:
        weights = {**weights, "w_hh": block_diagonal(weights["w_hh"], heads)}
    batch = len(initial["h0"])
    shown: dict[str, Nested] = {
        name: [[[0.0] * size for _ in range(batch)] for _ in x]
        for name, size in zip(("y", *states[1:]), sizes, strict=True)
    }
    final: dict[str, Nested] = {f"{s}_n": [] for s in states}
    fresh: State = tuple(
        Vector(reset[f"reset_{s}"]) if reset and f"reset_{s}" in reset else zeros(size)
        for s, size in zip(states, sizes, strict=True)
    )

    for b in range(batch):
        length = len(x) if lengths is None else lengths[b]
        state: State = tuple(Vector(initial[f"{s}0"][b]) for s in states)
        crossed = False  # in reverse: whether the step before stands behind a reset
        for t in reversed(range(len(x))) if reverse else range(len(x)):
            exists = t < length and (mask is None or mask[t][b])
            if exists:
                begins = resets is not None and resets[t][b]
                if crossed if reverse else begins:
                    state = fresh
                crossed = begins
                drawn = noise.of_step(t, b, state)
                after = step(Vector(x[t][b]), state, **weights, **options, **drawn)
                state = noise.zoned_out(t, b, state, after) if noise.zoneout else after
            if leave is not None:
                state = leave(t, state)
            if not exists and padding != "last":
                continue
            for sequence, value in zip(shown.values(), state, strict=True):
                sequence[t][b] = list(value)
        for name, value in zip(states, state, strict=True):
            final[f"{name}_n"].append(list(value))
    return {**shown, **final}


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
    reset: Mapping[str, Nested] | None = None,
) -> dict[str, Nested]:
    """Layers, each reading the directions of the one below side by side; states [L*D][B][H].

    Of every step the last layer's c, as its y.
    """
    runs: list[dict[str, Nested]] = []
    for suffixes in layer_suffixes(parameters):
        layer: list[dict[str, Nested]] = []
        for suffix in suffixes:
            row = len(runs) + len(layer)
            states = {name: value[row] for name, value in initial.items()}
            noise: Noise = options.get("noise", Noise())
            layer.append(
                run(
                    cell,
                    x,
                    states,
                    layer_weights(parameters, suffix),
                    lengths=lengths,
                    resets=resets,
                    reverse=suffix.endswith("_reverse"),
                    options={**options, "noise": noise.of_run(row)},
                    mask=mask,
                    padding=padding,
                    reset={name: value[row] for name, value in (reset or {}).items()},
                )
            )
        runs += layer
        shown = {
            name: [
                [_side_by_side(r[name][t][b] for r in layer) for b in range(len(x[t]))]
                for t in range(len(x))
            ]
            for name in ("y", *CELLS[cell].states[1:])
        }
        x = shown["y"]
    return {**shown, **{f"{s}_n": [r[f"{s}_n"] for r in runs] for s in CELLS[cell].states}}


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
        "gain_ih": "g_ih",
        "gain_hh": "g_hh",
        "gain_cell": "g_c",
        "bias_cell": "b_c",
        "gain": "g",
        "bias": "b",
    }
    return {
        short: parameters[long + suffix]
        for long, short in names.items()
        if long + suffix in parameters
    }
