"""The machine a run was made on, as far as it explains the figures. No names, no paths."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

# The flags that decide which kernels a library can choose.
_FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "asimd",
    "sve",
    "sve2",
    "bf16",
)


def describe() -> dict[str, Any]:
    """CPU model, caches, cores, instruction sets, memory, system, Python."""
    cpuinfo = _cpuinfo(Path("/proc/cpuinfo"))
    flags = cpuinfo.get("flags", cpuinfo.get("Features", "")).split()
    return {
        "cpu": cpuinfo.get("model name") or platform.processor() or platform.machine(),
        "family": {k: cpuinfo[k] for k in ("vendor_id", "cpu family", "model") if k in cpuinfo},
        "architecture": platform.machine(),
        "cores": cores(),
        "caches": _caches(Path("/sys/devices/system/cpu/cpu0/cache")),
        "instruction_sets": [flag for flag in _FLAGS if flag in flags],
        "memory_gib": _memory_gib(),
        "huge_pages": _huge_pages(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def cores() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_bytes(facts: dict[str, Any]) -> dict[str, int]:
    """The caches of `describe` in bytes: L1d and L2 of a core, L3 of all."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    sizes = {}
    for level, text in facts.get("caches", {}).items():
        number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
        sizes[level] = int(number) * unit
    return sizes


def load_average() -> float | None:
    """Runnable processes over the last minute, None where the system does not count them."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _cpuinfo(path: Path) -> dict[str, str]:
    """The first processor's entries, empty where the system has no such file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _caches(folder: Path) -> dict[str, str]:
    """Sizes such as {"L1d": "48K", "L2": "1024K"}."""
    caches = {}
    for index in sorted(folder.glob("index*")):
        level, kind, size = ((index / n).read_text().strip() for n in ("level", "type", "size"))
        caches[f"L{level}" + {"Data": "d", "Instruction": "i"}.get(kind, "")] = size
    return caches


def _memory_gib() -> float | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def _huge_pages(path: Path) -> str | None:
    """The mode in brackets of a line such as `always [madvise] never`."""
    if not path.exists():
        return None
    return path.read_text().partition("[")[2].partition("]")[0]
