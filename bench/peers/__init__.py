"""The peers, imported only when they are asked for.

A new peer is one module with a subclass of `Peer` and one line in `PEERS`. A library with several
ways to run a cell, ours too, has a peer for each, named `library-way`: its fastest counts.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import MappingProxyType

from .base import Job, Peer, UnavailableError


@dataclass(frozen=True)
class Entry:
    """Where a peer is.

    `isolated`: it runs in a process of its own, because its settings hold for a whole process.
    `extra`: a variant of ours that gives something up, precision or time, shown beside it and
    compared with nobody; `weight_bytes` are those of one of its stored weights. `scenarios`,
    `dtypes` and `cells` say what this way to run is about; what its library merely lacks is for
    the peer itself to say, in a word that is kept.
    """

    module: str
    cls: str
    isolated: bool = False
    extra: bool = False
    weight_bytes: int | None = None
    scenarios: tuple[str, ...] = ("inference", "training", "step", "memory")
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    cells: tuple[str, ...] = ("rnn", "gru", "lstm")


_SEQUENCES, _STEP = ("inference", "training"), ("step",)
_F32, _BF16 = ("float32",), ("bfloat16",)

# Ours comes first: tables show the others' times over the first column.
PEERS = MappingProxyType(
    {
        "fusedrnn": Entry("fusedrnn_peer", "FusedRnn"),
        "fusedrnn-functions": Entry("fusedrnn_peer", "Functions", scenarios=_SEQUENCES),
        "fusedrnn-lean": Entry(
            "fusedrnn_peer", "Lean", extra=True, scenarios=("training", "memory"), dtypes=_F32
        ),
        "fusedrnn-mixed": Entry("fusedrnn_peer", "Mixed", scenarios=_SEQUENCES, dtypes=_BF16),
        "fusedrnn-bf16-weights": Entry(
            "fusedrnn_peer", "Bf16Weights", extra=True, weight_bytes=2, scenarios=_STEP
        ),
        "fusedrnn-int8-weights": Entry(
            "fusedrnn_peer", "Int8Weights", extra=True, weight_bytes=1, scenarios=_STEP
        ),
        "pytorch": Entry("pytorch_peer", "PyTorch"),
        "pytorch-native": Entry(
            "pytorch_peer",
            "Native",
            scenarios=(*_SEQUENCES, "memory"),
            dtypes=_F32,
            cells=("lstm",),
        ),
        "pytorch-autocast": Entry("pytorch_peer", "Autocast", scenarios=_SEQUENCES, dtypes=_BF16),
        "pytorch-layer": Entry("pytorch_peer", "LayerStep", scenarios=_STEP),
        "pytorch-frozen": Entry("pytorch_frozen_peer", "Frozen", scenarios=("inference", "step")),
        "pytorch-compile": Entry(
            "pytorch_compile_peer", "Compiled", isolated=True, scenarios=_SEQUENCES
        ),
        "onnxruntime": Entry("onnxruntime_peer", "OnnxRuntime"),
        "openvino": Entry("openvino_peer", "OpenVino"),
        "jax": Entry("jax_peer", "Jax", isolated=True),
        "numpy": Entry("numpy_peer", "NumPy"),
    }
)
OURS = "fusedrnn"


def make_peer(name: str) -> Peer:
    """The peer of that name in this process."""
    entry = PEERS[name]
    module = importlib.import_module(f"{__name__}.{entry.module}")
    peer: Peer = getattr(module, entry.cls)(name)
    return peer


def applies(name: str, scenario: str, cell: str, dtype: str) -> bool:
    """Whether the case is one that the peer is about; unknown names are about all."""
    if name not in PEERS:
        return True
    entry = PEERS[name]
    return scenario in entry.scenarios and cell in entry.cells and dtype in entry.dtypes


def library(name: str) -> str:
    """The library of a peer: `pytorch` of `pytorch-frozen`."""
    return name.partition("-")[0]


def is_extra(name: str) -> bool:
    """Whether the peer is a variant of ours that no ratio counts; unknown names are not."""
    return name in PEERS and PEERS[name].extra


__all__ = [
    "OURS",
    "PEERS",
    "Entry",
    "Job",
    "Peer",
    "UnavailableError",
    "applies",
    "is_extra",
    "library",
    "make_peer",
]
