"""What a network's operators know of it: a string that stands for it in graphs, and what follows.

An operator takes a key and a list of tensors. The key is JSON, so that a traced or exported program
holds it as it is: the network's description (`fusedrnn.layers.stack`), compute_dtype, whether its
reserve is lean, fusedrnn's version, whether y shows the state where a step does not exist, whether
the states beyond h are returned of every step, and the rate of what is dropped between layers. The
list has the places of `layers.plan`, each None where it is absent.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fusedrnn import _core
from fusedrnn.layers import plan as plans
from fusedrnn.layers.stack import Description
from fusedrnn.options import check_dual_types

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


class Plan(plans.Plan):
    """What PyTorch asks of a network, besides."""

    @functools.cached_property
    def _bounds(self) -> dict[tuple[str, int | None], tuple[int, ...]]:
        return {}

    @functools.cached_property
    def _first_state(self) -> int:
        return 1 + self.num_parameters

    @functools.cached_property
    def _first_reset(self) -> int:
        return self._first_state + self.num_states

    def check_duals(self, dtype: torch.dtype) -> None:
        """Of derivatives of gradients and along a direction."""
        check_dual_types(str(dtype).removeprefix("torch."), self.compute_dtype)

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
            of = _with_checkpoints if self.lean and index is None else _bilinear
            constant, *factors = of(lambda T, B: network.reserve_bytes(T, B, index), line)
            # Of a run's reserve there are at most 16 blocks, and the header, flags and row.
            known = (constant + line * 20 * (len(self.runs) + 1), *factors)
            self._bounds[dtype, index] = known
        constant, of_steps, of_batch, product, of_checkpoints = known
        T, B = x.shape[0], x.shape[1]
        size = constant + of_steps * T + of_batch * B + product * T * B
        if of_checkpoints:
            at_most: Any = torch.sym_min
            size += of_checkpoints * at_most(T * B, T * B * B // _CHECKPOINT_ROWS + B)
        return (size + line - 1) // line * line

    def parameters_in(self, arrays: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(arrays[1 : self._first_state])

    def states_in(self, arrays: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(arrays[self._first_state : self._first_reset])

    def masks_in(self, arrays: Sequence[Any]) -> tuple[Any, ...] | None:
        """What the compiled module takes of masks and reset states."""
        given = arrays[self._first_reset : -1]
        if not _any(given):
            return None
        *resets, lengths, mask, reset = given
        known = tuple(resets) if _any(resets) else None
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


def _any(arrays: Sequence[Any]) -> bool:
    """Whether one is there."""
    for array in arrays:  # noqa: SIM110  quicker than any()
        if array is not None:
            return True
    return False


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
        network, shows_last, cells, dropout = _tuples(json.loads(key))
        description, compute_dtype, lean, _ = network
        plan = Plan(description, False, compute_dtype, lean, shows_last, cells, dropout)
        plan.num_places  # noqa: B018  whether it is a network at all
        return plan
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"structure: expected what fusedrnn.torch's modules make of a network, got {key!r} "
            f"({error})"
        ) from error


@functools.lru_cache(maxsize=1024)
def plain_call_of(
    network: str, slots: tuple[str | None, ...], dtype: torch.dtype
) -> Callable[[dict[str, Any], torch.Tensor, Any, int, bool, Any], Any]:
    """The compiled module's whole way in and out, for calls whose only option is lengths.

    What it returns (`_core.make_plain_call`) is a function of a module's parameters, which are
    found by the names in `slots`, of x, the state, how axes lie, whether gradients are wanted, and
    lengths; it returns None where the tensors are not what it knows.
    """
    plan = plan_of(call_key(network, False, False, 0.0))
    try:
        return _core.make_plain_call(plan.network(DTYPE_NAMES[dtype], False), slots, True)
    except (KeyError, TypeError, ValueError):  # which a call the usual way words
        return lambda *_: None


@functools.lru_cache(maxsize=1024)
def plain_backward_of(structure: str, dtype: torch.dtype) -> Callable[..., Any]:
    """Gradients of such calls where they are small (`_core.make_plain_backward`), or None."""
    return _core.make_plain_backward(plan_of(structure).network(DTYPE_NAMES[dtype], False))
