"""Gradients that fusedrnn's functions return, as trees of JAX."""

from __future__ import annotations

import dataclasses

import jax

import fusedrnn


def register() -> None:
    """Make every `...Gradients` a pytree whose leaves are its arrays."""
    for name in fusedrnn.__all__:
        if name.endswith("Gradients"):
            kind = getattr(fusedrnn, name)
            names = [field.name for field in dataclasses.fields(kind)]
            jax.tree_util.register_dataclass(kind, data_fields=names, meta_fields=[])
