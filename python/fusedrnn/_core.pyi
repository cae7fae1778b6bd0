"""Types of the compiled module; what it promises stands in csrc/bindings."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict, final

import numpy as np
import numpy.typing as npt

# NumPy arrays and everything with __dlpack__; of the latter each library has its own type.
_Array = Any
# Of void: bfloat16, as one field of its bits or as the type of ml_dtypes.
_Float = np.float16 | np.float32 | np.float64 | np.void
_FloatArray = npt.NDArray[_Float]

class _Info(TypedDict):
    version: str
    isa: str
    isas_available: list[str]
    isas_compiled: list[str]
    threads: int
    cpus_available: int
    cuda_devices: list[str]
    cuda: str

@final
class Tape:
    @property
    def cell(self) -> str: ...
    @property
    def reverse(self) -> bool: ...
    @property
    def shape(self) -> tuple[int, int, int, int]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def compute_dtype(self) -> str: ...

@final
class LentArray:
    def __init__(self, array: _FloatArray) -> None: ...
    def __dlpack__(
        self,
        *,
        stream: None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

@final
class DeviceArray:
    def __init__(self, shape: tuple[int, ...], dtype: str, device: int, stream: int) -> None: ...
    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

@final
class Frozen:
    def forward(
        self,
        x: _Array,
        h0: _Array | None,
        c0: _Array | None,
        lengths: _Array | Sequence[int] | None,
        resets: _Array | None,
        reverse: bool,
        y: _FloatArray | None = None,
        h_n: _FloatArray | None = None,
        c_n: _FloatArray | None = None,
    ) -> tuple[_FloatArray, _FloatArray, _FloatArray | None]: ...

@final
class FrozenStack:
    def __init__(self, layers: list[Frozen]) -> None: ...
    def step(
        self,
        x_t: _Array,
        h: _Array | None,
        c: _Array | None,
        y: _FloatArray | None,
        h_n: _FloatArray | None,
        c_n: _FloatArray | None,
    ) -> tuple[_FloatArray, _FloatArray, _FloatArray | None]: ...
    def fast_step(self) -> Callable[[Any, Any, Any], tuple[Any, Any] | None]: ...

__version__: str

def forward(
    cell: str,
    x: _Array,
    w_ih: _Array,
    w_hh: _Array,
    b_ih: _Array | None,
    b_hh: _Array | None,
    h0: _Array | None,
    c0: _Array | None,
    lengths: _Array | Sequence[int] | None,
    resets: _Array | None,
    reverse: bool,
    save: bool,
    y: _FloatArray | None = None,
    h_n: _FloatArray | None = None,
    c_n: _FloatArray | None = None,
    compute_dtype: str | None = None,
) -> tuple[_FloatArray, _FloatArray, _FloatArray | None, Tape | None]: ...
def freeze(
    cell: str,
    w_ih: _Array,
    w_hh: _Array,
    b_ih: _Array | None,
    b_hh: _Array | None,
    compute: str,
) -> Frozen: ...
def backward(
    tape: Tape,
    dy: _Array | None,
    dh_n: _Array | None,
    dc_n: _Array | None,
    dx: _FloatArray | None = None,
    accumulate_dx: bool = False,
    dh0: _FloatArray | None = None,
    dc0: _FloatArray | None = None,
) -> dict[str, _FloatArray]: ...
def as_array(
    name: str,
    obj: _Array,
    shape: tuple[int | None, ...] | None = None,
    dtype: str | None = None,
) -> npt.NDArray[Any]: ...
def check_on_cuda(
    name: str, obj: _Array, shape: tuple[int | None, ...], dtype: str, device: int
) -> None: ...
def require_cuda_device(name: str, device: int) -> None: ...
def empty(shape: tuple[int, ...], dtype: str) -> _FloatArray: ...
def check_compute_dtype(dtype: str, compute_dtype: str | None, on_cuda: bool = False) -> None: ...
def set_cuda_library(path: str) -> None: ...
def info() -> _Info: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def activation(name: str, array: _FloatArray) -> _FloatArray: ...
