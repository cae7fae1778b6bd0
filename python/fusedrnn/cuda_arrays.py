"""What the compiled module asks of the library that an array on a CUDA device comes from.

PyTorch and CuPy say which stream is current, make results and lend memory from their own pools. A
library that is known through DLPack alone, as JAX is, has no stream to name: its arrays are read
and written in the order of the legacy default stream, with which DLPack's protocol orders theirs,
and results lie in memory of the device's own pool. `register` makes another library known.

No library is imported here: the one that made an array already is.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

import numpy as np

from fusedrnn import _core

LEGACY_DEFAULT_STREAM = 1  # as DLPack and CUDA write it
NO_ORDER = -1  # DLPack's: the consumer asks for none

Version = tuple[int, int]


class CudaKind(Protocol):
    """One library's arrays on CUDA devices, as this package needs them.

    Methods may be called from any thread, with the GIL held. In the place of `allocate` there may
    be None: memory then comes from the device's own pool.
    """

    def current_stream(self, device: int) -> int:
        """Return the `cudaStream_t` that the library's work goes on; 0 is the legacy default."""

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        """Return a dense uninitialised array for use on the current stream.

        `dtype` is float32, float64, bfloat16 or float16.
        """

    def lend(self, array: Any, stream: int, max_version: Version) -> Any:
        """Return a DLPack capsule of `array`; work on `stream` waits for that which writes it.

        `array` is the library's own; `lend_array` does this for most of them. `stream` is written
        as in DLPack's protocol: 1 is the legacy default, 2 that of the thread, -1 asks for nothing.
        """

    def contiguous(self, array: Any) -> Any:
        """Return a copy with a dense last axis, made on the current stream; None if there is none.

        The compiled module then says what is wrong with the array.
        """

    def allocate(self, nbytes: int, device: int, stream: int) -> tuple[int, Any]:
        """Return the address of memory for use on `stream`, and an object that owns it.

        Aligned to 256 bytes. When the owner is gone the memory may be given to others, for work
        that is put on `stream` from then on. To raise is to have none left.
        """


class TorchKind:
    """PyTorch's: its caching allocator, its current streams."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def current_stream(self, device: int) -> int:
        return int(self._torch.cuda.current_stream(device).cuda_stream)

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        torch = self._torch
        return torch.empty(shape, dtype=getattr(torch, dtype), device=torch.device("cuda", device))

    def lend(self, array: Any, stream: int, max_version: Version) -> Any:
        device = array.device.index
        if stream == (self.current_stream(device) or LEGACY_DEFAULT_STREAM):
            stream = NO_ORDER
        with self._torch.cuda.device(device):  # it lends from the current device alone
            return lend_array(array, stream, max_version)

    def contiguous(self, array: Any) -> Any:
        return array.clone(memory_format=self._torch.contiguous_format)

    def allocate(self, nbytes: int, device: int, stream: int) -> tuple[int, Any]:
        owner = self.empty((nbytes,), "uint8", device)  # on the current stream, which is this one
        return owner.data_ptr(), owner


class CupyKind:
    """CuPy's: its memory pool, its current streams."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy

    def current_stream(self, device: int) -> int:
        return int(self._cupy.cuda.get_current_stream(device).ptr)

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        with self._cupy.cuda.Device(device):
            return self._cupy.empty(shape, dtype=np.dtype(dtype))

    def lend(self, array: Any, stream: int, max_version: Version) -> Any:
        with array.device:
            return lend_array(array, stream, max_version)

    def contiguous(self, array: Any) -> Any:
        with array.device:
            return self._cupy.ascontiguousarray(array)

    def allocate(self, nbytes: int, device: int, stream: int) -> tuple[int, Any]:
        with self._cupy.cuda.Device(device):
            owner = self._cupy.cuda.alloc(nbytes)
        return int(owner.ptr), owner


class DLPackKind:
    """Any other library's: DLPack is all that is known of it."""

    allocate = None  # the CUDA library takes its own

    def current_stream(self, device: int) -> int:
        return LEGACY_DEFAULT_STREAM

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        return _core.DeviceArray(shape, dtype, device, LEGACY_DEFAULT_STREAM)

    def lend(self, array: Any, stream: int, max_version: Version) -> Any:
        return lend_array(array, stream, max_version)

    def contiguous(self, array: Any) -> Any:
        return None


def lend_array(array: Any, stream: int, max_version: Version) -> Any:
    """Call `array.__dlpack__`, without a version where it knows none."""
    try:
        return array.__dlpack__(stream=stream, max_version=max_version)
    except TypeError:
        return array.__dlpack__(stream=stream)


_registered: dict[type, Any] = {}
_of_dlpack = DLPackKind()
_makers = {"torch": TorchKind, "cupy": CupyKind}


def register(array_type: type, kind: CudaKind) -> None:
    """Make the CUDA arrays of another library known: `kind` for `array_type` and its subclasses.

    Results of calls whose `x` is one of them are what `kind.empty` makes.
    """
    if not isinstance(array_type, type):
        raise TypeError(f"array_type: expected a type, got {type(array_type).__name__}")
    _registered[array_type] = kind


def kind_of(array: Any) -> Any:
    """Return the kind of an array on a CUDA device."""
    for base in type(array).__mro__:
        kind = _registered.get(base) or _builtin(base)
        if kind is not None:
            _registered[type(array)] = kind
            return kind
    return _of_dlpack


def _builtin(base: type) -> Any:
    package = base.__module__.partition(".")[0]
    make = _makers.get(package)
    return make(sys.modules[package]) if make is not None and package in sys.modules else None
