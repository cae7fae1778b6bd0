"""What this installation is and runs on."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from fusedrnn import _core

__version__: str = _core.__version__


def info() -> dict[str, Any]:
    """Return what is known of the installation and the machine.

    Returns
    -------
    dict
        "version"; "isa", the CPU instruction set in use, "isas_available" and "isas_compiled";
        "threads", the most that a call uses, and "cpus_available"; "cuda_devices", those that can
        be used, and under "cuda" the CUDA library, or why there is none; "python" and "numpy",
        their versions.
    """
    return {**_core.info(), "python": platform.python_version(), "numpy": np.__version__}


def release_memory() -> int:
    """Give the CPU memory that is kept for later calls back to the system.

    Results, tapes and what calls work in are taken from memory that was released before: up to 128
    MiB, and beyond it as much as was in use at the same time of late, which the system may take
    when it is short of memory. So a process seems to hold more (its RSS) than its arrays do. What
    is in use stays as it is, and later calls keep memory again.

    Returns
    -------
    int
        How many bytes.
    """
    return _core.release_memory()


def describe() -> str:
    """The same for a reader, one line a fact."""
    known = info()
    width = max(map(len, known))
    lines = []
    for name, value in known.items():
        shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        lines.append(f"{name.replace('_', ' '):<{width}}  {shown or 'none'}")
    return "\n".join(lines)
