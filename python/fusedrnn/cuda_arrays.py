"""What the compiled module asks of the library that an array on a CUDA device comes from.

PyTorch and CuPy say which stream is current, make results and lend memory from their own pools. A
library that is known through DLPack alone, as JAX is, has no stream to name: its arrays are read
and written in the order of the legacy default stream, with which DLPack's protocol orders theirs,
and results lie in memory of the CUDA library's own pool. `register` makes another library known.

No library is imported here: the one that made an array already is.
"""

from __future__ import annotations

import functools
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fusedrnn import _core, bf16

__all__ = ["CudaKind", "lend_array", "register"]

CUDA, CUDA_MANAGED = 2, 13  # DLPack's numbers of the devices
LEGACY_DEFAULT_STREAM = 1  # as DLPack and CUDA write it
NO_ORDER = -1  # DLPack's: the consumer asks for none

Version = tuple[int, int]


class CudaKind(Protocol):
    """One library's arrays on CUDA devices, as this package needs them.

    Methods may be called from any thread, with the GIL held. In the place of `allocate` there may
    be None: memory then comes from a pool of the CUDA library. A kind may have two more, for
    derivatives along a direction: `join(value, tangent)`, a dense complex array of two real ones,
    of which one may be None, for zeros, and `split(array)`, its two parts, dense; `empty` then
    knows complex64 and complex128. Arrays have `shape`; those of `empty` can be indexed with
    integers and slices for views that write through.
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
        """Return a dense copy, made on the current stream; None where the library cannot copy.

        The compiled module then says what is wrong with the array.
        """

    def write(self, array: Any, values: NDArray[Any]) -> None:
        """Set a dense array to these values, of its shape and width; for parameters of layers.

        Those of bfloat16 come as an array of one field of 16 bits, to be viewed.
        """

    def read(self, array: Any) -> NDArray[Any]:
        """Return the values on the host, those of bfloat16 as in `write`."""

    def allocate(self, nbytes: int, device: int, stream: int) -> tuple[int, Any]:
        """Return the address of memory for use on `stream`, and an object that owns it.

        Aligned to 256 bytes. When the owner is gone the memory may be given to others, for work
        that is put on `stream` from then on. To raise is to have none left.
        """


class TorchKind:
    """PyTorch's: its caching allocator, its current streams."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        # Asked for each array of a call: where PyTorch has it, without an object for the stream.
        self._raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None)
        self._to_dlpack = torch.utils.dlpack.to_dlpack

    def current_stream(self, device: int) -> int:
        if self._raw_stream is not None:
            return int(self._raw_stream(device))
        return int(self._torch.cuda.current_stream(device).cuda_stream)

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        torch = self._torch
        return torch.empty(shape, dtype=getattr(torch, dtype), device=torch.device("cuda", device))

    def lend(self, array: Any, stream: int, max_version: Version) -> Any:
        device = array.device.index
        if stream == (self.current_stream(device) or LEGACY_DEFAULT_STREAM):
            stream = NO_ORDER
        if stream == NO_ORDER and type(array) is self._torch.Tensor:
            return self._to_dlpack(array)  # what __dlpack__ comes to, at a tenth of its cost
        if device == self._torch.cuda.current_device():
            return lend_array(array, stream, max_version)
        with self._torch.cuda.device(device):  # it lends from the current device alone
            return lend_array(array, stream, max_version)

    def contiguous(self, array: Any) -> Any:
        return array.detach().clone(memory_format=self._torch.contiguous_format)

    def write(self, array: Any, values: NDArray[Any]) -> None:
        torch = self._torch
        with torch.inference_mode():  # also where autograd watches the parameter
            if array.dtype == torch.bfloat16:
                array, values = array.view(torch.int16), values.view(np.int16)
            array.copy_(torch.from_numpy(values))

    def read(self, array: Any) -> NDArray[Any]:
        torch, values = self._torch, array.detach()
        if values.dtype == torch.bfloat16:
            bits: NDArray[Any] = values.contiguous().view(torch.int16).cpu().numpy()
            return bits.view(bf16.BITS)
        numbers: NDArray[Any] = values.cpu().numpy()
        return numbers

    def join(self, value: Any, tangent: Any) -> Any:
        zeros = self._torch.zeros_like(tangent if value is None else value)
        parts = (zeros if part is None else part.detach() for part in (value, tangent))
        return self._torch.complex(*parts)

    def split(self, array: Any) -> tuple[Any, Any]:
        return array.real.contiguous(), array.imag.contiguous()

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
            return array.copy(order="C")

    def write(self, array: Any, values: NDArray[Any]) -> None:
        array.set(values.view(array.dtype))

    def read(self, array: Any) -> NDArray[Any]:
        values: NDArray[Any] = self._cupy.asnumpy(array)
        return values

    def join(self, value: Any, tangent: Any) -> Any:
        like = tangent if value is None else value
        with like.device:
            array = self._cupy.empty(like.shape, np.result_type(like.dtype, np.complex64))
            array.real = 0 if value is None else value
            array.imag = 0 if tangent is None else tangent
            return array

    def split(self, array: Any) -> tuple[Any, Any]:
        with array.device:
            return array.real.copy(), array.imag.copy()

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
        return _core.LentArray(shape, dtype, device, LEGACY_DEFAULT_STREAM)

    def lend(self, array: Any, stream: int, max_version: Version) -> Any:
        # JAX hands on whatever it is given, -1 too, as a stream that is to wait.
        if stream == NO_ORDER and not isinstance(array, _core.LentArray):
            stream = LEGACY_DEFAULT_STREAM
        return lend_array(array, stream, max_version)

    def contiguous(self, array: Any) -> Any:
        return None

    def read(self, array: Any) -> NDArray[Any]:
        return np.asarray(array)


def lend_array(array: Any, stream: int, max_version: Version) -> Any:
    """Call `array.__dlpack__`, without a version where it knows none."""
    try:
        return array.__dlpack__(stream=stream, max_version=max_version)
    except TypeError:
        return array.__dlpack__(stream=stream)


OF_DLPACK = DLPackKind()
_registered: dict[type, Any] = {}
_makers = {"cupy": CupyKind, "torch": TorchKind}


def register(array_type: type, kind: CudaKind) -> None:
    """Make the CUDA arrays of another library known: `kind` for `array_type` and its subclasses.

    Results of calls whose `x` is one of them are what `kind.empty` makes.

    Parameters
    ----------
    array_type : type
    kind : CudaKind

    Raises
    ------
    TypeError
        Where `array_type` is no type.
    """
    if not isinstance(array_type, type):
        raise TypeError(f"array_type: expected a type, got {type(array_type).__name__}")
    _registered[array_type] = kind


def is_on_cuda(array: Any) -> bool:
    """Whether the array says that it lies on a CUDA device."""
    try:
        kind, _ = array.__dlpack_device__()
    except Exception:  # whoever reads it as an array of the CPU has words for it
        return False
    return kind in {CUDA, CUDA_MANAGED}


def kind_of(array: Any) -> Any:
    """Return the kind of an array on a CUDA device."""
    return _kind_of_type(type(array))


def kind_for_parameters(array_type: Any) -> Any:
    """Return the kind of a layer's parameters: by default CuPy's if it is installed, or PyTorch's.

    Raises
    ------
    TypeError, ValueError
        Where `array_type` is no type, or one of a library that cannot hold them.
    ImportError
        Where there is neither of the two.
    """
    if array_type is None:
        for package in _makers:
            if find_spec(package) is not None:
                return _kind_of_package(package)
        raise ImportError(
            "array_type: layers on CUDA devices keep their parameters in arrays of CuPy or "
            "PyTorch, of which neither is installed"
        )
    if not isinstance(array_type, type):
        raise TypeError(f"array_type: expected a type, got {type(array_type).__name__}")
    kind = _kind_of_type(array_type)
    if kind is OF_DLPACK:
        raise ValueError(
            "array_type: expected torch.Tensor, cupy.ndarray or a type that was given to "
            f"fusedrnn.cuda_arrays.register, got {array_type.__name__}"
        )
    return kind


def _kind_of_type(array_type: type) -> Any:
    for base in array_type.__mro__:
        kind = _registered.get(base) or _builtin(base)
        if kind is not None:
            _registered[array_type] = kind
            return kind
    return OF_DLPACK


def _builtin(base: type) -> Any:
    package = base.__module__.partition(".")[0]
    return _kind_of_package(package) if package in _makers and package in sys.modules else None


@functools.cache
def _kind_of_package(package: str) -> Any:
    return _makers[package](import_module(package))
