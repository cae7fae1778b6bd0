"""Arrays of the device: layouts, masks on either side, other protocols, and what is refused."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gpu_libraries import Emulated, Library

import fusedrnn as fr
import oracle
from error_support import GATES, B, H, T, problem, upstream_shapes
from support import (
    HARD,
    Arguments,
    backward,
    by_name,
    check,
    directions,
    dtypes,
    forward,
    infer,
    joined,
    outputs,
    problem_of,
    running_on,
    same_bits,
    variants,
    with_zero_biases,
)

cells = pytest.mark.parametrize("cell", GATES)


class Arranged:
    """A place that gives arrays of another layout."""

    def __init__(self, library: Library, arrange: Callable[[Library, Any], Any]) -> None:
        self.library, self.arrange = library, arrange

    def give(self, arguments: Arguments) -> Arguments:
        return {name: self.arrange(self.library, value) for name, value in arguments.items()}

    def read(self, results: dict[str, Any]) -> dict[str, Any]:
        return self.library.read(results)


def spread_out(library: Library, values: Any) -> Any:
    """Every second element along each axis, among NaNs where there are some."""
    wide = np.full(tuple(2 * n for n in values.shape), 1, values.dtype)
    if values.dtype.kind == "f":
        wide.fill(np.nan)
    every_second = (slice(None, None, 2),) * values.ndim
    wide[every_second] = values
    return library.array(wide)[every_second]


def wide_rows(library: Library, values: Any) -> Any:
    """A dense last axis in rows that are longer, off the alignment of any vector."""
    wide = np.ones((*values.shape[:-1], values.shape[-1] + 3), values.dtype)
    wide[..., 1:-2] = values
    return library.array(wide)[..., 1:-2]


def turned(library: Library, values: Any) -> Any:
    """The first axis the fastest."""
    axes = tuple(reversed(range(values.ndim)))
    return library.transposed(library.array(values.transpose(axes)), axes)


def batch_first(library: Library, values: Any) -> Any:
    axes = (1, 0, 2) if values.ndim == 3 else tuple(range(values.ndim))
    return library.transposed(library.array(values.transpose(axes)), axes)


LAYOUTS = {"spread": spread_out, "wide": wide_rows, "turned": turned, "batch": batch_first}


@cells
@dtypes
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(library: Library, cell: str, dtype: str, layout: str) -> None:
    arguments = problem(cell, dtype)
    rng = np.random.default_rng(1)
    upstream = {
        name: rng.standard_normal(shape).astype(dtype)
        for name, shape in upstream_shapes(cell).items()
    }
    expected, tape = forward(cell, **arguments)
    expected_grads = backward(cell, tape, **upstream)
    with running_on(Arranged(library, LAYOUTS[layout])):
        library.check_alike(infer(cell, **arguments), expected)
        got, tape = forward(cell, **arguments)
        library.check_alike(got, expected)
        library.check_alike(backward(cell, tape, **upstream), expected_grads)


@variants
@directions
@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int32, np.uint64])
def test_masks_on_either_side(
    library: Library, cell: str, options: Arguments, reverse: bool, kind: Any
) -> None:
    arguments, _ = problem_of(cell, "float32", batch=5, **HARD, seed=1)
    expected = infer(cell, **arguments, **options, reverse=reverse)
    lengths, resets = arguments.pop("lengths"), arguments.pop("resets")
    given = library.give(arguments)
    for one in (lengths.tolist(), lengths.astype(kind), library.array(lengths.astype(kind))):
        for other in (resets, library.array(resets)):
            y, *_ = getattr(fr, cell)(
                **given, lengths=one, resets=other, reverse=reverse, **options
            )
            same_bits({"y": library.values(y)}, {"y": expected["y"]})


@cells
def test_lengths_on_the_device_are_limited(library: Library, cell: str) -> None:
    """Nobody waits for their values: they count as the nearest that there are."""
    arguments = problem(cell) | {"lengths": np.array([T, 0])}
    expected = infer(cell, **arguments)
    got = infer(cell, **arguments | {"lengths": np.array([T + 100, -7])})
    same_bits(got, expected)
    given = library.give(arguments)
    message = f"lengths: expected values from 0 to T = {T}, got {T + 100} at index 0"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        getattr(fr, cell)(**given | {"lengths": [T + 100, 0]})


@cells
def test_one_device(library: Library, cell: str) -> None:
    arguments = problem(cell)
    given = library.give(arguments)
    for name in arguments.keys() - {"x", "lengths", "resets"}:
        message = f"{name}: expected an array on cuda:0 (the device of x), got one on the CPU"
        for function in (cell, f"{cell}_forward"):
            with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
                getattr(fr, function)(**given | {name: arguments[name]})
    for name in arguments.keys() - {"x"}:
        message = f"{name}: expected an array on the CPU (the device of x), got one on cuda:0"
        with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
            getattr(fr, cell)(**arguments | {name: given[name]})
    *_, tape = getattr(fr, f"{cell}_forward")(**given)
    message = "dy: expected an array on cuda:0 (the device of x), got one on the CPU"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        getattr(fr, f"{cell}_backward")(tape, np.ones((T, B, H), "float32"))


@cells
def test_messages_are_those_of_the_cpu(library: Library, cell: str) -> None:
    arguments = problem(cell)
    wrong: list[Arguments] = [
        {"w_hh": np.ones((GATES[cell] * H, H + 1), "float32")},
        {"x": np.ones((T, B), "float32")},
        {"h0": np.ones((B, H), "float64")},
        {"resets": np.ones((T, B), "int32")},
        {"lengths": np.ones(B, "float32")},
        {"x": np.ones((T, B, 0), "float32")},
    ]
    for changed in wrong:
        with pytest.raises((TypeError, ValueError)) as on_cpu:
            getattr(fr, cell)(**arguments | changed)
        with pytest.raises(on_cpu.type, match=f"^{re.escape(str(on_cpu.value))}$"):
            infer(cell, **arguments | changed)


class Interface:
    """An array that is known through the CUDA Array Interface alone."""

    def __init__(self, array: Any) -> None:
        self.array = array

    @property
    def __cuda_array_interface__(self) -> Any:
        return self.array.__cuda_array_interface__


@cells
def test_the_cuda_array_interface(library: Library, cell: str) -> None:
    arguments = problem(cell)
    expected = infer(cell, **arguments)
    given = library.give(arguments)
    shown = {name: Interface(array) for name, array in given.items() if name != "x"}
    for array in given.values():
        library.values(array)  # a library that names no stream there orders nothing
    y, *_ = getattr(fr, cell)(given["x"], **shown)
    same_bits({"y": library.values(y)}, {"y": expected["y"]})


class Borrowed:
    """An array of a library that is known through DLPack alone, as its `from_dlpack` makes it.

    That gives a stream of its own to the producer, as JAX's does.
    """

    stream: Any = None

    def __init__(self, array: Any) -> None:
        self.array = array
        handle = None if self.stream is None else self.stream.handle
        self.capsule = None if handle is None else array.__dlpack__(stream=handle)

    def __array_namespace__(self) -> Any:
        return Namespace

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)


class Namespace:
    from_dlpack = Borrowed


@cells
def test_a_library_that_is_known_through_dlpack_alone(
    library: Library, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stream waits for the results, which live as long as it holds them."""
    if not isinstance(library, Emulated):
        pytest.skip("on a GPU this library is JAX")
    arguments = problem(cell)
    dy = np.ones((T, B, H), "float32")
    expected, tape = forward(cell, **arguments)
    expected_grads = backward(cell, tape, dy=dy)
    del tape
    gc.collect()
    before = library.live_bytes()
    for schedule in library.schedules(6):
        with schedule:
            given = {name: Borrowed(array) for name, array in library.give(arguments).items()}
            above = Borrowed(library.array(dy))
            monkeypatch.setattr(Borrowed, "stream", library.new_stream())
            y, state, tape = getattr(fr, f"{cell}_forward")(**given)
            grads = by_name(getattr(fr, f"{cell}_backward")(tape, above))
            results = outputs(y, state) | grads
            assert {type(array) for array in results.values()} == {Borrowed}
            awaited = expected | expected_grads
            copies = {
                name: library.borrowed_copy(results[name].capsule, value, Borrowed.stream)
                for name, value in awaited.items()
            }
            same_bits({name: library.values(copy) for name, copy in copies.items()}, awaited)
            monkeypatch.setattr(Borrowed, "stream", None)
            del given, above, y, state, tape, grads, results, copies
            gc.collect()
            assert library.live_bytes() == before


@variants
@directions
def test_tfloat32(cell: str, options: Arguments, reverse: bool) -> None:
    """Operands keep 10 bits of fraction; sums, gates and all else are float32."""
    arguments, upstream = problem_of(cell, "float32", 0.5, batch=5, hidden_size=17, **HARD, seed=2)
    options = {**options, "reverse": reverse}
    got, tape = forward(cell, **arguments, **options, compute_dtype="tfloat32")
    assert tape.core.network.compute_dtype == "tfloat32"
    grads = backward(cell, tape, **upstream)
    exactly = with_zero_biases(arguments)
    unit = 2.0**-10  # of an operand that is cut off
    check(joined(got), joined(oracle.forward(cell, **exactly, **options)), unit)
    expected = oracle.gradients(cell, **exactly, **upstream, **options)
    check(joined(grads), joined(expected), 4 * unit)


@cells
def test_no_place_for_tfloat32(cell: str) -> None:
    for dtype in ("float64", "float16"):
        arguments, _ = problem_of(cell, dtype)
        message = (
            f"compute_dtype: expected None or '{dtype}' with arrays of {dtype}, got 'tfloat32'"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            infer(cell, **arguments, compute_dtype="tfloat32")


def test_info(library: Library) -> None:
    known = fr.info()
    assert known["cuda_devices"]
    assert known["cuda_devices"][0].startswith("cuda:0: ")
    assert "CUDA runtime" in known["cuda"]
