"""What is measured: the shapes, the classes, and the random problem that belongs to each.

T time steps, B batch, H hidden size; the input size I equals H everywhere, as in the tables that
libraries publish. Biases and initial states present and random. A network of L layers and D
directions has L * D runs, layer by layer, forward before reverse; its y is [T,B,D*H].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

GATES = MappingProxyType({"rnn": 1, "gru": 3, "lstm": 4})

SCENARIOS = MappingProxyType(
    {
        "inference": "a whole sequence forward, nothing saved for a backward pass",
        "training": "forward and backward: gradients of x, every weight, bias and initial state",
        "step": "one time step of one sequence (T = B = 1), the state fed back",
        "memory": "what a training step holds at most, beyond weights, x and dy",
    }
)

# A step is called with so many different inputs in turn; a verification takes them once.
STEP_INPUTS = 8


def _random_lengths(steps: int, batch: int) -> list[int]:
    return [int(n) for n in np.random.default_rng(1).integers(1, steps + 1, batch)]


def _one_long(steps: int, batch: int) -> list[int]:
    lengths = [max(steps // 8, 1)] * batch
    lengths[batch // 2] = steps
    return lengths


# Kinds of shapes, in the order of their tables (`Shape.kind`).
KINDS = ("", "networks", "lengths", "long")
# Lengths of a batch's sequences, from T and B, in no order; none is 0, which PyTorch refuses.
LENGTHS: Mapping[str, Callable[[int, int], list[int]]] = MappingProxyType(
    {"random": _random_lengths, "one-long": _one_long}
)


@dataclass(frozen=True)
class Shape:
    """A cell and its sizes, written `lstm:64,16,256` for T = 64, B = 16, H = 256.

    Behind them may come `layers=2`, `bidirectional` and `lengths=random` (one of LENGTHS), as in
    `gru:64,16,256,layers=2,bidirectional`.
    """

    cell: str
    steps: int
    batch: int
    hidden: int
    layers: int = 1
    directions: int = 1
    lengths: str = ""

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read what `str` writes; raises ValueError that says what was expected."""
        match = re.fullmatch(r"\s*(\w+):(\d+),(\d+),(\d+)(?:,(.+?))?\s*", text)
        if match is None:
            raise ValueError(f"shape: expected cell:T,B,H such as lstm:64,16,256, got {text!r}")
        cell, steps, batch, hidden, more = match.groups()
        if cell.lower() not in GATES:
            raise ValueError(f"shape: expected a cell of {', '.join(GATES)}, got {cell!r}")
        options: dict[str, Any] = {}
        for word in more.split(",") if more else []:
            name, _, value = word.partition("=")
            if word == "bidirectional":
                options["directions"] = 2
            elif name == "layers" and value.isdecimal():
                options[name] = int(value)
            elif name == "lengths" and value in LENGTHS:
                options[name] = value
            else:
                known = f"layers=N, bidirectional or lengths={'|'.join(LENGTHS)}"
                raise ValueError(f"shape: expected {known} behind cell:T,B,H, got {word!r}")
        shape = cls(cell.lower(), int(steps), int(batch), int(hidden), **options)
        if not shape.steps * shape.batch * shape.hidden * shape.layers:
            raise ValueError(f"shape: expected T, B, H and layers of at least 1, got {text!r}")
        return shape

    def __str__(self) -> str:
        words = [f"{self.cell}:{self.steps},{self.batch},{self.hidden}"]
        words += [f"layers={self.layers}"] if self.layers > 1 else []
        words += ["bidirectional"] if self.directions > 1 else []
        words += [f"lengths={self.lengths}"] if self.lengths else []
        return ",".join(words)

    @property
    def label(self) -> str:
        """For tables: `LSTM 64, 16, 256, 2 layers`."""
        words = [f"{self.cell.upper()} {self.steps}, {self.batch}, {self.hidden}"]
        words += [f"{self.layers} layers"] if self.layers > 1 else []
        words += ["bidirectional"] if self.directions > 1 else []
        words += [f"lengths {self.lengths}"] if self.lengths else []
        return ", ".join(words)

    @property
    def kind(self) -> str:
        """The one of KINDS that it is shown with."""
        if self.lengths:
            return "lengths"
        if self.runs > 1:
            return "networks"
        return "long" if self.steps >= 100_000 else ""

    @property
    def runs(self) -> int:
        """L * D."""
        return self.layers * self.directions

    @property
    def suffixes(self) -> list[str]:
        """The ends of the runs' parameters' names: `_l0`, `_l0_reverse`, `_l1`, ..."""
        ends = ("", "_reverse")[: self.directions]
        return [f"_l{layer}{end}" for layer in range(self.layers) for end in ends]

    @property
    def inputs(self) -> list[int]:
        """The input size of each layer: H, then D * H."""
        return [self.hidden, *[self.directions * self.hidden] * (self.layers - 1)]

    @property
    def sequence_lengths(self) -> Array | None:
        """Steps of each sequence, int64 [B]; None where all have T."""
        if not self.lengths:
            return None
        return np.array(LENGTHS[self.lengths](self.steps, self.batch))

    @property
    def live(self) -> int:
        """Steps of all sequences together."""
        lengths = self.sequence_lengths
        return self.steps * self.batch if lengths is None else int(lengths.sum())


# T, B, H: from one step of one sequence to what only a matrix product bounds; from weights that
# fit the first-level cache to weights that fit none of a core's own; 100, 200 and 333 are no
# multiple of a vector.
SIZES = (
    (1, 1, 128),
    (64, 1, 128),
    (64, 1, 512),
    (64, 2, 333),
    (1000, 4, 64),
    (32, 8, 100),
    (50, 20, 200),
    (64, 16, 256),
    (64, 16, 512),
    (64, 64, 512),
    (128, 128, 256),
    (64, 64, 1024),
)
CELLS = ("lstm", "gru", "rnn")
TABLE = tuple(Shape(cell, *sizes) for cell in CELLS for sizes in SIZES)
# The shapes of earlier tables: a third of the time.
CORE = (
    Shape("lstm", 1, 1, 128),
    Shape("lstm", 64, 1, 512),
    Shape("lstm", 64, 16, 256),
    Shape("lstm", 64, 64, 512),
    Shape("lstm", 1000, 4, 64),
    Shape("gru", 64, 1, 128),
    Shape("gru", 64, 16, 512),
    Shape("gru", 64, 64, 1024),
    Shape("gru", 1000, 4, 64),
    Shape("rnn", 64, 16, 512),
    Shape("rnn", 1000, 4, 64),
)
SMALL = (
    Shape("lstm", 1, 1, 128),
    Shape("lstm", 32, 4, 64),
    Shape("gru", 32, 4, 64),
    Shape("rnn", 32, 4, 64),
)
NETWORKS = tuple(
    Shape(cell, *sizes)
    for cell in CELLS
    for sizes in (
        (64, 1, 128, 1, 2),
        (64, 16, 256, 1, 2),
        (64, 1, 128, 2, 1),
        (64, 16, 256, 2, 1),
        (64, 16, 256, 4, 1),
    )
)
WITH_LENGTHS = tuple(
    shape
    for cell in CELLS
    for shape in (
        Shape(cell, 240, 16, 128, lengths="random"),
        Shape(cell, 240, 16, 128, lengths="one-long"),
        Shape(cell, 64, 16, 256, 2, 2, lengths="random"),
    )
)
LONG = tuple(Shape(cell, 200_000, 1, 64) for cell in ("lstm", "gru"))
MEMORY = tuple(
    Shape(cell, *sizes)
    for cell in CELLS
    for sizes in ((64, 16, 256), (1000, 4, 128), (64, 16, 256, 2, 2), (200_000, 1, 64))
)
SHAPE_SETS = MappingProxyType(
    {
        "table": TABLE,
        "networks": NETWORKS,
        "lengths": WITH_LENGTHS,
        "long": LONG,
        "memory": MEMORY,
        "core": CORE,
        "small": SMALL,
    }
)


@dataclass(frozen=True)
class Class:
    """A line of the summary: a scenario, a dtype, and the sets of shapes it has by default."""

    scenario: str
    dtype: str
    shapes: tuple[str, ...]

    @property
    def case(self) -> tuple[str, str]:
        return self.scenario, self.dtype


_PLAIN = ("table", "networks", "lengths")
# By the name that --classes takes.
CLASSES = MappingProxyType(
    {
        "inference-f32": Class("inference", "float32", (*_PLAIN, "long")),
        "inference-bf16": Class("inference", "bfloat16", _PLAIN),
        "training-f32": Class("training", "float32", (*_PLAIN, "long")),
        "training-bf16": Class("training", "bfloat16", _PLAIN),
        "step": Class("step", "float32", ("table",)),
        "memory": Class("memory", "float32", ("memory",)),
    }
)


def parse_shapes(words: list[str]) -> list[Shape]:
    """Shapes of words that each name a set of SHAPE_SETS or one shape, without repeats."""
    shapes: list[Shape] = []
    for word in words:
        shapes += SHAPE_SETS[word] if word in SHAPE_SETS else [Shape.parse(word)]
    return list(dict.fromkeys(shapes))


def scenario_shapes(scenario: str, shapes: list[Shape]) -> list[Shape]:
    """The shapes that a scenario runs: `step` keeps the cell and H alone, each once."""
    if scenario != "step":
        return shapes
    return list(dict.fromkeys(Shape(shape.cell, 1, 1, shape.hidden) for shape in shapes))


def flops(scenario: str, shape: Shape) -> int:
    """Floating-point operations of the matrix products, a multiply and an add counted as two.

    Forward: `2 T B (G H) (I + H)` for each run, I being the size of its input; with lengths, the
    steps that the sequences have instead of T B. Training: three times that, because each of the
    two products W_ih x and W_hh h has two more in the backward pass, one for its weights' gradient
    and one for its input's. Gates and biases are left out, so every peer is rated by one number.
    """
    rows = GATES[shape.cell] * shape.hidden
    columns = shape.directions * sum(size + shape.hidden for size in shape.inputs)
    forward = 2 * shape.live * rows * columns
    return 3 * forward if scenario == "training" else forward


PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass(frozen=True)
class Problem:
    """The inputs that every peer gets, by their names in the public API.

    x [T,B,I], dy [T,B,D*H]; h0, dh_n (lstm: c0, dc_n) [L*D,B,H]; and the parameters under
    PyTorch's names, weight_ih_l0 [G*H,I], weight_hh_l0 [G*H,H], bias_ih_l0, bias_hh_l0 [G*H], ...
    `dtype` is the precision to compute in. bfloat16 values come in float32 arrays, exactly
    representable in both, because NumPy has no bfloat16; a peer converts them when it prepares.
    """

    shape: Shape
    arrays: dict[str, Array]
    dtype: str = "float32"
    seed: int = 0

    @property
    def states(self) -> tuple[str, ...]:
        return ("h", "c") if self.shape.cell == "lstm" else ("h",)

    @property
    def parameters(self) -> list[str]:
        """Their names, run by run, each run's in the order of PARAMETERS."""
        return [f"{name}{suffix}" for suffix in self.shape.suffixes for name in PARAMETERS]

    def astype(self, dtype: str) -> Problem:
        arrays = {name: array.astype(dtype) for name, array in self.arrays.items()}
        return replace(self, arrays=arrays, dtype=dtype)


def random_problem(shape: Shape, *, seed: int = 0, dtype: str = "float32") -> Problem:
    """Standard normal data and PyTorch's initialisation, uniform in +-1/sqrt(H), for weights.

    No value is zero or denormal: both change the speed of some kernels.
    """
    rng = np.random.default_rng(seed)
    steps, batch, hidden = shape.steps, shape.batch, shape.hidden
    rows = GATES[shape.cell] * hidden
    bound = 1 / np.sqrt(hidden)
    arrays = {"x": rng.standard_normal((steps, batch, hidden))}
    for number, suffix in enumerate(shape.suffixes):
        columns = shape.inputs[number // shape.directions]
        sizes = ((rows, columns), (rows, hidden), (rows,), (rows,))
        for name, size in zip(PARAMETERS, sizes, strict=True):
            arrays[name + suffix] = rng.uniform(-bound, bound, size)
    arrays["dy"] = rng.standard_normal((steps, batch, shape.directions * hidden))
    for state in ("h", "c") if shape.cell == "lstm" else ("h",):
        arrays[f"{state}0"] = rng.uniform(-0.9, 0.9, (shape.runs, batch, hidden))
        arrays[f"d{state}_n"] = rng.standard_normal((shape.runs, batch, hidden))
    rounded = {name: _rounded(array, dtype) for name, array in arrays.items()}
    for name, array in rounded.items():
        if np.abs(array).min() < np.finfo(array.dtype).tiny:
            raise ValueError(f"{name}: expected no zero and no denormal, seed {seed} drew one")
    return Problem(shape, rounded, dtype, seed)


def _rounded(array: Array, dtype: str) -> Array:
    """The nearest values of `dtype`; ties go to the even one."""
    if dtype != "bfloat16":
        return array.astype(dtype)
    bits = array.astype(np.float32).view(np.uint32)
    nearest = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    values: Array = (nearest & np.uint32(0xFFFF0000)).view(np.float32)
    return values
