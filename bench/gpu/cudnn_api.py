"""cuDNN 9's RNN functions through ctypes: its prototypes, its numbers, its errors.

The library is the one that PyTorch or NVIDIA's wheel brings. Names and values are those of cuDNN's
public headers (cudnn_adv.h, cudnn_graph.h, cudnn_ops.h).
"""

from __future__ import annotations

import ctypes
import importlib.util
from ctypes import (
    POINTER,
    c_char_p,
    c_float,
    c_int,
    c_int32,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any

from ..peers.base import UnavailableError

ALGORITHMS = {
    "standard": 0,
    "persist static": 1,
    "persist dynamic": 2,
    "persist static small H": 3,
}
PERSIST_DYNAMIC = ALGORITHMS["persist dynamic"]
CELLS = {"rnn": 1, "lstm": 2, "gru": 3}  # CUDNN_RNN_TANH, CUDNN_LSTM, CUDNN_GRU
DATA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 9}
MATH_TYPES = {"default": 0, "tensor op": 1, "tensor op, conversion": 2, "fma": 3}
INFERENCE, TRAINING = 0, 1
DOUBLE_BIAS = 2
UNIDIRECTIONAL = 0
LINEAR_INPUT = 0
UNPACKED, PACKED = 0, 1  # sequence-major both
PADDED_IO_DISABLED, PADDED_IO_ENABLED = 0, 1
ADD_GRADIENTS = 0  # the only mode that the RNN functions have

_P, _I = c_void_p, c_int
# Argument types; all return a cudnnStatus_t.
PROTOTYPES: dict[str, list[Any]] = {
    "cudnnCreate": [POINTER(_P)],
    "cudnnDestroy": [_P],
    "cudnnSetStream": [_P, _P],
    "cudnnCreateDropoutDescriptor": [POINTER(_P)],
    "cudnnDestroyDropoutDescriptor": [_P],
    "cudnnSetDropoutDescriptor": [_P, _P, c_float, _P, c_size_t, c_uint64],
    "cudnnCreateTensorDescriptor": [POINTER(_P)],
    "cudnnDestroyTensorDescriptor": [_P],
    "cudnnSetTensorNdDescriptor": [_P, _I, _I, POINTER(_I), POINTER(_I)],
    "cudnnGetTensorNdDescriptor": [
        *[_P, _I, POINTER(_I), POINTER(_I), POINTER(_I), POINTER(_I)],
    ],
    "cudnnCreateRNNDescriptor": [POINTER(_P)],
    "cudnnDestroyRNNDescriptor": [_P],
    # descriptor, algorithm, cell, bias mode, direction, input mode, data type, math precision,
    # math type, I, H, projection, layers, dropout, flags
    "cudnnSetRNNDescriptor_v8": [_P, *[_I] * 8, *[c_int32] * 4, _P, c_uint32],
    "cudnnBuildRNNDynamic": [_P, _P, _I],
    "cudnnGetRNNTempSpaceSizes": [_P, _P, _I, _P, POINTER(c_size_t), POINTER(c_size_t)],
    "cudnnGetRNNWeightSpaceSize": [_P, _P, POINTER(c_size_t)],
    # handle, descriptor, pseudo-layer, weight space's size, weight space, linear layer, matrix's
    # descriptor and address, bias's
    "cudnnGetRNNWeightParams": [
        *[_P, _P, c_int32, c_size_t, _P, c_int32, _P, POINTER(_P), _P, POINTER(_P)],
    ],
    "cudnnCreateRNNDataDescriptor": [POINTER(_P)],
    "cudnnDestroyRNNDataDescriptor": [_P],
    # descriptor, data type, layout, T, B, vector, lengths, padding
    "cudnnSetRNNDataDescriptor": [_P, *[_I] * 5, POINTER(_I), _P],
    # handle, descriptor, mode, lengths, x descriptor, x, y descriptor, y, h descriptor, hx, hy,
    # c descriptor, cx, cy, then size and address of weights, workspace and reserve
    "cudnnRNNForward": [_P, _P, _I, *[_P] * 11, *[c_size_t, _P] * 3],
    # handle, descriptor, lengths, y descriptor, y, dy, x descriptor, dx, h descriptor, hx, dhy,
    # dhx, c descriptor, cx, dcy, dcx, then as above
    "cudnnRNNBackwardData_v8": [*[_P] * 16, *[c_size_t, _P] * 3],
    # handle, descriptor, mode, lengths, x descriptor, x, h descriptor, hx, y descriptor, y, then
    # as above, with the gradients of the weights
    "cudnnRNNBackwardWeights_v8": [_P, _P, _I, *[_P] * 7, *[c_size_t, _P] * 3],
}


class CuDnnError(RuntimeError):
    """A function that did not return success."""


class CuDnn:
    """The library and one handle."""

    def __init__(self, path: str | None = None) -> None:
        self.library = load(path)
        for name, types in PROTOTYPES.items():
            function = getattr(self.library, name)
            function.argtypes, function.restype = types, c_int
        self.library.cudnnGetErrorString.argtypes = [c_int]
        self.library.cudnnGetErrorString.restype = c_char_p
        self.library.cudnnGetVersion.restype = c_size_t
        self._handle: c_void_p | None = None

    @property
    def version(self) -> int:
        """As 92800 for 9.28.0."""
        return int(self.library.cudnnGetVersion())

    @property
    def handle(self) -> c_void_p:
        if self._handle is None:
            self._handle = self.create("cudnnCreate")
        return self._handle

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function; raises CuDnnError that names it and what it says."""
        status = getattr(self.library, name)(*arguments)
        if status:
            raise CuDnnError(f"{name}: {self.library.cudnnGetErrorString(status).decode()}")

    def create(self, name: str) -> c_void_p:
        """What a function creates through its only argument."""
        made = c_void_p()
        self.call(name, ctypes.byref(made))
        return made


def candidates() -> list[str]:
    """Where the library may be: NVIDIA's wheel, which PyTorch's depends on; PyTorch; the system."""
    found = []
    for package, folder in (("nvidia.cudnn", "lib"), ("torch", "lib")):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for location in (spec.submodule_search_locations or []) if spec else []:
            path = Path(location) / folder / "libcudnn.so.9"
            if path.exists():
                found.append(str(path))
    return [*found, "libcudnn.so.9"]


def load(path: str | None = None) -> Any:
    """The library; UnavailableError where it is nowhere."""
    why = ""
    for name in [path] if path else candidates():
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            why = str(error)
    raise UnavailableError(f"cuDNN 9 is not installed ({why})")
