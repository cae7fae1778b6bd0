"""What this installation is and runs on."""

from __future__ import annotations

import platform
from pathlib import Path
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
        be used, and under "cuda" the CUDA library, or why there is none; "cuda_plain_products",
        how many products of this process were cuBLASLt's to compute and are the plain kernel's,
        which is slower (0 where FUSEDRNN_CUDA_GEMM=plain asks for it; replays of a graph do not
        count again); "python" and "numpy", their versions.
    """
    return {**_core.info(), "python": platform.python_version(), "numpy": np.__version__}


def get_include() -> str:
    """Return the folder of the C and C++ headers: that of ``#include <fusedrnn/fusedrnn.h>``.

    Raises
    ------
    FileNotFoundError
        Where the package was installed without them.
    """
    return _installed("include", "fusedrnn/fusedrnn.h")


def get_cmake_dir() -> str:
    """Return the folder that ``find_package(fusedrnn CONFIG)`` is to find, as `fusedrnn_DIR`.

    The library of the target `fusedrnn::fusedrnn` is the one that came with this package.

    Raises
    ------
    FileNotFoundError
        Where the package was installed without it.
    """
    return _installed("lib/cmake/fusedrnn", "fusedrnn-config.cmake")


def get_pkgconfig_dir() -> str:
    """Return the folder of ``fusedrnn.pc``, for PKG_CONFIG_PATH.

    Raises
    ------
    FileNotFoundError
        Where the package was installed without it.
    """
    return _installed("lib/pkgconfig", "fusedrnn.pc")


def _installed(folder: str, file: str) -> str:
    path = Path(__file__).resolve().parent / folder
    if not (path / file).is_file():
        raise FileNotFoundError(f"{path / file}: expected a file of the package, found none")
    return str(path)


def release_memory() -> int:
    """Give the CPU memory that is kept for later calls back to the system.

    Results, tapes and what calls work in are taken from memory that was released before: as much as
    was in use at the same time of late. The system may take the pages of blocks of 4 MiB and more
    at any time; of smaller ones at most 32 MiB stay. So a process seems to hold more (its RSS) than
    its arrays do. What is in use stays as it is, and later calls keep memory again.

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
