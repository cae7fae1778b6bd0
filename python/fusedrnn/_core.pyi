"""Types of the compiled module; what it promises stands in csrc/bindings."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict, final, overload

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
    cuda_plain_products: int

_States = tuple[_Array | None, ...] | None
# lengths, mask, resets, whether y shows the state where a step does not exist, the reset states
_Masks = (
    tuple[_Array | Sequence[int] | int | None, _Array | None, _Array | None, bool, _States] | None
)

_Dropout = tuple[float, int, int]  # a rate, a seed, what step 0 counts as

@final
class Network:
    def __init__(
        self,
        runs: bytes,  # records (fusedrnn.runs)
        dtype: str,
        compute_dtype: str | None = None,
        on_cuda: bool = False,
        lean: bool = False,
    ) -> None: ...
    @property
    def parameters(self) -> list[tuple[int, str, tuple[int, ...], bool]]: ...
    @property
    def runs(self) -> bytes: ...
    @property
    def dtype(self) -> str: ...
    @property
    def lean(self) -> bool: ...
    @property
    def compute_dtype(self) -> str | None: ...
    @property
    def states(self) -> tuple[str, ...]: ...
    @property
    def state_sizes(self) -> tuple[int, ...]: ...
    @property
    def input_size(self) -> int: ...
    @property
    def output_size(self) -> int: ...
    def reserve_bytes(self, steps: int, batch: int, cuda_device: int | None = None) -> int: ...
    def reserve_bytes_anywhere(self, steps: int, batch: int) -> tuple[int, int]: ...
    def forward(
        self,
        x: _Array,
        parameters: tuple[_Array | None, ...],
        states: _States = None,
        masks: _Masks = None,
        save: bool = False,
        y: _Array | None = None,
        states_n: _States = None,
        sequences: _States = None,
        dropout: _Dropout | None = None,
        reserve: _Array | None = None,
    ) -> tuple[_FloatArray, tuple[_FloatArray, ...], tuple[_FloatArray, ...], Tape | None]: ...

def make_plain_call(
    network: Network, names: tuple[str | None, ...], of_modules: bool
) -> Callable[..., Any]: ...
def make_frozen_call(frozen: Frozen) -> Callable[..., Any]: ...
def make_plain_backward(network: Network) -> Callable[..., Any]: ...

@final
class Tape:
    def __init__(
        self,
        network: Network,
        x: _Array,
        parameters: tuple[_Array | None, ...],
        masks: _Masks,
        reserve: _Array,
        dropout: _Dropout | None = None,
    ) -> None: ...
    def backward(
        self,
        dy: _Array | None,
        dstates_n: _States,
        dsequences: _States,
        all: bool,
        dx: _Array | None = None,
        dparameters: tuple[_Array | None, ...] | None = None,
        dstates: _States = None,
        dresets: _States = None,
        flow: bool = False,
        clip_dh: float = 0.0,
        wants_dx: bool = True,
    ) -> tuple[
        Any,  # None without wants_dx
        tuple[_FloatArray | None, ...],
        tuple[_FloatArray, ...],
        tuple[_FloatArray | None, ...],
        npt.NDArray[np.float64] | None,
    ]: ...
    def gates(self, run: int) -> _FloatArray: ...
    @property
    def network(self) -> Network: ...
    @property
    def reserve(self) -> Any: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def unbatched(self) -> bool: ...
    @property
    def resets(self) -> list[bool]: ...
    @property
    def dropout(self) -> _Dropout | None: ...

@final
class LentArray:
    @overload
    def __init__(self, array: _FloatArray) -> None: ...
    @overload
    def __init__(self, shape: tuple[int, ...], dtype: str, device: int, stream: int) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        address: int,
        shape: list[int],
        strides: list[int],
        dtype: np.dtype[Any],
        read_only: bool,
        stream: int | None,
        device: int,
        owner: object,
    ) -> None: ...
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
    def __init__(
        self,
        network: Network,
        parameters: tuple[_Array | None, ...],
        weight_dtype: str | None = None,
        batch_first: bool = False,
    ) -> None: ...
    def forward(
        self,
        x: _Array,
        states: _States = None,
        masks: _Masks = None,
        y: _Array | None = None,
        states_n: _States = None,
        sequences: _States = None,
    ) -> tuple[_FloatArray, tuple[_FloatArray, ...], tuple[_FloatArray, ...], None]: ...
    def make_step(self) -> Callable[..., tuple[Any, Any] | None]: ...
    def save(self, path: bytes) -> None: ...
    @property
    def batch_first(self) -> bool: ...
    @property
    def network(self) -> Network: ...

def load_frozen(path: bytes) -> Frozen: ...

__version__: str

def run(
    cell: str,
    x: _Array,
    parameters: tuple[_Array | None, ...],
    states: _States,
    masks: _Masks,
    reverse: bool,
    compute_dtype: str | None,
    save: bool,
    y: _Array | None,
    states_n: _States,
    sequences: _States,
    constants: tuple[float, ...],
    lean: bool,
    heads: int,
    /,
) -> tuple[_FloatArray, tuple[_FloatArray, ...], tuple[_FloatArray, ...], Tape | None]: ...
def gate_names(cell: str) -> tuple[str, ...]: ...
def as_array(
    name: str,
    obj: _Array,
    shape: tuple[int | None, ...] | None = None,
    dtype: str | None = None,
) -> npt.NDArray[Any]: ...
def sgd_step(
    names: tuple[str, ...],
    parameters: tuple[_FloatArray, ...],
    gradients: tuple[_FloatArray, ...],
    states: tuple[tuple[_FloatArray, ...], ...],
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> None: ...
def adam_step(
    names: tuple[str, ...],
    parameters: tuple[_FloatArray, ...],
    gradients: tuple[_FloatArray, ...],
    states: tuple[tuple[_FloatArray, ...], ...],
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    number: int,
) -> None: ...
def rms_prop_step(
    names: tuple[str, ...],
    parameters: tuple[_FloatArray, ...],
    gradients: tuple[_FloatArray, ...],
    states: tuple[tuple[_FloatArray, ...], ...],
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    centered: bool,
) -> None: ...
def sum_of_squares(array: _FloatArray) -> float: ...
def nn_linear(x: _FloatArray, w: _FloatArray, bias: _FloatArray | None) -> npt.NDArray[Any]: ...
def nn_linear_backward(
    x: _FloatArray, w: _FloatArray, dy: _FloatArray, has_bias: bool
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]: ...
def nn_sum_of_rows(
    places: npt.NDArray[np.int64], rows: _FloatArray, count: int
) -> npt.NDArray[Any]: ...
def nn_cross_entropy(
    logits: _FloatArray,
    targets: npt.NDArray[np.int64],
    counts: npt.NDArray[np.uint8] | None,
    smoothing: float,
    scale: float,
    gradient: _FloatArray | None,
) -> npt.NDArray[np.float64]: ...
def nn_ctc(
    logits: _FloatArray,
    targets: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    target_lengths: npt.NDArray[np.int64],
    blank: int,
    scales: npt.NDArray[np.float64],
    zero_infinity: bool,
    gradient: _FloatArray | None,
) -> npt.NDArray[np.float64]: ...
def nn_attention(
    query: _FloatArray,
    keys_t: _FloatArray,
    values: _FloatArray,
    lengths: npt.NDArray[np.int64],
    scale: float,
    v: _FloatArray | None,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]: ...
def nn_attention_backward(
    query: _FloatArray,
    keys: _FloatArray,
    values_t: _FloatArray,
    lengths: npt.NDArray[np.int64],
    scale: float,
    v: _FloatArray | None,
    weights: _FloatArray,
    dy: _FloatArray,
    dweights: _FloatArray | None,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]: ...
def nn_transposed(x: _FloatArray) -> npt.NDArray[Any]: ...
def nn_dropout(x: _FloatArray, rate: float, seed: int) -> npt.NDArray[Any]: ...
def check_outputs(arrays: dict[str, npt.NDArray[Any]]) -> None: ...
def check_on_cuda(
    name: str, obj: _Array, shape: tuple[int | None, ...], dtype: str, device: int
) -> None: ...
def require_cuda_device(name: str, device: int) -> None: ...
def empty(shape: tuple[int, ...], dtype: str) -> _FloatArray: ...
def set_cuda_library(path: str) -> None: ...
def xla_handlers() -> dict[str, dict[str, Any]]: ...
def info() -> _Info: ...
def environment_variable(name: str) -> str | None: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def release_memory() -> int: ...
