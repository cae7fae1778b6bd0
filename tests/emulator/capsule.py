"""DLPack capsules of memory on an emulated device."""

from __future__ import annotations

import ctypes
from typing import Any

from fake_dlpack import CODES, Deleter, Managed, Tensor, Versioned

CUDA = 2
BFLOAT = 4
VERSION = (1, 0)

_new = ctypes.pythonapi.PyCapsule_New
_new.restype = ctypes.py_object
_new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype = ctypes.c_int
_is_valid.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)

# What is lent, with what it needs, by the address of the managed tensor.
_lent: dict[int, Any] = {}


def lent() -> int:
    """Return how many arrays are lent: what consumers, and capsules, still hold."""
    return len(_lent)


def _forget(managed: int) -> None:
    _lent.pop(managed, None)


_delete = Deleter(_forget)


def _end_unused(capsule: int) -> None:
    for name in (b"dltensor", b"dltensor_versioned"):
        if _is_valid(capsule, name):
            _forget(_get_pointer(capsule, name))


_destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_end_unused)


def capsule(array: Any, versioned: bool) -> Any:
    """Return a capsule of `array`, which lives until its consumer calls the deleter."""
    managed = (Versioned if versioned else Managed)(deleter=_delete)
    if versioned:
        managed.major, managed.minor = VERSION
    shape = (ctypes.c_int64 * max(array.ndim, 1))(*array.shape)
    strides = (ctypes.c_int64 * max(array.ndim, 1))(
        *(step // array.dtype.itemsize for step in array.strides)
    )
    code = BFLOAT if array.dtype.name == "bfloat16" else CODES[array.dtype.kind]
    managed.tensor = Tensor(
        array.address,
        CUDA,
        array.device,
        array.ndim,
        code,
        8 * array.dtype.itemsize,
        1,
        shape,
        strides,
        0,
    )
    address = ctypes.addressof(managed)
    _lent[address] = (managed, shape, strides, array)
    name = b"dltensor_versioned" if versioned else b"dltensor"
    return _new(address, name, ctypes.cast(_destructor, ctypes.c_void_p))
