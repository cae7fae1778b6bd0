"""Mistakes at the door of the compiled module: outputs to write to, threads, the environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

import fusedrnn as fr
from error_support import B, H, I, T, problem
from fusedrnn import _core
from support import Arguments


def core_forward(cell: str = "lstm", **changed: Any) -> Any:
    arguments: Arguments = problem(cell) | {"reverse": False, "save": True}
    return _core.forward(cell, **{"c0": None} | arguments | changed)


def nans(*shape: int) -> Any:
    return np.full(shape, np.nan, "float32")


@pytest.mark.parametrize(("name", "shape"), [("y", (T, B, H)), ("h_n", (B, H)), ("c_n", (B, H))])
def test_outputs_to_write_to(name: str, shape: tuple[int, ...]) -> None:
    read_only = nans(*shape)
    read_only.flags.writeable = False
    columns = nans(*shape, 2)[..., 0]
    for bad, error, message in [
        ([0.0], TypeError, "expected a NumPy array to write to, got list"),
        (torch.zeros(shape), TypeError, "expected a NumPy array to write to, got Tensor"),
        (read_only, ValueError, "expected an array to write to, got a read-only one"),
        (nans(*shape, 1), ValueError, f"expected shape {shape}, got {(*shape, 1)}"),
        (
            nans(*shape).astype("float64"),
            TypeError,
            "expected dtype float32 (the dtype of x), got float64",
        ),
        (columns, ValueError, "expected a last axis of stride 1, got stride 2"),
        (
            np.lib.stride_tricks.as_strided(nans(H), shape, (0,) * (len(shape) - 1) + (4,)),
            ValueError,
            "expected rows that do not overlap, got strides that make them overlap",
        ),
    ]:
        with pytest.raises(error, match=f"^{name}: {re.escape(message)}$"):
            core_forward(**{name: bad})


def test_outputs_that_share_memory() -> None:
    both = nans(B, H + 1)
    with pytest.raises(ValueError, match=r"^c_n: expected memory apart from h_n, got overlapping"):
        core_forward(h_n=both[:, :H], c_n=both[:, 1:])
    x = problem("lstm")["x"]
    wide = nans(T, B, H)
    with pytest.raises(ValueError, match=r"^y: expected memory apart from x, got overlapping"):
        core_forward(x=wide[..., :I], y=wide)
    # Halves of one array share none.
    halves, states = nans(T, B, I + H), nans(B, 2 * H)
    halves[..., :I] = x
    y, h_n, c_n, _ = core_forward(
        x=halves[..., :I], y=halves[..., I:], h_n=states[:, :H], c_n=states[:, H:]
    )
    expected = core_forward()
    for got, value in zip((y, h_n, c_n), expected[:3], strict=True):
        assert np.array_equal(got, value)
    assert np.array_equal(halves[..., :I], x)


@pytest.mark.parametrize("name", ["c0", "c_n"])
def test_cells_without_a_cell_state(name: str) -> None:
    for cell in ("gru", "rnn_tanh"):
        base = problem(cell[:3]) | {"c0": None, "reverse": False, "save": False}
        message = re.escape(f"{name}: expected none ({cell} has no cell state), got shape (2, 5)")
        with pytest.raises(ValueError, match=f"^{message}$"):
            _core.forward(cell, **base | {name: np.zeros((B, H), "float32")})


def test_nothing_is_written_on_failure() -> None:
    y, h_n, c_n = nans(T, B, H), nans(B, H), nans(B, H)
    for changed in (
        {"lengths": [1, 99]},
        {"resets": np.zeros((1, 1), bool)},
        {"c0": nans(B, H + 1)},
        {"h_n": nans(B, H + 1)},
        {"c_n": nans(1)},
    ):
        with pytest.raises(ValueError, match="expected"):
            core_forward(**{"y": y, "h_n": h_n, "c_n": c_n} | changed)
    *_, tape = core_forward()
    dx, dh0 = nans(T, B, I), nans(B, H)
    for upstream in ({"dy": nans(1)}, {"dc_n": nans(1)}, {"dc0": nans(1)}):
        arguments: Arguments = {"dy": None, "dh_n": None, "dc_n": None, "dx": dx, "dh0": dh0}
        with pytest.raises(ValueError, match="expected"):
            _core.backward(tape, **arguments | upstream)
    for output in (y, h_n, c_n, dx, dh0):
        assert np.isnan(output).all()


def test_accumulating_into_nothing() -> None:
    *_, tape = core_forward()
    with pytest.raises(ValueError, match=r"^dx: expected an array to accumulate into, got none$"):
        _core.backward(tape, None, None, None, accumulate_dx=True)


def test_arguments_of_the_module_that_are_no_arrays() -> None:
    cases: list[tuple[Arguments, str]] = [
        ({"reverse": 1}, "reverse: expected a bool, got int"),
        ({"save": None}, "save: expected a bool, got NoneType"),
    ]
    for changed, message in cases:
        with pytest.raises(TypeError, match=f"^{message}$"):
            core_forward(**changed)
    with pytest.raises(ValueError, match=r"^cell: expected one of rnn_tanh, .*, lstm, got 'qrnn'$"):
        _core.forward("qrnn", **problem("lstm"), reverse=False, save=False)
    with pytest.raises(TypeError, match=r"^tape: expected a Tape, got dict$"):
        _core.backward({}, None, None, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="No constructor"):
        _core.Tape()


@pytest.mark.parametrize("n", [0, -1, 2**20, 2**31, 2**40, -(2**31)])
def test_numbers_of_threads(n: int) -> None:
    before = fr.get_num_threads()
    with pytest.raises(ValueError, match=f"^n: expected a number of threads.*, got {n}$"):
        fr.set_num_threads(n)
    assert fr.get_num_threads() == before


@pytest.mark.parametrize("n", [True, 1.0, "2", None])
def test_numbers_of_threads_are_ints(n: Any) -> None:
    with pytest.raises(TypeError, match=f"^n: expected an int, got {type(n).__name__}$"):
        fr.set_num_threads(n)


def run_with(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("isa", ["avx1024", "AVX2 ", "auto"])
def test_an_instruction_set_that_does_not_exist(isa: str) -> None:
    failed = run_with("import fusedrnn", FUSEDRNN_ISA=isa)
    assert failed.returncode != 0
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "ImportError: FUSEDRNN_ISA: expected one of scalar, neon, avx2, avx512, avx512_bf16"
    )
    assert last.endswith(f"got '{isa}'")


def test_a_number_of_threads_in_the_environment_that_is_none() -> None:
    code = "import fusedrnn; fusedrnn.get_num_threads()"
    failed = run_with(code, FUSEDRNN_NUM_THREADS="many")
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("ValueError: FUSEDRNN_NUM_THREADS: expected a number of threads")
    assert last.endswith("got 'many'")
