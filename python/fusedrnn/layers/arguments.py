"""What a layer makes of the arguments of its calls, and of their results."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from fusedrnn import options
from fusedrnn.interop import A
from fusedrnn.layers.devices import Array, Results, rank
from fusedrnn.layers.tape import LayerCall, LayerTape
from fusedrnn.layers.weights import LayerWeights


@functools.cache
def gradient_names(states: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those of the gradients of initial states and of reset states."""
    return tuple(f"{name}0" for name in states), tuple(f"reset_{name}" for name in states)


class Arguments(LayerWeights):
    """What all calls of a layer take and return, read, checked and put into its form."""

    _states: ClassVar[tuple[str, ...]]
    input_size: int
    batch_first: bool
    bidirectional: bool
    memory: str

    def _read_call(
        self,
        x: Any,
        state: Any,
        masks: tuple[Any, Any, Any, object, Any],
        parameters: Mapping[str, Any] | None,
    ) -> tuple[LayerCall, tuple[int, ...]]:
        """What is run, and the axes of x before its last one as its user has them."""
        unbatched = rank(x) == 2
        swapped = self.batch_first and not unbatched
        wanted = (None, self.input_size) if unbatched else (None, None, self.input_size)
        source = self._device.read("x", x, wanted, self.dtype)
        axes = tuple(source.shape[:-1])
        batches = self._batches(axes)
        source = source.swapaxes(0, 1) if swapped else source
        lengths, mask, resets, padding, reset_state = masks
        if swapped:
            mask, resets = (
                None if m is None else self._device.read_mask(name, m, axes).swapaxes(0, 1)
                for name, m in (("mask", mask), ("resets", resets))
            )
        state_0 = self._import_state("state", state, *batches)
        named = self._import_parameters(parameters)
        reset = () if reset_state is None else self._import_reset_state(reset_state)
        masked = options.masks(lengths, mask, resets, padding, reset)
        return LayerCall(source, named, state_0, masked), axes

    def _batches(self, axes: tuple[int, ...]) -> tuple[int, ...]:
        """The axis B of x, whose axes before its last one these are; none of a single sequence."""
        return () if len(axes) == 1 else axes[:1] if self.batch_first else axes[1:]

    def _results_given(
        self, axes: tuple[int, ...], y: Any, states: tuple[Any, ...], cells: tuple[Any, ...]
    ) -> Iterator[tuple[str, Any, tuple[int, ...]]]:
        """Names, arrays and shapes of `out`."""
        batches = self._batches(axes)
        yield "out[0]", y, (*axes, self._stack.width)
        for i, (array, size) in enumerate(zip(states, self._stack.state_sizes, strict=True)):
            part = f"[{i}]" if len(states) > 1 else ""
            yield f"out[1]{part}", array, (self._stack.num_runs, *batches, size)
        for i, (array, width) in enumerate(zip(cells, self._stack.cell_widths, strict=False)):
            yield f"out[{2 + i}]", array, (*axes, width)

    def _gradient_shapes(
        self, axes: tuple[int, ...], batches: tuple[int, ...]
    ) -> dict[str, tuple[int, ...]]:
        """The shape of each gradient by name."""
        shapes = self._stack.shapes() | {"x": (*axes, self.input_size)}
        return shapes | self._state_shapes(batches)

    def _state_shapes(self, batches: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Those of the states before the first step and of the reset states, by name."""
        shapes: dict[str, tuple[int, ...]] = {}
        for letter, size in zip(self._states, self._stack.state_sizes, strict=True):
            shapes[f"{letter}0"] = (self._stack.num_runs, *batches, size)
            shapes[f"reset_{letter}"] = (self._stack.num_runs, size)
        return shapes

    def _check_one_direction(self, method: str) -> None:
        if self.bidirectional:
            raise ValueError(f"{method}: expected a layer of one direction, got {self!r}")

    def _output(
        self,
        name: str,
        given: Any,
        results: Results[Any],
        shape: tuple[int, ...],
        swapped: bool,
    ) -> tuple[Array | None, Array | None]:
        """A sequence as its user sees it, and the view [T,B,n] that is written; None: a new one."""
        if not swapped:
            return given, given
        if given is None:
            array = results.empty(shape, self.dtype)
            return array, array.swapaxes(0, 1)
        return given, self._device.read(name, given, shape, self.dtype).swapaxes(0, 1)

    def _cells_to_return(self, return_cells: object) -> tuple[str, ...]:
        """The letters of the states that are returned of every step."""
        if not options.flag("return_cells", return_cells):
            return ()
        if len(self._states) == 1:
            raise ValueError(f"return_cells: expected False for {self!r}, which has no state but h")
        return self._states[1:]

    def _shows_gates(self, return_gates: object, save: bool) -> bool:
        if not options.flag("return_gates", return_gates):
            return False
        if not self._stack.has_gates:
            raise ValueError(f"return_gates: expected False for {self!r}, which keeps no gates")
        if save and self.memory == "lean":
            raise ValueError(
                f"return_gates: expected False for {self!r}, whose tapes keep no gates"
            )
        return True

    def _parts_of_cells(self, name: str, cells: Any) -> list[tuple[str, Any]]:
        """Names and arrays of the states beyond h of every step; a tuple of several."""
        letters = self._states[1:]
        if cells is None:
            return [(name, None)] * len(letters)
        if not letters:
            raise ValueError(f"{name}: expected None for {self!r}, which has no state but h")
        if len(letters) == 1:
            return [(name, cells)]
        parts = options.values(name, letters, cells)
        return [(f"{name}[{i}]", part) for i, part in enumerate(parts)]

    def _import_reset_state(self, state: Any) -> tuple[Any, ...]:
        return self._import_state("reset_state", state)

    def _import_step_resets(self, resets: Any, batches: tuple[int, ...]) -> Any:
        """Those of a step as those of a sequence of one step."""
        if resets is None:
            return None
        if not batches and isinstance(resets, (bool, np.bool_)):
            resets = np.array(resets)
        return self._device.read_mask("resets", resets, batches)[None]

    def _import_state(self, name: str, state: Any, *batches: int) -> tuple[Any, ...]:
        """One array for each state, [L*D, B, n], or [L*D, n] of no batch."""
        states = self._states
        if state is None:
            return (None,) * len(states)
        shapes = [(self._stack.num_runs, *batches, size) for size in self._stack.state_sizes]
        if len(states) == 1:
            return (self._device.read(name, state, shapes[0], self.dtype),)
        parts = options.values(name, states, state)
        return tuple(
            None if part is None else self._device.read(f"{name}[{i}]", part, shape, self.dtype)
            for i, (part, shape) in enumerate(zip(parts, shapes, strict=True))
        )

    def _export_state(self, states: tuple[Array, ...], kind: Callable[[Any], A]) -> Any:
        return tuple(map(kind, states)) if len(states) > 1 else kind(states[0])

    def _check_tape(self, tape: object) -> None:
        if not isinstance(tape, LayerTape):
            raise TypeError(
                f"tape: expected one of this layer's forward, got {type(tape).__name__}"
            )
        if tape.layer is not self:
            raise ValueError(
                f"tape: expected one of this layer, {self!r}, got one of another, {tape.layer!r}"
            )
