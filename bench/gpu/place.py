"""Where problems lie: on a GPU, or for a session without one in the emulator's memory."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..peers.base import UnavailableError, require
from .scenarios import Problem

TESTS = Path(__file__).resolve().parent.parent.parent / "tests"
LIBRARY = "FUSEDRNN_CUDA_LIBRARY"


class Place:
    """Where the problems lie: tensors of PyTorch on one of its devices."""

    def __init__(self, device: str = "cuda") -> None:
        self.device = device

    def given(self, problem: Problem) -> Problem:
        """The problem as the peer gets it."""
        return problem

    def read(self, array: Any) -> Any:
        """A result as a tensor in host memory."""
        return array.detach().cpu()

    def address(self, array: Any) -> int:
        """Where a result is."""
        return int(array.data_ptr())

    def settle(self) -> None:
        """Wait until what was released is free."""


class EmulatedPlace(Place):
    """The library's emulated device: arrays of tests/emulator there, tensors of PyTorch here."""

    def __init__(self) -> None:
        super().__init__("cpu")
        if not os.environ.get(LIBRARY):
            raise UnavailableError(f"expected the emulated library in {LIBRARY}, found none")
        sys.path.append(str(TESTS))
        import fusedrnn.cuda_arrays  # noqa: PLC0415
        from emulator.array import EmulatedArray, EmulatedKind  # noqa: PLC0415
        from emulator.library import Emulator  # noqa: PLC0415

        self._torch = require("torch")
        self._array = EmulatedArray
        self._emulator = Emulator(Path(os.environ[LIBRARY]))
        self._emulator.call("set_quarantine", 0)  # addresses come again, as from other allocators
        fusedrnn.cuda_arrays.register(EmulatedArray, EmulatedKind(self._emulator))

    def given(self, problem: Problem) -> Problem:
        tensors = {name: self._emulated(tensor) for name, tensor in problem.tensors.items()}
        lengths = None if problem.lengths is None else self._emulated(problem.lengths)
        return replace(problem, tensors=tensors, lengths=lengths)

    def _emulated(self, tensor: Any) -> Any:
        bits = tensor.numpy() if tensor.dtype != self._torch.bfloat16 else _bfloat16(tensor)
        return self._array.from_numpy(self._emulator, np.ascontiguousarray(bits))

    def address(self, array: Any) -> int:
        return int(array.address)

    def settle(self) -> None:
        self._emulator.synchronize()

    def read(self, array: Any) -> Any:
        values = array.to_numpy()
        if error := self._emulator.last_error():
            raise RuntimeError(error)
        if values.dtype.name != "bfloat16":
            return self._torch.from_numpy(np.array(values))
        bits = np.array(values).view(np.int16)
        return self._torch.from_numpy(bits).view(self._torch.bfloat16)


def _bfloat16(tensor: Any) -> Any:
    """As NumPy's extension type."""
    import ml_dtypes  # noqa: PLC0415 (the tests' own)

    return tensor.view(require("torch").int16).numpy().view(ml_dtypes.bfloat16)
