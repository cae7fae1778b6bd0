"""Arrays of every layout give the bits of their copies; odd values and sizes crash nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from error_support import GATES, B, H, T, problem, upstream_shapes
from support import Arguments, backward, forward, infer, same_bits

DTYPES = ("float32", "float64")


class Subclass(np.ndarray[Any, Any]):
    pass


class Lying(np.ndarray[Any, Any]):
    """Its attributes say what is not so; its memory is what counts."""

    shape = property(lambda _: (1,))
    strides = property(lambda _: (0,))


def negative_strides(array: Any) -> Any:
    every = (slice(None, None, -1),) * array.ndim
    return np.ascontiguousarray(array[every])[every]


def spread_out(array: Any) -> Any:
    """Every second element of an array, along each axis, among NaNs where there are some."""
    wide = np.full(tuple(2 * n for n in array.shape), 1, array.dtype)
    if array.dtype.kind == "f":
        wide.fill(np.nan)
    wide[(slice(None, None, 2),) * array.ndim] = array
    return wide[(slice(None, None, 2),) * array.ndim]


def wide_rows(array: Any) -> Any:
    """A dense last axis in rows that are longer."""
    wide = np.ones((*array.shape[:-1], array.shape[-1] + 3), array.dtype)
    wide[..., 2:-1] = array
    return wide[..., 2:-1]


def misaligned(array: Any) -> Any:
    raw = np.frombuffer(b"\x00" + array.tobytes(), "uint8")
    return raw[1:].view(array.dtype).reshape(array.shape)


def field_of_records(array: Any) -> Any:
    """Strides that are no multiple of the element."""
    records = np.zeros(array.shape, [("flag", "i1"), ("value", array.dtype)])
    records["value"] = array
    return records["value"]


def read_only(array: Any) -> Any:
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "fortran": np.asfortranarray,
    "negative": negative_strides,
    "spread": spread_out,
    "wide": wide_rows,
    "misaligned": misaligned,
    "records": field_of_records,
    "read_only": read_only,
    "subclass": lambda array: array.view(Subclass),
    "lying": lambda array: array.view(Lying),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cell", GATES)
def test_layouts(cell: str, layout: str, dtype: str) -> None:
    arrange = LAYOUTS[layout]
    arguments = problem(cell, dtype)
    rng = np.random.default_rng(1)
    upstream = {
        name: rng.standard_normal(shape).astype(dtype)
        for name, shape in upstream_shapes(cell).items()
    }
    expected, tape = forward(cell, **arguments)
    expected_grads = backward(cell, tape, **upstream)
    arranged = {name: arrange(value) for name, value in arguments.items()}
    same_bits(infer(cell, **arranged), expected)
    got, tape = forward(cell, **arranged)
    del arranged
    same_bits(got, expected)
    same_bits(backward(cell, tape, **{k: arrange(v) for k, v in upstream.items()}), expected_grads)


@pytest.mark.parametrize("cell", GATES)
def test_broadcast_arrays(cell: str) -> None:
    """Strides of zero: in the rows alone, and in the last axis too."""
    arguments = problem(cell)
    for name in arguments.keys() - {"lengths", "resets"}:
        array = arguments[name]
        for part in (array[:1], array[..., :1], array[(slice(1),) * array.ndim]):
            view = np.broadcast_to(part, array.shape)
            expected, tape = forward(cell, **arguments | {name: view.copy()})
            expected_grads = backward(cell, tape, dy=np.broadcast_to(np.float32(1), (T, B, H)))
            got, tape = forward(cell, **arguments | {name: view})
            same_bits(got, expected)
            dy = np.ones((T, B, H), "float32")
            same_bits(backward(cell, tape, dy=dy), expected_grads)


def test_arrays_in_a_file(tmp_path: Path) -> None:
    arguments = problem("lstm")
    expected = infer("lstm", **arguments)
    for name in ("x", "w_hh", "resets"):
        np.save(tmp_path / f"{name}.npy", arguments[name])
        arguments[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    same_bits(infer("lstm", **arguments), expected)


def test_masks_of_odd_bytes() -> None:
    """Whatever is not zero is true, also where no library would have written it."""
    arguments = problem("gru")
    resets = np.array([[1, 0], [0, 1], [1, 1]], "uint8")
    expected = infer("gru", **arguments | {"resets": resets.astype(bool)})
    same_bits(infer("gru", **arguments | {"resets": (resets * 255).view(bool)}), expected)
    same_bits(infer("gru", **arguments | {"resets": (resets * 2).view(bool)}), expected)


VALUES = [np.nan, np.inf, -np.inf, 1e38, -1e38, 1e-42, 0.0, -0.0]


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", GATES)
def test_values_that_are_no_numbers(cell: str, dtype: str) -> None:
    """They spoil the sequence they stand in and no other."""
    arguments = problem(cell, dtype) | {"lengths": None}
    expected, tape = forward(cell, **arguments)
    dy = np.ones((T, B, H), dtype)
    expected_dx = backward(cell, tape, dy=dy)["dx"]
    for value in VALUES:
        for name, array in arguments.items():
            if array is None or array.dtype == bool:
                continue
            spoilt = array.copy()
            if name == "x":
                spoilt[:, 1] = value
            elif name in {"h0", "c0"}:
                spoilt[1] = value
            else:
                spoilt.fill(value)
            got, tape = forward(cell, **arguments | {name: spoilt})
            grads = backward(cell, tape, dy=dy)
            assert got["y"].shape == (T, B, H)
            if name in {"x", "h0", "c0"}:
                same_bits({"y": got["y"][:, 0]}, {"y": expected["y"][:, 0]})
                same_bits({"dx": grads["dx"][:, 0]}, {"dx": expected_dx[:, 0]})


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("value", VALUES)
def test_padding_is_never_looked_at(cell: str, value: float) -> None:
    arguments = problem(cell)  # sequence 1 is one step long
    arguments["x"][1:, 1] = 0
    dy = np.ones((T, B, H), "float32")
    expected, tape = forward(cell, **arguments)
    expected_grads = backward(cell, tape, dy=dy)
    arguments["x"][1:, 1] = value
    dy[1:, 1] = value
    got, tape = forward(cell, **arguments)
    same_bits(got, expected)
    same_bits(backward(cell, tape, dy=dy), expected_grads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (3, 0), (0, 0)])
@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("masks", [False, True])
def test_no_steps_and_no_sequences(
    cell: str, steps: int, batch: int, dtype: str, masks: bool
) -> None:
    weights = {k: v for k, v in problem(cell, dtype).items() if k[0] in "wb"}
    states = {k: v[:batch] for k, v in problem(cell, dtype).items() if k in {"h0", "c0"}}
    arguments: Arguments = weights | {"x": np.ones((steps, batch, 4), dtype)}
    if masks:
        arguments |= {"lengths": np.zeros(batch, int), "resets": np.ones((steps, batch), bool)}
    for initial in (states, {}):
        got, tape = forward(cell, **arguments, **initial)
        same_bits(infer(cell, **arguments, **initial), got)
        assert got["y"].shape == (steps, batch, H)
        for name in ("h", "c")[: len(states)]:
            value = initial.get(f"{name}0", np.zeros((batch, H), dtype))
            same_bits({"": got[f"{name}_n"]}, {"": value})
        dstates = {f"d{name}_n": states[f"{name}0"] for name in ("h", "c")[: len(states)]}
        for upstream in ({}, dstates, {"dy": np.ones((steps, batch, H), dtype)} | dstates):
            grads = backward(cell, tape, **upstream)
            assert grads["dx"].shape == (steps, batch, 4)
            for name, weight in weights.items():
                same_bits({"": grads[f"d{name}"]}, {"": np.zeros_like(weight)})
            for name in ("h", "c")[: len(states)]:
                value = upstream.get(f"d{name}_n", np.zeros((batch, H), dtype))
                same_bits({"": grads[f"d{name}0"]}, {"": value})


def test_the_smallest_problem() -> None:
    one = np.ones((1, 1, 1), "float32")
    y, h_n = fr.rnn(one, one[0], one[0], nonlinearity="identity")
    assert y.shape == (1, 1, 1)
    assert y.item() == h_n.item() == 1


def test_an_array_whose_shape_is_assigned_while_it_is_read() -> None:
    arguments = problem("gru") | {"lengths": None, "resets": None, "h0": None}
    arguments["x"] = np.ones((200, B, 4), "float32")
    expected = infer("gru", **arguments)
    same = arguments["x"]
    stop = threading.Event()
    messages: set[str] = set()

    def reshape() -> None:
        while not stop.is_set():
            same.shape = (B, 100, 8)
            same.shape = (200, B, 4)

    thread = threading.Thread(target=reshape)
    thread.start()
    try:
        for _ in range(200):
            try:
                same_bits(infer("gru", **arguments), expected)
            except ValueError as error:
                messages.add(str(error))
    finally:
        stop.set()
        thread.join()
    assert all(message.startswith("w_ih: expected shape") for message in messages), messages
