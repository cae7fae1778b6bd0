"""Layers over layers, in one or both directions: the order of calls, and who writes where.

A run is one direction of one layer; runs are counted layer by layer, forward before reverse, as are
the rows of a state [L*D,B,H]. Each run writes its share of its layer's output [T,B,D*H], which the
next layer reads: nothing is copied. A state is always a pair (h, c) here; c is None in cells
without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fusedrnn import _core
from fusedrnn.bf16 import cast
from fusedrnn.layers.devices import Array, Device, Results

State = tuple[Array | None, Array | None]

# The functions' names of a run's weights, and PyTorch's, in PyTorch's order.
NAMES = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}


@dataclass(frozen=True)
class Run:
    """One direction of one layer."""

    layer: int
    reverse: bool
    index: int  # its row in a state
    share: slice  # its part of the last axis of the layer's output
    weights: tuple[Array | None, ...] = field(repr=False)  # in the order of NAMES

    def parameters(self) -> Iterator[tuple[str, str, Array]]:
        """The function's name, PyTorch's name, and the array of each weight that there is."""
        end = "_reverse" if self.reverse else ""
        for (short, long), array in zip(NAMES.items(), self.weights, strict=True):
            if array is not None:
                yield short, f"{long}_l{self.layer}{end}", array

    def forward(
        self,
        cell: str,
        x: Array,
        state: State,
        lengths: Any,
        resets: Any,
        save: bool,
        y: Array,
        state_n: State,
        compute_dtype: str | None,
    ) -> Any:
        """Run over a sequence, into y and state_n; returns the tape, or None where not saved."""
        w_ih, w_hh, b_ih, b_hh = self.weights
        (h0, c0), (h_n, c_n) = state, state_n
        _, _, _, tape = _core.forward(
            cell,
            x,
            w_ih,
            w_hh,
            b_ih,
            b_hh,
            h0,
            c0,
            lengths,
            resets,
            self.reverse,
            save,
            y=y,
            h_n=h_n,
            c_n=c_n,
            compute_dtype=compute_dtype,
        )
        return tape


class Stack:
    """Layers of one cell with their parameters."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        *,
        gates: int,
        has_c: bool,
        directions: int,
        bias: bool,
        dtype: str,
        compute_dtype: str | None,
        seed: int | None,
        device: Device,
    ) -> None:
        self.hidden_size = hidden_size
        self.has_c = has_c
        self.width = directions * hidden_size  # of a layer's output
        self.num_runs = num_layers * directions
        self.dtype = dtype
        self.compute_dtype = compute_dtype
        self.layers: list[list[Run]] = []

        random = np.random.default_rng(seed)
        bound = hidden_size**-0.5
        rows = gates * hidden_size
        for layer in range(num_layers):
            shapes: list[tuple[int, ...] | None] = [
                (rows, self.width if layer else input_size),
                (rows, hidden_size),
                (rows,) if bias else None,
                (rows,) if bias else None,
            ]
            self.layers.append([])
            for direction in range(directions):
                index = layer * directions + direction
                share = slice(direction * hidden_size, (direction + 1) * hidden_size)
                weights = tuple(
                    None
                    if shape is None
                    else device.parameter(cast(random.uniform(-bound, bound, shape), dtype))
                    for shape in shapes
                )
                self.layers[-1].append(Run(layer, direction == 1, index, share, weights))

    def parameters(self) -> dict[str, Array]:
        """The parameters themselves, under PyTorch's names and in PyTorch's order."""
        runs = (run for layer in self.layers for run in layer)
        return {name: array for run in runs for _, name, array in run.parameters()}

    def empty_state(self, batch: int, results: Results[Any]) -> State:
        shape = (self.num_runs, batch, self.hidden_size)
        h = results.empty(shape, self.dtype)
        return h, results.empty(shape, self.dtype) if self.has_c else None

    def forward(
        self,
        cell: str,
        x: Array,
        y: Array,
        state: State,
        results: Results[Any],
        lengths: Any = None,
        resets: Any = None,
        *,
        save: bool,
    ) -> tuple[State, tuple[Any, ...]]:
        """Run x [T,B,I] through all layers, the last into y [T,B,D*H].

        `state` is that before the first step; None is zero. Returns the state after the last, and
        each run's tape, which is None unless it is to be saved.
        """
        steps, batch, _ = x.shape
        state_n = self.empty_state(batch, results)
        tapes = []
        for layer in self.layers:
            last = layer is self.layers[-1]
            out = y if last else results.empty((steps, batch, self.width), self.dtype)
            for run in layer:
                tape = run.forward(
                    cell,
                    x,
                    _row(state, run),
                    lengths,
                    resets,
                    save,
                    y=out[:, :, run.share],
                    state_n=_row(state_n, run),
                    compute_dtype=self.compute_dtype,
                )
                tapes.append(tape)
            x = out
        return state_n, tuple(tapes)

    def backward(
        self,
        tapes: tuple[Any, ...],
        dx: Array,
        dy: Array | None,
        dstate: State,
        results: Results[Any],
    ) -> tuple[dict[str, Array], State]:
        """Go back through all layers, the first into dx [T,B,I].

        `dy` [T,B,D*H] and `dstate` belong to y and the state after the last step; None is zero.
        Returns the parameters' gradients by name, and that of the state before the first step.
        """
        steps, batch, _ = dx.shape
        dstate_0 = self.empty_state(batch, results)
        gradients = {}
        for layer in reversed(self.layers):
            first = layer is self.layers[0]
            below = dx if first else results.empty((steps, batch, self.width), self.dtype)
            for run in layer:
                dh_n, dc_n = _row(dstate, run)
                dh0, dc0 = _row(dstate_0, run)
                computed = _core.backward(
                    tapes[run.index],
                    None if dy is None else dy[:, :, run.share],
                    dh_n,
                    dc_n,
                    dx=below,
                    accumulate_dx=run.reverse,
                    dh0=dh0,
                    dc0=dc0,
                )
                for short, name, _ in run.parameters():
                    gradients[name] = computed[f"d{short}"]
            dy = below
        return {name: gradients[name] for name in self.parameters()}, dstate_0


def _row(state: State, run: Run) -> State:
    h, c = state
    return None if h is None else h[run.index], None if c is None else c[run.index]
