"""Flax's cells over sequences: their own parameters, as they are, in fusedrnn's functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes

import fusedrnn.jax as fj
from fusedrnn.cells.constants import Activation

# A subclass that computes the same is the same cell.
_CALLS: dict[Callable[..., Any], str] = {
    nnx.LSTMCell.__call__: "lstm",
    nnx.OptimizedLSTMCell.__call__: "lstm",
    nnx.GRUCell.__call__: "gru",
    nnx.SimpleCell.__call__: "rnn",
}
_ACTIVATIONS: dict[Callable[..., Any], Activation] = {
    nnx.tanh: "tanh",
    nnx.sigmoid: "sigmoid",
    nnx.relu: "relu",
    nnx.elu: "elu",
    nnx.leaky_relu: "leaky_relu",
    nnx.softplus: "softplus",
    nnx.soft_sign: "softsign",
    nnx.identity: "identity",
    nnx.hard_sigmoid: ("hard_sigmoid", 1 / 6, 0.5),
}
_INPUT, _STATE = ("ii", "if_", "ig", "io"), ("hi", "hf", "hg", "ho")


def check(cell: Any) -> None:
    """That a cell is one whose sequences run here.

    Raises
    ------
    TypeError
        For an object that is none of Flax's four cells, or a subclass that computes another thing.
    ValueError
        For activations and types that fusedrnn's functions have not.
    """
    _kind(cell)
    _activations(cell)
    for name in (*_names(cell, "i"), *_names(cell, "h")):
        _part(cell, name)
    _types(cell, jnp.dtype(cell.param_dtype))


def run(cell: Any, x: Any, carry: Any, lengths: Any) -> tuple[Any, Any]:
    """y [T, B, H] of x [T, B, I], and the carry after the last valid step.

    `carry`: that of the cell with one axis of sequences, or None for zeros.
    """
    kind = _kind(cell)
    kernels, biases = (
        [[getattr(_part(cell, name), leaf) for name in _names(cell, side)] for side in "ih"]
        for leaf in ("kernel", "bias")
    )
    held = [leaf[...] for side in (*kernels, *biases) for leaf in side if leaf is not None]
    dtype, compute_dtype = _types(cell, jnp.result_type(x, *held))

    def joined(parts: list[Any]) -> Any:
        return jnp.concatenate([part[...].astype(dtype) for part in parts], axis=-1)

    weights = [joined(side).T for side in kernels]
    weights += [None if None in side else joined(side) for side in biases]
    carry = jax.tree.map(lambda part: jnp.asarray(part, dtype), carry)
    given = (x.astype(dtype), *weights)
    options = _activations(cell) | {"lengths": lengths, "compute_dtype": compute_dtype}
    function: Any = getattr(fj, kind)
    if kind != "lstm":
        return function(*given, carry, **options)  # type: ignore[no-any-return]
    c, h = (None, None) if carry is None else carry
    y, (h, c) = function(*given, h, c, **options)
    return y, (c, h)


def carry_size(cell: Any) -> int:
    """How many arrays a carry has."""
    return 2 if _kind(cell) == "lstm" else 1


def _kind(cell: Any) -> str:
    kind = _CALLS.get(type(cell).__call__) if isinstance(cell, nnx.Module) else None
    if kind is None:
        raise TypeError(
            "cell: expected a layer of fusedrnn.jax, or flax.nnx's LSTMCell, OptimizedLSTMCell, "
            f"GRUCell or SimpleCell, got {type(cell).__name__} (flax.nnx.RNN runs any cell)"
        )
    if getattr(cell, "residual", False):
        raise ValueError("cell.residual: expected False, got True")
    return kind


def _names(cell: Any, side: str) -> tuple[str, ...]:
    """The products of one side, i or h."""
    if type(cell).__call__ is nnx.LSTMCell.__call__:
        return _INPUT if side == "i" else _STATE
    return (f"dense_{side}",)


def _part(cell: Any, name: str) -> Any:
    """A product that multiplies, adds and does nothing else."""
    part = getattr(cell, name)
    if type(part) is not nnx.Linear:
        raise TypeError(f"cell.{name}: expected a flax.nnx.Linear, got {type(part).__name__}")
    for option, usual in (
        ("dot_general", jax.lax.dot_general),
        ("promote_dtype", dtypes.promote_dtype),
        ("preferred_element_type", None),
    ):
        if getattr(part, option) is not usual:
            raise ValueError(f"cell.{name}.{option}: expected Flax's default, got another")
    return part


def _activations(cell: Any) -> dict[str, Any]:
    kind, found = _kind(cell), []
    for name in ("activation_fn",) if kind == "rnn" else ("gate_fn", "activation_fn"):
        function = getattr(cell, name)
        if function not in _ACTIVATIONS:
            known = ", ".join(each.__name__ for each in _ACTIVATIONS)
            got = getattr(function, "__name__", type(function).__name__)
            raise ValueError(f"cell.{name}: expected one of jax.nn's {known}, got {got}")
        found.append(_ACTIVATIONS[function])
    if kind == "rnn":
        return {"nonlinearity": found[0]}
    if found == ["sigmoid", "tanh"]:
        return {}
    return {"activations": (*found, found[1]) if kind == "lstm" else tuple(found)}


def _types(cell: Any, held: Any) -> tuple[Any, str | None]:
    """The dtype that a call runs in, and what its products are rounded to.

    `held`: that of arrays and parameters together. Flax's cells keep states in the larger of it and
    the cell's own dtype, and compute products in the latter.
    """
    inexact = held if jnp.issubdtype(held, jnp.floating) else jnp.dtype("float32")
    if cell.dtype is None:
        return inexact, None
    own = jnp.dtype(cell.dtype)
    if own == jnp.promote_types(own, cell.param_dtype):
        return own, None
    if (own.name, jnp.dtype(cell.param_dtype).name) == ("bfloat16", "float32"):
        return jnp.dtype("float32"), "bfloat16"
    raise ValueError(
        "cell.dtype: expected None, one no smaller than param_dtype, or bfloat16 beside float32, "
        f"got {own.name} beside {jnp.dtype(cell.param_dtype).name}"
    )
