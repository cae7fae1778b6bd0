"""Where the CUDA library is: in a package of its own, which need not be installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fusedrnn import _core

PACKAGES = ("fusedrnn_cuda13",)
FILE = "libfusedrnn_cuda.so"


def find() -> Path | None:
    """Return the library of the first package that is installed. None is imported."""
    for package in PACKAGES:
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            path = Path(folder) / FILE
            if path.exists():
                return path
    return None


def use_installed() -> None:
    """Tell the compiled module, which opens it where it is first needed."""
    path = find()
    if path is not None:
        _core.set_cuda_library(str(path))
