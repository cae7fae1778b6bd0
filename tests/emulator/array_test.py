"""Tests of the emulated arrays; ctest runs them (see CMakeLists.txt).

The environment's FUSEDRNN_CUDA_LIBRARY is the library to test with.
"""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from emulator import capsule
from emulator.array import EmulatedArray, EmulatedKind
from emulator.library import Emulator, EmulatorError
from emulator.stream import LEGACY, Stream
from fake_dlpack import Managed, Versioned

DTYPES = ("float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool")


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return Emulator(Path(os.environ["FUSEDRNN_CUDA_LIBRARY"]))


def values_of(dtype: str, shape: tuple[int, ...] = (3, 4, 5)) -> np.ndarray[Any, Any]:
    numbers = np.arange(np.prod(shape)).reshape(shape) % 7
    return numbers.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


_set_name = ctypes.pythonapi.PyCapsule_SetName
_set_name.argtypes = (ctypes.py_object, ctypes.c_char_p)
USED = b"used_dltensor"  # a capsule keeps the address of its name


def consume(lent: Any) -> Any:
    """Return the managed tensor of a capsule, as a consumer takes it."""
    versioned = b"dltensor_versioned"
    is_versioned = capsule._is_valid(id(lent), versioned)
    name = versioned if is_versioned else b"dltensor"
    kind = Versioned if is_versioned else Managed
    managed = ctypes.cast(capsule._get_pointer(id(lent), name), ctypes.POINTER(kind)).contents
    _set_name(lent, USED)
    return managed


@pytest.mark.parametrize("dtype", DTYPES)
def test_there_and_back(emulator: Emulator, dtype: str) -> None:
    values = values_of(dtype)
    array = EmulatedArray.from_numpy(emulator, values)
    assert array.dtype == values.dtype
    np.testing.assert_array_equal(array.to_numpy(), values)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,)])
def test_small_shapes(emulator: Emulator, shape: tuple[int, ...]) -> None:
    array = EmulatedArray.from_numpy(emulator, np.ones(shape))
    np.testing.assert_array_equal(array.to_numpy(), np.ones(shape))


def test_new_arrays_hold_nan(emulator: Emulator) -> None:
    for dtype in ("float32", "float64", "float16", "bfloat16"):
        fresh = EmulatedArray(emulator, (5,), dtype).to_numpy()
        assert np.isnan(fresh.astype(np.float64)).all()


@pytest.mark.parametrize(
    "index",
    [
        (slice(None), 1),
        (slice(None), slice(None), slice(1, 3)),
        (slice(None, None, -1),),
        (slice(1, None), ..., slice(None, None, 2)),
        (slice(2, 2),),
    ],
)
def test_views(emulator: Emulator, index: Any) -> None:
    values = values_of("float32")
    array = EmulatedArray.from_numpy(emulator, values)
    view = array[index]
    np.testing.assert_array_equal(view.to_numpy(), values[index])
    turned = view.transpose()
    np.testing.assert_array_equal(turned.to_numpy(), values[index].transpose())
    copy = EmulatedKind(emulator).contiguous(turned)
    np.testing.assert_array_equal(copy.to_numpy(), values[index].transpose())
    assert copy.address != turned.address


def test_writes_go_through_views(emulator: Emulator) -> None:
    array = EmulatedArray.from_numpy(emulator, np.zeros((2, 3)))
    array[1].write(np.arange(3.0))
    np.testing.assert_array_equal(array.to_numpy(), [[0, 0, 0], [0, 1, 2]])


@pytest.mark.parametrize("max_version", [None, (0, 8), (1, 0), (1, 3)])
def test_dlpack(emulator: Emulator, max_version: tuple[int, int] | None) -> None:
    array = EmulatedArray.from_numpy(emulator, values_of("bfloat16"))[1:, :, ::2]
    managed = consume(array.__dlpack__(max_version=max_version))
    tensor = managed.tensor
    assert isinstance(managed, Versioned) == (max_version is not None and max_version >= (1, 0))
    assert (tensor.device_type, tensor.device_id) == array.__dlpack_device__() == (2, 0)
    assert (tensor.data, tensor.byte_offset) == (array.address, 0)
    assert tensor.shape[: tensor.ndim] == [2, 4, 3]
    assert tensor.strides[: tensor.ndim] == [20, 5, 2]
    assert (tensor.code, tensor.bits, tensor.lanes) == (4, 16, 1)
    managed.deleter(ctypes.addressof(managed))
    assert capsule.lent() == 0


def test_lent_memory_outlives_the_array(emulator: Emulator) -> None:
    before = emulator.live_bytes()
    managed = consume(EmulatedArray(emulator, (64,), "float32").__dlpack__())
    gc.collect()
    assert emulator.live_bytes() == before + 256
    managed.deleter(ctypes.addressof(managed))
    assert emulator.live_bytes() == before


def test_a_capsule_that_nobody_takes(emulator: Emulator) -> None:
    lent = EmulatedArray(emulator, (64,), "float32").__dlpack__()
    assert capsule.lent() == 1
    del lent
    assert capsule.lent() == 0


def test_refusals(emulator: Emulator) -> None:
    array = EmulatedArray(emulator, (2,), "float32")
    with pytest.raises(BufferError, match="dl_device"):
        array.__dlpack__(dl_device=(1, 0))
    with pytest.raises(BufferError, match="copy"):
        array.__dlpack__(copy=True)
    with pytest.raises(ValueError, match="ambiguous"):
        array.__dlpack__(stream=0)
    with pytest.raises(EmulatorError, match="stream that does not exist"):
        array.__dlpack__(stream=12345)
    with pytest.raises(EmulatorError, match="is current"):
        EmulatedKind(emulator).allocate(16, 0, 12345)


def test_cuda_array_interface(emulator: Emulator) -> None:
    array = EmulatedArray(emulator, (2, 3), "float32")
    assert array.__cuda_array_interface__ == {
        "shape": (2, 3),
        "typestr": "<f4",
        "data": (array.address, False),
        "strides": None,
        "stream": LEGACY,
        "version": 3,
    }
    assert array[:, 1].__cuda_array_interface__["strides"] == (12,)
    assert not hasattr(EmulatedArray(emulator, (1,), "bfloat16"), "__cuda_array_interface__")


def test_the_current_stream(emulator: Emulator) -> None:
    kind = EmulatedKind(emulator)
    stream = Stream(emulator)
    assert kind.current_stream(0) == LEGACY
    with stream:
        assert kind.current_stream(0) == stream.handle
        address, block = kind.allocate(100, 0, stream.handle)
        assert address == block.address
        with Stream(emulator):
            assert kind.current_stream(0) != stream.handle
    assert kind.current_stream(0) == LEGACY


def test_lending_orders_the_consumers_stream(emulator: Emulator) -> None:
    # The packed copy of a stream, packed again on another one that may run first.
    def packed_twice(ordered: bool) -> Any:
        kind, first, second = EmulatedKind(emulator), Stream(emulator), Stream(emulator)
        values = EmulatedArray.from_numpy(emulator, np.ones(4, np.float32))
        with first:
            once = kind.contiguous(values)
            lent = once.__dlpack__(stream=second.handle if ordered else -1)
        with second:
            twice = kind.contiguous(once)
        del lent
        return twice.to_numpy()

    seen = set()
    for seed in range(1, 21):
        with emulator.seed(seed):
            seen.add(bool(np.isnan(packed_twice(ordered=False)).any()))
            np.testing.assert_array_equal(packed_twice(ordered=True), np.ones(4))
    assert seen == {True, False}


def test_capture_and_replay(emulator: Emulator) -> None:
    kind, stream = EmulatedKind(emulator), Stream(emulator)
    values = EmulatedArray.from_numpy(emulator, np.zeros(4, np.float32))
    before = emulator.live_bytes()
    with stream.capture() as graph:
        copy = kind.contiguous(values)
    values.write(np.full(4, 2.0))
    graph.launch()
    np.testing.assert_array_equal(copy.to_numpy(), np.full(4, 2.0))
    del copy
    emulator.synchronize()
    assert emulator.live_bytes() == before + 16  # the graph's still
    graph.launch()
    emulator.synchronize()
    del graph
    assert emulator.live_bytes() == before


def test_memory_that_fails(emulator: Emulator) -> None:
    with emulator.failing_allocation(after=1):
        kept = EmulatedArray(emulator, (4,), "float32")
        with pytest.raises(MemoryError, match="no 16 bytes on device 0"):
            EmulatedArray(emulator, (4,), "float32")
    assert kept.address != EmulatedArray(emulator, (4,), "float32").address


def test_devices(emulator: Emulator) -> None:
    with pytest.raises(MemoryError):
        EmulatedArray(emulator, (4,), "float32", device=1)
    with emulator.devices(2):
        array = EmulatedArray.from_numpy(emulator, np.ones(3), device=1)
        assert array.__dlpack_device__() == (2, 1)
        np.testing.assert_array_equal(array.to_numpy(), np.ones(3))
        del array
        assert emulator.call("get_device") == 0


def test_a_write_outside_is_found(emulator: Emulator) -> None:
    array = EmulatedArray(emulator, (3,), "float32")
    ctypes.memset(array.address + 12, 0, 4)
    with pytest.raises(EmulatorError, match="written behind the end of an allocation of 12 bytes"):
        emulator.synchronize()
    assert "written behind" in emulator.last_error()
    emulator.reset()
    emulator.synchronize()
