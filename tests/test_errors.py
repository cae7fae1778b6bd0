"""Every argument's wrong shape, dtype, device, rank and value: the whole message is read."""

from __future__ import annotations

import collections
import re
from array import array as packed
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from error_support import (
    FLOATING,
    FLOATS,
    GATES,
    UPSTREAM,
    B,
    H,
    I,
    T,
    problem,
    rejected,
    rejected_upstream,
    shapes,
    upstream_shapes,
)
from support import infer


def of_each_cell(*names: str) -> list[tuple[str, str]]:
    return [(cell, name) for cell in GATES for name in names if name in shapes(cell)]


def upstream_of_each_cell() -> list[tuple[str, str]]:
    return [(cell, name) for cell in GATES for name in upstream_shapes(cell)]


# Shapes


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("shape", [(), (I,), (1, T, B, I)])
def test_x_has_two_or_three_axes(cell: str, shape: tuple[int, ...]) -> None:
    message = f"x: expected a 3-dimensional array [T, B, I], or [T, I], got shape {shape}"
    rejected(cell, ValueError, message, x=np.zeros(shape, "float32"))


@pytest.mark.parametrize("name", FLOATS)
def test_no_array_has_nine_axes(name: str) -> None:
    message = f"{name}: expected at most 8 dimensions, got 9"
    rejected("lstm", ValueError, message, **{name: np.zeros((1,) * 9, "float32")})


@pytest.mark.parametrize(("cell", "name"), of_each_cell("b_ih", "b_hh", "h0", "c0"))
def test_biases_and_states_have_one_shape(cell: str, name: str) -> None:
    right = shapes(cell)[name]
    wrong = [(), (*right, 1), (1, *right), right[:-1], (*right[:-1], right[-1] + 1)]
    wrong += [(*right[:-1], 0), (right[0] + 1, *right[1:])]
    for shape in wrong:
        message = f"{name}: expected shape {right}, got {shape}"
        rejected(cell, ValueError, message, **{name: np.zeros(shape, "float32")})


@pytest.mark.parametrize("cell", GATES)
def test_w_ih_fits_x_and_w_hh(cell: str) -> None:
    rows = GATES[cell] * H
    for shape in [(rows + 1, I), (1, I), (I, rows), (rows + 1, I + 1), (rows, 0), (0, I), (0, 0)]:
        message = f"w_ih: expected shape {(rows, I)}, got {shape}"
        rejected(cell, ValueError, message, w_ih=np.zeros(shape, "float32"))
        bare = {name: None for name in ("b_ih", "b_hh", "h0", "c0") if name in shapes(cell)}
        rejected(cell, ValueError, message, **bare, w_ih=np.zeros(shape, "float32"))
    ranks: list[tuple[int, ...]] = [(rows,), (rows, I, 1)]
    for rank in ranks:
        axes = "[H, I]" if cell == "rnn" else "[G*H, I]"
        message = f"w_ih: expected a 2-dimensional array {axes}, got shape {rank}"
        rejected(cell, ValueError, message, w_ih=np.zeros(rank, "float32"))


@pytest.mark.parametrize("cell", GATES)
def test_w_hh_fits_w_ih(cell: str) -> None:
    rows = GATES[cell] * H
    others = [(rows, H + 1), (rows, 1), (rows, 0), (rows + 1, H), (1, H), (0, H), (0, 0)]
    for shape in [*others, (H, rows)] if rows != H else others:
        message = f"w_hh: expected shape {(rows, H)}, got {shape}"
        rejected(cell, ValueError, message, w_hh=np.zeros(shape, "float32"))
        bare = {name: None for name in ("b_ih", "b_hh", "h0", "c0") if name in shapes(cell)}
        rejected(cell, ValueError, message, **bare, w_hh=np.zeros(shape, "float32"))
    ranks: list[tuple[int, ...]] = [(rows,), (rows, H, 1)]
    for rank in ranks:
        axes = "[H, H]" if cell == "rnn" else "[G*H, H]"
        message = f"w_hh: expected a 2-dimensional array {axes}, got shape {rank}"
        rejected(cell, ValueError, message, w_hh=np.zeros(rank, "float32"))


@pytest.mark.parametrize("cell", GATES)
def test_x_fits_w_ih(cell: str) -> None:
    """Of the two that know the input size, the one that comes anew with every call."""
    for inputs in (I + 1, 1, 0):
        message = f"x: expected shape {(T, B, I)}, got {(T, B, inputs)}"
        rejected(cell, ValueError, message, x=np.zeros((T, B, inputs), "float32"))
    message = f"x: expected shape {(T, B, I + 1)}, got {(T, B, I)}"
    wide = np.zeros((GATES[cell] * H, I + 1), "float32")
    rejected(cell, ValueError, message, w_ih=wide)


@pytest.mark.parametrize("cell", GATES)
def test_the_hidden_size_that_most_arrays_have(cell: str) -> None:
    rows, other = GATES[cell] * H, GATES[cell] * (H + 1)
    w_hh, bias = np.zeros((other, H + 1), "float32"), np.zeros(other, "float32")
    rejected(cell, ValueError, f"w_hh: expected shape {(rows, H)}, got {w_hh.shape}", w_hh=w_hh)
    message = f"w_ih: expected shape {(other, I)}, got {(rows, I)}"
    rejected(cell, ValueError, message, w_hh=w_hh, b_ih=bias, b_hh=bias)
    rejected(cell, ValueError, message, w_hh=w_hh, b_ih=bias, b_hh=None)
    w_ih = np.zeros((other, I), "float32")
    message = f"b_ih: expected shape {(other,)}, got {(rows,)}"
    rejected(cell, ValueError, message, w_ih=w_ih, w_hh=w_hh, b_hh=None)
    message = f"h0: expected shape {(B, H + 1)}, got {(B, H)}"
    rejected(cell, ValueError, message, w_ih=w_ih, w_hh=w_hh, b_ih=bias, b_hh=bias)


def test_the_weights_of_another_cell() -> None:
    weights = {name: problem("lstm")[name] for name in ("w_ih", "w_hh")}
    rejected("gru", ValueError, "w_ih: expected shape (15, 4), got (20, 4)", **weights)
    rejected("rnn", ValueError, "w_ih: expected shape (5, 4), got (20, 4)", **weights)
    weights |= {"b_ih": None, "b_hh": None}
    rejected("gru", ValueError, "w_ih: expected shape (15, 4), got (20, 4)", **weights)
    rejected("rnn", ValueError, "w_hh: expected shape (20, 20), got (20, 5)", **weights)


def test_the_example_of_the_documentation() -> None:
    x = np.zeros((1, 1, 3), "float32")
    w_ih, w_hh = np.zeros((512, 3), "float32"), np.zeros((512, 64), "float32")
    message = re.escape("w_hh: expected shape (512, 128), got (512, 64)")
    with pytest.raises(ValueError, match=f"^{message}$"):
        fr.lstm(x, w_ih, w_hh)


@pytest.mark.parametrize("cell", GATES)
def test_sizes_of_zero(cell: str) -> None:
    rows = GATES[cell] * H
    empty = {"x": np.zeros((T, B, 0), "float32"), "w_ih": np.zeros((rows, 0), "float32")}
    message = f"x: expected shape {(T, B, 1)}, got {(T, B, 0)}"
    rejected(cell, ValueError, message, **empty)
    empty = {"w_ih": np.zeros((0, I), "float32"), "w_hh": np.zeros((0, 0), "float32")}
    message = f"w_ih: expected shape {(GATES[cell], I)}, got {(0, I)}"
    rejected(cell, ValueError, message, **empty, b_ih=None, b_hh=None)


@pytest.mark.parametrize("cell", GATES)
def test_sizes_that_overflow(cell: str) -> None:
    x = np.broadcast_to(np.float32(0), (2**30, 2**27, I))
    message = f"x: T = {2**30}, B = {2**27}, I = {I}, H = {H} are too large"
    rejected(cell, ValueError, message, x=x)
    # Its states would fit.
    x = np.broadcast_to(np.float32(0), (2**20, 2**10, 2**26))
    wide: dict[str, Any] = {
        "w_ih": np.broadcast_to(np.float32(0), (GATES[cell], 2**26)),
        "w_hh": np.broadcast_to(np.float32(0), (GATES[cell], 1)),
    }
    message = f"x: T = {2**20}, B = {2**10}, I = {2**26}, H = 1 are too large"
    rejected(cell, ValueError, message, x=x, **wide)
    x = np.broadcast_to(np.float32(0), (2**58, 0, I))
    message = f"x: T = {2**58}, B = 0, I = {I}, H = {H} are too large"
    rejected(cell, ValueError, message, x=x)
    rows, width = GATES[cell] * 2**50, 2**50
    weights = {
        "w_ih": np.broadcast_to(np.float32(0), (rows, I)),
        "w_hh": np.broadcast_to(np.float32(0), (rows, 1)),
        "b_ih": None,
        "b_hh": None,
    }
    rejected(cell, ValueError, f"w_ih: I = {I}, H = {width} are too large", **weights)


def test_more_memory_than_there_is() -> None:
    x = np.broadcast_to(np.float32(0), (2**24, 2**20, I))  # within int64, beyond any address space
    absent = dict.fromkeys(("h0", "lengths", "resets"))
    for function in ("gru", "gru_forward"):
        with pytest.raises(MemoryError, match=r"^out of memory: cannot allocate 2[0-9]+ bytes"):
            getattr(fr, function)(**problem("gru") | {"x": x} | absent)


def test_more_memory_for_weights_than_there_is() -> None:
    """Packed weights are memory of the call's own; the error says how much it is."""
    width = 2**23
    weights = {
        "w_ih": np.broadcast_to(np.zeros(I, "float32"), (3 * width, I)),
        "w_hh": np.broadcast_to(np.zeros(width, "float32"), (3 * width, width)),
    }
    x = np.zeros((2, 1, I), "float32")
    for function in ("gru", "gru_forward"):
        with pytest.raises(MemoryError, match=r"^out of memory: cannot allocate [0-9]{15} bytes$"):
            getattr(fr, function)(x, **weights)


@pytest.mark.parametrize(("cell", "name"), upstream_of_each_cell())
def test_upstream_gradients_have_one_shape(cell: str, name: str) -> None:
    right = upstream_shapes(cell)[name]
    wrong = [(), (*right, 1), right[1:], (*right[:-1], right[-1] + 1), (right[0] + 1, *right[1:])]
    for shape in wrong:
        message = f"{name}: expected shape {right}, got {shape}"
        rejected_upstream(cell, ValueError, message, **{name: np.zeros(shape, "float32")})


# Types

NOT_FLOATS = {
    "longdouble": f"float{np.dtype('longdouble').itemsize * 8}",
    "int8": "int8",
    "int64": "int64",
    "uint32": "uint32",
    "bool": "bool",
    "complex64": "complex64",
    "object": "object",
    "U3": "<U3",
    "S4": "|S4",
    "datetime64[s]": "datetime64[s]",
    "float32,int8": "[('f0', '<f4'), ('f1', 'i1')]",
    "timedelta64[ns]": "timedelta64[ns]",
    "V0": "|V0",
    "V2": "|V2",
}


@pytest.mark.parametrize("dtype", NOT_FLOATS)
@pytest.mark.parametrize("name", FLOATS)
def test_floats_are_floats(name: str, dtype: str) -> None:
    array = np.zeros(shapes("lstm")[name], dtype)
    message = f"{name}: expected {FLOATING}, got {NOT_FLOATS[dtype]}"
    rejected("lstm", TypeError, message, **{name: array})


@pytest.mark.parametrize("dtype", NOT_FLOATS)
@pytest.mark.parametrize("name", UPSTREAM)
def test_upstream_gradients_are_floats(name: str, dtype: str) -> None:
    array = np.zeros(upstream_shapes("lstm")[name], dtype)
    message = f"{name}: expected {FLOATING}, got {NOT_FLOATS[dtype]}"
    rejected_upstream("lstm", TypeError, message, **{name: array})


@pytest.mark.parametrize(("cell", "name"), of_each_cell(*FLOATS[1:]))
def test_one_dtype_a_call(cell: str, name: str) -> None:
    array = problem(cell)[name].astype("float64")
    message = (
        f"{name}: expected dtype float32 (the dtype of x), got float64; use .astype('float32')"
    )
    rejected(cell, TypeError, message, **{name: array})


@pytest.mark.parametrize(("cell", "name"), upstream_of_each_cell())
def test_upstream_gradients_have_the_dtype_of_x(cell: str, name: str) -> None:
    array = np.zeros(upstream_shapes(cell)[name], "float64")
    message = (
        f"{name}: expected dtype float32 (the dtype of x), got float64; use .astype('float32')"
    )
    rejected_upstream(cell, TypeError, message, **{name: array})


@pytest.mark.parametrize("name", [*FLOATS, "lengths"])
def test_the_other_byte_order(name: str) -> None:
    array = problem("lstm")[name]
    foreign = array.astype(array.dtype.newbyteorder())
    message = f"{name}: expected an array in the machine's byte order, got dtype {foreign.dtype}"
    rejected("lstm", TypeError, message, **{name: foreign})


@pytest.mark.parametrize("name", [*FLOATS, "lengths", "resets"])
@pytest.mark.parametrize(
    "value", ["abc", b"abc", bytearray(b"abc"), 1, 2.5, {}, {1}, object(), iter([1, 1])]
)
def test_arrays_are_arrays(name: str, value: Any) -> None:
    shown = type(value).__name__
    message = f"{name}: expected an array (NumPy, or an object with __dlpack__), got {shown}"
    rejected("lstm", TypeError, message, **{name: value})


@pytest.mark.parametrize("name", [*FLOATS, "resets"])
@pytest.mark.parametrize("value", [[[0.0]], (1, 2), range(2)])
def test_only_lengths_may_be_a_list(name: str, value: Any) -> None:
    message = (
        f"{name}: expected an array (NumPy, or an object with __dlpack__), "
        f"got {type(value).__name__}"
    )
    rejected("lstm", TypeError, message, **{name: value})


@pytest.mark.parametrize("name", ["x", "w_ih", "w_hh"])
def test_what_must_be_given(name: str) -> None:
    rejected("lstm", ValueError, f"{name}: expected an array, got none", **{name: None})


@pytest.mark.parametrize("name", [*FLOATS, "lengths", "resets"])
def test_a_mask_is_not_ignored(name: str) -> None:
    masked = np.ma.masked_array(problem("lstm")[name], mask=True)
    message = f"{name}: expected an array without a mask, got MaskedArray"
    rejected("lstm", TypeError, message, **{name: masked})


# Values of lengths and resets


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
)
def test_lengths_out_of_range(cell: str, dtype: str) -> None:
    limits = np.iinfo(dtype)
    for bad in {T + 1, int(limits.max), int(limits.min), -1} - {0}:
        if limits.min <= bad <= limits.max:
            message = f"lengths: expected values from 0 to T = {T}, got {bad} at index 1"
            rejected(cell, ValueError, message, lengths=np.array([T, bad], dtype))


@pytest.mark.parametrize("cell", GATES)
def test_lengths_in_a_list_out_of_range(cell: str) -> None:
    for bad in (-1, T + 1, 2**62):
        message = f"lengths: expected values from 0 to T = {T}, got {bad} at index 0"
        rejected(cell, ValueError, message, lengths=[bad, 0])
    message = f"lengths: expected an int of 64 bits, got {-(2**70)} at index 1"
    rejected(cell, ValueError, message, lengths=(0, -(2**70)))


@pytest.mark.parametrize(
    "bad", [True, 1.0, float("nan"), None, "1", [1], np.True_, np.float64(1), np.array(1.0)]
)
def test_lengths_in_a_list_are_ints(bad: Any) -> None:
    message = f"lengths: expected an int, got {type(bad).__name__} at index 1"
    rejected("gru", TypeError, message, lengths=[1, bad])


def test_lengths_in_a_sequence() -> None:
    given = problem("gru")
    expected = infer("gru", **given | {"lengths": np.array([1, 2])})
    for lengths in (
        [1, 2],
        range(1, 3),
        packed("B", [1, 2]),
        memoryview(b"\1\2"),
        collections.deque([1, 2]),
        collections.UserList([np.int8(1), np.uint64(2)]),
    ):
        got = infer("gru", **given | {"lengths": lengths})
        assert all(np.array_equal(got[name], value) for name, value in expected.items())
    message = f"lengths: expected values from 0 to T = {T}, got {T + 1} at index 1"
    rejected("gru", ValueError, message, lengths=range(T, T + 2))
    message = "lengths: expected an int, got float at index 0"
    rejected("gru", TypeError, message, lengths=packed("f", [1, 2]))
    rejected("gru", ValueError, "lengths: expected shape (2,), got (3,)", lengths=range(3))


def test_sequences_that_are_none() -> None:
    class Raising(collections.UserList[int]):
        def __getitem__(self, index: Any) -> Any:
            raise KeyError(index)

    message = "lengths: expected an array whose memory can be read, got "
    got = "Raising whose __iter__ raised KeyError: 0"
    rejected("gru", TypeError, message + got, lengths=Raising([1, 2]))
    got = "range whose __iter__ raised OverflowError: Python int too large to convert to C ssize_t"
    rejected("gru", TypeError, message + got, lengths=range(2**70))


@pytest.mark.parametrize("dtype", ["float32", "bool", "complex128", "object", "U1", "M8[s]", "V8"])
def test_lengths_are_integers(dtype: str) -> None:
    lengths = np.ones(B, dtype)
    message = f"lengths: expected an integer dtype, got {lengths.dtype}"
    rejected("gru", TypeError, message, lengths=lengths)


def test_lengths_that_are_nan() -> None:
    message = "lengths: expected an integer dtype, got float64"
    rejected("gru", TypeError, message, lengths=np.full(B, np.nan))


def test_lengths_have_one_shape() -> None:
    for shape in [(), (B + 1,), (B, 1), (0,)]:
        message = f"lengths: expected shape {(B,)}, got {shape}"
        rejected("gru", ValueError, message, lengths=np.zeros(shape, int))
    rejected("gru", ValueError, "lengths: expected shape (2,), got (3,)", lengths=[1, 1, 1])


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "float32", "object", "|V1"])
def test_resets_are_bools(dtype: str) -> None:
    message = f"resets: expected dtype bool or uint8, got {dtype}"
    rejected("gru", TypeError, message, resets=np.zeros((T, B), dtype))


def test_resets_have_one_shape() -> None:
    for shape in [(), (T,), (B, T), (T, B, 1), (T - 1, B)]:
        message = f"resets: expected shape {(T, B)}, got {shape}"
        rejected("gru", ValueError, message, resets=np.zeros(shape, bool))


@pytest.mark.parametrize("cell", GATES)
def test_a_failure_leaves_no_trace(cell: str) -> None:
    expected = infer(cell, **problem(cell))
    rejected(cell, ValueError, "lengths: expected shape (2,), got (3,)", lengths=[1, 1, 1])
    got = infer(cell, **problem(cell))
    for name, value in expected.items():
        assert np.array_equal(got[name], value), name
