"""The machine a run was made on, as far as it explains the figures. No names, no paths."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import platform
import re
import subprocess
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


# Server CPUs that give no number: what hypervisors leave of a name does not tell one generation
# from another. By vendor and family: the first model of each.
_GENERATIONS: dict[tuple[str, int], tuple[tuple[int, str], ...]] = {
    ("AuthenticAMD", 0x17): ((0x00, "Naples"), (0x30, "Rome")),
    ("AuthenticAMD", 0x19): ((0x00, "Milan"), (0x10, "Genoa"), (0xA0, "Bergamo")),
    ("AuthenticAMD", 0x1A): ((0x00, "Turin"),),
    ("GenuineIntel", 6): (
        (0x55, "Skylake or Cascade Lake"),
        (0x6A, "Ice Lake"),
        (0x8F, "Sapphire Rapids"),
        (0xAD, "Granite Rapids"),
        (0xCF, "Emerald Rapids"),
    ),
}


def name(facts: dict[str, Any]) -> str:
    """The CPU of `describe` with its generation, where that is known: `AMD EPYC Turin`."""
    family = facts.get("family", {})
    try:
        model = int(family["model"])
        known = _GENERATIONS[family["vendor_id"], int(family["cpu family"])]
    except (KeyError, ValueError):
        return str(facts.get("cpu"))
    server = re.search("epyc|xeon", str(facts.get("cpu")), re.IGNORECASE)
    amx = "amx_tile" in facts.get("instruction_sets", ())
    if (
        server
        and amx
        and family["vendor_id"] == "GenuineIntel"
        and facts.get("caches", {}).get("L1i") == "64K"
    ):
        # What some hypervisors say of the model is not so; of those with AMX it alone has this.
        return f"{facts['cpu']} Granite Rapids"
    found = [generation for first, generation in known if first <= model]
    return f"{facts['cpu']} {found[-1]}" if server and found else str(facts["cpu"])


def held_bytes(*, peak: bool = False) -> int:
    """Bytes of memory that this process holds, or held at most since `start_peak`; on Linux."""
    name = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def start_peak() -> int:
    """Give free memory back, begin a new peak, and return the bytes held now; on Linux."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return held_bytes()


@functools.lru_cache
def commit() -> str | None:
    """The commit of the checkout that this file is in, `+` behind it where files have changed."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        found = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


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
