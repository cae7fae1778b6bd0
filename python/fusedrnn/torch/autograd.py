"""Gradients of the operators: backward, its own derivatives, forward mode, and `torch.vmap`.

Second derivatives and forward mode are one walk over dual numbers each
(`fusedrnn.forward_mode`). Of these there are no further derivatives: who asks for them is told so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.autograd_function import (  # type: ignore[attr-defined]
    enable_single_level_autograd_function,
)
from torch.autograd import forward_ad

from fusedrnn.torch.operators import LIBRARY, Arrays, backward, run, train
from fusedrnn.torch.plan import Plan, plain_backward_of, plan_of

_OPS = torch.ops.fusedrnn
# These functions are the operators' kernels for autograd, which the dispatcher calls at each level
# of torch.func's transforms: they are of that level, and `torch.autograd.Function` would ask for
# the transforms again.
_Function: Any = torch.autograd.function._SingleLevelFunction
_C: Any = torch._C
_F: Any = torch._C._functorch


def _watched(*lists: Arrays) -> bool:
    """Whether autograd wants to know of a call."""
    if forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensors in lists for tensor in tensors
    )


def _redispatch(keyset: Any, name: str, *arguments: Any) -> list[Tensor]:
    """Call an operator as if autograd, at this level of transforms, were not there."""
    with _C._AutoDispatchBelowAutograd():
        overload = getattr(_OPS, name).default
        results: list[Tensor] = overload.redispatch(keyset & _C._after_autograd_keyset, *arguments)
    return results


def _from_function(keyset: Any, name: str, *arguments: Any) -> list[Tensor]:
    """The same in a function's forward, in which PyTorch has disabled gradients.

    Transforms further out, whose turn comes inside, would take that for the user's wish. Without a
    keyset the dispatcher was not asked at all (`call`).
    """
    if keyset is None:
        return train(*arguments)
    if not _C._are_functorch_transforms_active():
        return _redispatch(keyset, name, *arguments)
    with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
        return _redispatch(keyset, name, *arguments)


def _save_for_jvp(ctx: Any, *tensors: Tensor | None) -> None:
    """Only in forward mode: backward does not let go of these."""
    if forward_ad._current_level >= 0:
        ctx.save_for_forward(*tensors)


_PLAIN = frozenset((Tensor, torch.nn.Parameter, type(None)))


def only_autograd() -> bool:
    """Whether nothing of PyTorch but autograd could want to know of a call of plain tensors.

    Then it goes without the dispatcher, which costs more than a step of a small network takes.
    """
    return not (
        torch.compiler.is_compiling()
        or forward_ad._current_level >= 0
        or _C._are_functorch_transforms_active()
        or _C._len_torch_dispatch_stack()
        or _C._len_torch_function_stack()
        or _C._get_tracing_state() is not None
    )


def is_plain(x: Any, *lists: Arrays) -> bool:
    """Whether that is so, and the tensors are plain ones on the CPU."""
    return (
        only_autograd() and x.is_cpu and all(_PLAIN.issuperset(map(type, each)) for each in lists)
    )


def call(structure: str, arrays: list[Tensor | None], plain: bool) -> list[Tensor]:
    """`network`; `plain`: what `is_plain` says of the arrays."""
    if not plain:
        results: list[Tensor] = _OPS.network(structure, arrays)
        return results
    if _watched(arrays):
        return list(_Network.apply(None, structure, False, *arrays))
    return run(structure, arrays)


def _one_by_one(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A backward or jvp that takes what autograd batches itself (`is_grads_batched`, and
    `torch.autograd.functional` with ``vectorize=True``)."""

    def separately(ctx: Any, *given: Tensor | None) -> Any:
        batched: list[Any] = [d for d in given if d is not None and _F.is_legacy_batchedtensor(d)]
        if not batched:
            return rule(ctx, *given)
        level = _C._vmapmode_increment_nesting() - 1
        _C._vmapmode_decrement_nesting()
        remove: Any = torch._remove_batch_dim
        count = remove(batched[0], level, 1, 0).shape[0]
        whole = [None if d is None else remove(d, level, count, 0) for d in given]
        calls = [rule(ctx, *(None if d is None else d[i] for d in whole)) for i in range(count)]
        return tuple(
            None if parts[0] is None else torch._add_batch_dim(torch.stack(parts), 0, level)
            for parts in zip(*calls, strict=True)
        )

    return separately


class _Network(_Function):  # type: ignore[misc]
    """`network`, or `network_train`, whose reserve is a result as well."""

    @staticmethod
    def forward(
        ctx: Any, keyset: Any, structure: str, shows_reserve: bool, *arrays: Tensor | None
    ) -> Any:
        *results, reserve = _from_function(keyset, "network_train", structure, list(arrays))
        ctx.structure = structure
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*arrays, reserve)
        _save_for_jvp(ctx, *arrays)
        if shows_reserve:
            ctx.mark_non_differentiable(reserve)
            results.append(reserve)
        ctx.shows_reserve = shows_reserve
        return tuple(results)

    @staticmethod
    @_one_by_one
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        *arrays, reserve = ctx.saved_tensors
        upstream = upstream[:-1] if ctx.shows_reserve else upstream
        wants_dx: bool = ctx.needs_input_grad[3]
        gradients = _gradients(ctx.structure, arrays, reserve, upstream, wants_dx)
        return None, None, None, *gradients

    @staticmethod
    @_one_by_one
    def jvp(ctx: Any, _keyset: None, _structure: None, _shows: None, *tangents: Any) -> Any:
        arrays = ctx.saved_tensors
        results = _OPS.network_jvp(ctx.structure, list(arrays), list(tangents))
        return (*results, None) if ctx.shows_reserve else tuple(results)


def _gradients(
    structure: str, arrays: Arrays, reserve: Tensor, upstream: Arrays, wants_dx: bool
) -> list[Tensor | None]:
    """Of each of the arrays; None where there is none."""
    arguments = structure, arrays, reserve, list(upstream), wants_dx
    if torch.is_grad_enabled() or not is_plain(reserve, arrays, upstream):
        gradients = _OPS.network_backward(*arguments)
    else:
        gradients = backward(*arguments)
    return plan_of(structure).in_places(arrays, gradients, wants_dx)


class _PlainCall(_Function):  # type: ignore[misc]
    """A call that the compiled module has made (`plan.plain_call_of`)."""

    @staticmethod
    def forward(
        ctx: Any,
        results: tuple[Tensor, ...],
        structure: str,
        axes: int,
        lengths: Tensor | None,
        *arrays: Tensor | None,
    ) -> Any:
        ctx.structure, ctx.axes = structure, axes
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*arrays, lengths, results[-1])
        return results[:-1]

    @staticmethod
    @_one_by_one
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        saved, wants_dx = ctx.saved_tensors, ctx.needs_input_grad[4]
        if not torch.is_grad_enabled() and only_autograd():
            run = plain_backward_of(ctx.structure, saved[0].dtype)
            done = run(saved, upstream, ctx.axes, wants_dx)
            if done is not None:
                return None, None, None, None, *done
        *arrays, lengths, reserve = saved
        axes, plan = ctx.axes, plan_of(ctx.structure)
        given = len(arrays)
        states = range(1 + plan.num_parameters, given)
        if axes == 2:  # a cell's, whose y is its state
            upstream = (None, *(None if d is None else d.unsqueeze(0) for d in upstream))
            for i in (0, *states):
                arrays[i] = None if arrays[i] is None else arrays[i].unsqueeze(0)
        elif axes == 1:
            upstream = (None if upstream[0] is None else upstream[0].transpose(0, 1), *upstream[1:])
            arrays[0] = arrays[0].transpose(0, 1)
        arrays += [None] * (plan.num_places - given)
        arrays[-4] = lengths
        found = _gradients(ctx.structure, arrays, reserve, upstream, wants_dx)[:given]
        if axes == 2:
            for i in (0, *states):
                found[i] = None if found[i] is None else found[i].squeeze(0)
        elif axes == 1 and found[0] is not None:
            found[0] = found[0].transpose(0, 1)
        return None, None, None, None, *found


def record(
    results: tuple[Tensor, ...],
    structure: str,
    axes: int,
    arrays: list[Tensor | None],
    lengths: Tensor | None,
) -> tuple[Tensor, ...]:
    """The results of a call, the reserve among them, as autograd is to know them."""
    if _watched(arrays):
        return _PlainCall.apply(results, structure, axes, lengths, *arrays)  # type: ignore[no-any-return]
    return results[:-1]


class _Backward(_Function):  # type: ignore[misc]
    """`network_backward`; its tensors are the lists one after the other."""

    @staticmethod
    def forward(
        ctx: Any, keyset: Any, structure: str, sizes: tuple[int, bool], *tensors: Tensor | None
    ) -> Any:
        count, wants_dx = sizes
        arrays, reserve, upstream = tensors[:count], tensors[count], tensors[count + 1 :]
        gradients = _from_function(
            keyset, "network_backward", structure, list(arrays), reserve, list(upstream), wants_dx
        )
        ctx.structure, ctx.count, ctx.wants_dx = structure, count, wants_dx
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*arrays, *upstream)
        _save_for_jvp(ctx, *arrays, *upstream)
        return tuple(gradients)

    @staticmethod
    @_one_by_one
    def backward(ctx: Any, *directions: Tensor | None) -> Any:
        arrays, upstream = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        plan = plan_of(ctx.structure)
        results = _OPS.network_backward_jvp(
            ctx.structure,
            list(arrays),
            plan.in_places(arrays, directions, ctx.wants_dx),
            list(upstream),
            [None] * len(upstream),
        )
        of_arrays = plan.in_places(arrays, results[len(upstream) :])
        of_upstream = [
            None if given is None else result
            for given, result in zip(upstream, results, strict=False)
        ]
        return None, None, None, *of_arrays, None, *of_upstream

    @staticmethod
    @_one_by_one
    def jvp(ctx: Any, _keyset: None, _structure: None, _sizes: None, *tangents: Any) -> Any:
        arrays, upstream = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        results = _OPS.network_backward_jvp(
            ctx.structure,
            list(arrays),
            list(tangents[: ctx.count]),
            list(upstream),
            list(tangents[ctx.count + 1 :]),
        )
        first = len(upstream) + (0 if ctx.wants_dx else 1)
        return tuple(results[first:])


class _Jvp(_Function):  # type: ignore[misc]
    """`network_jvp`, which is linear in the tangents."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, structure: str, count: int, *tensors: Tensor | None) -> Any:
        arrays, tangents = tensors[:count], tensors[count:]
        results = _from_function(keyset, "network_jvp", structure, list(arrays), list(tangents))
        ctx.structure, ctx.count = structure, count
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        return tuple(results)

    @staticmethod
    @_one_by_one
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        arrays = list(ctx.saved_tensors[: ctx.count])
        tangents = list(ctx.saved_tensors[ctx.count :])
        plan, given = plan_of(ctx.structure), list(upstream)
        second = _OPS.network_backward_jvp(
            ctx.structure, arrays, tangents, given, [None] * len(given)
        )
        *_, reserve = _OPS.network_train(ctx.structure, arrays)
        first = _OPS.network_backward(ctx.structure, arrays, reserve, given, True)
        of_tangents = [
            None if tangent is None else gradient
            for tangent, gradient in zip(tangents, plan.in_places(arrays, first), strict=False)
        ]
        of_arrays = plan.in_places(arrays, second[len(given) :])
        return None, None, None, *of_arrays, *of_tangents

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(_NO_MORE)


class _BackwardJvp(_Function):  # type: ignore[misc]
    """`network_backward_jvp`, the last derivative there is."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, structure: str, lists: Any, *_: Any) -> Any:
        return tuple(_from_function(keyset, "network_backward_jvp", structure, *lists))

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(_NO_MORE)

    jvp = backward


_NO_MORE = (
    "fusedrnn.torch: a third derivative, or forward mode over forward mode, was asked for; there "
    "are second derivatives of reverse over reverse, forward over reverse and reverse over forward "
    "mode"
)


def _apply(function: Any, *arguments: Any) -> list[Tensor]:
    if not _C._are_functorch_transforms_active():
        return list(function.apply(*arguments))
    with enable_single_level_autograd_function():
        return list(function.apply(*arguments))


def _autograd_network(keyset: Any, structure: str, arrays: Arrays) -> list[Tensor]:
    if not _watched(arrays):
        return _redispatch(keyset, "network", structure, arrays)
    return _apply(_Network, keyset, structure, False, *arrays)


def _autograd_train(keyset: Any, structure: str, arrays: Arrays) -> list[Tensor]:
    if not _watched(arrays):
        return _redispatch(keyset, "network_train", structure, arrays)
    return _apply(_Network, keyset, structure, True, *arrays)


def _autograd_backward(
    keyset: Any,
    structure: str,
    arrays: Arrays,
    reserve: Tensor,
    upstream: Arrays,
    wants_dx: bool,
) -> list[Tensor]:
    if not _watched(arrays, upstream):
        arguments = structure, arrays, reserve, upstream, wants_dx
        return _redispatch(keyset, "network_backward", *arguments)
    tensors = (*arrays, reserve, *upstream)
    return _apply(_Backward, keyset, structure, (len(arrays), wants_dx), *tensors)


def _autograd_jvp(keyset: Any, structure: str, arrays: Arrays, tangents: Arrays) -> list[Tensor]:
    if not _watched(arrays, tangents):
        return _redispatch(keyset, "network_jvp", structure, arrays, tangents)
    return _apply(_Jvp, keyset, structure, len(arrays), *arrays, *tangents)


def _autograd_backward_jvp(keyset: Any, structure: str, *lists: Arrays) -> list[Tensor]:
    if not _watched(*lists):
        return _redispatch(keyset, "network_backward_jvp", structure, *lists)
    tensors = [tensor for tensors in lists for tensor in tensors]
    return _apply(_BackwardJvp, keyset, structure, lists, *tensors)


for _name, _dispatch in (
    ("network", _autograd_network),
    ("network_train", _autograd_train),
    ("network_backward", _autograd_backward),
    ("network_jvp", _autograd_jvp),
    ("network_backward_jvp", _autograd_backward_jvp),
):
    LIBRARY.impl(_name, _dispatch, "Autograd", with_keyset=True)


# --- vmap ---


def _foldable(plan: Plan, dims: Sequence[int | None], arrays: Arrays) -> bool:
    """Whether all of a vmapped call's sequences can be a batch: they share all but themselves."""
    shared = [*range(1, 1 + plan.num_parameters)]
    shared += range(1 + plan.num_parameters + plan.num_states, plan.num_differentiable)
    return all(dims[i] is None for i in shared) and arrays[-1] is None


def _batch_axis(plan: Plan, place: int) -> int:
    """The axis B of an array that has one."""
    return 0 if place == plan.num_differentiable else 1


def _vmap_network(info: Any, in_dims: Any, structure: str, arrays: Arrays) -> Any:
    dims, plan = in_dims[1], plan_of(structure)
    if info.batch_size == 0 or not _foldable(plan, dims, arrays):
        return _vmap_one_by_one("network")(info, in_dims, structure, arrays)
    count = info.batch_size
    folded: list[Tensor | None] = list(arrays)
    for place, (array, dim) in enumerate(zip(arrays, dims, strict=True)):
        if array is None or 0 < place <= plan.num_parameters:
            continue
        if plan.num_parameters + plan.num_states < place < plan.num_differentiable:
            continue  # reset states
        axis = _batch_axis(plan, place)
        if dim is None:
            stacked = array.unsqueeze(axis).expand(*array.shape[:axis], count, *array.shape[axis:])
        else:
            stacked = array.movedim(dim, axis)
        folded[place] = stacked.flatten(axis, axis + 1)
    results = _OPS.network(structure, folded)
    batch = results[0].shape[1] // count
    split = [result.unflatten(1, (count, batch)) for result in results]
    return split, [1] * len(split)


def _vmap_one_by_one(name: str) -> Callable[..., Any]:
    """Call after call, where gradients or weights are one's own."""

    def rule(info: Any, in_dims: Any, structure: str, *arguments: Any) -> Any:
        def part(value: Any, dim: Any, index: int) -> Any:
            if isinstance(value, (list, tuple)):
                return [part(v, d, index) for v, d in zip(value, dim, strict=True)]
            return value if dim is None else value.select(dim, index)

        if info.batch_size == 0:
            raise ValueError(
                "torch.vmap: expected at least one call where weights or gradients are one's own, "
                "got none"
            )
        calls = [
            getattr(_OPS, name)(
                structure,
                *(part(v, d, i) for v, d in zip(arguments, in_dims[1:], strict=True)),
            )
            for i in range(info.batch_size)
        ]
        results = [torch.stack(parts) for parts in zip(*calls, strict=True)]
        return results, [0] * len(results)

    return rule


torch.library.register_vmap("fusedrnn::network", _vmap_network, lib=LIBRARY)
for _name in ("network_train", "network_backward", "network_jvp", "network_backward_jvp"):
    torch.library.register_vmap(f"fusedrnn::{_name}", _vmap_one_by_one(_name), lib=LIBRARY)
