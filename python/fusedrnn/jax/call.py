"""A call of a network: what is checked when it is traced, and how arrays reach the primitives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fusedrnn.jax.network import Plan
from fusedrnn.jax.primitives import network_p
from fusedrnn.options import DTYPES, either


def array(name: str, value: Any) -> Any:
    """A value as an array of JAX; None where there is none."""
    if value is None:
        return None
    try:
        return jnp.asarray(value)
    except TypeError as error:
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}") from error
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from error


def integers(name: str, value: Any) -> Any:
    """Lengths as an array of JAX, which cuts numbers of 64 bits to 32: too large ones stay so."""
    if isinstance(value, (list, tuple)) and not value:
        value = np.zeros(0, np.int32)  # no float32
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
        value = value.astype(np.int64).clip(-(2**31), 2**31 - 1).astype(np.int32)
    return array(name, value)


def check_shape(name: str, value: Any, wanted: tuple[int, ...]) -> None:
    if value is not None and value.shape != wanted:
        raise ValueError(f"{name}: expected shape {wanted}, got {value.shape}")


def sequences(x: Any, input_size: int | None = None) -> Any:
    """x as an array of JAX, [T, B, I] or [T, I]."""
    x = array("x", x)
    if x is None:
        raise TypeError("x: expected an array, got None")
    if x.ndim not in (2, 3):
        raise ValueError(f"x: expected shape [T, B, I], or [T, I], got {x.shape}")
    if x.dtype.name not in DTYPES:
        raise TypeError(f"x: expected dtype {either(DTYPES)}, got {x.dtype.name}")
    if input_size is not None and x.shape[-1] != input_size:
        raise ValueError(f"x: expected shape {(*x.shape[:-1], input_size)}, got {x.shape}")
    return x


def _check_masks(lengths: Any, mask: Any, resets: Any, T: int, B: int) -> None:
    if lengths is not None and not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"lengths: expected an integer dtype, got {lengths.dtype.name}")
    check_shape("lengths", lengths, (B,))
    for name, steps in (("mask", mask), ("resets", resets)):
        if steps is not None and steps.dtype.name not in ("bool", "uint8"):
            raise TypeError(f"{name}: expected dtype bool or uint8, got {steps.dtype.name}")
        check_shape(name, steps, (T, B))


def call(
    plan: Plan,
    x: Any,
    weights: Sequence[tuple[str, Any]],
    states: Sequence[tuple[str, Any]],
    reset_states: Sequence[tuple[str, Any]],
    masks: tuple[Any, Any, Any],
    key: Any,
) -> list[Any]:
    """Run over x [T, B, I]: y, the states [runs, B, n], and states beyond h of every step.

    Arrays come with their names, for messages; those of weights have been checked but for types.
    """
    T, B, _ = x.shape
    lengths, mask, resets = masks
    _check_masks(lengths, mask, resets, T, B)
    runs = len(plan.runs)
    for (name, state), size in zip(states, plan.state_sizes, strict=True):
        check_shape(name, state, (runs, B, size))
    for (name, state), size in zip(reset_states, plan.state_sizes, strict=True):
        check_shape(name, state, (runs, size))
    for name, value in (*weights, *states, *reset_states):
        if value is not None and value.dtype != x.dtype:
            raise TypeError(f"{name}: expected dtype {x.dtype.name} as x, got {value.dtype.name}")
    plan.network(x.dtype.name)  # whether it computes in such a type
    seed = None if key is None else jax.random.bits(key, (2,), jnp.uint32)
    places = [
        x,
        *(value for _, value in (*weights, *states, *reset_states)),
        *(lengths, mask, resets, seed),
    ]
    there = "".join("0" if value is None else "1" for value in places)
    arrays = [value for value in places if value is not None]
    axes = [
        axis for axis, value in zip(_batch_axes(plan), places, strict=True) if value is not None
    ]

    def bind(*arrays: Any) -> list[Any]:
        varying = _varying(arrays)
        return list(network_p.bind(*varying, plan=plan, there=there, saves=False))

    meshes = [sharding.mesh for sharding in map(_sharding, arrays) if any(sharding.spec)]
    return _over_devices(bind, arrays, axes, meshes[0], key) if meshes else bind(*arrays)


def _batch_axes(plan: Plan) -> list[int | None]:
    """The axis B of what stands in each place."""
    states = len(plan.state_sizes)
    of_weights: list[None] = [None] * len(plan.parameters)
    return [1, *of_weights, *[1] * states, *[None] * states, 0, 1, 1, None]


def _sharding(value: Any) -> Any:
    """Of a mesh's axes that types show (`jax.sharding.AxisType.Explicit`)."""
    return jax.typeof(value).sharding


def _over_devices(
    bind: Callable[..., list[Any]],
    arrays: list[Any],
    axes: Sequence[int | None],
    mesh: Any,
    key: Any,
) -> list[Any]:
    """The call on each device for the sequences that it has of x, with all of the rest.

    One that draws is made whole: what is drawn follows the number of a sequence in its batch.
    """
    spec = _sharding(arrays[0]).spec
    of_batch = spec[1] if key is None else None

    def spec_of(value: Any, axis: int | None) -> Any:
        return P(*(of_batch if i == axis else None for i in range(value.ndim)))

    specs = tuple(map(spec_of, arrays, axes))
    arrays = [
        value
        if tuple(_sharding(value).spec) == tuple(spec)
        else jax.sharding.reshard(value, NamedSharding(mesh, spec))
        for value, spec in zip(arrays, specs, strict=True)
    ]
    if of_batch is None:
        return bind(*arrays)
    names = {of_batch} if isinstance(of_batch, str) else set(of_batch)
    run = jax.shard_map(
        bind, mesh=mesh, in_specs=specs, out_specs=P(None, of_batch), axis_names=names
    )
    return run(*arrays)


def _varying(arrays: Sequence[Any]) -> list[Any]:
    """Arrays that vary over the same axes of a shard_map.

    The gradient of one that did not vary by itself is the sum over those axes.
    """
    varies = [jax.typeof(value).manual_axis_type.varying for value in arrays]
    every = frozenset[Any]().union(*varies)
    return [
        jax.lax.pcast(value, tuple(every - own), to="varying") if every - own else value
        for value, own in zip(arrays, varies, strict=True)
    ]
