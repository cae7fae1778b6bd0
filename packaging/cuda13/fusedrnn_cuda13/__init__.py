"""The CUDA library of fusedrnn, which finds it here by itself."""

from __future__ import annotations

from pathlib import Path


def library_path() -> str:
    """The path of libfusedrnn_cuda.so."""
    return str(Path(__file__).with_name("libfusedrnn_cuda.so"))
