"""NumPy, PyTorch, JAX, array_api_strict: one set of promises of memory and layout for each."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, NamedTuple

import array_api_strict
import jax
import ml_dtypes
import numpy as np
import pytest
import torch

import fusedrnn as fr
from error_support import B, H, T, problem
from support import Arguments, backward, forward, infer, same_bits


class Library(NamedTuple):
    view: Callable[[Any], Any]  # of memory of NumPy, with its strides where the library has some
    kind: type
    address: Callable[[Any], int]


def strict(array: Any) -> Any:
    return array_api_strict.asarray(array, copy=False)


LIBRARIES = {
    "numpy": Library(lambda array: array, np.ndarray, lambda y: int(y.ctypes.data)),
    "torch": Library(torch.from_numpy, torch.Tensor, lambda y: int(y.data_ptr())),
    "jax": Library(jax.numpy.asarray, jax.Array, lambda y: int(y.unsafe_buffer_pointer())),
    "array_api_strict": Library(
        strict, type(strict(np.zeros(1))), lambda y: int(np.from_dlpack(y).ctypes.data)
    ),
}
libraries = pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)


def viewed(library: Library, arrays: Arguments) -> Arguments:
    return {name: library.view(array) for name, array in arrays.items()}


@libraries
def test_both_ways(library: Library) -> None:
    arguments, dy = problem("lstm"), np.ones((T, B, H), "float32")
    expected, tape = forward("lstm", **arguments)
    expected |= backward("lstm", tape, dy=dy)
    got, tape = forward("lstm", **viewed(library, arguments))
    got |= backward("lstm", tape, dy=library.view(dy))
    assert all(isinstance(value, library.kind) for value in got.values())
    same_bits({name: np.asarray(np.from_dlpack(value)) for name, value in got.items()}, expected)


@libraries
def test_results_own_their_memory(library: Library) -> None:
    given = viewed(library, problem("gru"))
    first, tape = forward("gru", **given)
    grads = backward("gru", tape, dy=first["y"])
    kept = {name: np.from_dlpack(value).copy() for name, value in (first | grads).items()}
    lent = {library.address(value) for value in given.values()}
    assert not lent & {library.address(value) for value in (first | grads).values()}
    del given, tape
    gc.collect()
    churn = [infer("gru", **viewed(library, problem("gru"))) for _ in range(5)]
    churn += [np.full((T, B, 3 * H), np.nan, "float32") for _ in range(50)]
    same_bits({name: np.from_dlpack(value) for name, value in (first | grads).items()}, kept)
    del churn


@libraries
def test_what_may_not_be_written_is_read(library: Library) -> None:
    """JAX's arrays always, NumPy's and through it array_api_strict's by their flag."""
    arguments = problem("gru")
    expected = infer("gru", **arguments)
    if library.kind is not torch.Tensor:  # which knows no such tensors
        for array in arguments.values():
            array.flags.writeable = False
    before = {name: array.copy() for name, array in arguments.items()}
    got = infer("gru", **viewed(library, arguments))
    same_bits({name: np.asarray(np.from_dlpack(value)) for name, value in got.items()}, expected)
    same_bits(arguments, before)


@libraries
def test_strides_of_axes_of_one_say_nothing(library: Library) -> None:
    x = np.arange(T * 4, dtype="float32").reshape(T, 1, 4)
    w_ih, w_hh = np.ones((H, 4), "float32"), np.zeros((H, H), "float32")
    expected, _ = fr.rnn(x, w_ih, w_hh, nonlinearity="identity")
    for stride in (0, 4, 12, 4096):
        strides = (x.strides[0], stride, x.strides[2])
        odd = np.lib.stride_tricks.as_strided(x, x.shape, strides)
        y, _ = fr.rnn(library.view(odd), w_ih, w_hh, nonlinearity="identity")
        np.testing.assert_array_equal(np.from_dlpack(y), expected)


@libraries
@pytest.mark.parametrize("shape", [(0, 2, 4), (3, 0, 4), (0, 0, 4)])
def test_nothing_in_nothing_out(library: Library, shape: tuple[int, ...]) -> None:
    layer = fr.GRU(4, 5, seed=0)
    y, h_n, tape = layer.forward(library.view(np.zeros(shape, "float32")))
    grads = layer.backward(tape, y)
    assert tuple(y.shape) == (*shape[:2], 5)
    assert tuple(h_n.shape) == (1, shape[1], 5)
    assert tuple(grads["x"].shape) == shape
    assert not np.from_dlpack(grads["weight_hh_l0"]).any()
    assert isinstance(y, library.kind)


def test_the_other_byte_order_is_named() -> None:
    """NumPy's arrays may have it; the others have none such."""
    foreign = np.zeros((2, 1, 4), np.dtype("float32").newbyteorder())
    with pytest.raises(TypeError, match="x: expected an array in the machine's byte order"):
        fr.GRU(4, 5, seed=0)(foreign)
    for name in ("torch", "jax", "array_api_strict"):
        with pytest.raises((TypeError, ValueError)):
            LIBRARIES[name].view(foreign)


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_bfloat16(name: str) -> None:
    """array_api_strict has no such type."""
    assert not hasattr(array_api_strict, "bfloat16")
    layer = fr.GRU(4, 5, dtype="bfloat16", seed=0)
    x = np.ones((3, 2, 4), ml_dtypes.bfloat16)
    expected, _ = layer(x)
    given = torch.ones(3, 2, 4, dtype=torch.bfloat16) if name == "torch" else None
    y, _ = layer(LIBRARIES[name].view(x) if given is None else given)
    assert isinstance(y, LIBRARIES[name].kind)
    assert "bfloat16" in str(y.dtype)
    wide = y.float().numpy() if given is not None else np.asarray(y).astype("float32")
    np.testing.assert_array_equal(wide, expected.astype("float32"))
