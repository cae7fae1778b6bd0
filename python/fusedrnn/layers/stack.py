"""Layers over layers, in one or both directions: the order of calls, and who writes where.

A run is one direction of one layer; runs are counted layer by layer, forward before reverse, as are
the rows of a state [L*D,B,H]. Each run writes its share of its layer's output [T,B,D*H], which the
next layer reads: nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedrnn import _core

Array = NDArray[Any]

# The functions' names of a run's parameters, and PyTorch's, in PyTorch's order.
NAMES = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}


@dataclass(frozen=True)
class Run:
    """One direction of one layer."""

    layer: int
    direction: int  # 0 forward, 1 reverse
    index: int  # its row in a state
    share: slice  # its part of the last axis of the layer's output
    weights: dict[str, Array] = field(default_factory=dict, repr=False)  # by the functions' names

    def name(self, weight: str) -> str:
        """PyTorch's name of a weight: weight_ih_l0, bias_hh_l1_reverse."""
        return f"{NAMES[weight]}_l{self.layer}{'_reverse' if self.direction else ''}"


class Stack:
    """Layers of one cell with their parameters."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        *,
        gates: int,
        states: tuple[str, ...],
        directions: int,
        bias: bool,
        dtype: str,
        seed: int | None,
    ) -> None:
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.states = states
        self.width = directions * hidden_size  # of a layer's output
        self.dtype = dtype
        self.layers: list[list[Run]] = []

        random = np.random.default_rng(seed)
        bound = hidden_size**-0.5
        rows = gates * hidden_size
        for layer in range(num_layers):
            shapes: dict[str, tuple[int, ...]] = {
                "w_ih": (rows, self.width if layer else input_size),
                "w_hh": (rows, hidden_size),
            }
            if bias:
                shapes |= {"b_ih": (rows,), "b_hh": (rows,)}
            self.layers.append([])
            for direction in range(directions):
                index = layer * directions + direction
                share = slice(direction * hidden_size, (direction + 1) * hidden_size)
                run = Run(layer, direction, index, share)
                for name, shape in shapes.items():
                    run.weights[name] = random.uniform(-bound, bound, shape).astype(dtype)
                self.layers[-1].append(run)

    def runs(self) -> Iterator[Run]:
        for layer in self.layers:
            yield from layer

    def parameters(self) -> dict[str, Array]:
        """The parameters themselves, under PyTorch's names and in PyTorch's order."""
        return {run.name(name): array for run in self.runs() for name, array in run.weights.items()}

    def state_shape(self, batch: int) -> tuple[int, int, int]:
        return (sum(map(len, self.layers)), batch, self.hidden_size)

    def empty_states(self, batch: int) -> list[Array]:
        return [_core.empty(self.state_shape(batch), self.dtype) for _ in self.states]

    def forward(
        self,
        cell: str,
        x: Array,
        y: Array,
        states: list[Any],
        lengths: Any = None,
        resets: Any = None,
        *,
        save: bool,
    ) -> tuple[list[Array], tuple[Any, ...]]:
        """Run x [T,B,I] through all layers, the last into y [T,B,D*H].

        `states` holds h (and c) before the first step, [L*D,B,H] or None each. Returns those after
        the last, and each run's tape, which is None unless it is to be saved.
        """
        steps, batch, _ = x.shape
        states_n = self.empty_states(batch)
        tapes = []
        for layer in self.layers:
            last = layer is self.layers[-1]
            out = y if last else _core.empty((steps, batch, self.width), self.dtype)
            for run in layer:
                weights = run.weights
                h0, c0 = _rows(states, run)
                h_n, c_n = _rows(states_n, run)
                _, _, _, tape = _core.forward(
                    cell,
                    x,
                    weights["w_ih"],
                    weights["w_hh"],
                    weights.get("b_ih"),
                    weights.get("b_hh"),
                    h0,
                    c0,
                    lengths,
                    resets,
                    run.direction == 1,
                    save,
                    y=out[:, :, run.share],
                    h_n=h_n,
                    c_n=c_n,
                )
                tapes.append(tape)
            x = out
        return states_n, tuple(tapes)

    def backward(
        self, tapes: tuple[Any, ...], dx: Array, dy: Array | None, dstates: list[Any]
    ) -> tuple[dict[str, Array], list[Array]]:
        """Go back through all layers, the first into dx [T,B,I].

        `dy` [T,B,D*H] and `dstates`, [L*D,B,H] each, belong to y and the states after the last
        step; None is zero. Returns the parameters' gradients by name, and those of the states
        before the first step.
        """
        steps, batch, _ = dx.shape
        dstates_0 = self.empty_states(batch)
        gradients = {}
        for layer in reversed(self.layers):
            first = layer is self.layers[0]
            below = dx if first else _core.empty((steps, batch, self.width), self.dtype)
            for run in layer:
                dh_n, dc_n = _rows(dstates, run)
                dh0, dc0 = _rows(dstates_0, run)
                results = _core.backward(
                    tapes[run.index],
                    None if dy is None else dy[:, :, run.share],
                    dh_n,
                    dc_n,
                    dx=below,
                    accumulate_dx=run.direction == 1,
                    dh0=dh0,
                    dc0=dc0,
                )
                gradients.update({run.name(name): results[f"d{name}"] for name in run.weights})
            dy = below
        return {name: gradients[name] for name in self.parameters()}, dstates_0


def _rows(states: list[Any], run: Run) -> tuple[Any, Any]:
    """The run's h and c; None where there is none."""
    rows = [None if state is None else state[run.index] for state in states]
    return rows[0], rows[1] if len(rows) > 1 else None
