"""Arrays on the devices of the fake CUDA library, whose memory is the host's."""

from __future__ import annotations

from typing import Any

import numpy as np

from fake_dlpack import Producer
from fusedrnn.cuda_arrays import lend_array

CUDA = 2
_lent: list[Producer] = []  # a capsule's memory must outlive the array: it is never freed here


class Lender:
    """Lends `values` as memory of a CUDA device; `streams` has what consumers asked to wait."""

    def __init__(self, values: Any, device: int = 0) -> None:
        self.values = np.asarray(values)
        self.device = device
        self.streams: list[int | None] = []
        self.producers: list[Producer] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self.device

    def __dlpack__(self, *, stream: int | None = None, max_version: Any = None) -> Any:
        self.streams.append(stream)
        values = self.values
        steps = tuple(step // values.itemsize for step in values.strides)
        producer = Producer(
            np.empty(values.shape, values.dtype),
            versioned=max_version is not None,
            device=self.__dlpack_device__(),
            data=values.ctypes.data,
            strides=steps,
        )
        self.producers.append(producer)
        _lent.append(producer)
        return producer.__dlpack__(max_version=max_version or (1, 0))


class FakeArray(Lender):
    """Of a library that `FakeKind` speaks for."""


class OlderArray(Lender):
    """From before versions."""

    def __dlpack__(self, *, stream: int | None = None) -> Any:  # type: ignore[override]
        return super().__dlpack__(stream=stream)


class InterfaceArray:
    """Known through the CUDA Array Interface alone."""

    def __init__(self, values: Any, **changed: Any) -> None:
        self.values = np.asarray(values)
        self.interface = {
            "version": 3,
            "shape": self.values.shape,
            "typestr": self.values.dtype.str,
            "data": (self.values.ctypes.data, False),
            "strides": self.values.strides,
        } | changed

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.interface


class FakeKind:
    """What `fusedrnn.cuda_arrays.register` takes; it counts its memory and fails where told to."""

    def __init__(self, array_type: Any = FakeArray) -> None:
        self.array_type = array_type
        self.stream = 0
        self.live: dict[int, Any] = {}
        self.failure: BaseException | None = None
        self.copies = 0
        self.can_copy = True

    def current_stream(self, device: int) -> int:
        return self.stream

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        return self.array_type(np.full(shape, np.nan, dtype), device)

    def lend(self, array: Any, stream: int, max_version: tuple[int, int]) -> Any:
        return lend_array(array, stream, max_version)

    def contiguous(self, array: Any) -> Any:
        self.copies += 1
        values = np.ascontiguousarray(array.values)
        return self.array_type(values, array.device) if self.can_copy else None

    def allocate(self, nbytes: int, device: int, stream: int) -> tuple[int, Any]:
        if self.failure is not None:
            raise self.failure
        return _Owner.of(nbytes, self.live)


ALIGNMENT = 256  # of memory on a device


class _Owner:
    def __init__(self, memory: Any, live: dict[int, Any]) -> None:
        self.memory, self.live = memory, live
        live[memory.ctypes.data] = len(memory)

    @staticmethod
    def of(nbytes: int, live: dict[int, Any]) -> tuple[int, Any]:
        block = np.empty(nbytes + ALIGNMENT, np.uint8)
        begin = -block.ctypes.data % ALIGNMENT
        memory = block[begin : begin + nbytes]
        return memory.ctypes.data, _Owner(memory, live)

    def __del__(self) -> None:
        del self.live[self.memory.ctypes.data]
