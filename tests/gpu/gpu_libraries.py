"""Array libraries on CUDA devices behind one interface: into device memory, back, streams, graphs.

A library is also a place for `support.running_on`: NumPy arrays of the tests become its own, and
results NumPy arrays again.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import reference
from emulator.array import EmulatedArray, EmulatedKind
from emulator.library import Emulator
from emulator.stream import Stream
from fake_dlpack import Managed
from fusedrnn import cuda_arrays
from support import BOUND, LAYERS, check

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
ALL_DTYPES = ("float32", "float64", "bfloat16", "float16")


class Library(ABC):
    """One library's arrays."""

    name: str
    dtypes: tuple[str, ...] = ALL_DTYPES

    @abstractmethod
    def array(self, values: Any, device: int = 0) -> Any:
        """A new array on the device with these values, dense."""

    @abstractmethod
    def values(self, array: Any) -> Any:
        """The values, when all work on the current stream is done."""

    @abstractmethod
    def is_own(self, array: Any) -> bool:
        """Whether the array is of the library, on device 0."""

    def give(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {
            name: self.array(value) if isinstance(value, np.ndarray) else value
            for name, value in arguments.items()
        }

    def read(self, results: dict[str, Any]) -> dict[str, Any]:
        assert all(self.is_own(array) for array in results.values())
        return {name: self.values(array) for name, array in results.items()}

    def check_alike(self, got: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        """A product of another shape may be another kernel's, which sums in another order."""
        for name, value in expected.items():
            check({name: got[name]}, {name: value}, BOUND[value.dtype.name])

    def precision(self, precision: Any) -> Any:
        """Gates are kept as they are; the gradients of float16's enter products as tfloat32.

        That cuts them off behind 10 bits, or rounds them, as the hardware has it.
        """
        if precision.compute is not None:
            return precision._replace(rounding=reference.COMPUTED_IN_ON_CUDA[precision.compute])
        rounding = reference.STORED_IN_ON_CUDA[precision.dtype]
        # Cut off at every step, a gradient loses more than a unit on its way through them.
        bound = 2.0**-9 if precision.dtype == "float16" else precision.bound
        return precision._replace(rounding=rounding, bound=bound)

    def transposed(self, array: Any, axes: tuple[int, ...]) -> Any:
        """A view with its axes in another order."""
        return array.transpose(*axes)

    def schedules(self, count: int) -> Iterator[contextlib.AbstractContextManager[None]]:
        """Contexts in which the device may take what is not ordered in another order."""
        return (contextlib.nullcontext() for _ in range(count))


class StreamLibrary(Library):
    """One whose arrays may be written, and whose streams and memory a caller can reach."""

    def layer(self, cell: str, *sizes: int, **options: Any) -> Any:
        return OnDevice(self, LAYERS[cell](*sizes, **options, **self.layer_options()))

    @abstractmethod
    def layer_options(self) -> dict[str, Any]:
        """Of layers whose parameters are arrays of the library."""

    @abstractmethod
    def nans(self, count: int) -> Any:
        """A new array on the current stream, for which nothing waits."""

    @abstractmethod
    def copy_into(self, array: Any, values: Any) -> None:
        """New values in the same memory, written on the current stream."""

    @abstractmethod
    def stream(self) -> contextlib.AbstractContextManager[int]:
        """A context in which a new stream, ordered against no other, is the current one."""

    @abstractmethod
    def capture(self, function: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """What `function` returns while it is captured, and a function that replays it."""

    @abstractmethod
    def live_bytes(self) -> int:
        """Device memory in use, by arrays and by work."""


class OnDevice:
    """A layer on the device for tests with NumPy arrays, as `Library` is for functions."""

    def __init__(self, library: StreamLibrary, layer: Any) -> None:
        self.library, self.layer = library, layer

    def __repr__(self) -> str:
        return repr(self.layer)

    def __deepcopy__(self, memo: dict[int, Any]) -> OnDevice:
        return OnDevice(self.library, copy.deepcopy(self.layer, memo))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._read(self.layer(*self._give(arguments), **self._give(named)))

    def forward(self, *arguments: Any, **named: Any) -> Any:
        *results, tape = self.layer.forward(*self._give(arguments), **self._give(named))
        return *self._read(results), tape

    def backward(self, tape: Any, *arguments: Any, **named: Any) -> Any:
        return self._read(self.layer.backward(tape, *self._give(arguments), **self._give(named)))

    def jvp(self, tangents: Any, *arguments: Any) -> Any:
        return self._read(self.layer.jvp(self._give(tangents), *self._give(arguments)))

    def double_backward(self, tape: Any, *arguments: Any) -> Any:
        return self._read(self.layer.double_backward(tape, *self._give(arguments)))

    def step(self, *arguments: Any) -> Any:
        return self._read(self.layer.step(*self._give(arguments)))

    def parameters(self) -> Any:
        return self._read(self.layer.parameters())

    def state_dict(self) -> Any:
        return self._read(self.layer.state_dict())

    def load_state_dict(self, values: Any) -> None:
        self.layer.load_state_dict(values)

    def _give(self, value: Any) -> Any:
        return _mapped(lambda a: self.library.array(a) if isinstance(a, np.ndarray) else a, value)

    def _read(self, value: Any) -> Any:
        def read(array: Any) -> Any:
            assert self.library.is_own(array)
            return self.library.values(array)

        return _mapped(read, value)


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Of all arrays in tuples, lists and dicts."""
    if isinstance(value, dict):
        return {name: _mapped(function, item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_mapped(function, item) for item in value)
    return function(value)


class Torch(StreamLibrary):
    name = "torch"

    def __init__(self) -> None:
        import torch  # noqa: PLC0415

        self.torch = torch

    def array(self, values: Any, device: int = 0) -> Any:
        bits = np.ascontiguousarray(values)
        is_bfloat16 = bits.dtype == BFLOAT16
        tensor = self.torch.from_numpy(bits.view(np.int16) if is_bfloat16 else bits.copy())
        tensor = tensor.to(self.torch.device("cuda", device))
        return tensor.view(self.torch.bfloat16) if is_bfloat16 else tensor

    def values(self, array: Any) -> Any:
        if array.dtype == self.torch.bfloat16:
            return array.view(self.torch.int16).cpu().numpy().view(BFLOAT16)
        return array.cpu().numpy()

    def layer_options(self) -> dict[str, Any]:
        return {"device": "cuda", "array_type": self.torch.Tensor}

    def is_own(self, array: Any) -> bool:
        return isinstance(array, self.torch.Tensor) and str(array.device) == "cuda:0"

    def transposed(self, array: Any, axes: tuple[int, ...]) -> Any:
        return array.permute(*axes)

    def nans(self, count: int) -> Any:
        return self.torch.full((count,), np.nan, device="cuda")

    def copy_into(self, array: Any, values: Any) -> None:
        array.copy_(self.array(values))

    @contextlib.contextmanager
    def stream(self) -> Iterator[int]:
        stream = self.torch.cuda.Stream()
        stream.wait_stream(self.torch.cuda.current_stream())
        with self.torch.cuda.stream(stream):
            yield stream.cuda_stream

    def capture(self, function: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        graph = self.torch.cuda.CUDAGraph()
        with self.stream():
            function()
        self.torch.cuda.synchronize()
        with self.torch.cuda.graph(graph):
            results = function()
        return results, graph.replay

    def live_bytes(self) -> int:
        self.torch.cuda.synchronize()
        return int(self.torch.cuda.memory_allocated())


class Cupy(StreamLibrary):
    name = "cupy"
    dtypes = ("float32", "float64", "float16")

    def __init__(self) -> None:
        import cupy  # noqa: PLC0415

        self.cupy = cupy

    def array(self, values: Any, device: int = 0) -> Any:
        with self.cupy.cuda.Device(device):
            return self.cupy.asarray(np.ascontiguousarray(values))

    def values(self, array: Any) -> Any:
        return self.cupy.asnumpy(array)

    def layer_options(self) -> dict[str, Any]:
        return {"device": "cuda", "array_type": self.cupy.ndarray}

    def is_own(self, array: Any) -> bool:
        return isinstance(array, self.cupy.ndarray) and array.device.id == 0

    def nans(self, count: int) -> Any:
        return self.cupy.full(count, np.nan, "float32")

    def copy_into(self, array: Any, values: Any) -> None:
        array.set(np.ascontiguousarray(values))
        self.cupy.cuda.get_current_stream().synchronize()  # graphs run on a stream of their own

    @contextlib.contextmanager
    def stream(self) -> Iterator[int]:
        stream = self.cupy.cuda.Stream(non_blocking=True)
        stream.wait_event(self.cupy.cuda.get_current_stream().record())
        with stream:
            yield stream.ptr
        stream.synchronize()  # its pool may give the memory to others

    def capture(self, function: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        self.cupy.cuda.get_current_stream().synchronize()  # arrays are copied to the device there
        stream = self.cupy.cuda.Stream(non_blocking=True)
        with stream:
            function()
            stream.synchronize()
            stream.begin_capture()
            results = function()
            graph = stream.end_capture()

        def replay() -> None:
            graph.launch(stream)
            stream.synchronize()

        return results, replay

    def live_bytes(self) -> int:
        self.cupy.cuda.Device().synchronize()
        return int(self.cupy.get_default_memory_pool().used_bytes())


class Jax(Library):
    name = "jax"

    def __init__(self) -> None:
        import jax  # noqa: PLC0415

        jax.config.update("jax_enable_x64", True)
        self.jax = jax
        self.devices = jax.devices("gpu")

    def array(self, values: Any, device: int = 0) -> Any:
        return self.jax.device_put(values, self.devices[device])

    def values(self, array: Any) -> Any:
        return np.array(array)  # a copy: JAX's own may not be written, and tests do

    def is_own(self, array: Any) -> bool:
        return isinstance(array, self.jax.Array) and array.devices() == {self.devices[0]}


class Emulated(StreamLibrary):
    """Arrays of the emulator, over the library that it was built into."""

    name = "emulated"
    few = 6  # runs where a GPU has many

    def __init__(self, path: Path) -> None:
        self.emulator = Emulator(path)
        cuda_arrays.register(EmulatedArray, EmulatedKind(self.emulator))

    def array(self, values: Any, device: int = 0) -> Any:
        return EmulatedArray.from_numpy(self.emulator, values, device)

    def values(self, array: Any) -> Any:
        values = array.to_numpy()
        assert self.emulator.last_error() == ""
        return values

    def layer_options(self) -> dict[str, Any]:
        return {"device": "cuda", "array_type": EmulatedArray}

    def is_own(self, array: Any) -> bool:
        return isinstance(array, EmulatedArray) and array.device == 0

    def nans(self, count: int) -> Any:
        return EmulatedArray(self.emulator, (count,), "float32")

    def copy_into(self, array: Any, values: Any) -> None:
        array.write(values)

    @contextlib.contextmanager
    def stream(self) -> Iterator[int]:
        stream = Stream(self.emulator)
        stream.wait_for(Stream.current(self.emulator))
        with stream:
            yield stream.handle
        stream.synchronize()

    def capture(self, function: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        with Stream(self.emulator).capture() as graph:
            results = function()

        def replay() -> None:
            graph.launch()
            self.emulator.synchronize()

        return results, replay

    def live_bytes(self) -> int:
        return self.emulator.live_bytes()

    def new_stream(self) -> Stream:
        return Stream(self.emulator)

    def borrowed_copy(self, dlpack: Any, like: Any, stream: Stream) -> Any:
        """A copy, made on `stream`, of what an older DLPack capsule lends, dense as `like`."""
        get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
        get_pointer.restype = ctypes.c_void_p
        get_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
        tensor = Managed.from_address(get_pointer(dlpack, b"dltensor")).tensor
        assert tuple(tensor.shape[: tensor.ndim]) == like.shape
        with stream:
            copy = EmulatedArray(self.emulator, like.shape, like.dtype)  # waits for nothing
        self.emulator.call(
            "copy_strided",
            copy.address,
            tensor.data + tensor.byte_offset,
            1,
            (ctypes.c_int64 * 1)(like.size),
            (ctypes.c_int64 * 1)(like.itemsize),
            like.itemsize,
            stream.handle,
        )
        return copy

    def schedules(self, count: int) -> Iterator[contextlib.AbstractContextManager[None]]:
        return (self.emulator.seed(seed) for seed in range(min(count, self.few)))


def installed() -> list[Library]:
    """Those that find a GPU here; one that is broken is told of and left out."""
    found: list[Library] = []
    for name, library in (("torch", Torch), ("cupy", Cupy), ("jax", Jax)):
        if importlib.util.find_spec(name) is None:
            continue
        try:
            if _finds_a_gpu(name):
                found.append(library())
        except (ImportError, RuntimeError) as why:
            print(f"not tested: {name}: {why}", file=sys.stderr)
    return found


def _finds_a_gpu(name: str) -> bool:
    if name == "torch":
        import torch  # noqa: PLC0415

        return bool(torch.cuda.is_available())
    if name == "cupy":
        import cupy  # noqa: PLC0415

        return bool(cupy.is_available())
    import jax  # noqa: PLC0415

    return any(device.platform == "gpu" for device in jax.devices())
