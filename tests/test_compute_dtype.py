"""compute_dtype: what it takes, what it means beside the dtype, and that backward keeps to it.

`test_half_precision.py` has the accuracy of every cell.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fusedrnn as fr
from half_support import in_double
from support import (
    HARD,
    LAYERS,
    Arguments,
    backward,
    check,
    directions,
    forward,
    infer,
    outputs,
    problem_of,
    same_bits,
    variants,
)

CELLS = list(LAYERS)
cells = pytest.mark.parametrize("cell", CELLS)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])


def run(cell: str, problem: Arguments, upstream: Arguments, **options: Any) -> Arguments:
    got, tape = forward(cell, **problem, **options)
    return got | backward(cell, tape, **upstream)


@cells
@every_dtype
def test_the_dtype_itself_is_plain(cell: str, dtype: str) -> None:
    problem, upstream = problem_of(cell, dtype, hidden_size=17, **HARD)
    expected = run(cell, problem, upstream)
    for plain in (None, dtype, np.dtype(dtype), np.dtype(dtype).type):
        same_bits(run(cell, problem, upstream, compute_dtype=plain), expected)
        same_bits(
            infer(cell, **problem, compute_dtype=plain),
            {name: expected[name] for name in expected if name[0] != "d"},
        )


@cells
def test_it_may_be_given_in_several_ways(cell: str) -> None:
    problem, upstream = problem_of(cell, "float32", hidden_size=17, **HARD)
    expected = run(cell, problem, upstream, compute_dtype="bfloat16")
    for same in (ml_dtypes.bfloat16, np.dtype("bfloat16")):
        same_bits(run(cell, problem, upstream, compute_dtype=same), expected)


@variants
@directions
def test_small_integers_are_exact(cell: str, options: Arguments, reverse: bool) -> None:
    """Nothing to round in x, h0 and the weights: the first step gives the bits of float32."""
    options = {**options, "reverse": reverse}
    problem, _ = problem_of(cell, "float32", steps=1, batch=3, input_size=7, hidden_size=9)
    problem |= {name: np.round(problem[name]) for name in ("x", "w_ih", "w_hh", "h0")}
    if cell == "gru" and not options["reset_after"]:
        problem["h0"][...] = 0  # r * h is no integer
    mixed, plain = (infer(cell, **problem, **options, compute_dtype=c) for c in ("bfloat16", None))
    # Each instruction set has an order of summation of its own for each type.
    check(mixed, plain, 2e-7)


def test_what_is_no_operand_stays_float32() -> None:
    third = np.float32(1 / 3)
    x, w = np.zeros((2, 1, 1), "float32"), np.ones((1, 1), "float32")
    y, _ = fr.rnn(x, w, w * 0, b_ih=third[None], nonlinearity="identity", compute_dtype="bfloat16")
    assert (y == third).all()
    # The state that is carried, beside the one that is multiplied.
    closed = np.array([0, 40, 0], "float32")
    zeros = np.zeros((3, 1), "float32")
    h0 = np.full((1, 1), third)
    _, h_n = fr.gru(x, zeros, zeros, closed, h0=h0, compute_dtype="bfloat16")
    assert h_n.item() == third
    c0 = np.full((1, 1), third)
    zeros, open_gates = np.zeros((4, 1), "float32"), np.array([-200, 40, 0, 40], "float32")
    _, (_, c_n) = fr.lstm(x, zeros, zeros, open_gates, c0=c0, compute_dtype="bfloat16")
    assert c_n.item() == third


def test_the_operands_are_rounded() -> None:
    """1 + 2^-9 is 1 in bfloat16: as x, as a weight, as the state, and as a gate's gradient."""
    one, little = np.ones((1, 1, 1), "float32"), np.float32(1 + 2**-9)
    mixed: Arguments = {"nonlinearity": "identity", "compute_dtype": "bfloat16"}
    for x, w_ih in ((one * little, one[0]), (one, one[0] * little)):
        y, _, tape = fr.rnn_forward(x, w_ih, one[0] * 0, **mixed)
        assert y.item() == 1
        grads = fr.rnn_backward(tape, one)
        assert (grads.dx.item(), grads.dw_ih.item()) == (1, 1)
    for h0, w_hh in ((one[0] * little, one[0]), (one[0], one[0] * little)):
        y, _, tape = fr.rnn_forward(one * 0, one[0], w_hh, h0=h0, **mixed)
        assert y.item() == 1
        grads = fr.rnn_backward(tape, one)
        assert (grads.dh0.item(), grads.dw_hh.item()) == (1, 1)
    *_, tape = fr.rnn_forward(one, one[0], one[0], h0=one[0], **mixed)
    grads = fr.rnn_backward(tape, one * little)
    products = (grads.dx, grads.dw_ih, grads.dw_hh, grads.dh0)
    assert [gradient.item() for gradient in products] == [1, 1, 1, 1]


@variants
def test_backward_keeps_to_the_tape(cell: str, options: Arguments) -> None:
    problem, upstream = problem_of(cell, "float32", batch=5, hidden_size=33, **HARD, seed=1)
    _, mixed = forward(cell, **problem, **options, compute_dtype="bfloat16")
    _, plain = forward(cell, **problem, **options)
    assert (mixed.core.network.compute_dtype, plain.core.network.compute_dtype) == (
        "bfloat16",
        None,
    )
    assert mixed.core.network.dtype == "float32"
    far, near = (backward(cell, tape, **upstream) for tape in (mixed, plain))
    with pytest.raises(AssertionError, match="relative error"):
        check(far, near, 1e-4)
    check(in_double(far), in_double(near), 2**-5)


ALLOWED = {
    "float32": "None, 'float32' or 'bfloat16'",
    "float64": "None or 'float64'",
    "bfloat16": "None or 'bfloat16'",
    "float16": "None or 'float16'",
}


@cells
@every_dtype
def test_what_does_not_go_with_the_arrays(cell: str, dtype: str) -> None:
    problem, _ = problem_of(cell, dtype)
    for other in ALLOWED.keys() - {dtype} - ({"bfloat16"} if dtype == "float32" else set()):
        message = f"compute_dtype: expected {ALLOWED[dtype]} with arrays of {dtype}, got '{other}'"
        for function in (cell, f"{cell}_forward"):
            with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
                getattr(fr, function)(**problem, compute_dtype=other)
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            LAYERS[cell](3, 4, dtype=dtype, compute_dtype=other)


@cells
@every_dtype
def test_tfloat32_is_for_cuda_devices(cell: str, dtype: str) -> None:
    problem, _ = problem_of(cell, dtype)
    where = " on the CPU" if dtype == "float32" else ""
    wanted = f"{ALLOWED[dtype]} with arrays of {dtype}{where}"
    message = f"compute_dtype: expected {wanted}, got 'tfloat32'"
    for function in (cell, f"{cell}_forward"):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            getattr(fr, function)(**problem, compute_dtype="tfloat32")
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LAYERS[cell](3, 4, dtype=dtype, compute_dtype="tfloat32")


@cells
@pytest.mark.parametrize("value", ["int8", "brain", "", 3, ">f4", np.int16, True, "float8_e5m2"])
def test_what_it_never_is(cell: str, value: Any) -> None:
    problem, _ = problem_of(cell, "float32")
    shown = repr(value) if isinstance(value, str) else str(value)
    message = (
        "compute_dtype: expected None, 'float32', 'float64', 'bfloat16', 'float16' or 'tfloat32', "
        f"got {shown}"
    )
    for call in (getattr(fr, cell), getattr(fr, f"{cell}_forward")):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            call(**problem, compute_dtype=value)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LAYERS[cell](3, 4, compute_dtype=value)


@cells
def test_layers(cell: str) -> None:
    """A layer is its functions; copies keep the option; a plain one of its weights differs."""
    layer = LAYERS[cell](3, 17, compute_dtype="bfloat16", seed=0)
    assert repr(layer) == f"{cell.upper()}(3, 17, compute_dtype='bfloat16')"
    assert layer.compute_dtype == "bfloat16"
    assert {value.dtype for value in layer.parameters().values()} == {np.dtype("float32")}
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype("float32")
    weights = layer.parameters().values()
    for twin in (layer, copy.deepcopy(layer)):
        got, tape = forward(cell, x=x, **named(weights), compute_dtype="bfloat16")
        y, state, layer_tape = twin.forward(x)
        h_n = state[0] if cell == "lstm" else state
        same_bits({"y": y, "h_n": h_n[0]}, {"y": got["y"], "h_n": got["h_n"]})
        expected = backward(cell, tape, dy=y)
        grads = twin.backward(layer_tape, y)
        same_bits({"x": grads["x"]}, {"x": expected["dx"]})
        same_bits({"w": grads["weight_hh_l0"]}, {"w": expected["dw_hh"]})
        y_0, _ = twin.step(x[0])
        check({"y": y_0}, {"y": y[0]}, 1e-6)
    plain = LAYERS[cell](3, 17, seed=0)
    assert not np.array_equal(plain(x)[0], layer(x)[0])
    check(outputs(*plain(x)), outputs(*layer(x)), 2**-6)


def named(weights: Any) -> Arguments:
    return dict(zip(("w_ih", "w_hh", "b_ih", "b_hh"), weights, strict=True))
