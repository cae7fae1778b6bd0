"""Check that the units of an instruction set share no symbol with other code.

A function that a unit compiled with wide instructions emits under a name that other units emit too
may be the copy that the linker keeps, and then runs on machines without those instructions. So
every symbol that such an object file defines must lie in its set's namespace, and it may call
nothing but the engine and the C library.

Usage: python tools/check_isa_symbols.py [--nm PROGRAM] BUILD_DIRECTORY
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

# What a unit may need from outside; maps and rows are its set's, or those of the set whose
# vectors it has.
ALLOWED = re.compile(
    r"^(fusedrnn::cpu::(?:wait_at|wait_for|report)\("
    r"|fusedrnn::cpu::\w+::(?:float|dual)(?:32|64)_(?:maps|rows)$"
    r"|memset$|memcpy$|memmove$|_GLOBAL_OFFSET_TABLE_$|__stack_chk_fail$|__asan_|__ubsan_|__tsan_)"
)


# Targets of cmake/cpu_units.cmake: fusedrnn_unit.<set>.<formats>, fusedrnn_maps.<set>.<real>,
# fusedrnn_nn.<set>.
TARGET = re.compile(r"^fusedrnn_(?:unit|maps|nn)\.(.*)\.dir$")


def violations(object_file: Path, unit: str, nm: str) -> list[str]:
    """Symbols of `object_file` that do not belong to the namespace of the set of `unit`."""
    isa = unit.partition(".")[0]
    listing = subprocess.run(
        [nm, "--demangle", str(object_file)], check=True, capture_output=True, text=True
    ).stdout
    found = []
    for line in listing.splitlines():
        kind, name = line[17:18], line[19:]
        if kind == "U":
            if not ALLOWED.match(name):
                found.append(f"{unit}: needs {name}")
        elif kind.isupper() or kind in "vwu":  # what other object files can see
            own = f"fusedrnn::cpu::{isa}::" in name
            found += [] if own else [f"{unit}: defines {name}"]
    return found


def main(arguments: list[str]) -> int:
    """Check every unit below the build directory; 0 where all are clean."""
    parser = argparse.ArgumentParser(description="Check the symbols of instruction sets' units.")
    parser.add_argument("--nm", default="nm", help="the nm of the target's binutils, or llvm-nm")
    parser.add_argument("build", type=Path, help="the build directory")
    options = parser.parse_args(arguments)
    units = {
        matched[1]: unit
        for target in sorted(options.build.rglob("fusedrnn_*.dir"))
        if (matched := TARGET.match(target.name))
        for unit in target.rglob("*.o")
    }
    if not units:
        parser.error(f"no object files of units below {options.build}")
    found = [line for name, unit in units.items() for line in violations(unit, name, options.nm)]
    print("\n".join(found) if found else f"{len(units)} units share no symbol")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
