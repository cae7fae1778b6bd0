"""Check that libfusedrnn_cuda needs nothing that a machine may lack and exports its one symbol.

Usage: python tools/check_cuda_library.py LIBRARY
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ENTRY = "fusedrnn_cuda_plugin"
# What every Linux has; the driver's libcuda and cuBLASLt are opened at run time.
ALLOWED = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+))\.so\.\d+")


def needed(library: Path) -> list[str]:
    """The libraries that the loader must find for this one."""
    text = _output("readelf", "--dynamic", "--wide", str(library))
    return re.findall(r"\(NEEDED\).*\[(.+)\]", text)


def exported(library: Path) -> list[str]:
    """The symbols that others can see."""
    text = _output("nm", "--dynamic", "--defined-only", str(library))
    return [line.split()[-1] for line in text.splitlines()]


def violations(needs: list[str], exports: list[str]) -> list[str]:
    """What is wrong, a line each."""
    found = [f"needs {name}" for name in needs if not ALLOWED.fullmatch(name)]
    if exports != [ENTRY]:
        found.append(f"exports: expected {ENTRY} alone, got {', '.join(exports) or 'nothing'}")
    return found


def main(arguments: list[str] | None = None) -> int:
    """0 where the library is as it should be."""
    parser = argparse.ArgumentParser(description="Check what libfusedrnn_cuda needs and exports.")
    parser.add_argument("library", type=Path)
    options = parser.parse_args(arguments)
    found = violations(needed(options.library), exported(options.library))
    print("\n".join(found) if found else f"{options.library.name}: one symbol, system libraries")
    return 1 if found else 0


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
