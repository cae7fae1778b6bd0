"""Layers over layers, in one or both directions: their network, their parameters, PyTorch's names.

A run is one direction of one layer; runs are counted layer by layer, forward before reverse, as are
the rows of a state [L*D,B,H]. Each run writes its share of its layer's output [T,B,D*H], which the
next layer reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedrnn import _core
from fusedrnn.bf16 import cast
from fusedrnn.layers.devices import Array, Device
from fusedrnn.layers.initial import Initial
from fusedrnn.runs import Run, of_records, to_records

# The compiled module's names of a run's parameters, and the layers': PyTorch's, where it has them.
NAMES = {
    "w_ih": "weight_ih",
    "w_hh": "weight_hh",
    "b_ih": "bias_ih",
    "b_hh": "bias_hh",
    "w_peephole": "weight_peephole",
    "w_hr": "weight_hr",
    "g_ih": "gain_ih",
    "g_hh": "gain_hh",
    "g_c": "gain_cell",
    "b_c": "bias_cell",
    "g": "gain",
    "b": "bias",
}

# In both directions, as many runs as the compiled module takes.
MOST_LAYERS = 1 << 19

# cell, input_size, hidden_size, projection_size, heads, num_layers, constants, noise, directions
Description = tuple[str, int, int, int, int, int, tuple[float, ...], tuple[float, ...], int]


def runs_of(description: Description) -> list[Run]:
    """The runs of such layers."""
    (
        cell,
        input_size,
        hidden_size,
        projection_size,
        heads,
        num_layers,
        constants,
        noise,
        directions,
    ) = description
    size = projection_size or hidden_size
    width = directions * size
    return [
        Run(
            cell,
            direction == 1,
            layer,
            layer + 1,
            0,
            direction * size,
            width if layer else input_size,
            hidden_size,
            projection_size,
            heads,
            constants,
            noise,
        )
        for layer in range(num_layers)
        for direction in range(directions)
    ]


PlainCall = Callable[..., Any]  # of parameters, x, state, axes, save, lengths and resets


def _none(*_: Any) -> None:
    """The plain call on a CUDA device."""


class Stack:
    """Layers of one cell and one size: what the compiled module knows of them, and their values."""

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        *,
        constants: tuple[float, ...],
        noise: tuple[float, ...],
        absent: tuple[str, ...],  # names of optional parameters beside the biases
        projection_size: int,
        heads: int,
        directions: int,
        bias: bool,
        dtype: str,
        compute_dtype: str | None,
        lean: bool,
        initial: Initial | None,  # None: no values, for a library that keeps its own
        device: Device,
    ) -> None:
        self.description: Description = (
            cell,
            input_size,
            hidden_size,
            projection_size,
            heads,
            num_layers,
            constants,
            noise,
            directions,
        )
        self._types = (dtype, compute_dtype, device.is_cuda, lean)
        self._take(self._make_network(), num_layers * directions)
        self._kinds = {
            name: (kind, shape)
            for (name, shape, optional), (_, kind, _, _) in zip(
                self._described(), self.network.parameters, strict=True
            )
            if not optional or (bias if kind.startswith("b_") else kind not in absent)
        }
        self.parameters: dict[str, Array] = {}
        if initial is not None:
            for name, values in self.draw(initial):
                self.parameters[name] = device.parameter(cast(values, dtype))

    def draw(self, initial: Initial) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """Name and first values of each parameter, in PyTorch's order."""
        random, hidden_size = initial.generator(), self.description[2]
        for name, (kind, shape) in self._kinds.items():
            yield name, initial.draw(random, kind, shape, hidden_size)

    @classmethod
    def of_network(cls, network: _core.Network) -> Stack:
        """The layers of a network that has its parameters elsewhere.

        Raises
        ------
        ValueError
            Where it is no stack of one cell and size, in one direction or in both.
        """
        runs = of_records(network.runs)
        first = runs[0]
        directions = 2 if len(runs) > 1 and runs[1].reverse else 1
        num_layers = len(runs) // directions
        stack = cls.__new__(cls)
        stack.description = (
            *(first.cell, first.input_size, first.hidden_size, first.projection_size, first.heads),
            *(num_layers, first.constants, first.noise, directions),
        )
        if runs_of(stack.description) != runs:
            raise ValueError(
                "expected layers of one cell and size, each in one direction or in both, got "
                f"another network of {len(runs)} runs"
            )
        stack._types = (network.dtype, network.compute_dtype, False, False)
        stack._take(network, num_layers * directions)
        stack._kinds, stack.parameters = {}, {}
        return stack

    def _take(self, network: _core.Network, num_runs: int) -> None:
        self.network = network
        self._dual_network: _core.Network | None = None
        self._gates_network: _core.Network | None = None
        self._plain_call: PlainCall | None = None
        self.width: int = network.output_size
        self.num_runs = num_runs
        self.state_sizes = network.state_sizes
        # Of all that a run may have, in the compiled module's order.
        self.names = tuple(name for name, _, _ in self._described())
        # Of the states beyond h of the last layer, side by side.
        directions = self.description[-1]
        self.cell_widths = tuple(directions * size for size in self.state_sizes[1:])

    def layers_and_directions(self) -> tuple[int, bool]:
        """Their number, and whether they run in both directions."""
        directions: int = self.description[-1]
        return self.num_runs // directions, directions == 2

    def __getstate__(self) -> dict[str, Any]:
        made_again = ("network", "_dual_network", "_gates_network", "_plain_call")
        return {name: value for name, value in vars(self).items() if name not in made_again}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.network = self._make_network()
        self._dual_network = self._gates_network = self._plain_call = None

    def dual_network(self) -> _core.Network:
        """The same layers over dual numbers (`fusedrnn.forward_mode`)."""
        if self._dual_network is None:
            dtype, _, on_cuda, lean = self._types
            self._dual_network = _core.Network(self._records(), dtype, "dual", on_cuda, lean)
        return self._dual_network

    def call(self, x: Any, state: Any, axes: int, resets: Any = None) -> Any:
        """``y, state`` of arrays that can be used as they lie; None of others.

        `axes`: 0 of x [T, B, I], 1 of [B, T, I], 3 of a step's [B, I], which alone takes resets.
        """
        if self._plain_call is None:
            names = tuple(name if name in self.parameters else None for name in self.names)
            self._plain_call = (
                _none if self._types[2] else _core.make_plain_call(self.network, names, False)
            )
        return self._plain_call(self.parameters, x, state, axes, False, None, resets)

    @property
    def has_gates(self) -> bool:
        """Whether a tape with the default memory has gates."""
        return len(_core.gate_names(self.description[0])) > 0

    def keeping_gates(self) -> _core.Network:
        """The same layers with the default memory, which keeps gates."""
        dtype, compute_dtype, on_cuda, lean = self._types
        if not lean:
            return self.network
        if self._gates_network is None:
            self._gates_network = _core.Network(
                self._records(), dtype, compute_dtype, on_cuda, False
            )
        return self._gates_network

    def _records(self) -> bytes:
        return to_records(runs_of(self.description))

    def _make_network(self) -> _core.Network:
        dtype, compute_dtype, on_cuda, lean = self._types
        return _core.Network(self._records(), dtype, compute_dtype, on_cuda, lean)

    @property
    def ends(self) -> list[str]:
        """How the names of each run's parameters end."""
        directions = self.description[-1]
        return [
            f"_l{run // directions}{'_reverse' if run % directions else ''}"
            for run in range(self.num_runs)
        ]

    def _described(self) -> Iterator[tuple[str, tuple[int, ...], bool]]:
        """PyTorch's name, the shape, and whether it is a bias, of each that a run may have."""
        ends = self.ends
        for run, name, shape, optional in self.network.parameters:
            yield f"{NAMES[name]}{ends[run]}", shape, optional

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter that there is, by name and in PyTorch's order."""
        return {name: shape for name, (_, shape) in self._kinds.items()}

    def ordered(self, arrays: Mapping[str, Any]) -> tuple[Any, ...]:
        """Arrays by name in the compiled module's order; None for names without one."""
        return tuple(map(arrays.get, self.names))

    def named(self, arrays: tuple[Any, ...]) -> dict[str, Any]:
        """And back, for the names of parameters that there are."""
        of_all = zip(self.names, arrays, strict=True)
        return {name: array for name, array in of_all if name in self._kinds}
