"""Whether JAX is one that we know; and gradients of fusedrnn's functions as trees of it."""

from __future__ import annotations

import dataclasses

import jax

import fusedrnn


def check_version() -> None:
    """That JAX is new enough: tracing of sharded arrays is spoken of in its own words."""
    if jax.__version_info__ < (0, 10):
        raise ImportError(f"fusedrnn.jax needs JAX 0.10 or newer, got {jax.__version__}")


def register() -> None:
    """Make every `...Gradients` a pytree whose leaves are its arrays."""
    for name in fusedrnn.__all__:
        if name.endswith("Gradients"):
            kind = getattr(fusedrnn, name)
            names = [field.name for field in dataclasses.fields(kind)]
            jax.tree_util.register_dataclass(kind, data_fields=names, meta_fields=[])
