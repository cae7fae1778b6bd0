"""The peers on the GPU by name; a library with several ways to run has a peer for each."""

from __future__ import annotations

import importlib
from types import MappingProxyType

from .peer import Peer

PEERS = MappingProxyType(
    {
        "fusedrnn": ("fusedrnn_peer", "FusedRnn"),
        "fusedrnn-graph": ("fusedrnn_peer", "Graph"),
        "pytorch": ("pytorch_peer", "PyTorch"),
        "pytorch-graph": ("pytorch_peer", "Graph"),
        "cudnn": ("cudnn_peer", "BestCuDnn"),
    }
)
# A peer and ours that run the same way: both as they come, or both as graphs.
COMPARED = MappingProxyType(
    {
        "pytorch": "fusedrnn",
        "pytorch-graph": "fusedrnn-graph",
        "cudnn": "fusedrnn-graph",
    }
)


def make_peer(name: str, quick: bool = False) -> Peer:
    """The peer of that name; raises UnavailableError where its library is missing."""
    module, cls = PEERS[name]
    peer: Peer = getattr(importlib.import_module(f"{__package__}.{module}"), cls)(name)
    peer.quick = quick
    return peer
