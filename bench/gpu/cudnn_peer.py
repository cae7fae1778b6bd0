"""The best that cuDNN has: every algorithm and maths type of its own API, as CUDA graphs.

The harness verifies each and keeps the fastest right one: a maths type that rounds more than the
case's precision allows is no candidate of that case. Weights lie in cuDNN's own layout before the
clock starts, as PyTorch's do.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..peers.base import require
from . import cudnn_api as api
from . import cudnn_layout as layout
from .cudnn_api import CuDnn
from .peer import Job, Peer, Variant
from .scenarios import Case, Problem


@dataclass(frozen=True)
class Choice:
    """What the caller of cuDNN decides."""

    algorithm: str
    math_type: str
    math_precision: str  # the dtype of the arithmetic

    def __str__(self) -> str:
        return f"{self.algorithm}, {self.math_type}, {self.math_precision}"


def choices(case: Case, quick: bool = False) -> list[Choice]:
    """Everything that cuDNN may accept for the case.

    If `quick`, without the algorithm that is compiled at run time and is slower where another
    persistent one is accepted, and with the one maths type that says what the case allows.
    """
    if quick:
        math_type = {"float32": "fma", "tfloat32": "tensor op, conversion"}
        return [
            Choice(algorithm, math_type.get(case.precision, "tensor op"), "float32")
            for algorithm in api.ALGORITHMS
            if algorithm != "persist dynamic"
        ]
    found = [
        Choice(algorithm, math_type, "float32")
        for algorithm, math_type in itertools.product(api.ALGORITHMS, api.MATH_TYPES)
    ]
    if case.dtype == "float16":  # the standard algorithm alone can also compute in it
        found += [Choice("standard", math_type, "float16") for math_type in api.MATH_TYPES]
    return found


class BestCuDnn(Peer):
    def __init__(self, name: str, library: CuDnn | None = None) -> None:
        super().__init__(name)
        self._torch = require("torch")
        self._api = library or CuDnn()

    def version(self) -> str:
        number = self._api.version
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"

    def variants(self, case: Case) -> list[Variant]:
        return [
            Variant(
                str(choice),
                functools.partial(self._job, choice),
                graph=True,
                eager_too=True,
                group=choice.algorithm,
            )
            for choice in choices(case, self.quick)
        ]

    def _job(self, choice: Choice, problems: Sequence[Problem]) -> Job:
        layer = Layer(self._torch, self._api, choice, problems[0])
        calls = [layer.prepared(problem) for problem in problems]
        return Job(calls, layer.named, keep=layer)


class Layer:
    """cuDNN's descriptors and memory for one case; descriptors go when it does."""

    def __init__(self, torch: Any, library: CuDnn, choice: Choice, problem: Problem) -> None:
        self._torch, self._api, self._case = torch, library, problem.case
        self._made: list[tuple[str, Any]] = []
        self._training = problem.case.scenario == "training"
        self._data_type = api.DATA_TYPES[problem.case.dtype]
        self._descriptor = self._rnn_descriptor(choice)
        self._sequence = self._data_descriptor(problem)
        self._state = self._state_descriptor()
        if choice.algorithm == "persist dynamic":
            batch = problem.case.shape.batch
            self._api.call("cudnnBuildRNNDynamic", self._api.handle, self._descriptor, batch)
        self._weights, self._places = self._weight_space(problem)
        self._workspace, self._reserve = self._temporary_space(problem)
        self._like = problem.tensors

    def __del__(self) -> None:
        for kind, descriptor in reversed(getattr(self, "_made", [])):
            getattr(self._api.library, f"cudnnDestroy{kind}Descriptor")(descriptor)

    def prepared(self, problem: Problem) -> Callable[[], Any]:
        """A call for one set of data; its results are overwritten by its next run."""
        data, states = problem.tensors, self._case.states
        out = {"y": data["x"].new_zeros(data["x"].shape)}
        out |= {f"{s}_n": data[f"{s}0"].new_zeros(data[f"{s}0"].shape) for s in states}
        lengths = problem.lengths
        if lengths is None:
            shape = self._case.shape
            lengths = self._torch.full(
                (shape.batch,), shape.steps, dtype=self._torch.int32, device=data["x"].device
            )
        if self._training:
            out |= {f"d{n}": data[n].new_zeros(data[n].shape) for n in ("x", "h0")}
            out |= {"dc0": data["c0"].new_zeros(data["c0"].shape)} if "c0" in data else {}
            out |= {"weights": self._weights.new_zeros(self._weights.shape)}
        names = {name: tensor.data_ptr() for name, tensor in (data | out).items()}

        def call() -> dict[str, Any]:
            stream = self._torch.cuda.current_stream().cuda_stream
            self._api.call("cudnnSetStream", self._api.handle, stream)
            self._forward(lengths.data_ptr(), names)
            if self._training:
                self._backward(lengths.data_ptr(), names, out["weights"])
            return out

        return call

    def named(self, out: dict[str, Any]) -> dict[str, Any]:
        """Results by the names of the public API."""
        found = {name: tensor for name, tensor in out.items() if name != "weights"}
        if self._training:
            grads = layout.read(out["weights"], self._places, self._case.shape.cell, self._like)
            found |= {f"d{name}": grad for name, grad in grads.items()}
        return found

    def _forward(self, lengths: int, p: dict[str, int]) -> None:
        sequence, state = self._sequence, self._state
        self._api.call(
            "cudnnRNNForward",
            *(self._api.handle, self._descriptor),
            *(api.TRAINING if self._training else api.INFERENCE, lengths),
            *(sequence, p["x"], sequence, p["y"]),
            *(state, p["h0"], p["h_n"], state, p.get("c0"), p.get("c_n")),
            *self._spaces(self._weights),
        )

    def _backward(self, lengths: int, p: dict[str, int], gradients: Any) -> None:
        sequence, state = self._sequence, self._state
        self._api.call(
            "cudnnRNNBackwardData_v8",
            *(self._api.handle, self._descriptor, lengths),
            *(sequence, p["y"], p["dy"], sequence, p["dx"]),
            *(state, p["h0"], p["dh_n"], p["dh0"]),
            *(state, p.get("c0"), p.get("dc_n"), p.get("dc0")),
            *self._spaces(self._weights),
        )
        gradients.zero_()
        self._api.call(
            "cudnnRNNBackwardWeights_v8",
            *(self._api.handle, self._descriptor, api.ADD_GRADIENTS, lengths),
            *(sequence, p["x"], state, p["h0"], sequence, p["y"]),
            *self._spaces(gradients),
        )

    def _spaces(self, weights: Any) -> list[Any]:
        """Sizes and addresses of weights, workspace and reserve."""
        tensors = (weights, self._workspace, self._reserve)
        return [part for t in tensors for part in (t.nbytes, t.data_ptr() if t.nbytes else None)]

    def _create(self, kind: str) -> Any:
        descriptor = self._api.create(f"cudnnCreate{kind}Descriptor")
        self._made.append((kind, descriptor))
        return descriptor

    def _rnn_descriptor(self, choice: Choice) -> Any:
        shape = self._case.shape
        dropout = self._create("Dropout")
        self._api.call("cudnnSetDropoutDescriptor", dropout, self._api.handle, 0.0, None, 0, 0)
        descriptor = self._create("RNN")
        padded = api.PADDED_IO_ENABLED if self._case.lengths else api.PADDED_IO_DISABLED
        self._api.call(
            "cudnnSetRNNDescriptor_v8",
            *(descriptor, api.ALGORITHMS[choice.algorithm], api.CELLS[shape.cell]),
            *(api.DOUBLE_BIAS, api.UNIDIRECTIONAL, api.LINEAR_INPUT, self._data_type),
            *(api.DATA_TYPES[choice.math_precision], api.MATH_TYPES[choice.math_type]),
            *(shape.hidden, shape.hidden, shape.hidden, 1, dropout, padded),
        )
        return descriptor

    def _data_descriptor(self, problem: Problem) -> Any:
        """Of x, y and their gradients."""
        shape = self._case.shape
        lengths = problem.host_lengths or [shape.steps] * shape.batch
        descriptor = self._create("RNNData")
        self._padding = ctypes.c_double(0)  # zero in every type
        self._api.call(
            "cudnnSetRNNDataDescriptor",
            *(descriptor, self._data_type),
            api.UNPACKED if self._case.lengths else api.PACKED,
            *(shape.steps, shape.batch, shape.hidden),
            *((ctypes.c_int * shape.batch)(*lengths), ctypes.addressof(self._padding)),
        )
        return descriptor

    def _state_descriptor(self) -> Any:
        shape = self._case.shape
        descriptor = self._create("Tensor")
        sizes = (1, shape.batch, shape.hidden)
        strides = (shape.batch * shape.hidden, shape.hidden, 1)
        three = ctypes.c_int * 3
        self._api.call(
            "cudnnSetTensorNdDescriptor",
            *(descriptor, self._data_type, 3, three(*sizes), three(*strides)),
        )
        return descriptor

    def _weight_space(self, problem: Problem) -> tuple[Any, dict[tuple[int, str], layout.Place]]:
        size = ctypes.c_size_t()
        self._api.call(
            "cudnnGetRNNWeightSpaceSize",
            *(self._api.handle, self._descriptor, ctypes.byref(size)),
        )
        like = problem.tensors["w_hh"]
        space = like.new_zeros(size.value // like.element_size())
        cell = self._case.shape.cell
        places = {}
        for block in layout.blocks(cell):
            matrix, bias = self._places_of(block.layer, space)
            places[block.layer, "matrix"], places[block.layer, "bias"] = matrix, bias
        layout.write(space, places, cell, problem.tensors)
        return space, places

    def _places_of(self, number: int, space: Any) -> tuple[layout.Place, layout.Place]:
        """Where a linear layer's matrix and bias are."""
        descriptors = self._create("Tensor"), self._create("Tensor")
        addresses = ctypes.c_void_p(), ctypes.c_void_p()
        self._api.call(
            "cudnnGetRNNWeightParams",
            *(self._api.handle, self._descriptor, 0, space.nbytes, space.data_ptr(), number),
            *(descriptors[0], ctypes.byref(addresses[0])),
            *(descriptors[1], ctypes.byref(addresses[1])),
        )
        found = []
        for descriptor, address in zip(descriptors, addresses, strict=True):
            data_type, dimensions = ctypes.c_int(), ctypes.c_int()
            sizes, strides = (ctypes.c_int * 3)(), (ctypes.c_int * 3)()
            self._api.call(
                "cudnnGetTensorNdDescriptor",
                *(descriptor, 3, ctypes.byref(data_type), ctypes.byref(dimensions)),
                *(sizes, strides),
            )
            offset = ((address.value or 0) - space.data_ptr()) // space.element_size()
            found.append(layout.Place(offset, tuple(sizes), tuple(strides)))
        return found[0], found[1]

    def _temporary_space(self, problem: Problem) -> tuple[Any, Any]:
        work, reserve = ctypes.c_size_t(), ctypes.c_size_t()
        self._api.call(
            "cudnnGetRNNTempSpaceSizes",
            *(self._api.handle, self._descriptor),
            *(api.TRAINING if self._training else api.INFERENCE, self._sequence),
            *(ctypes.byref(work), ctypes.byref(reserve)),
        )
        device = problem.tensors["x"].device
        bytes_ = self._torch.uint8
        return tuple(
            self._torch.zeros(size.value, dtype=bytes_, device=device) for size in (work, reserve)
        )
