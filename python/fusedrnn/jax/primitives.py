"""JAX's primitives of a network, and how they are differentiated and batched.

==================  =============================================================
network             the results and, for gradients, the reserve
network_jvp         derivatives of the results along a direction: linear in it, and
                    transposed `network_backward`, which takes the reserve
network_backward    gradients
network_second      derivatives of results and gradients along a direction: linear in
                    it, and its own transpose
network_second_jvp  derivatives of `network_jvp` along another direction: there is only
                    its transpose, which is `network_second`
==================  =============================================================

So reverse mode never runs a forward pass twice, and derivatives of gradients, in either mode, are
`network_second`. Third derivatives there are not, nor forward over forward mode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from fusedrnn.jax import network as calls
from fusedrnn.jax.network import Plan

_NO_THIRD = (
    "fusedrnn.jax: expected first derivatives, or second ones of which one is in reverse mode (as "
    "jax.hessian takes them), got derivatives of "
)


def _aval(x: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """That of an array beside x, which varies as x does over the axes of a shard_map."""
    if not x.manual_axis_type.empty:
        spec = jax.sharding.PartitionSpec(*(None,) * len(shape))
        sharding = x.sharding.update(spec=spec)
        return jax.core.ShapedArray(
            shape, dtype, sharding=sharding, manual_axis_type=x.manual_axis_type
        )
    return jax.core.ShapedArray(shape, dtype)


def _primitive(name: str, run: Callable[..., list[Any]], shapes: Callable[..., Any]) -> Primitive:
    """One that is compiled as `run`, of whose results `shapes` knows shapes and types."""
    primitive = Primitive(name)
    primitive.multiple_results = True

    def abstract(*avals: Any, **params: Any) -> list[Any]:
        return [_aval(avals[0], shape, dtype) for shape, dtype in shapes(*avals, **params)]

    @functools.partial(jax.jit, static_argnames=("params",))
    def compiled(arrays: tuple[Any, ...], params: tuple[tuple[str, Any], ...]) -> Any:
        return primitive.bind(*arrays, **dict(params))

    def at_once(*arrays: Any, **params: Any) -> Any:
        if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            with jax.disable_jit(False):  # what is compiled here is the primitive alone
                return compiled(arrays, tuple(params.items()))
        return compiled(arrays, tuple(params.items()))

    primitive.def_abstract_eval(abstract)
    primitive.def_impl(at_once)
    mlir.register_lowering(primitive, _refuse)
    lowering = mlir.lower_fun(run, multiple_results=True)
    for platform in ("cpu", "cuda"):
        mlir.register_lowering(primitive, lowering, platform=platform)
    batching.primitive_batchers[primitive] = functools.partial(_one_by_one, primitive)
    return primitive


def _refuse(*_: Any, **__: Any) -> Any:
    raise NotImplementedError(
        "fusedrnn.jax: expected one of JAX's platforms cpu and cuda (jax.default_device, or "
        "JAX_PLATFORMS), got another"
    )


def _one_by_one(
    primitive: Primitive, arrays: Sequence[Any], dims: Sequence[Any], **params: Any
) -> tuple[list[Any], list[int]]:
    """Under vmap: one call after the other."""
    mapped = [
        None if d is None else jnp.moveaxis(a, d, 0) for a, d in zip(arrays, dims, strict=True)
    ]

    def call(each: list[Any]) -> list[Any]:
        given = [a if e is None else e for a, e in zip(arrays, each, strict=True)]
        return primitive.bind(*given, **params)  # type: ignore[no-any-return]

    results = jax.lax.map(call, mapped)
    return results, [0] * len(results)


def _cut(arrays: Sequence[Any], *counts: int) -> list[list[Any]]:
    """Lists of these lengths, one after the other."""
    each = iter(arrays)
    return [[next(each) for _ in range(count)] for count in counts]


# --- network ---


def _network(*arrays: Any, plan: Plan, there: str, saves: bool) -> list[Any]:
    return calls.forward(plan, there, arrays, saves)


def _network_shapes(x: Any, *_: Any, plan: Plan, there: str, saves: bool) -> list[Any]:
    T, B, _ = x.shape
    shapes: list[Any] = [(shape, x.dtype) for shape in plan.result_shapes(T, B)]
    if saves:
        shapes.append(((plan.reserve_bytes(T, B, x.dtype.name),), jnp.dtype("uint8")))
    return shapes


network_p = _primitive("fusedrnn_network", _network, _network_shapes)


def _network_jvp(
    arrays: Sequence[Any], tangents: Sequence[Any], *, plan: Plan, there: str, saves: bool
) -> tuple[list[Any], list[Any]]:
    *results, reserve = network_p.bind(*arrays, plan=plan, there=there, saves=True)
    directions, given = "", []
    places = iter(tangents)
    for character in there[: plan.num_differentiable]:
        tangent = next(places) if character == "1" else None
        moves = tangent is not None and type(tangent) is not ad.Zero
        directions += "1" if moves else "0"
        if moves:
            given.append(tangent)
    if given:
        slopes = jvp_p.bind(*arrays, reserve, *given, plan=plan, there=there, directions=directions)
    else:
        slopes = [ad.Zero(jax.typeof(result).to_tangent_aval()) for result in results]
    if saves:
        return [*results, reserve], [*slopes, ad.Zero(jax.typeof(reserve).to_tangent_aval())]
    return results, slopes


ad.primitive_jvps[network_p] = _network_jvp


def _network_batched(
    arrays: Sequence[Any], dims: Sequence[Any], *, plan: Plan, there: str, saves: bool
) -> tuple[list[Any], list[int]]:
    """Under vmap over sequences alone they are so many more sequences of one call."""
    count = len(plan.parameters)
    one = functools.partial(_one_by_one, network_p, plan=plan, there=there, saves=saves)
    states = range(1 + count, 1 + count + len(plan.state_sizes))
    of_sequences = {0: 1, **dict.fromkeys(states, 1)}  # by place: which axis is B
    first = plan.num_differentiable
    of_sequences |= {first: 0, first + 1: 1, first + 2: 1}
    places = [place for place, character in enumerate(there) if character == "1"]
    shared = all(d is None for d, p in zip(dims, places, strict=True) if p not in of_sequences)
    # A reserve is that of a call, and one seed draws the same for each.
    if saves or there[-1] == "1" or not shared:
        return one(arrays, dims)
    size = next(a.shape[d] for a, d in zip(arrays, dims, strict=True) if d is not None)
    folded = []
    for array, d, place in zip(arrays, dims, places, strict=True):
        if place not in of_sequences:
            folded.append(array)
            continue
        axis = of_sequences[place]
        whole = jnp.stack([array] * size, axis) if d is None else jnp.moveaxis(array, d, axis)
        shape = (*whole.shape[:axis], size * whole.shape[axis + 1], *whole.shape[axis + 2 :])
        folded.append(whole.reshape(shape))
    results = network_p.bind(*folded, plan=plan, there=there, saves=False)
    return [r.reshape(r.shape[0], size, -1, r.shape[2]) for r in results], [1] * len(results)


batching.primitive_batchers[network_p] = _network_batched


# --- derivatives along a direction, and gradients ---


def _jvp(*arrays: Any, plan: Plan, there: str, directions: str) -> list[Any]:
    given, _, tangents = _cut(arrays, there.count("1"), 1, directions.count("1"))
    return calls.jvp(plan, there, given, directions, tangents)


def _jvp_shapes(x: Any, *_: Any, plan: Plan, there: str, directions: str) -> list[Any]:
    return _network_shapes(x, plan=plan, there=there, saves=False)


jvp_p = _primitive("fusedrnn_network_jvp", _jvp, _jvp_shapes)


def _jvp_transposed(
    cotangents: Sequence[Any], *arrays: Any, plan: Plan, there: str, directions: str
) -> list[Any]:
    given, (reserve,), linear = _cut(arrays, there.count("1"), 1, directions.count("1"))
    upstream, some = _given(cotangents)
    if some:
        gradients = backward_p.bind(
            *given,
            reserve,
            *some,
            plan=plan,
            there=there,
            upstream=upstream,
            wanted=directions,
        )
    else:
        gradients = [ad.Zero(argument.aval) for argument in linear]
    return [None] * (len(given) + 1) + list(gradients)


def _given(values: Sequence[Any]) -> tuple[str, list[Any]]:
    """Those that are not known to be zero."""
    there = ["0" if type(value) is ad.Zero else "1" for value in values]
    return "".join(there), [value for value in values if type(value) is not ad.Zero]


def _linear_jvp(primitive: Primitive, what: str, num_fixed: Callable[..., int]) -> Any:
    """Of one that is linear in its last arguments, and not differentiated by the first."""

    def rule(
        arrays: Sequence[Any], tangents: Sequence[Any], **params: Any
    ) -> tuple[list[Any], list[Any]]:
        count = num_fixed(**params)
        if any(type(tangent) is not ad.Zero for tangent in tangents[:count]):
            raise NotImplementedError(_NO_THIRD + what)
        linear = [ad.instantiate_zeros(tangent) for tangent in tangents[count:]]
        results = primitive.bind(*arrays, **params)
        return results, primitive.bind(*arrays[:count], *linear, **params)

    return rule


def _jvp_jvp(
    arrays: Sequence[Any], tangents: Sequence[Any], *, plan: Plan, there: str, directions: str
) -> tuple[list[Any], list[Any]]:
    params = {"plan": plan, "there": there, "directions": directions}
    counts = there.count("1"), 1, directions.count("1")
    given, (reserve,), along = _cut(arrays, *counts)
    slopes, _, moved = _cut(tangents, *counts)
    results = jvp_p.bind(*arrays, **params)
    derivatives = [ad.Zero(jax.typeof(result).to_tangent_aval()) for result in results]
    if any(type(tangent) is not ad.Zero for tangent in moved):
        linear = [ad.instantiate_zeros(tangent) for tangent in moved]
        derivatives = jvp_p.bind(*given, reserve, *linear, **params)
    second_directions, second_tangents = _spread(there[: plan.num_differentiable], slopes)
    if second_tangents:
        mixed = second_jvp_p.bind(
            *given, *along, *second_tangents, second_directions=second_directions, **params
        )
        derivatives = [ad.add_tangents(a, b) for a, b in zip(derivatives, mixed, strict=True)]
    return results, derivatives


ad.primitive_transposes[jvp_p] = _jvp_transposed
ad.primitive_jvps[jvp_p] = _jvp_jvp


def _backward(*arrays: Any, plan: Plan, there: str, upstream: str, wanted: str) -> list[Any]:
    given, (reserve,), gradients = _cut(arrays, there.count("1"), 1, upstream.count("1"))
    return calls.backward(plan, there, given, reserve, upstream, gradients, wanted)


def _backward_shapes(*arrays: Any, there: str, wanted: str, **_: Any) -> list[Any]:
    each = iter(arrays)
    places = [next(each) if character == "1" else None for character in there]
    return [
        (array.shape, array.dtype)
        for array, wants in zip(places, wanted, strict=False)
        if array is not None and wants == "1"
    ]


backward_p = _primitive("fusedrnn_network_backward", _backward, _backward_shapes)


def _backward_jvp(
    arrays: Sequence[Any],
    tangents: Sequence[Any],
    *,
    plan: Plan,
    there: str,
    upstream: str,
    wanted: str,
) -> tuple[list[Any], list[Any]]:
    counts = there.count("1"), 1, upstream.count("1")
    given, _, gradients = _cut(arrays, *counts)
    slopes, _, gradient_slopes = _cut(tangents, *counts)
    results = backward_p.bind(*arrays, plan=plan, there=there, upstream=upstream, wanted=wanted)
    differentiable = there[: plan.num_differentiable]
    directions, along = _spread(differentiable, slopes)
    upstream_directions, gradients_along = _spread(upstream, gradient_slopes)
    derivatives = second_p.bind(
        *given,
        *gradients,
        *along,
        *gradients_along,
        plan=plan,
        there=there,
        upstream=upstream,
        directions=directions,
        upstream_directions=upstream_directions,
    )
    of_gradients = iter(derivatives[len(upstream) :])
    placed = [next(of_gradients) if c == "1" else None for c in differentiable]
    return results, [d for d, w in zip(placed, wanted, strict=True) if w == "1"]


def _spread(there: str, tangents: Sequence[Any]) -> tuple[str, list[Any]]:
    """Which of the places have a tangent that is not known to be zero; and those."""
    each, directions, along = iter(tangents), "", []
    for character in there:
        tangent = next(each) if character == "1" else None
        moves = tangent is not None and type(tangent) is not ad.Zero
        directions += "1" if moves else "0"
        if moves:
            along.append(tangent)
    return directions, along


ad.primitive_jvps[backward_p] = _backward_jvp


# --- second derivatives ---


def _second_jvp(*_: Any, **__: Any) -> list[Any]:
    raise NotImplementedError(_NO_THIRD + "derivatives in forward mode along a second direction")


def _second_jvp_shapes(x: Any, *_: Any, plan: Plan, there: str, **__: Any) -> list[Any]:
    return _network_shapes(x, plan=plan, there=there, saves=False)


# What a second direction does to derivatives along a first one: never computed, but transposed.
second_jvp_p = _primitive("fusedrnn_network_second_jvp", _second_jvp, _second_jvp_shapes)


def _second_jvp_transposed(
    cotangents: Sequence[Any],
    *arrays: Any,
    plan: Plan,
    there: str,
    directions: str,
    second_directions: str,
) -> list[Any]:
    given, along, linear = _cut(
        arrays, *(s.count("1") for s in (there, directions, second_directions))
    )
    upstream, gradients = _given(cotangents)
    derivatives = second_p.bind(
        *given,
        *gradients,
        *along,
        plan=plan,
        there=there,
        upstream=upstream,
        directions=directions,
        upstream_directions="0" * len(upstream),
    )
    places = iter(derivatives[len(upstream) :])
    placed = [next(places) if c == "1" else None for c in there[: plan.num_differentiable]]
    found = [value for value, c in zip(placed, second_directions, strict=True) if c == "1"]
    return [None] * (len(arrays) - len(linear)) + found


ad.primitive_transposes[second_jvp_p] = _second_jvp_transposed
ad.primitive_jvps[second_jvp_p] = _linear_jvp(
    second_jvp_p,
    "second derivatives",
    lambda there, directions, **_: there.count("1") + directions.count("1"),
)


def _second(
    *arrays: Any,
    plan: Plan,
    there: str,
    upstream: str,
    directions: str,
    upstream_directions: str,
) -> list[Any]:
    given, gradients, along, gradients_along = _cut(
        arrays, *(s.count("1") for s in (there, upstream, directions, upstream_directions))
    )
    return calls.second(
        plan,
        there,
        given,
        upstream,
        gradients,
        directions,
        along,
        upstream_directions,
        gradients_along,
    )


def _second_shapes(*arrays: Any, plan: Plan, there: str, **_: Any) -> list[Any]:
    differentiable = there[: plan.num_differentiable]
    return [
        *_network_shapes(arrays[0], plan=plan, there=there, saves=False),
        *((array.shape, array.dtype) for array in arrays[: differentiable.count("1")]),
    ]


second_p = _primitive("fusedrnn_network_second", _second, _second_shapes)


def _second_transposed(
    cotangents: Sequence[Any],
    *arrays: Any,
    plan: Plan,
    there: str,
    upstream: str,
    directions: str,
    upstream_directions: str,
) -> list[Any]:
    fixed = there.count("1") + upstream.count("1")
    differentiable = there[: plan.num_differentiable]
    of_results, of_gradients = cotangents[: len(upstream)], cotangents[len(upstream) :]
    along_results, results_along = _given(of_results)
    along, moved = _spread(differentiable, of_gradients)
    back = second_p.bind(
        *arrays[:fixed],
        *moved,
        *results_along,
        plan=plan,
        there=there,
        upstream=upstream,
        directions=along,
        upstream_directions=along_results,
    )
    of_upstream, rest = back[: len(upstream)], iter(back[len(upstream) :])
    placed = [next(rest) if character == "1" else None for character in differentiable]
    return [
        *[None] * fixed,
        *(value for value, c in zip(placed, directions, strict=True) if c == "1"),
        *(value for value, c in zip(of_upstream, upstream_directions, strict=True) if c == "1"),
    ]


ad.primitive_transposes[second_p] = _second_transposed
ad.primitive_jvps[second_p] = _linear_jvp(
    second_p,
    "second derivatives",
    lambda there, upstream, **_: there.count("1") + upstream.count("1"),
)
