"""Arrays in the memory of an emulated CUDA device: what CuPy's are to a real one."""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np

from . import capsule
from .library import Emulator, EmulatorError
from .stream import LEGACY, Stream

NO_ORDER = -1  # DLPack's: the consumer takes care of it
AMBIGUOUS = 0  # a stream that DLPack's protocol forbids


def dtype_named(name: Any) -> np.dtype[Any]:
    named: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    return named


class Block:
    """Memory for use on `stream`, which may be another's for work given to it after this ends."""

    def __init__(self, emulator: Emulator, nbytes: int, device: int, stream: Stream) -> None:
        self.emulator, self.nbytes, self.device, self.stream = emulator, nbytes, device, stream
        self.address = emulator.allocate(nbytes, device, stream.handle)

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self.emulator.call("release_on", self.address, self.device, self.stream.handle)


class EmulatedArray:
    """A strided array of an emulated device; new ones hold NaN (integers -1).

    Memory belongs to the stream that was current when the array was made. As CuPy's, an array may
    be used on another stream only behind an event, and must then outlive its use there.

    Parameters
    ----------
    emulator : Emulator
    shape : tuple of int
    dtype : dtype_like
        NumPy's, or "bfloat16".
    device : int, optional
    """

    def __init__(
        self, emulator: Emulator, shape: tuple[int, ...], dtype: Any, device: int = 0
    ) -> None:
        self.dtype = dtype_named(dtype)
        self.shape = tuple(int(extent) for extent in shape)
        self.strides = _dense_strides(self.shape, self.dtype.itemsize)
        nbytes = self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))
        self.block = Block(emulator, nbytes, device, Stream.current(emulator))
        self.address = self.block.address

    @classmethod
    def from_numpy(cls, emulator: Emulator, values: Any, device: int = 0) -> EmulatedArray:
        values = np.asarray(values)
        array = cls(emulator, values.shape, values.dtype, device)
        array.write(values)
        return array

    @property
    def device(self) -> int:
        return self.block.device

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def emulator(self) -> Emulator:
        return self.block.emulator

    def __repr__(self) -> str:
        return f"EmulatedArray({self.to_numpy()!r}, device={self.device})"

    def write(self, values: Any) -> None:
        """Copy from a host array of the same shape, behind all work of the device."""
        memory = self._memory()
        self._view_of(memory)[...] = values
        self._copy("copy_to_device", self.block.address, memory.ctypes.data)

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """Return a copy on the host, made behind all work of the device."""
        return np.ascontiguousarray(self._view_of(self._memory())).reshape(self.shape)

    def __getitem__(self, index: Any) -> EmulatedArray:
        """Return a view; indices are integers, slices and `...`, as NumPy's basic ones."""
        return self._like(self._host_shape()[index])

    def transpose(self, *axes: int) -> EmulatedArray:
        return self._like(self._host_shape().transpose(*axes))

    def swapaxes(self, first: int, second: int) -> EmulatedArray:
        return self._like(self._host_shape().swapaxes(first, second))

    def __deepcopy__(self, memo: dict[int, Any]) -> EmulatedArray:
        return EmulatedArray.from_numpy(self.emulator, self.to_numpy(), self.device)

    def __dlpack_device__(self) -> tuple[int, int]:
        return capsule.CUDA, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Lend the array; work on the consumer's `stream` will follow what may still write it."""
        if dl_device not in {None, self.__dlpack_device__()}:
            raise BufferError(f"dl_device: expected {self.__dlpack_device__()}, got {dl_device}")
        if copy:
            raise BufferError("copy: expected None or False, got True")
        if stream == AMBIGUOUS:
            raise ValueError("stream: 0 is ambiguous in DLPack's protocol")
        if stream != NO_ORDER:
            self._order_before(LEGACY if stream is None else stream)
        return capsule.capsule(self, max_version is not None and max_version[0] >= 1)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.dtype.name == "bfloat16":
            raise AttributeError("__cuda_array_interface__: it knows no bfloat16")
        dense = self.strides == _dense_strides(self.shape, self.dtype.itemsize)
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None if dense else self.strides,
            "stream": Stream.current(self.emulator).handle,
            "version": 3,
        }

    def _order_before(self, consumer: int) -> None:
        producer = Stream.current(self.emulator).handle
        if consumer != producer:
            self.emulator.call("wait_for_stream", consumer, producer)

    # The block's bytes on the host.
    def _memory(self) -> np.ndarray[Any, Any]:
        memory = np.empty(self.block.nbytes, np.uint8)
        self._copy("copy_from_device", memory.ctypes.data, self.block.address)
        return memory

    def _copy(self, name: str, to: int, source: int) -> None:
        before = self.emulator.call("get_device")
        self.emulator.call("set_device", self.device)
        try:
            self.emulator.call(name, to, source, self.block.nbytes)
        finally:
            self.emulator.call("set_device", before)

    def _view_of(self, memory: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        offset = self.address - self.block.address
        view: np.ndarray[Any, Any] = np.ndarray(
            self.shape, self.dtype, memory, offset, self.strides
        )
        return view

    # An array of these shape and strides that no one reads: NumPy works out those of views.
    def _host_shape(self) -> np.ndarray[Any, Any]:
        return self._view_of(np.empty(self.block.nbytes, np.uint8))

    def _like(self, view: np.ndarray[Any, Any]) -> EmulatedArray:
        if not isinstance(view, np.ndarray):
            raise IndexError("an element by itself is not a view")
        base: Any = view
        while isinstance(base.base, np.ndarray):
            base = base.base
        array = EmulatedArray.__new__(EmulatedArray)
        array.dtype, array.shape, array.strides = self.dtype, view.shape, view.strides
        array.block = self.block
        array.address = self.block.address + view.ctypes.data - base.ctypes.data
        return array


def _dense_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides = []
    for extent in reversed(shape):
        strides.append(itemsize)
        itemsize *= max(extent, 1)
    return tuple(reversed(strides))


class EmulatedKind:
    """These arrays as the product asks for those of a library (`fusedrnn.cuda_arrays.CudaKind`)."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def current_stream(self, device: int) -> int:
        return Stream.current(self._emulator).handle

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> EmulatedArray:
        return EmulatedArray(self._emulator, shape, dtype, device)

    def lend(self, array: EmulatedArray, stream: int, max_version: tuple[int, int]) -> Any:
        return array.__dlpack__(stream=stream, max_version=max_version)

    def contiguous(self, array: EmulatedArray) -> EmulatedArray:
        copy = EmulatedArray(self._emulator, array.shape, array.dtype, array.device)
        axes = ctypes.c_int64 * max(array.ndim, 1)
        self._emulator.call(
            "copy_strided",
            copy.address,
            array.address,
            array.ndim,
            axes(*array.shape),
            axes(*array.strides),
            array.dtype.itemsize,
            Stream.current(self._emulator).handle,
        )
        return copy

    def join(self, value: EmulatedArray | None, tangent: EmulatedArray | None) -> EmulatedArray:
        parts = [None if part is None else part.to_numpy() for part in (value, tangent)]
        like = next(part for part in parts if part is not None)
        joined = np.zeros(like.shape, np.result_type(like, np.complex64))
        joined.real = 0 if parts[0] is None else parts[0]
        joined.imag = 0 if parts[1] is None else parts[1]
        return EmulatedArray.from_numpy(self._emulator, joined)

    def split(self, array: EmulatedArray) -> tuple[EmulatedArray, EmulatedArray]:
        values = array.to_numpy()
        real, imag = (np.ascontiguousarray(part) for part in (values.real, values.imag))
        return (
            EmulatedArray.from_numpy(self._emulator, real),
            EmulatedArray.from_numpy(self._emulator, imag),
        )

    def write(self, array: EmulatedArray, values: np.ndarray[Any, Any]) -> None:
        array.write(values.view(array.dtype))

    def read(self, array: EmulatedArray) -> np.ndarray[Any, Any]:
        return array.to_numpy()

    def allocate(self, nbytes: int, device: int, stream: int) -> tuple[int, Block]:
        current = Stream.current(self._emulator)
        if (stream or LEGACY) != current.handle:
            raise EmulatorError(f"allocate: for stream {stream}, but {current.handle} is current")
        block = Block(self._emulator, nbytes, device, current)
        return block.address, block
