"""What is measured on a GPU: the cases, most telling first, and the random problem of each.

T time steps, B batch, H hidden size; the input size I equals H. One layer, one direction, biases
and initial states present and random, as on the CPU (bench/scenarios.py).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..scenarios import GATES, Shape, flops

# The dtype of the arrays that each precision computes on.
PRECISIONS = MappingProxyType(
    {
        "float32": "float32",
        "tfloat32": "float32",
        "bfloat16": "bfloat16",
        "float16": "float16",
    }
)
SCENARIOS = MappingProxyType(
    {
        "inference": "a whole sequence forward, nothing saved for a backward pass",
        "training": "forward and backward: gradients of x, every weight, bias and initial state",
    }
)


@dataclass(frozen=True)
class Case:
    """One entry of the table, written `training/bfloat16/lstm:1024,16,768/lengths`.

    With `lengths` the sequences of a batch have other lengths, from T down to about T / 4.
    """

    scenario: str
    precision: str
    shape: Shape
    lengths: bool = False

    def __str__(self) -> str:
        words = [self.scenario, self.precision, str(self.shape)]
        return "/".join([*words, "lengths"] if self.lengths else words)

    @classmethod
    def parse(cls, text: str) -> Case:
        """Read what `str` writes; raises ValueError that says what was expected."""
        words = text.split("/")
        if len(words) not in (3, 4) or words[3:] not in ([], ["lengths"]):
            raise ValueError(f"case: expected scenario/precision/shape[/lengths], got {text!r}")
        scenario, precision, shape = words[:3]
        for word, known in ((scenario, SCENARIOS), (precision, PRECISIONS)):
            if word not in known:
                raise ValueError(f"case: expected {', '.join(known)}, got {word!r}")
        sizes = Shape.parse(shape)
        if sizes.runs > 1 or sizes.lengths:
            raise ValueError(
                f"case: expected one layer and one direction, cell:T,B,H, got {text!r}"
            )
        return cls(scenario, precision, sizes, len(words) == 4)

    @property
    def dtype(self) -> str:
        """The dtype of the arrays."""
        return PRECISIONS[self.precision]

    @property
    def states(self) -> tuple[str, ...]:
        return ("h", "c") if self.shape.cell == "lstm" else ("h",)

    def sequence_lengths(self) -> list[int] | None:
        """One length a sequence, longest first, as PyTorch's packed sequences are; None: all T.

        The first is T. The others are drawn, the same ones for the same shape.
        """
        if not self.lengths:
            return None
        steps = self.shape.steps
        rng = random.Random(f"{self.shape.steps} {self.shape.batch}")
        drawn = (rng.randint(max(steps // 4, 1), steps) for _ in range(self.shape.batch - 1))
        return [steps, *sorted(drawn, reverse=True)]

    def flops(self) -> float:
        """Operations of the matrix products in the valid steps (`bench.scenarios.flops`)."""
        found = self.sequence_lengths()
        valid = 1.0 if found is None else sum(found) / (self.shape.steps * self.shape.batch)
        return flops(self.scenario, self.shape) * valid


# T, B, H. The first is the anchor that publications share.
ANCHOR = (1024, 16, 768)
SIZES = (
    ANCHOR,
    (256, 64, 1024),
    (64, 64, 512),
    (128, 512, 512),
    (64, 128, 2048),
    (512, 1, 1024),
    (256, 16, 256),
    (2048, 8, 128),
    (512, 64, 64),
    (64, 1, 64),
    (64, 1, 2048),
    (2048, 1, 512),
)
FEW_SIZES = (ANCHOR, (256, 64, 1024), (256, 16, 256), (512, 64, 64))
LENGTHS_SIZES = (ANCHOR, (256, 64, 1024))
TINY = (8, 3, 32)
CELLS = ("lstm", "gru", "rnn")


def _cases(
    sizes: Iterable[tuple[int, int, int]],
    cells: Iterable[str] = CELLS,
    precisions: Iterable[str] = tuple(PRECISIONS),
    *,
    lengths: bool = False,
) -> Iterator[Case]:
    """Size by size, so that a table cut short still has every scenario."""
    for size, cell, precision, scenario in itertools.product(sizes, cells, precisions, SCENARIOS):
        yield Case(scenario, precision, Shape(cell, *size), lengths)


def _table() -> tuple[Case, ...]:
    """Most telling first: the two cells and precisions that people train with, then the rest."""
    first = [
        *_cases((ANCHOR,), ("lstm", "gru"), ("bfloat16", "float16")),
        *_cases(SIZES[1:5], ("lstm", "gru"), ("bfloat16", "float32")),
        *_cases((ANCHOR,), ("lstm",), ("float32", "tfloat32")),
        *_cases(LENGTHS_SIZES, ("lstm", "gru"), ("bfloat16",), lengths=True),
        *_cases(SIZES[5:], ("lstm",), ("bfloat16", "float32")),
    ]
    rest = [*_cases(SIZES), *_cases(LENGTHS_SIZES, lengths=True)]
    return tuple(dict.fromkeys([*first, *rest]))


TABLE = _table()
# What a first contact has time for.
SHORT = (
    *_cases((ANCHOR,), ("lstm",), ("bfloat16", "float16")),
    *_cases((SIZES[6],), ("lstm",), ("bfloat16",)),
)
CASE_SETS = MappingProxyType(
    {
        "table": TABLE,
        "short": SHORT,
        "few": tuple(_cases(FEW_SIZES, ("lstm", "gru"), ("bfloat16", "float32"))),
        "smoke": (
            *_cases((TINY,), precisions=("float32", "bfloat16")),
            *_cases((TINY,), precisions=("float32",), lengths=True),
        ),
    }
)


def parse_cases(words: Iterable[str]) -> list[Case]:
    """Cases of words that each name a set of CASE_SETS or one case, without repeats."""
    cases: list[Case] = []
    for word in words:
        cases += CASE_SETS[word] if word in CASE_SETS else [Case.parse(word)]
    return list(dict.fromkeys(cases))


@dataclass(frozen=True)
class Problem:
    """The inputs of a case as tensors on one device, by their names in the public API.

    x, dy [T,B,H]; w_ih, w_hh [G*H,H]; b_ih, b_hh [G*H]; h0, dh_n (lstm: c0, dc_n) [B,H];
    lengths [B] int32 on the device, and on the host.
    """

    case: Case
    tensors: dict[str, Any]
    lengths: Any = None
    host_lengths: list[int] | None = None

    def other_data(self, seed: int) -> Problem:
        """Other sequences, states and gradients for the same weights."""
        torch = _torch()
        device = self.tensors["x"].device
        kept = {k: v for k, v in self.tensors.items() if k[:2] in ("w_", "b_")}
        data = _data(torch, self.case, device, seed)
        return Problem(self.case, kept | data, self.lengths, self.host_lengths)


def random_problem(case: Case, device: str = "cuda", seed: int = 0) -> Problem:
    """Standard normal data and PyTorch's initialisation, uniform in +-1/sqrt(H), for weights."""
    torch = _torch()
    shape = case.shape
    dtype = getattr(torch, case.dtype)
    generator = torch.Generator(device).manual_seed(seed)
    rows, bound = GATES[shape.cell] * shape.hidden, shape.hidden**-0.5

    def uniform(*size: int) -> Any:
        drawn = torch.empty(size, device=device).uniform_(-bound, bound, generator=generator)
        return drawn.to(dtype)

    weights = {name: uniform(rows, shape.hidden) for name in ("w_ih", "w_hh")}
    weights |= {name: uniform(rows) for name in ("b_ih", "b_hh")}
    host = case.sequence_lengths()
    lengths = None if host is None else torch.tensor(host, dtype=torch.int32, device=device)
    return Problem(case, weights | _data(torch, case, device, seed + 1), lengths, host)


def _data(torch: Any, case: Case, device: Any, seed: int) -> dict[str, Any]:
    shape, dtype = case.shape, getattr(torch, case.dtype)
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*size: int) -> Any:
        return torch.randn(size, device=device, generator=generator).to(dtype)

    sequence, state = (shape.steps, shape.batch, shape.hidden), (shape.batch, shape.hidden)
    data = {"x": normal(*sequence), "dy": normal(*sequence)}
    for name in case.states:
        data |= {f"{name}0": normal(*state).tanh(), f"d{name}_n": normal(*state)}
    return data


def _torch() -> Any:
    import torch  # noqa: PLC0415 (lists of cases need no PyTorch)

    return torch
