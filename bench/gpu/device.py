"""The GPU of a run: what it is, its clocks, and the two rates that bound everything."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from typing import Any

from ..machine import describe
from ..peers.base import require
from .scenarios import PRECISIONS

_FACTS = {
    "gpu": "name",
    "driver": "driver_version",
    "capability": "compute_cap",
    "memory_mib": "memory.total",
    "max_sm_mhz": "clocks.max.sm",
    "max_memory_mhz": "clocks.max.memory",
    "power_limit_w": "power.limit",
}
_CLOCKS = {
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "power_w": "power.draw",
    "temperature_c": "temperature.gpu",
    "throttle_reasons": "clocks_event_reasons.active",
}
Ask = Callable[[list[str]], str]


def facts(ask: Ask | None = None) -> dict[str, Any]:
    """The machine, and its GPU as the driver names it."""
    return describe() | _query(_FACTS, ask)


def clocks(ask: Ask | None = None) -> dict[str, str]:
    """What the GPU runs at now."""
    return _query(_CLOCKS, ask)


def _query(names: dict[str, str], ask: Ask | None) -> dict[str, str]:
    """Values of nvidia-smi's first GPU; empty where it does not answer."""
    ask = ask or _nvidia_smi
    text = ask([f"--query-gpu={','.join(names.values())}", "--format=csv,noheader,nounits"])
    values = [value.strip() for value in text.partition("\n")[0].split(",")]
    return dict(zip(names, values, strict=True)) if len(values) == len(names) else {}


def _nvidia_smi(arguments: list[str]) -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        asked = subprocess.run(
            [program, *arguments], check=False, capture_output=True, text=True, timeout=20
        )
    except subprocess.TimeoutExpired:
        return ""
    return asked.stdout if asked.returncode == 0 else ""


def ceilings(clock: Any, size: int = 8192) -> dict[str, Any]:
    """GB/s of a copy, bytes read and written, and TFLOP/s of a square product by precision.

    On random numbers: products of zeros draw less power and run faster.
    """
    torch = require("torch")
    found: dict[str, Any] = {"copy_gbs": round(_copy(torch, clock))}
    rates = {}
    for precision, dtype in PRECISIONS.items():
        torch.backends.cuda.matmul.allow_tf32 = precision == "tfloat32"
        rates[precision] = round(_product(torch, clock, getattr(torch, dtype), size), 1)
    return found | {"gemm_tflops": rates}


def _copy(torch: Any, clock: Any) -> float:
    source = torch.empty(1 << 31, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return float(2 * source.nbytes / min(clock.seconds([lambda: target.copy_(source)], 8)) / 1e9)


def _product(torch: Any, clock: Any, dtype: Any, size: int) -> float:
    a, b = (torch.randn(size, size, device="cuda").to(dtype) for _ in range(2))
    return float(2 * size**3 / min(clock.seconds([lambda: torch.mm(a, b)], 6)) / 1e12)
