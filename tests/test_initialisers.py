"""What the parameters of a layer begin with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from support import LAYERS, same_bits

CELLS = list(LAYERS)
cells = pytest.mark.parametrize("cell", CELLS)
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
I, H = 30, 16  # noqa: E741


@cells
def test_uniform_is_the_default(cell: str) -> None:
    """The values of earlier versions, too: one generator, in the order of the parameters."""
    layer = LAYERS[cell](I, H, 2, bidirectional=True, seed=3)
    random = np.random.default_rng(3)
    for value in layer.parameters().values():
        wanted = random.uniform(-(H**-0.5), H**-0.5, value.shape).astype("float32")
        assert np.array_equal(value, wanted)
    explicit = LAYERS[cell](I, H, 2, bidirectional=True, seed=3, init="uniform")
    same_bits(explicit.parameters(), layer.parameters())


@cells
@pytest.mark.parametrize("bidirectional", [False, True])
def test_orthogonal(cell: str, bidirectional: bool) -> None:
    options: dict[str, Any] = {"bidirectional": bidirectional, "dtype": "float64"}
    layer = LAYERS[cell](I, H, 2, **options, seed=0, init="orthogonal")
    seen = set()
    for name, value in layer.parameters().items():
        if name.startswith("weight_hh"):
            for block in value.reshape(GATES[cell], H, H):
                np.testing.assert_allclose(block @ block.T, np.eye(H), atol=1e-14)
                seen.add(block.tobytes())
        elif name.startswith("weight_ih"):
            bound = math.sqrt(6 / (value.shape[0] + value.shape[1]))
            assert 0.97 * bound < np.abs(value).max() <= bound
            assert abs(value.mean()) < 0.1 * bound
        else:
            assert not value.any()
    assert len(seen) == GATES[cell] * 2 * (1 + bidirectional)
    again = LAYERS[cell](I, H, 2, **options, seed=0, init="orthogonal")
    same_bits(again.parameters(), layer.parameters())
    other = LAYERS[cell](I, H, 2, **options, seed=1, init="orthogonal").parameters()
    assert not np.array_equal(other["weight_hh_l0"], layer.parameters()["weight_hh_l0"])


def test_orthogonal_matrices_are_of_both_kinds() -> None:
    """Rotations and reflections: the sign of each column is free."""
    signs = set()
    for seed in range(12):
        layer = fr.RNN(1, 3, init="orthogonal", seed=seed, dtype="float64")
        value = layer.parameters()["weight_hh_l0"]
        signs.add(round(float(np.linalg.det(value))))
        signs.add(float(np.sign(value[0, 0])) * 2)
    assert signs == {-1, 1, -2, 2}


def test_a_narrow_dtype_is_rounded() -> None:
    wide = fr.GRU(I, H, init="orthogonal", dtype="float64", seed=0).parameters()
    for dtype in ("float32", "float16"):
        narrow = fr.GRU(I, H, init="orthogonal", dtype=dtype, seed=0).parameters()
        same_bits(narrow, {name: value.astype(dtype) for name, value in wide.items()})


@pytest.mark.parametrize("init", ["uniform", "orthogonal"])
@pytest.mark.parametrize("peephole", [False, True])
def test_forget_bias(init: str, peephole: bool) -> None:
    options: dict[str, Any] = {"init": init, "peephole": peephole, "bidirectional": True}
    plain = fr.LSTM(I, H, 2, **options, seed=0).parameters()
    opened = fr.LSTM(I, H, 2, **options, seed=0, forget_bias=1.5).parameters()
    forget = slice(H, 2 * H)
    for name, value in opened.items():
        if name.startswith("bias"):
            other = name.replace("ih", "hh") if "ih" in name else name.replace("hh", "ih")
            assert np.array_equal(value[forget] + opened[other][forget], np.full(H, 1.5))
            rest = np.delete(np.arange(4 * H), np.arange(H, 2 * H))
            assert np.array_equal(value[rest], plain[name][rest])
        else:
            assert np.array_equal(value, plain[name])


def test_forget_bias_of_coupled_gates() -> None:
    """There the gate that has biases is the input's, and f = 1 - i."""
    layer = fr.LSTM(I, H, coupled=True, dtype="float64", seed=0, forget_bias=1.5)
    for name, value in layer.parameters().items():
        if name.startswith("weight"):
            value[...] = 0
        elif name.startswith("bias"):
            value[H:] = 0  # g = 0: the cell state is what the forget gate lets through
    _, (_, c_n) = layer(np.zeros((1, 1, I)), (None, np.ones((1, 1, H))))
    np.testing.assert_allclose(c_n, 1 / (1 + math.exp(-1.5)), rtol=1e-12)


@pytest.mark.parametrize("size", [5, H, 2 * H])
def test_orthogonal_projections(size: int) -> None:
    """Rows or columns are orthonormal, whichever are fewer."""
    layer = fr.LSTM(I, H, proj_size=size, init="orthogonal", dtype="float64", seed=0)
    parameters = layer.parameters()
    for block in parameters["weight_hh_l0"].reshape(4, H, size):
        tall = block if size < H else block.T
        np.testing.assert_allclose(tall.T @ tall, np.eye(min(size, H)), atol=1e-14)
    projection = parameters["weight_hr_l0"]
    tall = projection.T if size < H else projection
    np.testing.assert_allclose(tall.T @ tall, np.eye(min(size, H)), atol=1e-14)


def test_what_a_layer_began_with_is_not_its_structure() -> None:
    assert repr(fr.LSTM(3, 4, init="orthogonal", forget_bias=1)) == "LSTM(3, 4)"


@cells
def test_errors(cell: str) -> None:
    with pytest.raises(ValueError, match=r"^init: expected 'uniform' or 'orthogonal', got 'zero'$"):
        LAYERS[cell](3, 4, init="zero")
    with pytest.raises(TypeError, match=r"^init: expected a str, got NoneType$"):
        LAYERS[cell](3, 4, init=None)


def test_errors_of_one_cell() -> None:
    message = (
        "^init: expected 'uniform' for recurrent weights that are no matrix, got 'orthogonal'$"
    )
    with pytest.raises(ValueError, match=message):
        fr.IndRNN(3, 4, init="orthogonal")
    message = "^forget_bias: expected None for a layer without biases, got 1.0$"
    with pytest.raises(ValueError, match=message):
        fr.LSTM(3, 4, bias=False, forget_bias=1.0)
    with pytest.raises(ValueError, match=r"^forget_bias: expected a finite number, got nan$"):
        fr.LSTM(3, 4, forget_bias=math.nan)
    for bad in ("1", True):
        with pytest.raises(TypeError, match=r"^forget_bias: expected a number, got (str|bool)$"):
            fr.LSTM(3, 4, forget_bias=bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument 'forget_bias'"):
        fr.GRU(3, 4, forget_bias=1.0)  # type: ignore[call-arg]
