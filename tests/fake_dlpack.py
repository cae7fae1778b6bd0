"""A producer of DLPack capsules made by hand, each of whose fields a test can set."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

READ_ONLY = 1
CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
AS_IT_IS = object()


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Managed(ctypes.Structure):
    _fields_ = (("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", Deleter))


class Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", Deleter),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    )


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class Producer:
    """Lends an array; `lent` and `deleted` count how often it did and how often it got it back.

    Its capsules have no destructor: only a consumer that keeps to the protocol calls the deleter.
    """

    def __init__(
        self,
        array: Any,
        versioned: bool,
        *,
        version: tuple[int, int] = (1, 0),
        flags: int = 0,
        device: tuple[int, int] = (1, 0),
        says_device: tuple[int, int] | None = None,
        data: Any = AS_IT_IS,
        shape: Any = AS_IT_IS,
        strides: Any = AS_IT_IS,
        ndim: int | None = None,
        dtype: tuple[int, int, int] | None = None,
        offset: int = 0,
    ) -> None:
        array = np.ascontiguousarray(array)
        self.lent = self.deleted = 0
        self.says_device = device if says_device is None else says_device
        self.name = b"dltensor_versioned" if versioned else b"dltensor"
        self._array = array
        self._deleter = Deleter(self._delete)
        self.managed = (Versioned if versioned else Managed)(deleter=self._deleter)
        if versioned:
            self.managed.major, self.managed.minor = version
            self.managed.flags = flags
        elements = tuple(step // array.itemsize for step in array.strides)
        self._shape = self._vector(array.shape if shape is AS_IT_IS else shape)
        self._strides = self._vector(elements if strides is AS_IT_IS else strides)
        code, bits, lanes = dtype or (CODES[array.dtype.kind], 8 * array.itemsize, 1)
        self.managed.tensor = Tensor(
            array.ctypes.data - offset if data is AS_IT_IS else data,
            *device,
            array.ndim if ndim is None else ndim,
            code,
            bits,
            lanes,
            self._shape,
            self._strides,
            offset,
        )

    @staticmethod
    def _vector(values: Any) -> Any:
        if values is None:
            return None
        return (ctypes.c_int64 * max(len(values), 1))(*values)

    def _delete(self, managed: int) -> None:
        assert managed == ctypes.addressof(self.managed)
        self.deleted += 1

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.says_device

    def __dlpack__(self, *, max_version: tuple[int, int]) -> Any:
        assert max_version >= (1, 0)
        self.lent += 1
        return _new_capsule(ctypes.addressof(self.managed), self.name, None)
