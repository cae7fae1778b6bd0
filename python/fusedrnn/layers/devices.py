"""Where a layer lies: how parameters are kept there, arguments read and results made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol

import numpy as np
from numpy.typing import NDArray

from fusedrnn import _core, bf16, cuda_arrays
from fusedrnn.interop import A, as_it_is, converter_to_kind_of

# NumPy's on the CPU, a library's own on a CUDA device; with slices that are views.
Array = Any


def rank(array: Any) -> int:
    """The number of axes of an argument, of whatever library it is; 0 where it does not say."""
    return len(getattr(array, "shape", ()))


class Results(Generic[A]):
    """Arrays of one call: how they are made, and handed over as the kind of its `x`."""

    __slots__ = ("empty", "hand_over")

    def __init__(
        self, empty: Callable[[tuple[int, ...], str], Array], hand_over: Callable[[Array], A]
    ) -> None:
        self.empty = empty
        self.hand_over = hand_over


class Device(Protocol):
    """One device, as a layer needs it."""

    name: str
    is_cuda: bool

    def read(self, name: str, value: Any, shape: tuple[int | None, ...], dtype: str) -> Array:
        """Return an argument to take views of, once its device, shape and dtype are right."""

    def read_mask(self, name: str, value: Any, shape: tuple[int | None, ...]) -> Array:
        """The same of bools or bytes, which may stay on the CPU."""

    def results_like(self, x: A) -> Results[A]:
        """How a call with this `x` makes its arrays."""

    def parameter(self, values: NDArray[Any]) -> Array:
        """Return a new parameter of these values; bfloat16 is `bf16.BITS` here and below."""

    def show(self, parameter: Array) -> Array:
        """Return the parameter as its user sees it, sharing its memory."""

    def copy(self, parameter: Array) -> Array:
        """Return a copy as its user sees it."""

    def write(self, parameter: Array, values: NDArray[Any]) -> None:
        """Give the parameter new values of its dtype, in place."""


class Host:
    """The CPU: NumPy arrays."""

    name = "cpu"
    is_cuda = False

    def read(self, name: str, value: Any, shape: tuple[int | None, ...], dtype: str) -> Array:
        return _core.as_array(name, value, shape, dtype)

    def read_mask(self, name: str, value: Any, shape: tuple[int | None, ...]) -> Array:
        return _core.as_array(name, value, shape)

    def results_like(self, x: A) -> Results[A]:
        return Results(_core.empty, converter_to_kind_of(x))

    def parameter(self, values: NDArray[Any]) -> Array:
        return values

    def show(self, parameter: Array) -> Array:
        return bf16.for_numpy(parameter)

    def copy(self, parameter: Array) -> Array:
        return self.show(parameter).copy()

    def write(self, parameter: Array, values: NDArray[Any]) -> None:
        parameter[...] = values


class Cuda:
    """A CUDA device: parameters are arrays of one library, results those of the library of `x`."""

    is_cuda = True

    def __init__(self, index: int, array_type: Any) -> None:
        self.name = f"cuda:{index}"
        self._index = index
        self._array_type = array_type
        self._kind = cuda_arrays.kind_for_parameters(array_type)

    def __reduce__(self) -> tuple[Any, ...]:
        return Cuda, (self._index, self._array_type)  # the kind knows a module, which has no copies

    def read(self, name: str, value: Any, shape: tuple[int | None, ...], dtype: str) -> Array:
        _core.check_on_cuda(name, value, shape, dtype, self._index)
        return value

    def read_mask(self, name: str, value: Any, shape: tuple[int | None, ...]) -> Array:
        if cuda_arrays.is_on_cuda(value):
            kind = "uint8" if "uint8" in str(getattr(value, "dtype", "")) else "bool"
            return self.read(name, value, shape, kind)
        return _core.as_array(name, value, shape)

    def results_like(self, x: A) -> Results[A]:
        kind = cuda_arrays.kind_of(x)
        if kind is cuda_arrays.OF_DLPACK:
            raise TypeError(
                "x: expected an array of PyTorch, CuPy or a library made known to "
                f"fusedrnn.cuda_arrays (layers write parts of arrays), got {type(x).__name__}"
            )

        def empty(shape: tuple[int, ...], dtype: str) -> Array:
            return kind.empty(shape, dtype, self._index)

        return Results(empty, as_it_is)

    def parameter(self, values: NDArray[Any]) -> Array:
        dtype = bf16.dtype_name(values)
        parameter = self._kind.empty(values.shape, dtype, self._index)
        self.write(parameter, values)
        return parameter

    def show(self, parameter: Array) -> Array:
        return parameter

    def copy(self, parameter: Array) -> Array:
        return self._kind.contiguous(parameter)

    def write(self, parameter: Array, values: NDArray[Any]) -> None:
        self._kind.write(parameter, np.ascontiguousarray(values))


def find(device: object, array_type: object) -> Device:
    """Return the device of that name; `array_type` is the class of its parameters on CUDA."""
    if not isinstance(device, str):
        raise TypeError(f"device: expected a str, got {type(device).__name__}")
    if device == "cpu":
        if array_type is not None:
            raise ValueError("array_type: expected None for a layer on the CPU, got a type")
        return Host()
    kind, _, index = device.partition(":")
    if kind != "cuda" or (":" in device and not index.isdecimal()):
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    number = int(index or 0)
    _core.require_cuda_device("device", number)
    return Cuda(number, array_type)


def on_host(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the values of a parameter to load, from wherever they are."""
    if cuda_arrays.is_on_cuda(value):
        value = cuda_arrays.kind_of(value).read(value)
    return _core.as_array(name, bf16.from_file(value), shape)
