"""What the GPU can do: the native probes where they were built, then copies, products, launches.

`python bench/gpu/probe.py [--package DIR]` prints a line a figure: name, value, unit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: `bench` is a package two folders up
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from bench.gpu import device
from bench.gpu.timing import CudaClock
from bench.peers.base import require

# Kernels in a row for the gap between two launches.
LAUNCHES = 200
NATIVE = "fusedrnn_probes"
ROUNDS = 2000  # of each native probe


def launch_gaps(clock: Any) -> dict[str, float]:
    """Microseconds a launch of a kernel that does next to nothing: called, and in a graph."""
    torch = require("torch")
    tiny = torch.zeros(32, device="cuda")

    def launches() -> None:
        for _ in range(LAUNCHES):
            tiny.add_(1)

    replay, _ = clock.capture(launches)
    found = {}
    for name, call in (("launch_gap_eager", launches), ("launch_gap_graph", replay)):
        found[name] = min(clock.seconds([call], 10)) / LAUNCHES * 1e6
    return found


def native(package: Path, rounds: int = ROUNDS, seconds: float = 20) -> list[str]:
    """The lines of the native probes, or a line that says why there are none."""
    program = package / NATIVE
    if not program.is_file():
        return [f"{NATIVE}: not built"]
    try:
        done = subprocess.run(
            [program, str(rounds)], check=False, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        text = said if isinstance(said, str) else said.decode(errors="replace")
        return [*text.splitlines(), f"{NATIVE}: not done after {seconds:.0f} s"]
    lines = done.stdout.splitlines()
    return lines if done.returncode == 0 else [*lines, f"{NATIVE}: {done.stderr.strip()[:200]}"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench/gpu/probe.py", description=__doc__)
    parser.add_argument("--package", type=Path, help="where the native probes are")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of them, default %(default)s")
    parser.add_argument("--native-only", action="store_true")
    options = parser.parse_args(arguments)
    lines = native(options.package, options.rounds) if options.package else []
    print("\n".join(lines), flush=True)
    failed = any(line.startswith(NATIVE) for line in lines)
    if options.native_only:
        return int(failed)
    torch = require("torch")
    if not torch.cuda.is_available():
        print("PyTorch sees no CUDA device")
        return 3
    facts = device.facts()
    print(f"gpu {facts.get('gpu')}, driver {facts.get('driver')}")
    clock = CudaClock()
    for name, microseconds in launch_gaps(clock).items():
        print(f"{name} {microseconds:.2f} us", flush=True)
    rates = device.ceilings(clock)
    print(f"copy {rates['copy_gbs']} GB/s")
    for precision, rate in rates["gemm_tflops"].items():
        print(f"gemm_{precision} {rate} TFLOP/s")
    print(f"clocks {device.clocks()}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
