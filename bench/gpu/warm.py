"""Import a library and use the GPU once, so that a later first use finds its files in memory.

`python bench/gpu/warm.py torch` says how long each took.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any


def _torch(torch: Any) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.ones(16, 16, device=device, dtype=torch.bfloat16)
    float((a @ a).sum())  # loads cuBLAS and cuBLASLt
    if device == "cuda":
        torch.backends.cudnn.version()


def _cupy(cupy: Any) -> None:
    float(cupy.ones(16).sum())


def _jax(jax: Any) -> None:
    jax.numpy.ones(16).sum().block_until_ready()


USES: MappingProxyType[str, Callable[[Any], None]] = MappingProxyType(
    {"torch": _torch, "cupy": _cupy, "jax": _jax}
)


def main(arguments: Sequence[str]) -> int:
    (name,) = arguments
    started = time.monotonic()
    module = importlib.import_module(name)
    imported = time.monotonic()
    print(f"import {name} {module.__version__}: {imported - started:.1f} s", flush=True)
    USES[name](module)
    print(f"first use: {time.monotonic() - imported:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
