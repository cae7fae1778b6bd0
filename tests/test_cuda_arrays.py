"""What is asked of PyTorch and CuPy for arrays on a device: here, of stand-ins that lie on the CPU.

`tests/gpu` asks the libraries themselves, on a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from fusedrnn import bf16, cuda_arrays
from fusedrnn.cuda_arrays import CupyKind, TorchKind, kind_for_parameters, kind_of

DTYPES = ("float32", "float64", "float16", "bfloat16")
STREAM = 4096
VERSION = (1, 1)


class Context:
    """`torch.cuda.device` and `cupy.cuda.Device`: which device is current where."""

    current = 0

    def __init__(self, index: int) -> None:
        self.index = index

    def __enter__(self) -> None:
        self.before, Context.current = Context.current, self.index

    def __exit__(self, *_: object) -> None:
        Context.current = self.before


class Torch:
    """PyTorch, but that its CUDA devices are the CPU."""

    def __init__(self, *, raw: bool) -> None:
        self.streams: dict[int, int] = {}
        stream = SimpleNamespace(_cuda_getCurrentRawStream=self._stream)
        self._C = stream if raw else SimpleNamespace()
        self.cuda = SimpleNamespace(
            current_stream=lambda device: SimpleNamespace(cuda_stream=self._stream(device)),
            current_device=lambda: Context.current,
            device=Context,
        )
        self.devices: list[tuple[str, int]] = []

    def _stream(self, device: int) -> int:
        return self.streams.get(device, 0)

    def device(self, kind: str, index: int) -> torch.device:
        self.devices.append((kind, index))
        return torch.device("cpu")

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class Tensor:
    """One that says it is on a device, and writes down how it is lent."""

    def __init__(self, index: int) -> None:
        self.device = SimpleNamespace(index=index)
        self.calls: list[tuple[int, int, Any]] = []

    def __dlpack__(self, *, stream: int, max_version: Any) -> Any:
        self.calls.append((Context.current, stream, max_version))
        return "a capsule"


@pytest.fixture(params=[True, False], ids=["raw-stream", "stream"])
def fake_torch(request: pytest.FixtureRequest) -> Torch:
    return Torch(raw=request.param)


def test_torch_streams(fake_torch: Torch) -> None:
    kind = TorchKind(fake_torch)
    fake_torch.streams = {0: 0, 1: STREAM}
    assert [kind.current_stream(device) for device in (0, 1)] == [0, STREAM]


def test_torch_lends_on_its_own_device_and_stream(fake_torch: Torch) -> None:
    kind = TorchKind(fake_torch)
    fake_torch.streams = {1: STREAM}
    for device, stream, asked in [(0, 1, -1), (0, STREAM, STREAM), (1, STREAM, -1), (1, 1, 1)]:
        tensor = Tensor(device)
        assert kind.lend(tensor, stream, VERSION) == "a capsule"
        assert tensor.calls == [(device, asked, VERSION)]
        assert Context.current == 0


def test_torch_tensors_that_need_no_order_are_lent_at_once(fake_torch: Torch) -> None:
    kind = TorchKind(fake_torch)
    fake_torch.streams = {0: STREAM, None: STREAM}  # type: ignore[dict-item]  # None: the CPU's
    for stream, name in [(-1, "dltensor"), (STREAM, "dltensor")]:
        tensor = torch.arange(6.0).reshape(2, 3)
        assert f'"{name}"' in repr(kind.lend(tensor, stream, VERSION))
        assert torch.from_dlpack(kind.lend(tensor, stream, VERSION)).data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_parameters_that_autograd_watches(fake_torch: Torch, dtype: str) -> None:
    kind = TorchKind(fake_torch)
    with torch.inference_mode():
        made_there = kind.empty((2,), dtype, 0)
    for array in (kind.empty((2,), dtype, 0).requires_grad_(), made_there):
        values = bf16.cast(np.array([1.0, 2.0]), dtype)
        kind.write(array, values)
        assert kind.read(array).tobytes() == values.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_arrays(fake_torch: Torch, dtype: str) -> None:
    kind = TorchKind(fake_torch)
    made = kind.empty((3, 4), dtype, 1)
    assert fake_torch.devices == [("cuda", 1)]
    assert (made.shape, made.dtype, made.is_contiguous()) == ((3, 4), getattr(torch, dtype), True)
    values = bf16.cast(np.arange(12.0).reshape(3, 4), dtype)
    kind.write(made, values)
    assert made.float().tolist() == np.arange(12.0).reshape(3, 4).tolist()
    back = kind.read(made)
    assert back.dtype == values.dtype
    assert back.tobytes() == values.tobytes()
    turned = made.T.requires_grad_()
    assert kind.read(turned).shape == (4, 3)
    copy = kind.contiguous(turned)
    assert copy.is_contiguous()
    assert not copy.requires_grad
    assert torch.equal(copy, made.T)
    assert kind.contiguous(made).data_ptr() != made.data_ptr()


def test_torch_memory(fake_torch: Torch) -> None:
    address, owner = TorchKind(fake_torch).allocate(1000, 1, STREAM)
    assert fake_torch.devices == [("cuda", 1)]
    assert (owner.data_ptr(), owner.nbytes) == (address, 1000)


class Array(np.ndarray[Any, Any]):
    """CuPy's, of which `device` is a context."""

    device: Any = Context(1)  # type: ignore[assignment]

    def set(self, values: Any) -> None:
        assert values.dtype == self.dtype
        self[...] = values

    def __dlpack__(self, *, stream: int, max_version: Any = None) -> Any:  # type: ignore[override]
        return (Context.current, stream, max_version)


class Cupy:
    """CuPy, but that its devices are the CPU."""

    def __init__(self) -> None:
        stream = SimpleNamespace(ptr=STREAM)
        self.allocated: list[tuple[int, int]] = []
        self.cuda = SimpleNamespace(
            get_current_stream=lambda device: stream, Device=Context, alloc=self._allocate
        )

    def _allocate(self, nbytes: int) -> Any:
        self.allocated.append((Context.current, nbytes))
        return SimpleNamespace(ptr=512)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        assert Context.current == 1
        return np.empty(shape, dtype).view(Array)

    def asnumpy(self, array: Array) -> Any:
        return np.asarray(array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cupy_arrays(dtype: str) -> None:
    kind = CupyKind(Cupy())
    assert kind.current_stream(0) == STREAM
    made = kind.empty((3, 4), dtype, 1)
    assert (made.shape, made.dtype) == ((3, 4), np.dtype(getattr(ml_dtypes, dtype, dtype)))
    kind.write(made, bf16.cast(np.arange(12.0).reshape(3, 4), dtype))
    assert made.astype(float).tolist() == np.arange(12.0).reshape(3, 4).tolist()
    assert kind.read(made).tobytes() == made.tobytes()
    copy = kind.contiguous(made.T)
    assert copy.flags.c_contiguous
    assert copy.astype(float).tolist() == np.arange(12.0).reshape(3, 4).T.tolist()
    assert kind.contiguous(made).ctypes.data != made.ctypes.data
    assert kind.lend(made, STREAM, VERSION) == (1, STREAM, VERSION)


def test_cupy_memory() -> None:
    cupy = Cupy()
    address, owner = CupyKind(cupy).allocate(1000, 1, STREAM)
    assert (address, owner.ptr) == (512, 512)
    assert cupy.allocated == [(1, 1000)]
    assert Context.current == 0


def test_other_libraries_are_given_a_stream_that_there_is() -> None:
    array = Tensor(0)
    for stream, asked in [(-1, 1), (1, 1), (STREAM, STREAM)]:
        assert cuda_arrays.OF_DLPACK.lend(array, stream, VERSION) == "a capsule"
        assert array.calls.pop() == (0, asked, VERSION)


@contextlib.contextmanager
def registered(array_type: type, kind: Any) -> Iterator[None]:
    cuda_arrays.register(array_type, kind)
    try:
        yield
    finally:
        cuda_arrays._registered.clear()


def test_kinds_are_found_by_type() -> None:
    class Base:
        pass

    class Derived(Base):
        pass

    assert kind_of(Base()) is cuda_arrays.OF_DLPACK
    kind: Any = object()
    with registered(Base, kind):
        assert kind_of(Derived()) is kind
        assert kind_for_parameters(Derived) is kind
    assert isinstance(kind_of(torch.zeros(1)), TorchKind)
    assert kind_of(torch.nn.Parameter(torch.zeros(1))) is kind_of(torch.zeros(1))
    with pytest.raises(TypeError, match=r"^array_type: expected a type, got int$"):
        cuda_arrays.register(3, kind)  # type: ignore[arg-type]


def test_the_kind_of_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(kind_for_parameters(torch.Tensor), TorchKind)
    assert isinstance(kind_for_parameters(None), (CupyKind, TorchKind))
    monkeypatch.setattr(cuda_arrays, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"^array_type: .* neither is installed$"):
        kind_for_parameters(None)


def test_arrays_on_cuda() -> None:
    for place, expected in [((1, 0), False), ((2, 0), True), ((13, 1), True), ((10, 0), False)]:
        array = SimpleNamespace(__dlpack_device__=lambda place=place: place)
        assert cuda_arrays.is_on_cuda(array) is expected
    assert not cuda_arrays.is_on_cuda(np.zeros(1))
    assert not cuda_arrays.is_on_cuda([1, 2])
