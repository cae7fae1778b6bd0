"""A small problem, one of whose arguments a test makes wrong."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from support import Arguments, backward, forward

T, B, I, H = 3, 2, 4, 5  # noqa: E741
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
FLOATING = "dtype float32, float64, bfloat16 or float16"  # as messages say it
FLOATS = ("x", "w_ih", "w_hh", "b_ih", "b_hh", "h0", "c0")
UPSTREAM = ("dy", "dh_n", "dc_n")


def shapes(cell: str) -> dict[str, tuple[int, ...]]:
    rows = GATES[cell] * H
    known: dict[str, tuple[int, ...]] = {
        "x": (T, B, I),
        "w_ih": (rows, I),
        "w_hh": (rows, H),
        "b_ih": (rows,),
        "b_hh": (rows,),
        "h0": (B, H),
    }
    return known | ({"c0": (B, H)} if cell == "lstm" else {})


def upstream_shapes(cell: str) -> dict[str, tuple[int, ...]]:
    known: dict[str, tuple[int, ...]] = {"dy": (T, B, H), "dh_n": (B, H)}
    return known | ({"dc_n": (B, H)} if cell == "lstm" else {})


def problem(cell: str, dtype: Any = "float32") -> Arguments:
    rng = np.random.default_rng(0)
    arguments: Arguments = {
        name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes(cell).items()
    }
    return arguments | {"lengths": np.array([T, 1]), "resets": np.zeros((T, B), bool)}


def rejected(cell: str, error: type[Exception], message: str, **changed: Any) -> None:
    arguments = problem(cell) | changed
    for function in (cell, f"{cell}_forward"):
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            getattr(fr, function)(**arguments)


def rejected_upstream(cell: str, error: type[Exception], message: str, **upstream: Any) -> None:
    _, tape = forward(cell, **problem(cell))
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        backward(cell, tape, **upstream)
