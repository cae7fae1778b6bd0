"""Files of safetensors: arrays by name. Source: https://github.com/huggingface/safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fusedrnn import _core, bf16, cuda_arrays
from fusedrnn.convert import files, packages
from fusedrnn.convert.arrays import Array

_DTYPES: dict[str, Any] = {
    **{f"F{n}": f"<f{n // 8}" for n in (16, 32, 64)},
    **{f"I{n}": f"<i{n // 8}" for n in (8, 16, 32, 64)},
    **{f"U{n}": f"<u{n // 8}" for n in (8, 16, 32, 64)},
    "BOOL": "?",
    "C64": "<c8",
}


def load_safetensors(path: Any) -> dict[str, Array]:
    """Return the arrays of a file, all of them.

    Those of one layer among them make a layer by ``from_torch(arrays, prefix)``.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict of str to numpy.ndarray
        bfloat16 as arrays of `ml_dtypes.bfloat16`.

    Raises
    ------
    ValueError
        Where the file is damaged, no such file, or has a dtype that NumPy has not.
    OSError
        Where it cannot be read.
    ImportError
        Where the package safetensors is missing.
    """
    packages.load("load_safetensors", "safetensors")  # before what the path may say
    return parse("load_safetensors", path, files.read("path", path))


def parse(function: str, path: Any, data: bytes) -> dict[str, Array]:
    """Return the arrays of a file that was read from `path`, for a public function."""
    safetensors = packages.load(function, "safetensors")
    try:
        found = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"path: expected a safetensors file at {path}, got none ({error})"
        ) from error
    return {name: _array(name, tensor) for name, tensor in found}


def metadata_of(data: bytes) -> dict[str, str]:
    """Return the words in the header of a file that `parse` has accepted."""
    size = int.from_bytes(data[:8], "little")
    words: dict[str, str] = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    return words


def _array(name: str, tensor: Mapping[str, Any]) -> Array:
    kind = tensor["dtype"]
    if kind == "BF16":
        array: Array = bf16.for_numpy(_shaped(tensor, bf16.BITS))
        return array
    if kind not in _DTYPES:
        raise ValueError(f"{name}: expected a dtype among {', '.join(_DTYPES)}, BF16, got {kind}")
    return _shaped(tensor, np.dtype(_DTYPES[kind]))


def _shaped(tensor: Mapping[str, Any], dtype: Any) -> Array:
    array: Array = np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"])
    return array


def save_safetensors(
    arrays: Mapping[str, Any], path: Any, metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays to a file: the whole new one is there afterwards, or what was there before.

    Parameters
    ----------
    arrays : mapping of str to array
        Of any kind, on the CPU or a CUDA device, such as ``layer.state_dict()``.
    path : path
    metadata : mapping of str to str, optional
        To stand in the file's header.

    Raises
    ------
    ValueError, TypeError
        Where a name is no str, or a value no array of a dtype that such files have.
    OSError
        Where the file cannot be written.
    ImportError
        Where the package safetensors is missing.

    Examples
    --------
    >>> fr.convert.save_safetensors(fr.GRU(3, 4, seed=0).state_dict(), "gru.safetensors")
    >>> fr.convert.from_torch(fr.convert.load_safetensors("gru.safetensors"))
    GRU(3, 4)
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(f"arrays: expected a mapping, got {type(arrays).__name__}")
    for group, names in (("arrays", arrays), ("metadata", metadata or {})):
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"{group}: expected names that are str, got {name!r}")
    for name, text in (metadata or {}).items():
        if not isinstance(text, str):
            raise TypeError(f"metadata[{name!r}]: expected a str, got {type(text).__name__}")
    library = packages.load("save_safetensors", "safetensors")
    packed = packages.load("save_safetensors", "safetensors.numpy")
    read = {name: _read(name, value) for name, value in arrays.items()}
    try:
        data = packed.save(read, dict(metadata) if metadata else None)
    except library.SafetensorError as error:
        raise ValueError(
            f"arrays: expected such as a file can hold, got others ({error})"
        ) from error
    files.write(path, data)


def has_dtype(array: Array) -> bool:
    """Whether a file can have such an array, and `parse` gives it back."""
    known = {np.dtype(name).str for name in _DTYPES.values()}
    return array.dtype.str in known or array.dtype.name == "bfloat16"


def _read(name: str, value: Any) -> Array:
    if cuda_arrays.is_on_cuda(value):
        value = cuda_arrays.kind_of(value).read(value)
    array = _core.as_array(name, value)
    if array.dtype.kind == "V":
        array = bf16.for_numpy(array)
    elif not has_dtype(array):
        raise TypeError(f"{name}: expected a dtype that safetensors has, got {array.dtype.name}")
    return np.array(array, order="C")
