"""What is measured: the shapes, the classes, and the random problem that belongs to each.

T time steps, B batch, H hidden size; the input size I equals H everywhere, as in the tables that
libraries publish. One layer, one direction, biases and initial states present and random.
"""

from __future__ import annotations

import re
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
    }
)

# Scenario and dtype of each class of the summary, by the name that --classes takes.
CLASSES = MappingProxyType(
    {
        "inference-f32": ("inference", "float32"),
        "inference-bf16": ("inference", "bfloat16"),
        "training-f32": ("training", "float32"),
        "training-bf16": ("training", "bfloat16"),
        "step": ("step", "float32"),
    }
)

# A step is called with so many different inputs in turn; a verification takes them once.
STEP_INPUTS = 8


@dataclass(frozen=True)
class Shape:
    """A cell and its sizes, written `lstm:64,16,256` for T = 64, B = 16, H = 256."""

    cell: str
    steps: int
    batch: int
    hidden: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read `cell:T,B,H`; raises ValueError that says what was expected."""
        match = re.fullmatch(r"\s*(\w+):(\d+),(\d+),(\d+)\s*", text)
        if match is None:
            raise ValueError(f"shape: expected cell:T,B,H such as lstm:64,16,256, got {text!r}")
        cell, *sizes = match.groups()
        if cell.lower() not in GATES:
            raise ValueError(f"shape: expected a cell of {', '.join(GATES)}, got {cell!r}")
        if "0" in (size.lstrip("0") or "0" for size in sizes):
            raise ValueError(f"shape: expected T, B and H of at least 1, got {text!r}")
        return cls(cell.lower(), *map(int, sizes))

    def __str__(self) -> str:
        return f"{self.cell}:{self.steps},{self.batch},{self.hidden}"

    @property
    def label(self) -> str:
        """For tables: `LSTM 64, 16, 256`."""
        return f"{self.cell.upper()} {self.steps}, {self.batch}, {self.hidden}"


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
TABLE = tuple(Shape(cell, *sizes) for cell in ("lstm", "gru", "rnn") for sizes in SIZES)
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
SHAPE_SETS = MappingProxyType({"table": TABLE, "core": CORE, "small": SMALL})


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
    return list(dict.fromkeys(replace(shape, steps=1, batch=1) for shape in shapes))


def flops(scenario: str, shape: Shape) -> int:
    """Floating-point operations of the matrix products, a multiply and an add counted as two.

    Forward: `2 T B (G H) (I + H)` with I = H. Training: three times that, because each of the two
    products W_ih x and W_hh h has two more in the backward pass, one for its weights' gradient and
    one for its input's. Gates and biases are left out, so every peer is rated by the same number.
    """
    forward = 2 * shape.steps * shape.batch * GATES[shape.cell] * shape.hidden * 2 * shape.hidden
    return 3 * forward if scenario == "training" else forward


@dataclass(frozen=True)
class Problem:
    """The inputs that every peer gets, by their names in the public API.

    x, dy [T,B,H]; w_ih, w_hh [G*H,H]; b_ih, b_hh [G*H]; h0, dh_n (lstm: c0, dc_n) [B,H].
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
    arrays |= {name: rng.uniform(-bound, bound, (rows, hidden)) for name in ("w_ih", "w_hh")}
    arrays |= {name: rng.uniform(-bound, bound, rows) for name in ("b_ih", "b_hh")}
    arrays["dy"] = rng.standard_normal((steps, batch, hidden))
    for state in ("h", "c") if shape.cell == "lstm" else ("h",):
        arrays[f"{state}0"] = rng.uniform(-0.9, 0.9, (batch, hidden))
        arrays[f"d{state}_n"] = rng.standard_normal((batch, hidden))
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
