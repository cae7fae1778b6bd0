"""cuDNN's RNN functions in NumPy, behind the same ctypes prototypes, on addresses in host memory.

Every argument must convert to its prototype's type. Only float32, full lengths or padded input.
Weights lie transposed and in an order of the fake's own, so that a caller has to ask for them.
"""

# ruff: noqa: N802 (methods are named as cuDNN's functions)

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch

from bench.gpu import cudnn_api as api
from bench.gpu.cudnn_layout import blocks
from bench.gpu.reference import reference
from bench.gpu.scenarios import Case, Problem
from bench.scenarios import GATES, Shape


class FakeCuDnn:
    """One RNN descriptor at a time."""

    version = 92800
    handle = ctypes.c_void_p(1)

    def __init__(self, refuse: str = "") -> None:
        self.refuse = refuse
        self.live: list[str] = []
        self.calls: list[str] = []
        self.library = self  # for the functions that destroy
        self._rnn: tuple[Any, ...] = ()
        self._data: tuple[Any, ...] = ()
        self._tensors: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        self._next = 100
        self._problem: Problem | None = None

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cudnnDestroy"):
            raise AttributeError(name)
        return lambda descriptor: self.live.remove(name.removeprefix("cudnnDestroy"))

    def create(self, name: str) -> ctypes.c_void_p:
        self.live.append(name.removeprefix("cudnnCreate"))
        self._next += 1
        return ctypes.c_void_p(self._next)

    def call(self, name: str, *arguments: Any) -> None:
        types = api.PROTOTYPES[name]
        assert len(arguments) == len(types), name
        for argument, kind in zip(arguments, types, strict=True):
            kind.from_param(argument)
        self.calls.append(name)
        if name == self.refuse:
            raise api.CuDnnError(f"{name}: not supported")
        getattr(self, f"_{name}", lambda *_: None)(*arguments)

    # Descriptors

    def _cudnnSetRNNDescriptor_v8(self, descriptor: Any, *settings: Any) -> None:
        self._rnn = settings
        self.cell = {number: cell for cell, number in api.CELLS.items()}[settings[1]]
        assert settings[2:5] == (api.DOUBLE_BIAS, api.UNIDIRECTIONAL, api.LINEAR_INPUT)
        self.hidden = settings[9]
        assert settings[8:12] == (self.hidden, self.hidden, self.hidden, 1)

    def _cudnnSetRNNDataDescriptor(self, descriptor: Any, *settings: Any) -> None:
        self._data = settings
        layout = settings[1]
        padded = self._rnn[13] == api.PADDED_IO_ENABLED
        assert (layout == api.UNPACKED) == padded
        self.steps, self.batch = settings[2:4]
        self.lengths = list(settings[5])
        assert ctypes.c_double.from_address(settings[6]).value == 0

    def _cudnnSetTensorNdDescriptor(
        self, descriptor: Any, kind: int, count: int, sizes: Any, strides: Any
    ) -> None:
        self._tensors[descriptor.value] = tuple(sizes), tuple(strides)

    def _cudnnGetTensorNdDescriptor(
        self, descriptor: Any, count: int, kind: Any, found: Any, sizes: Any, strides: Any
    ) -> None:
        for target, values in zip((sizes, strides), self._tensors[descriptor.value], strict=True):
            target[:] = values

    # Memory

    def _cudnnGetRNNWeightSpaceSize(self, handle: Any, descriptor: Any, size: Any) -> None:
        layers = 2 * GATES[self.cell]
        size._obj.value = 4 * layers * (self.hidden**2 + self.hidden)

    def _cudnnGetRNNTempSpaceSizes(self, *arguments: Any) -> None:
        arguments[4]._obj.value = 64
        arguments[5]._obj.value = 128 if arguments[2] == api.TRAINING else 0

    def _cudnnGetRNNWeightParams(self, *arguments: Any) -> None:
        _, _, pseudo_layer, _, space, layer, m_desc, m_address, b_desc, b_address = arguments
        assert pseudo_layer == 0
        offset, bias = self._offsets(layer)
        self._tensors[m_desc.value] = (
            (1, self.hidden, self.hidden),
            (self.hidden**2, 1, self.hidden),  # transposed
        )
        self._tensors[b_desc.value] = (1, self.hidden, 1), (self.hidden, 1, 1)
        m_address._obj.value, b_address._obj.value = space + 4 * offset, space + 4 * bias

    def _offsets(self, layer: int) -> tuple[int, int]:
        """The last linear layer comes first; each bias follows its matrix."""
        place = 2 * GATES[self.cell] - 1 - layer
        matrix = place * (self.hidden**2 + self.hidden)
        return matrix, matrix + self.hidden**2

    def _weights(self, address: int) -> dict[str, np.ndarray[Any, Any]]:
        """The arrays in a weight space, in PyTorch's order."""
        gates, h = GATES[self.cell], self.hidden
        space = _array(address, 2 * gates * (h * h + h))
        found: dict[str, list[Any]] = {}
        for block in blocks(self.cell):
            matrix, bias = self._offsets(block.layer)
            found.setdefault(block.matrix, []).append(
                space[matrix : matrix + h * h].reshape(h, h).T
            )
            found.setdefault(block.bias, []).append(space[bias : bias + h])
        return {name: np.concatenate(parts) for name, parts in found.items()}

    # The passes

    def _cudnnRNNForward(self, *a: Any) -> None:
        (_, _, mode, lengths, _, x, _, y, _, hx, hy, _, cx, cy, size, weights, *spaces) = a
        assert [*_array(lengths, self.batch, np.int32)] == self.lengths
        assert (spaces[0], spaces[2]) == (64, 128 if mode == api.TRAINING else 0)
        assert size == 4 * 2 * GATES[self.cell] * (self.hidden**2 + self.hidden)
        sizes = {"x": (self.steps, self.batch, self.hidden), "h0": (self.batch, self.hidden)}
        tensors = {"x": _tensor(x, sizes["x"]), "h0": _tensor(hx, sizes["h0"])}
        if self.cell == "lstm":
            tensors["c0"] = _tensor(cx, sizes["h0"])
        tensors |= {name: torch.from_numpy(w) for name, w in self._weights(weights).items()}
        self._inputs = tensors
        found = self._solve("inference")
        for address, name in ((y, "y"), (hy, "h_n"), (cy, "c_n")):
            if name in found:
                _store(address, found[name])

    def _cudnnRNNBackwardData_v8(self, *a: Any) -> None:
        (_, _, _, _, y, dy, _, dx, _, hx, dhy, dhx, _, cx, dcy, dcx, *_) = a
        shape, state = self._inputs["x"].shape, self._inputs["h0"].shape
        assert torch.equal(_tensor(hx, state), self._inputs["h0"])
        self._inputs |= {"dy": _tensor(dy, shape), "dh_n": _tensor(dhy, state)}
        if self.cell == "lstm":
            assert torch.equal(_tensor(cx, state), self._inputs["c0"])
            self._inputs["dc_n"] = _tensor(dcy, state)
        self._gradients = self._solve("training")
        assert torch.allclose(_tensor(y, shape).double(), self._gradients["y"], atol=1e-5)
        for address, name in ((dx, "dx"), (dhx, "dh0"), (dcx, "dc0")):
            if name in self._gradients:
                _store(address, self._gradients[name])

    def _cudnnRNNBackwardWeights_v8(self, *a: Any) -> None:
        (_, _, mode, _, _, x, _, hx, _, _, _, gradients, *_) = a
        assert mode == api.ADD_GRADIENTS
        assert torch.equal(_tensor(x, self._inputs["x"].shape), self._inputs["x"])
        assert torch.equal(_tensor(hx, self._inputs["h0"].shape), self._inputs["h0"])
        h, gates = self.hidden, GATES[self.cell]
        space = _array(gradients, 2 * gates * (h * h + h))
        for block in blocks(self.cell):
            matrix, bias = self._offsets(block.layer)
            rows = slice(block.gate * h, (block.gate + 1) * h)
            dw, db = (self._gradients[f"d{name}"] for name in (block.matrix, block.bias))
            space[matrix : matrix + h * h] += dw[rows].T.reshape(-1).float().numpy()
            space[bias : bias + h] += db[rows].float().numpy()

    def _solve(self, scenario: str) -> dict[str, Any]:
        shape = Shape(self.cell, self.steps, self.batch, self.hidden)
        lengths = torch.tensor(self.lengths, dtype=torch.int32)
        case = Case(scenario, "float32", shape, lengths=True)
        return reference(Problem(case, dict(self._inputs), lengths, self.lengths))


def _array(address: int, count: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """A view of memory."""
    bytes_ = (ctypes.c_char * (count * np.dtype(dtype).itemsize)).from_address(address)
    return np.frombuffer(bytes_, dtype)


def _tensor(address: int, shape: Any) -> Any:
    return torch.from_numpy(_array(address, int(np.prod(shape))).reshape(shape).copy())


def _store(address: int, tensor: Any) -> None:
    _array(address, tensor.numel())[:] = tensor.float().reshape(-1).numpy()
