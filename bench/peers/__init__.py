"""The peers, one file each, imported only when they are asked for.

A new peer is one module with a subclass of `Peer` and one line in `PEERS`.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType

from .base import Job, Peer, UnavailableError

# Ours comes first: tables show the others' times over the first column.
PEERS = MappingProxyType(
    {
        "fusedrnn": ("fusedrnn_peer", "FusedRnn"),
        "pytorch": ("pytorch_peer", "PyTorch"),
        "numpy": ("numpy_peer", "NumPy"),
    }
)
OURS = "fusedrnn"


def load_peer(name: str) -> Peer:
    """The peer of that name; raises UnavailableError where a package that it needs is missing."""
    module, cls = PEERS[name]
    peer: Peer = getattr(importlib.import_module(f"{__name__}.{module}"), cls)()
    return peer


__all__ = ["OURS", "PEERS", "Job", "Peer", "UnavailableError", "load_peer"]
