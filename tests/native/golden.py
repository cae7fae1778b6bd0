"""Write small problems and what the NumPy reference makes of them, for golden_test.cpp.

Usage: PYTHONPATH=tests python tests/native/golden.py OUTPUT

The file, little-endian, with numbers of the format in int64 and texts as a count and its bytes: the
number of cases, then each case: its name; its largest relative error, a float64; its cell's name;
reverse, compute, the seed of its noise, and its five rates, float64; the number of arguments, then
each; the number of results, then each. An array: its name, type, number of dimensions, dimensions,
values. Results are those of the arguments as they are stored, rounded to their type, computed in
float64.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

import oracle
import reference


class Format(NamedTuple):
    """The type of a call's arrays, what it computes in, and how far it may be off."""

    name: str
    bound: float  # relative, by norm, of each result
    compute: int = 0  # a fusedrnn_compute

    def bound_of(self, options: Mapping[str, Any]) -> float:
        """The bound for a cell: rounding takes an activation across its kink, and its gradient.

        Of an sLSTM it is the maximum that m is, whose gradient goes to the one or the other.
        """
        rounds = self.compute != 0 or self.name.endswith("16")
        kinked = options.get("nonlinearity") == "relu" or options.get("candidate") == "positive"
        times = 8 if "forget" in options else 4 if kinked else 1
        return times * self.bound if rounds else self.bound


INT8 = 2  # the fusedrnn_compute of frozen weights alone: no gradients, and a reference that rounds

# The bounds of float32 and float64 are the library's promise. The others, for problems as small as
# these, are what the rounding of h, operands and results comes to; a wrong lane or bit costs more.
FORMATS = [
    Format("float32", 2e-6),
    Format("float64", 1e-12),
    Format("bfloat16", 3e-2),
    Format("float16", 4e-3),
    Format("float32", 3e-2, compute=1),
    Format("float32", 2e-2, compute=INT8),
]


class Shape(NamedTuple):
    """A problem's sizes and what it leaves out."""

    steps: int
    batch: int
    input_size: int
    hidden_size: int
    full: bool = True  # with biases, initial states, lengths and resets


# Batches below, at and above a full tile, and a matrix unit's block of 32 rows; sizes around one,
# two and four vectors of every instruction set; the last one is large enough for two threads.
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
    Shape(2, 16, 33, 40),
    Shape(2, 37, 20, 15),
    Shape(12, 9, 35, 67),
]


VARIANTS = reference.VARIANTS + reference.NEWER_VARIANTS
VARIANT_IDS = reference.VARIANT_IDS + reference.NEWER_VARIANT_IDS


class Case(NamedTuple):
    """One call and its results."""

    name: str
    format: Format
    bound: float
    cell: str  # as in fusedrnn.h
    reverse: bool
    arguments: dict[str, NDArray[Any]]
    results: dict[str, NDArray[np.float64]]
    noise: oracle.Noise = oracle.Noise()


def cases() -> Iterator[Case]:
    """Every shape for every cell, direction and format."""
    for cell in range(len(VARIANTS)):
        for seed, shape in enumerate(SHAPES):
            for reverse in (False, True):
                for fmt in FORMATS:
                    yield case(cell, shape, seed, reverse, fmt)


NOISE = oracle.Noise(seed=2**63 + 5, weight_dropout=0.25, zoneout=0.375, recurrent_dropout=0.125)
NOISY: list[tuple[str, dict[str, Any], oracle.Noise]] = [
    ("rnn", {"nonlinearity": "tanh"}, NOISE),
    ("gru", {}, NOISE),
    ("gru", {"reset_after": False}, NOISE),
    ("gru", {}, NOISE._replace(candidate_dropout=0.5)),
    ("gru", {"reset_after": False}, NOISE._replace(candidate_dropout=0.5)),
    ("lstm", {}, NOISE),
    ("lstm", {}, NOISE._replace(candidate_dropout=0.5)),
]


def noisy_cases() -> Iterator[Case]:
    """With noise, by the oracle: small shapes."""
    for number, (variant, options, noise) in enumerate(NOISY):
        for seed, shape in enumerate((SHAPES[4], SHAPES[8])):
            for reverse in (False, True):
                for fmt in FORMATS[:-1]:
                    sizes: dict[str, Any] = shape._asdict()
                    del sizes["full"]
                    problem, upstream = reference.random_problem(
                        variant, **sizes, seed=seed, lengths=True, resets=True
                    )
                    problem, upstream = rounded(problem, fmt.name), rounded(upstream, fmt.name)
                    call: dict[str, Any] = {**problem, **options, "reverse": reverse}
                    call["noise"] = noise
                    results = oracle.forward(variant, **call)
                    results |= oracle.gradients(variant, **(call | upstream))
                    cell = cell_name(variant, options)
                    yield Case(
                        f"noise {number} {cell} {shape} {'reverse' if reverse else 'forward'} "
                        f"{fmt.name} {fmt.compute}",
                        fmt,
                        fmt.bound_of(options),
                        f"{cell}_general" if noise.candidate_dropout else cell,
                        reverse,
                        problem | upstream,
                        {name: np.array(value) for name, value in results.items()},
                        noise,
                    )


# Cells with norms over rows: what else a problem of the plain cell has, in blocks of H.
NORMED: list[tuple[str, str, dict[str, int]]] = [
    ("lstm_layer_norm", "lstm", {"g_ih": 4, "b_ih": 4, "g_hh": 4, "b_hh": 4, "g_c": 1, "b_c": 1}),
    ("gru_layer_norm", "gru", {"g_ih": 3, "b_ih": 3, "g_hh": 3, "b_hh": 3}),
    ("gru_world_model", "gru", {"g": 3, "b": 3}),
]


def normed_problem(
    cell: str, shape: Shape, seed: int
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """A random problem of a cell with norms, gains around 1, and its upstream gradients."""
    plain, blocks = next((plain, blocks) for name, plain, blocks in NORMED if name == cell)
    sizes: dict[str, Any] = shape._asdict()
    full = sizes.pop("full")
    problem, upstream = reference.random_problem(
        plain, **sizes, seed=seed, bias=False, initial=full, lengths=full, resets=full
    )
    rng = np.random.default_rng(seed)
    for name, count in blocks.items():
        vector = rng.standard_normal(count * shape.hidden_size)
        problem[name] = 1.0 + 0.25 * vector if name.startswith("g") else vector
    return problem, upstream


def normed_cases() -> Iterator[Case]:
    """Layer normalisation, by the oracle: small shapes.

    Not of one input, whose size a norm takes away: its gradient is rounding alone.
    """
    quiet = oracle.Noise()
    shapes = [(SHAPES[2], quiet), (SHAPES[3], quiet), (SHAPES[8], quiet), (SHAPES[5], NOISE)]
    for cell, _, _ in NORMED:
        for seed, (shape, noise) in enumerate(shapes):
            for reverse in (False, True):
                for fmt in FORMATS[:-1]:
                    problem, upstream = normed_problem(cell, shape, seed)
                    problem, upstream = rounded(problem, fmt.name), rounded(upstream, fmt.name)
                    call: dict[str, Any] = {**problem, "reverse": reverse, "noise": noise}
                    results = oracle.forward(cell, **call)
                    results |= oracle.gradients(cell, **(call | upstream))
                    yield Case(
                        f"{cell} {shape} {'reverse' if reverse else 'forward'} "
                        f"{fmt.name} {fmt.compute}{' noise' if noise.seed else ''}",
                        fmt,
                        fmt.bound_of({}),
                        cell,
                        reverse,
                        problem | upstream,
                        {name: np.array(value) for name, value in results.items()},
                        noise,
                    )


# Heads of whole vectors of every set, and of none.
HEADED = [(Shape(3, 5, 6, 128), 2), (Shape(4, 2, 5, 12), 3)]


def headed_cases() -> Iterator[Case]:
    """Blocks along the diagonal of w_hh."""
    for cell, (_, options) in enumerate(VARIANTS):
        if options.get("nonlinearity", "tanh") != "tanh" or "candidate" in options:
            continue
        for seed, (shape, heads) in enumerate(HEADED):
            for reverse in (False, True):
                for fmt in FORMATS:
                    yield case(cell, shape, seed, reverse, fmt, heads)


def case(cell: int, shape: Shape, seed: int, reverse: bool, fmt: Format, heads: int = 1) -> Case:
    """A random problem of this shape, and the reference's results."""
    variant, options = VARIANTS[cell]
    *sizes, full = shape
    problem, upstream = reference.random_problem(
        variant,
        **dict(zip(Shape._fields, sizes, strict=False)),
        seed=seed,
        bias=full,
        initial=full,
        lengths=full,
        resets=full,
    )
    if heads > 1:
        problem["w_hh"] = problem["w_hh"][:, : shape.hidden_size // heads]
    problem, upstream = rounded(problem, fmt.name), rounded(upstream, fmt.name)
    call = {**problem, **options, "reverse": reverse, "heads": heads}
    if fmt.compute == INT8:
        results = reference.forward(variant, **call, rounding=reference.FROZEN_IN["int8"])
    else:
        results = reference.forward(variant, **call)
        results |= reference.gradients(variant, **call, **upstream)
    direction = "reverse" if reverse else "forward"
    compute = ("", " computed in bfloat16", " computed in int8")[fmt.compute]
    name = f"{VARIANT_IDS[cell]} {shape} {direction} {fmt.name}{compute}"
    name += f" {heads} heads" if heads > 1 else ""
    return Case(
        name,
        fmt,
        fmt.bound_of(options),
        cell_name(variant, options),
        reverse,
        problem | upstream,
        results,
    )


def cell_name(variant: str, options: Mapping[str, Any]) -> str:
    """What a fusedrnn_run calls the cell."""
    if variant == "rnn":
        return f"rnn_{options['nonlinearity']}"
    if "candidate" in options:
        return f"{variant}_{options['candidate']}"
    if options.get("forget") == "exp":
        return "slstm_exp"
    return "gru_reset_before" if options.get("reset_after") is False else variant


def rounded(arrays: Mapping[str, NDArray[Any]], dtype: str) -> dict[str, NDArray[Any]]:
    """Floating-point arrays as float64 values that `dtype` can hold, others as they are."""
    return {
        name: decoded(encoded(array, dtype), dtype) if array.dtype.kind == "f" else array
        for name, array in arrays.items()
    }


def encoded(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """As stored; bfloat16, the upper half of a float32, as int16 words."""
    if dtype != "bfloat16":
        return array.astype(np.dtype(dtype).newbyteorder("<"))
    bits = array.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")


def decoded(stored: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    """The values of what `encoded` returned."""
    if dtype == "bfloat16":
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float64)


def write_number(file: BinaryIO, value: int) -> None:
    """An int64."""
    file.write(struct.pack("<q", value))


def write_text(file: BinaryIO, text: str) -> None:
    """The count of bytes, and the bytes."""
    data = text.encode()
    write_number(file, len(data))
    file.write(data)


def write_arrays(file: BinaryIO, arrays: Mapping[str, NDArray[Any]], floats: str) -> None:
    """Their number, then each array; those of floating-point numbers in the type `floats`."""
    write_number(file, len(arrays))
    for name, array in arrays.items():
        dtype = floats if array.dtype.kind == "f" else array.dtype.name
        write_text(file, name)
        write_text(file, dtype)
        write_number(file, array.ndim)
        for size in array.shape:
            write_number(file, size)
        file.write(encoded(array, dtype).tobytes())


def write_case(file: BinaryIO, case: Case) -> None:
    """One case with all its arrays."""
    write_text(file, case.name)
    file.write(struct.pack("<d", case.bound))
    write_text(file, case.cell)
    for number in (case.reverse, case.format.compute):
        write_number(file, int(number))
    noise = case.noise
    file.write(struct.pack("<Q", noise.seed))
    zoneout_c = noise.zoneout if case.cell.startswith("lstm") else 0.0
    rates = (noise.weight_dropout, noise.zoneout, zoneout_c)
    file.write(struct.pack("<5d", *rates, noise.candidate_dropout, noise.recurrent_dropout))
    write_arrays(file, case.arguments, case.format.name)
    write_arrays(file, case.results, "float64")


def main(arguments: list[str]) -> int:
    """Write all cases."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    every = [*cases(), *noisy_cases(), *normed_cases(), *headed_cases()]
    with open(arguments[0], "wb") as file:
        write_number(file, len(every))
        for one in every:
            write_case(file, one)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
