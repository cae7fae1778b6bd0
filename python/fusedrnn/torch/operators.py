"""PyTorch's operators of a network: what they compute, and what tracing knows of their results.

======================  ==========================================================================
network                 y, the states after the last step and, where the key says so, the states
                        beyond h of every step
network_train           the same, and the reserve: bytes that the gradients need
network_backward        gradients of what is there of x, where it is wanted, parameters, states and
                        reset states
network_jvp             derivatives along a direction of `network`'s results
network_backward_jvp    those, and after them those of `network_backward`'s results
======================  ==========================================================================

`network` is what modules call. The others serve its gradients (`fusedrnn.torch.autograd`), for
which a list of optional tensors takes the form of `arrays`; see `fusedrnn.torch.plan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack  # type: ignore[attr-defined]

from fusedrnn import _core
from fusedrnn.options import either
from fusedrnn.torch.plan import DTYPE_NAMES, Plan, plan_of

Arrays = Sequence[Tensor | None]

LIBRARY: Any = torch.library.Library("fusedrnn", "DEF")  # type: ignore[no-untyped-call]
_SCHEMAS = (
    "network(str structure, Tensor?[] arrays) -> Tensor[]",
    "network_train(str structure, Tensor?[] arrays) -> Tensor[]",
    "network_backward(str structure, Tensor?[] arrays, Tensor reserve, Tensor?[] upstream,"
    " bool wants_dx) -> Tensor[]",
    "network_jvp(str structure, Tensor?[] arrays, Tensor?[] tangents) -> Tensor[]",
    "network_backward_jvp(str structure, Tensor?[] arrays, Tensor?[] tangents,"
    " Tensor?[] upstream, Tensor?[] upstream_tangents) -> Tensor[]",
)
for _schema in _SCHEMAS:
    LIBRARY.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))


# --- arrays in and out ---


# With DLPack's table of C functions, which newer PyTorch has, the compiled module reads tensors.
_HAS_TABLE = hasattr(Tensor, "__dlpack_c_exchange_api__")


def _lend(tensor: Tensor | None) -> Any:
    """A tensor as the compiled module reads it, where it lies: on the CPU once, as a capsule."""
    if tensor is None:
        return None
    if tensor.is_cuda:
        return tensor.detach()
    # The dispatcher looks for views that are negated as they are read, and for zeros without
    # memory, but not in lists of optional tensors.
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    elif tensor._is_zerotensor():
        tensor = torch.zeros_like(tensor, memory_format=torch.contiguous_format)
    return tensor if _HAS_TABLE else to_dlpack(tensor)


def _take(array: Any) -> Tensor:
    """A result of the compiled module as a tensor of the same memory."""
    if isinstance(array, Tensor):
        return array
    if array.dtype.kind == "V":  # bfloat16
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _network_of(plan: Plan, x: Tensor, *, dual: bool = False) -> _core.Network:
    return plan.network(DTYPE_NAMES[x.dtype], x.is_cuda, dual=dual)


def _drop_of(plan: Plan, arrays: Arrays) -> tuple[float, int, int] | None:
    seed = arrays[-1]
    return None if seed is None else (plan.dropout, int(seed.item()), 0)


def _x_of(plan: Plan, arrays: Arrays) -> Tensor:
    if len(arrays) != plan.num_places:
        raise ValueError(f"arrays: expected {plan.num_places} of them, got {len(arrays)}")
    x = arrays[0]
    if x is None:
        raise TypeError("x: expected a tensor, got None")
    if x.dim() != 3:
        raise ValueError(f"x: expected a tensor [T, B, I], got shape {tuple(x.shape)}")
    if x.dtype not in DTYPE_NAMES:
        raise TypeError(
            f"x: expected dtype {either(DTYPE_NAMES.values())}, got "
            f"{str(x.dtype).removeprefix('torch.')}"
        )
    return x


def _cells_wanted(plan: Plan) -> tuple[None, ...] | None:
    return (None,) * (plan.num_states - 1) if plan.cells else None


def _upstream_of(plan: Plan, upstream: Sequence[Any]) -> tuple[Any, tuple[Any, ...], Any]:
    """Gradients of results as the compiled module takes them: of y, states, cells."""
    dy, *others = upstream
    states, cells = others[: plan.num_states], others[plan.num_states :]
    return dy, tuple(states), tuple(cells) or None


# --- kernels ---


def run(structure: str, arrays: Arrays) -> list[Tensor]:
    """`network` of tensors that nobody watches."""
    plan = plan_of(structure)
    x = _x_of(plan, arrays)
    lent = [_lend(array) for array in arrays[:-1]]
    y, states_n, cells, _ = _network_of(plan, x).forward(
        lent[0],
        plan.parameters_in(lent),
        plan.states_in(lent),
        plan.masks_in((*lent, None)),
        sequences=_cells_wanted(plan),
        dropout=_drop_of(plan, arrays),
    )
    return [_take(result) for result in (y, *states_n, *cells)]


def train(structure: str, arrays: Arrays) -> list[Tensor]:
    """`network_train` of tensors that nobody watches."""
    plan = plan_of(structure)
    x = _x_of(plan, arrays)
    lent = [_lend(array) for array in arrays[:-1]]
    network = _network_of(plan, x)
    reserve = _new_reserve(plan.reserve_bound(x), x.device)
    y, states_n, cells, _ = network.forward(
        lent[0],
        plan.parameters_in(lent),
        plan.states_in(lent),
        plan.masks_in((*lent, None)),
        save=True,
        sequences=_cells_wanted(plan),
        dropout=_drop_of(plan, arrays),
        reserve=_writable(_used(network, x, reserve)),
    )
    return [*map(_take, (y, *states_n, *cells)), reserve]


def _new_reserve(size: int, device: torch.device) -> Tensor:
    """Bytes; many on the CPU are the compiled module's, whose pages the next call finds there."""
    few = size < 1 << 16 or device.type != "cpu"
    if few or torch.are_deterministic_algorithms_enabled():  # which fill what PyTorch makes
        return torch.empty(size, dtype=torch.uint8, device=device)
    return torch.from_numpy(_core.empty((size // 4,), "float32")).view(torch.uint8)


def _writable(tensor: Tensor) -> Any:
    """One that is written; capsules of this kind do not say that they may be."""
    return tensor if _HAS_TABLE or tensor.is_cuda else tensor.numpy()


def _used(network: _core.Network, x: Tensor, reserve: Tensor) -> Tensor:
    """The part of a reserve that is filled; the rest is there because sizes may be symbols."""
    index = x.device.index if x.is_cuda else None
    return reserve[: network.reserve_bytes(x.shape[0], x.shape[1], index)]


def backward(
    structure: str, arrays: Arrays, reserve: Tensor, upstream: Arrays, wants_dx: bool
) -> list[Tensor]:
    """`network_backward` of tensors that nobody watches."""
    plan = plan_of(structure)
    x = _x_of(plan, arrays)
    lent = [_lend(array) for array in arrays[:-1]]
    network = _network_of(plan, x)
    # Whoever kept it and gave it back may have put it anywhere.
    aligned = reserve.data_ptr() % (256 if x.is_cuda else 16) == 0
    reserve = reserve if aligned else reserve.clone()
    tape = _core.Tape(
        network,
        lent[0],
        plan.parameters_in(lent),
        plan.masks_in((*lent, None)),
        _lend(_used(network, x, reserve)),
        _drop_of(plan, arrays),
    )
    dy, dstates_n, dcells = _upstream_of(plan, [_lend(gradient) for gradient in upstream])
    dx, dparameters, dstates, dresets, _ = tape.backward(
        dy, dstates_n, dcells, False, wants_dx=wants_dx
    )
    gradients = (dx, *dparameters, *dstates, *dresets)
    return [_take(gradients[place]) for place in plan.present(arrays, wants_dx)]


def _join(values: Arrays, tangents: Arrays) -> list[Tensor | None]:
    """Dual numbers, as complex tensors; None where there is neither value nor tangent."""

    def join(value: Tensor | None, tangent: Tensor | None) -> Tensor | None:
        if value is None and tangent is None:
            return None
        value = torch.zeros_like(tangent) if value is None else value  # type: ignore[arg-type]
        if tangent is not None and tangent.shape != value.shape:
            raise ValueError(f"expected a tangent of {value.shape}, got {tangent.shape}")
        return torch.complex(
            value.detach(), torch.zeros_like(value) if tangent is None else tangent.detach()
        )

    return [join(value, tangent) for value, tangent in zip(values, tangents, strict=True)]


def _tangents(results: Sequence[Any]) -> list[Tensor]:
    return [_take(result).imag.contiguous() for result in results]


def _over_duals(
    plan: Plan, arrays: Arrays, tangents: Arrays, *, save: bool
) -> tuple[Sequence[Any], _core.Tape | None]:
    x = _x_of(plan, arrays)
    plan.check_duals(x.dtype)
    count = plan.num_differentiable
    duals = [_lend(dual) for dual in _join(arrays[:count], tangents[:count])]
    lent = [*duals, *map(_lend, arrays[count:])]
    y, states_n, cells, tape = _network_of(plan, x, dual=True).forward(
        lent[0],
        plan.parameters_in(lent),
        plan.states_in(lent),
        plan.masks_in(lent),
        save=save,
        sequences=_cells_wanted(plan),
        dropout=_drop_of(plan, arrays),
    )
    return (y, *states_n, *cells), tape


def _jvp(structure: str, arrays: Arrays, tangents: Arrays) -> list[Tensor]:
    results, _ = _over_duals(plan_of(structure), arrays, tangents, save=False)
    return _tangents(results)


def _backward_jvp(
    structure: str,
    arrays: Arrays,
    tangents: Arrays,
    upstream: Arrays,
    upstream_tangents: Arrays,
) -> list[Tensor]:
    plan = plan_of(structure)
    results, tape = _over_duals(plan, arrays, tangents, save=True)
    assert tape is not None
    joined = [_lend(dual) for dual in _join(upstream, upstream_tangents)]
    dy, dstates_n, dcells = _upstream_of(plan, joined)
    dx, dparameters, dstates, dresets, _ = tape.backward(dy, dstates_n, dcells, False)
    gradients = (dx, *dparameters, *dstates, *dresets)
    return [
        *_tangents(results),
        *_tangents([gradients[place] for place in plan.present(arrays)]),
    ]


# --- what tracing knows ---


def _fake_results(structure: str, arrays: Arrays) -> list[Tensor]:
    plan = plan_of(structure)
    x = _x_of(plan, arrays)
    return [x.new_empty(shape) for shape in plan.result_shapes(x.shape[0], x.shape[1])]


def _fake_train(structure: str, arrays: Arrays) -> list[Tensor]:
    plan = plan_of(structure)
    x = _x_of(plan, arrays)
    reserve = x.new_empty((plan.reserve_bound(x),), dtype=torch.uint8)
    return [*_fake_results(structure, arrays), reserve]


def _fake_gradients(plan: Plan, arrays: Arrays, wants_dx: bool = True) -> list[Tensor]:
    given = (arrays[place] for place in plan.present(arrays, wants_dx))
    return [array.new_empty(array.shape) for array in given if array is not None]


def _fake_backward(
    structure: str, arrays: Arrays, reserve: Tensor, upstream: Arrays, wants_dx: bool
) -> list[Tensor]:
    return _fake_gradients(plan_of(structure), arrays, wants_dx)


def _fake_jvp(structure: str, arrays: Arrays, tangents: Arrays) -> list[Tensor]:
    return _fake_results(structure, arrays)


def _fake_backward_jvp(
    structure: str,
    arrays: Arrays,
    tangents: Arrays,
    upstream: Arrays,
    upstream_tangents: Arrays,
) -> list[Tensor]:
    gradients = _fake_gradients(plan_of(structure), arrays)
    return [*_fake_results(structure, arrays), *gradients]


for _name, _kernel, _fake in (
    ("network", run, _fake_results),
    ("network_train", train, _fake_train),
    ("network_backward", backward, _fake_backward),
    ("network_jvp", _jvp, _fake_jvp),
    ("network_backward_jvp", _backward_jvp, _fake_backward_jvp),
):
    for _device in ("CPU", "CUDA"):
        LIBRARY.impl(_name, _kernel, _device)
    torch.library.register_fake(f"fusedrnn::{_name}", _fake, lib=LIBRARY)
