"""What a network's operators know of it: a string that stands for it in graphs, and what follows.

An operator takes a key and a list of tensors. The key is JSON, so that a traced or exported program
holds it as it is: the network's description (`fusedrnn.layers.stack`), compute_dtype, whether its
reserve is lean, fusedrnn's version, whether y shows the state where a step does not exist, whether
the states beyond h are returned of every step, and the rate of what is dropped between layers.

The list is x, the parameters, the states before the first step, the reset states, lengths, mask,
resets and the seed of what is drawn, each None where it is absent; of parameters every place that
the compiled module knows. Gradients go to those before lengths.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fusedrnn import _core
from fusedrnn.layers.stack import Description, runs_of
from fusedrnn.options import check_dual_types

# lengths, mask, resets, seed
NUM_UNDIFFERENTIABLE = 4

DTYPE_NAMES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}

# What blocks of a reserve are aligned to (csrc/core/reserve.cpp).
_CPU_LINE, _CUDA_LINE = 64, 256
# With lean memory a checkpoint follows the other after at least so many rows (t,b), or a step
# (csrc/cpu/layout.cpp).
_CHECKPOINT_ROWS = 1024


def network_key(description: Description, compute_dtype: str | None, lean: bool) -> str:
    """The part of a key that a module knows when it is made.

    It has the version for whoever keeps compiled graphs on a disk: another one's reserves may have
    other sizes.
    """
    return json.dumps([description, compute_dtype, lean, _core.__version__])


def call_key(network: str, shows_last: bool, cells: bool, dropout: float) -> str:
    """The whole key of a call; plain enough to be traced."""
    words = f"{'true' if shows_last else 'false'}, {'true' if cells else 'false'}"
    return f"[{network}, {words}, {dropout}]"


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


class Plan:
    """A network as its key says it, and compiled networks of it by dtype and kind of device."""

    def __init__(self, key: str) -> None:
        network, self.shows_last, self.cells, self.dropout = _tuples(json.loads(key))
        description, compute_dtype, lean, _ = network
        self._runs = runs_of(description)
        self._lean: bool = lean
        self._compute_dtype: str | None = compute_dtype
        self._networks: dict[tuple[str, bool, bool], _core.Network] = {}
        self._bounds: dict[tuple[str, int | None], tuple[int, ...]] = {}
        known = self.network("float32", False, dual=True)  # whatever the dtype: sizes alone
        self.num_runs = len(self._runs)
        self.num_parameters = len(known.parameters)
        self.state_sizes = known.state_sizes
        self.num_states = len(self.state_sizes)
        self.output_size = known.output_size
        directions: int = description[-1]
        self.cell_widths = tuple(directions * n for n in self.state_sizes[1:]) if self.cells else ()
        # How many of the list have gradients, and where its parts begin.
        self.num_differentiable = 1 + self.num_parameters + 2 * self.num_states
        self._states = 1 + self.num_parameters
        self._reset_states = self._states + self.num_states
        self._no_masks = (None,) * (self.num_states + NUM_UNDIFFERENTIABLE - 1)

    def network(self, dtype: str, on_cuda: bool, *, dual: bool = False) -> _core.Network:
        """The compiled module's network; `dual`: over dual numbers of that dtype."""
        found = self._networks.get((dtype, on_cuda, dual))
        if found is None:
            compute_dtype = "dual" if dual else self._compute_dtype
            found = _core.Network(self._runs, dtype, compute_dtype, on_cuda, self._lean)
            self._networks[dtype, on_cuda, dual] = found
        return found

    def check_duals(self, dtype: torch.dtype) -> None:
        """Of derivatives of gradients and along a direction."""
        check_dual_types(str(dtype).removeprefix("torch."), self._compute_dtype)

    def reserve_bound(self, x: torch.Tensor) -> Any:
        """Bytes that hold the reserve of a call, in terms of T and B that may be symbols.

        A reserve is a sum of blocks, each a number of bytes times a product of T or T + 1 and B,
        rounded up to whole lines; of lean memory on the CPU also of the number of checkpoints and
        B. At multiples of a line nothing is rounded, and a few of them give the sum; then come a
        line for each block that may be rounded.
        """
        dtype, device = DTYPE_NAMES[x.dtype], x.device
        index = (device.index or 0) if device.type == "cuda" else None
        line = _CPU_LINE if index is None else _CUDA_LINE
        known = self._bounds.get((dtype, index))
        if known is None:
            network = self.network(dtype, index is not None)
            of = _with_checkpoints if self._lean and index is None else _bilinear
            constant, *factors = of(lambda T, B: network.reserve_bytes(T, B, index), line)
            # Of a run's reserve there are at most 16 blocks, and the header, flags and row.
            known = (constant + line * 20 * (self.num_runs + 1), *factors)
            self._bounds[dtype, index] = known
        constant, of_steps, of_batch, product, of_checkpoints = known
        T, B = x.shape[0], x.shape[1]
        size = constant + of_steps * T + of_batch * B + product * T * B
        if of_checkpoints:
            at_most: Any = torch.sym_min
            size += of_checkpoints * at_most(T * B, T * B * B // _CHECKPOINT_ROWS + B)
        return (size + line - 1) // line * line

    def parameters(self, arrays: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(arrays[1 : self._states])

    def states(self, arrays: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(arrays[self._states : self._reset_states])

    def reset_states(self, arrays: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(arrays[self._reset_states : self.num_differentiable])

    def masks(self, arrays: Sequence[Any]) -> tuple[Any, ...] | None:
        """What the compiled module takes of masks and reset states."""
        given = tuple(arrays[self._reset_states : -1])
        if given == self._no_masks:
            return None
        *resets, lengths, mask, reset = given
        known = None if resets == [None] * self.num_states else tuple(resets)
        return lengths, mask, reset, self.shows_last, known

    def present(self, arrays: Sequence[Any], wants_dx: bool = True) -> list[int]:
        """The places of what has a gradient and is there."""
        first = 0 if wants_dx else 1
        return [i for i in range(first, self.num_differentiable) if arrays[i] is not None]

    def in_places(
        self, arrays: Sequence[Any], gradients: Sequence[Any], wants_dx: bool = True
    ) -> list[Any]:
        """Gradients of what is there, in the places of `arrays`; None elsewhere."""
        result: list[Any] = [None] * len(arrays)
        for place, gradient in zip(self.present(arrays, wants_dx), gradients, strict=True):
            result[place] = gradient
        return result


def _bilinear(size: Callable[[int, int], int], line: int) -> tuple[int, ...]:
    """A constant and the factors of T, B, T B and checkpoints times B in the size of a reserve."""
    low, high = line, 2 * line
    base, steps, batch = size(low, low), size(high, low), size(low, high)
    product = (size(high, high) - steps - batch + base) // (low * low)
    of_steps = (steps - base) // low - product * low
    of_batch = (batch - base) // low - product * low
    constant = base - low * (of_steps + of_batch) - low * low * product
    return constant, of_steps, of_batch, product, 0


def _with_checkpoints(size: Callable[[int, int], int], line: int) -> tuple[int, ...]:
    """The same, with checkpoints: one every `steps` steps of a line of sequences."""
    steps = _CHECKPOINT_ROWS // line
    base, twice = size(steps, line), size(2 * steps, line)
    product = (twice - size(2 * steps - line // 8, line)) // (line // 8 * line)
    of_checkpoints = (twice - base) // line - product * steps
    wide = size(steps, 2 * line)  # of two checkpoints
    of_batch = (wide - base) // line - product * steps - 3 * of_checkpoints
    constant = base - line * (of_batch + of_checkpoints + product * steps)
    return constant, 0, of_batch, product, of_checkpoints


@functools.lru_cache(maxsize=1024)
def plan_of(key: str) -> Plan:
    """The plan of a key; of a key that is none a ValueError."""
    try:
        return Plan(key)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"structure: expected what fusedrnn.torch's modules make of a network, got {key!r} "
            f"({error})"
        ) from error


@functools.lru_cache(maxsize=1024)
def plain_call_of(
    network: str, slots: tuple[str | None, ...], dtype: torch.dtype
) -> Callable[[dict[str, Any], torch.Tensor, Any, int], Any]:
    """The compiled module's whole way in and out, for calls in inference without options.

    What it returns is a function of a module's parameters, which are found by the names in `slots`,
    of x, the state and how axes lie (`_core.make_plain_call`); it returns None where the tensors
    are not what it knows.
    """
    plan = plan_of(call_key(network, False, False, 0.0))
    try:
        return _core.make_plain_call(plan.network(DTYPE_NAMES[dtype], False), slots)
    except (KeyError, TypeError, ValueError):  # which a call the usual way words
        return lambda _parameters, _x, _state, _axes: None
