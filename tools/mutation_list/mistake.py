"""A plausible mistake of one line: what stands there, and what would be wrong.

It is a place that can be switched at run time: no constants, template arguments or types.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One mistake. `line` is a line of the file without its indentation, and stands there once."""

    file: str
    line: str
    right: str  # the part of the line that is replaced: an expression, or for a statement all of it
    wrong: str
    why: str  # what it breaks, in a few words
    # Files that should find it: tests/test_{}.py, of CUDA's sources tests/gpu/test_gpu_{}.py.
    tests: tuple[str, ...]
    statement: bool = False
    equivalent: str = ""  # why nothing that is promised changes; such a mistake is not tried


def expression(
    file: str, line: str, right: str, wrong: str, why: str, *tests: str, equivalent: str = ""
) -> Mutation:
    return Mutation(file, line, right, wrong, why, tests, equivalent=equivalent)


def statement(file: str, line: str, wrong: str, why: str, *tests: str) -> Mutation:
    return Mutation(file, line, line, wrong, why, tests, statement=True)


CORE, BINDINGS, CPU, CUDA = "csrc/core", "csrc/bindings", "csrc/cpu", "csrc/cuda"
KERNELS, CELLS, PYTHON = "csrc/cpu/kernels", "csrc/cells", "python/fusedrnn"
