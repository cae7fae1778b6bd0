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


def describe() -> str:
    """The same for a reader, one line a fact."""
    known = info()
    width = max(map(len, known))
    lines = []
    for name, value in known.items():
        shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        lines.append(f"{name.replace('_', ' '):<{width}}  {shown or 'none'}")
    return "\n".join(lines)
