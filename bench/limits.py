"""The ceiling of a case: the least time that this machine could need, from the probes.

A recurrent layer is bounded by whichever of these takes longer:

- **operations**: the matrix products, `2 G H (I + H)` for each step and sequence, three times that
  in training (`scenarios.flops`), over the fastest product of that precision that was seen: from
  registers (FMA, vdpbf16ps, AMX) or a library's GEMM;
- **bytes**: each step reads all recurrent weights once, because it needs the whole state of the
  step before it; in training each step reads them twice, forward and (transposed) backward. The
  threads share the hidden units, so each reads its share from the nearest level of memory that
  holds it. The input weights are read once for a whole sequence, once for each step where the
  steps come one by one, and belong to the share then.

The bound is a lower one: gates, input and output are not in it, nor are barriers. Small problems,
which latencies bound, show a small share of it whoever computes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .scenarios import GATES, Shape, flops

WEIGHT_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Ceilings:
    """Rates of all threads together; sizes of the caches in bytes.

    `gflops` by dtype; `gbs` by level (l1, l2, l3, memory); `cache_bytes` as `machine.cache_bytes`
    has them: L1d and L2 belong to a core, L3 to all.
    """

    threads: int
    gflops: Mapping[str, float]
    gbs: Mapping[str, float]
    cache_bytes: Mapping[str, int]

    @classmethod
    def of(
        cls,
        threads: int,
        gemm_gflops: float,
        probes: Mapping[str, float],
        cache_bytes: Mapping[str, int],
    ) -> Ceilings:
        """From the records of a run."""
        gflops = {
            "float32": max(gemm_gflops, probes.get("fma_gflops", 0.0)),
            "bfloat16": max(
                probes.get(name, 0.0) for name in ("bf16_gflops", "amx_gflops", "gemm_bf16_gflops")
            ),
        }
        # A machine without bfloat16 instructions computes bfloat16 as it does float32.
        gflops["bfloat16"] = max(gflops["bfloat16"], gflops["float32"])
        gbs = {
            level: probes[f"{level}_gbs"]
            for level in ("l1", "l2", "l3", "memory")
            if f"{level}_gbs" in probes
        }
        return cls(threads, gflops, gbs, cache_bytes)

    def bandwidth(self, share: float) -> float:
        """GB/s of the nearest level that holds each thread's `share` of bytes; 0 if unknown."""
        sizes = {
            "l1": self.cache_bytes.get("L1d", 0),
            "l2": self.cache_bytes.get("L2", 0),
            "l3": self.cache_bytes.get("L3", 0) / self.threads,
        }
        for level, size in sizes.items():
            if level in self.gbs and share <= size:
                return self.gbs[level]
        return self.gbs.get("memory", 0.0)


@dataclass(frozen=True)
class Bound:
    """Least seconds of a call, and which limit they come from: `operations` or `bytes`."""

    seconds: float
    limit: str


def weight_traffic(scenario: str, shape: Shape, weight_bytes: int) -> tuple[float, float]:
    """Bytes of the weights that stay in use from step to step, and bytes read in all.

    Of a network the weights in use are those of one run, and each run reads its own.
    """
    matrix = float(GATES[shape.cell] * shape.hidden * shape.hidden * weight_bytes)
    if scenario == "step":
        return 2 * matrix, 2 * matrix
    passes = 2 if scenario == "training" else 1
    lengths = shape.sequence_lengths
    steps = shape.steps if lengths is None else int(lengths.max())
    matrices = sum(steps + size / shape.hidden for size in shape.inputs)
    return matrix, passes * shape.directions * matrices * matrix


def bound(
    scenario: str,
    shape: Shape,
    dtype: str,
    ceilings: Ceilings,
    weight_bytes: int | None = None,
) -> Bound | None:
    """The bound of a case, None where no ceiling is known, and of memory.

    `weight_bytes` where the weights are stored in another precision than they are computed in.
    """
    seconds = {}
    if scenario == "memory":
        return None
    if rate := ceilings.gflops.get(dtype):
        seconds["operations"] = flops(scenario, shape) / rate / 1e9
    held, read = weight_traffic(scenario, shape, weight_bytes or WEIGHT_BYTES[dtype])
    if rate := ceilings.bandwidth(held / ceilings.threads):
        seconds["bytes"] = read / rate / 1e9
    if not seconds:
        return None
    limit = max(seconds, key=lambda name: seconds[name])
    return Bound(seconds[limit], limit)


def intensity(scenario: str, shape: Shape, weight_bytes: int) -> float:
    """Operations for each byte of weights read: the horizontal axis of a roofline."""
    return flops(scenario, shape) / weight_traffic(scenario, shape, weight_bytes)[1]
