"""Check what the CUDA compiler says of each kernel, and fail where registers spill.

Reads the output of a build that was configured with `-DCMAKE_CUDA_FLAGS=-Xptxas=-v`, passes on what
is no report, and prints a line for each GPU. A spill means that a kernel needs more registers than
its launch bounds leave, and moves them through memory at every step. Device functions that are not
inlined count as kernels do. Shared memory is what is known at compile time.

Usage: cmake --build BUILD 2>&1 | python tools/check_cuda_resources.py [--all] [--archs sm_80]
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

ENTRY = re.compile(r"ptxas info\s*: Compiling entry function '(\S+)' for '(\w+)'")
FUNCTION = re.compile(r"ptxas info\s*: Function properties for '?(\S+?)'?$")
MEMORY = re.compile(
    r"\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
)
USED = re.compile(r"ptxas info\s*: Used (\d+) registers(.*)")
SHARED = re.compile(r"(\d+) bytes smem")
# Bytes that are kept in memory over a call (the slow path of a division, an activation that is not
# inlined), however many registers are free.
AROUND_A_CALL = 32
OTHER_REPORT = re.compile(r"ptxas info\s*:")


@dataclass(frozen=True)
class Resources:
    """What one function needs on one GPU; bytes, and registers a thread (None: not an entry)."""

    arch: str
    name: str
    registers: int | None = None
    shared: int = 0
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0

    @property
    def spills(self) -> bool:
        return max(self.spill_stores, self.spill_loads) > AROUND_A_CALL


@dataclass
class Report:
    """Functions in the order of the log, and the log's other lines."""

    functions: list[Resources] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def archs(self) -> list[str]:
        return list(dict.fromkeys(function.arch for function in self.functions))


def parse(lines: Iterable[str]) -> Report:
    """The report in a build log."""
    report = Report()
    arch = entry = ""
    current: int | None = None  # the function that the next line of memory is about
    entry_at: int | None = None
    for line in lines:
        if match := ENTRY.search(line):
            entry, arch = match.groups()
            report.functions.append(Resources(arch, entry))
            entry_at, current = len(report.functions) - 1, None
        elif match := FUNCTION.search(line):
            if match[1] == entry and entry_at is not None:
                current = entry_at
            else:
                report.functions.append(Resources(arch, match[1]))
                current = len(report.functions) - 1
        elif (match := MEMORY.match(line)) and current is not None:
            stack, stores, loads = map(int, match.groups())
            report.functions[current] = replace(
                report.functions[current], stack=stack, spill_stores=stores, spill_loads=loads
            )
        elif (match := USED.search(line)) and entry_at is not None:
            shared = SHARED.search(match[2])
            report.functions[entry_at] = replace(
                report.functions[entry_at],
                registers=int(match[1]),
                shared=int(shared[1]) if shared else 0,
            )
        elif not OTHER_REPORT.search(line):
            report.other.append(line)
    return report


def demangled(names: list[str]) -> list[str]:
    """The names as a C++ programmer writes them, where c++filt is installed."""
    if not names or not shutil.which("c++filt"):
        return names
    text = subprocess.run(
        ["c++filt"], input="\n".join(names), check=True, capture_output=True, text=True
    ).stdout
    return text.splitlines()


def table(functions: list[Resources]) -> Iterator[str]:
    """A line a function."""
    yield "arch      regs   smem  stack  spill st/ld  function"
    names = demangled([function.name for function in functions])
    for f, name in zip(functions, names, strict=True):
        registers = "-" if f.registers is None else str(f.registers)
        spills = f"{f.spill_stores}/{f.spill_loads}"
        yield f"{f.arch:<8} {registers:>5} {f.shared:>6} {f.stack:>6} {spills:>12}  {name}"


def summary(report: Report) -> Iterator[str]:
    """A line a GPU."""
    for arch in report.archs:
        members = [f for f in report.functions if f.arch == arch]
        kernels = [f for f in members if f.registers is not None]
        most = max((f.registers or 0 for f in kernels), default=0)
        stacks = sum(f.stack > 0 for f in members)
        spills = sum(f.spills for f in members)
        yield (
            f"{arch}: {len(kernels)} kernels, at most {most} registers a thread, "
            f"{stacks} with a stack frame, {spills} with spills"
        )


def main(arguments: list[str] | None = None) -> int:
    """Read the log from standard input; 1 where a kernel spills or a GPU is missing."""
    parser = argparse.ArgumentParser(description="Read nvcc's resource report; spills fail.")
    parser.add_argument("--all", action="store_true", help="print every kernel")
    parser.add_argument(
        "--archs", default="", metavar="sm_80,sm_90a", help="the report must have these"
    )
    options = parser.parse_args(arguments)
    report = parse(line.rstrip("\n") for line in sys.stdin)
    print("\n".join(report.other), file=sys.stderr)
    print("\n".join(summary(report)))
    worth_a_line = [f for f in report.functions if options.all or f.stack or f.spills]
    if worth_a_line:
        print("\n".join(table(worth_a_line)))
    missing = [arch for arch in options.archs.split(",") if arch and arch not in report.archs]
    if missing or not report.functions:
        what = ", ".join(missing) or "any kernel"
        print(f"no report of {what}: not built with -Xptxas=-v, or not anew")
        return 1
    if any(function.spills for function in report.functions):
        print("registers spill")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
