"""What a network's operations know of it, and its calls through XLA's foreign function interface.

Operations take flat arrays; a string of '0' and '1' says which of the places (`layers.plan`) have
one. The seed is an array [2] of uint32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusedrnn import _core
from fusedrnn.layers import plan as plans
from fusedrnn.options import check_dual_types

_COMPUTE_BFLOAT16 = 1  # of fusedrnn_compute; else 0
_TANGENTS = {"float32": "complex64", "float64": "complex128"}


def register() -> None:
    """Make the handlers known, of programs too that were compiled elsewhere."""
    for platform, handlers in _core.xla_handlers().items():
        for name, handler in handlers.items():
            jax.ffi.register_ffi_target(name, handler, platform=platform)


class Plan(plans.Plan):
    """What XLA is told of a network, besides."""

    @property
    def input_size(self) -> int:
        return self.description[1]

    def reserve_bytes(self, T: int, B: int, dtype: str) -> int:
        """Room for that of a call on any device; complex types are those of dual numbers.

        What is traced may run on any: tracing knows no device, and asks none.
        """
        real = {wide: narrow for narrow, wide in _TANGENTS.items()}.get(dtype)
        network = self.network(dtype) if real is None else self.network(real, dual=True)
        return network.reserve_bytes_anywhere(T, B)[0]

    def attributes(self, dtype: str, training: bool) -> dict[str, Any]:
        narrows = dtype == "float32" and self.compute_dtype == "bfloat16"
        options = [_COMPUTE_BFLOAT16 if narrows else 0, self.lean, self.shows_last, training]
        return {
            "runs": np.frombuffer(self.records, np.int64),
            "options": np.array(options, np.int64),
            "dropout": np.float64(self.dropout if training else 0.0),
        }


# --- calls; `there` says which places have one of `arrays` ---


def _call(target: str, plan: Plan, there: str, arrays: Any, results: Any, which: str) -> Any:
    training = there[plan.num_places - 1] == "1"
    attributes = plan.attributes(arrays[0].dtype.name, training)
    call: Any = jax.ffi.ffi_call(target, results)
    return call(*arrays, **attributes, arguments=there, results=which)


def forward(plan: Plan, there: str, arrays: Sequence[Any], saves: bool) -> list[Any]:
    """The results and, where it `saves`, the reserve."""
    (T, B, _), dtype = arrays[0].shape, arrays[0].dtype
    results = [jax.ShapeDtypeStruct(shape, dtype) for shape in plan.result_shapes(T, B)]
    if saves:
        size = plan.reserve_bytes(T, B, dtype.name)
        results.append(jax.ShapeDtypeStruct((size,), jnp.uint8))
    cells = ("1" if plan.cells else "0") * (len(plan.state_sizes) - 1)
    which = "1" + "1" * len(plan.state_sizes) + cells + ("1" if saves else "0")
    return list(_call("fusedrnn_forward", plan, there, arrays, results, which))


def backward(
    plan: Plan,
    there: str,
    arrays: Sequence[Any],
    reserve: Any,
    upstream: str,
    gradients: Sequence[Any],
    wanted: str,
) -> list[Any]:
    """Gradients of the places that are wanted, from those of the results that `upstream` says."""
    places = _at(there, arrays)
    results = [
        jax.ShapeDtypeStruct(array.shape, array.dtype)
        for array, wants in zip(places, wanted, strict=False)
        if wants == "1"
    ]
    missing = "0" * (0 if plan.cells else len(plan.state_sizes) - 1)
    which = f"{there}1{upstream}{missing}"
    arguments = (*arrays, reserve, *gradients)
    return list(_call("fusedrnn_backward", plan, which, arguments, results, wanted))


# --- the same over dual numbers: values, and derivatives along a direction ---


def jvp(
    plan: Plan, there: str, arrays: Sequence[Any], directions: str, tangents: Sequence[Any]
) -> list[Any]:
    """Derivatives of the results along a direction."""
    duals = _duals(plan, there, arrays, directions, tangents)
    return [result.imag for result in forward(plan, there, duals, False)]


def second(
    plan: Plan,
    there: str,
    arrays: Sequence[Any],
    upstream: str,
    gradients: Sequence[Any],
    directions: str,
    tangents: Sequence[Any],
    upstream_directions: str,
    gradient_tangents: Sequence[Any],
) -> list[Any]:
    """Derivatives of the results, then of all gradients, along a direction.

    The direction is one of the places and of the results' gradients. The map is the Hessian of
    ``sum(gradients * results)``, which is linear in the gradients; so it is its own transpose.
    """
    duals = _duals(plan, there, arrays, directions, tangents)
    *results, reserve = forward(plan, there, duals, True)
    joined, given = [], ""
    values, slopes = _at(upstream, gradients), _at(upstream_directions, gradient_tangents)
    for value, slope in zip(values, slopes, strict=True):
        given += "0" if value is None and slope is None else "1"
        if given[-1] == "1":
            joined.append(_dual(value, slope))
    differentiable = there[: plan.num_differentiable]
    backwards = backward(plan, there, duals, reserve, given, joined, differentiable)
    return [result.imag for result in (*results, *backwards)]


def _at(there: str, arrays: Sequence[Any]) -> list[Any]:
    """Arrays in their places."""
    each = iter(arrays)
    return [next(each) if character == "1" else None for character in there]


def _dual(value: Any, tangent: Any) -> Any:
    value = jnp.zeros_like(tangent) if value is None else value
    return jax.lax.complex(value, jnp.zeros_like(value) if tangent is None else tangent)


def _duals(
    plan: Plan, there: str, arrays: Sequence[Any], directions: str, tangents: Sequence[Any]
) -> list[Any]:
    check_dual_types(arrays[0].dtype.name, plan.compute_dtype)
    places, slopes = _at(there, arrays), _at(directions, tangents)
    count = plan.num_differentiable
    duals = [
        None if value is None else _dual(value, slope)
        for value, slope in zip(places[:count], slopes, strict=True)
    ]
    return [array for array in (*duals, *places[count:]) if array is not None]
