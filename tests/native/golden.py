"""Write small problems and what the NumPy reference makes of them, for golden_test.cpp.

Usage: PYTHONPATH=tests python tests/native/golden.py OUTPUT

The file, little-endian: the number of cases, then each case: its name; cell, reverse and the
bits of a float (32 or 64); the number of tensors, then each: its name, kind ("f" of that many
bits, "e" float64, "i" int64, "b" one byte), number of dimensions, dimensions, values. Numbers of
the format are int64, texts an int64 count and the bytes. Expected results ("e") are those of the
inputs as they are stored, rounded to float32 or not, computed in float64.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

import reference

KINDS = {"f": None, "e": "<f8", "i": "<i8", "b": "u1"}


class Shape(NamedTuple):
    """A problem's sizes and what it leaves out."""

    steps: int
    batch: int
    input_size: int
    hidden_size: int
    full: bool = True  # with biases, initial states, lengths and resets


# Batches below, at and above a full tile; sizes around one, two and four vectors of every
# instruction set; the last ones are large enough for two threads to pay.
SHAPES = [
    Shape(1, 1, 1, 1),
    Shape(3, 1, 5, 3, full=False),
    Shape(4, 2, 3, 7),
    Shape(3, 3, 8, 17, full=False),
    Shape(5, 4, 1, 9),
    Shape(2, 5, 13, 5),
    Shape(4, 6, 2, 33),
    Shape(3, 7, 16, 16, full=False),
    Shape(2, 8, 37, 11),
    Shape(6, 9, 7, 21),
    Shape(12, 9, 35, 67),
]


class Case(NamedTuple):
    """One call and its results."""

    name: str
    cell: int  # a fusedrnn_cell: reference.VARIANTS has their order
    reverse: bool
    bits: int
    inputs: dict[str, NDArray[Any]]
    expected: dict[str, NDArray[np.float64]]


def cases() -> Iterator[Case]:
    """Every shape for every cell, direction and dtype."""
    for cell, (name, options) in enumerate(reference.VARIANTS):
        for seed, shape in enumerate(SHAPES):
            for reverse in (False, True):
                for bits in (32, 64):
                    yield case(cell, name, options, shape, seed, reverse, bits)


def case(
    cell: int,
    name: str,
    options: Mapping[str, Any],
    shape: Shape,
    seed: int,
    reverse: bool,
    bits: int,
) -> Case:
    """A random problem of this shape, and the reference's results."""
    *sizes, full = shape
    problem, upstream = reference.random_problem(
        name,
        **dict(zip(Shape._fields, sizes, strict=False)),
        seed=seed,
        bias=full,
        initial=full,
        lengths=full,
        resets=full,
    )
    problem, upstream = rounded(problem, bits), rounded(upstream, bits)
    run = {**problem, **options, "reverse": reverse}
    expected = reference.forward(name, **run)
    expected |= reference.gradients(name, **run, **upstream)
    text = f"{reference.VARIANT_IDS[cell]} {shape} reverse={reverse} float{bits}"
    return Case(text, cell, reverse, bits, problem | upstream, expected)


def rounded(arrays: Mapping[str, NDArray[Any]], bits: int) -> dict[str, NDArray[Any]]:
    """Floating-point arrays in the case's type, others as they are."""
    dtype = np.dtype(f"f{bits // 8}")
    return {k: v.astype(dtype) if v.dtype.kind == "f" else v for k, v in arrays.items()}


def write_number(file: BinaryIO, value: int) -> None:
    """An int64."""
    file.write(struct.pack("<q", value))


def write_text(file: BinaryIO, text: str) -> None:
    """The count of bytes, and the bytes."""
    data = text.encode()
    write_number(file, len(data))
    file.write(data)


def write_tensor(file: BinaryIO, name: str, kind: str, array: NDArray[Any]) -> None:
    """Name, kind, shape and values."""
    write_text(file, name)
    write_text(file, kind)
    write_number(file, array.ndim)
    for size in array.shape:
        write_number(file, size)
    dtype = KINDS[kind] or array.dtype.newbyteorder("<")
    file.write(np.ascontiguousarray(array, dtype=dtype).tobytes())


def write_case(file: BinaryIO, case: Case) -> None:
    """One case with all its tensors."""
    write_text(file, case.name)
    for number in (case.cell, case.reverse, case.bits, len(case.inputs) + len(case.expected)):
        write_number(file, int(number))
    for name, array in case.inputs.items():
        write_tensor(file, name, array.dtype.kind, array)
    for name, array in case.expected.items():
        write_tensor(file, name, "e", array)


def main(arguments: list[str]) -> int:
    """Write all cases."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    every = list(cases())
    with open(arguments[0], "wb") as file:
        write_number(file, len(every))
        for one in every:
            write_case(file, one)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
