"""XLA's side of a call of a handler, by hand: frames of its C interface, and what they offer.

Layouts are those of csrc/bindings/xla_ffi_abi.h, which a test holds against jaxlib's header.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import POINTER, Structure, c_char_p, c_int, c_int32, c_int64, c_size_t, c_void_p
from typing import Any

import numpy as np

_TYPES = {
    **{"bool": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5},
    **{"uint8": 6, "uint16": 7, "uint32": 8, "uint64": 9},
    **{"float16": 10, "float32": 11, "float64": 12, "complex64": 15},
    **{"bfloat16": 16, "complex128": 18},
}
_BUFFER, _ARRAY, _SCALAR, _STRING, _EXECUTE, _RESOURCE_EXHAUSTED = 1, 1, 3, 4, 3, 8


def _structure(name: str, *fields: tuple[str, Any]) -> Any:
    """One that begins with its size and a list of extensions, as most of them do."""
    head = (("struct_size", c_size_t), ("extensions", c_void_p))
    return type(name, (Structure,), {"_fields_": [*head, *fields]})


def _of(kind: Any, **values: Any) -> Any:
    made = kind(**values)
    made.struct_size = ctypes.sizeof(kind)
    return made


class _Span(Structure):
    _fields_ = (("data", c_char_p), ("size", c_size_t))


class _Scalar(Structure):
    _fields_ = (("dtype", c_int), ("value", c_void_p))


class _Array(Structure):
    _fields_ = (("dtype", c_int), ("size", c_size_t), ("data", c_void_p))


_Buffer = _structure(
    "Buffer", ("dtype", c_int), ("data", c_void_p), ("rank", c_int64), ("dims", POINTER(c_int64))
)
_Buffers = _structure(
    "Buffers", ("size", c_int64), ("types", POINTER(c_int)), ("items", POINTER(c_void_p))
)
_Attributes = _structure(
    "Attributes",
    ("size", c_int64),
    ("types", POINTER(c_int)),
    ("names", POINTER(POINTER(_Span))),
    ("items", POINTER(c_void_p)),
)
_Version = _structure("Version", ("major", c_int), ("minor", c_int))
_CreateError = _structure("CreateError", ("message", c_char_p), ("code", c_int))
_Message = _structure("Message", ("error", c_void_p), ("message", c_char_p))
_Destroy = _structure("Destroy", ("error", c_void_p))
_Stream = _structure("Stream", ("context", c_void_p), ("stream", c_void_p))
_Ordinal = _structure("Ordinal", ("context", c_void_p), ("ordinal", c_int32))
_Allocate = _structure(
    "Allocate",
    ("context", c_void_p),
    ("size", c_size_t),
    ("alignment", c_size_t),
    ("data", c_void_p),
)
_Free = _structure("Free", ("context", c_void_p), ("size", c_size_t), ("data", c_void_p))
# In the order of the interface; None: what no handler of ours calls.
_FUNCTIONS: list[tuple[str, Any]] = [
    ("create_error", (c_void_p, _CreateError)),
    ("message_of", (None, _Message)),
    ("destroy_error", (None, _Destroy)),
    ("handler_register", None),
    ("get_stream", (c_void_p, _Stream)),
    *((name, None) for name in ("register", "context_get", "state_set", "state_get")),
    ("allocate", (c_void_p, _Allocate)),
    ("free", (c_void_p, _Free)),
    *((name, None) for name in ("schedule", "num_threads", "create", "available", "failed")),
    ("run_id_get", None),
    ("get_ordinal", (c_void_p, _Ordinal)),
]
_KINDS = {
    name: c_void_p if known is None else ctypes.CFUNCTYPE(known[0], POINTER(known[1]))
    for name, known in _FUNCTIONS
}
_Api = _structure("Api", ("version", _Version), ("internal", c_void_p), *_KINDS.items())
_CallFrame = _structure(
    "CallFrame",
    ("api", POINTER(_Api)),
    ("context", c_void_p),
    ("stage", c_int),
    ("arguments", _Buffers),
    ("results", _Buffers),
    ("attributes", _Attributes),
    ("future", c_void_p),
)
_CONTEXT = 0x5EED


class XlaError(RuntimeError):
    """What a handler returned: its message and the code of XLA's."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Device:
    """What XLA offers to a handler on an emulated device: the stream, memory, errors.

    Memory is aligned to 16 bytes and no more, which is all that XLA promises.
    """

    def __init__(self, emulator: Any, stream: int, *, fails: str = "") -> None:
        self._emulator, self._stream, self._fails = emulator, stream, fails
        self._errors: dict[int, tuple[bytes, int]] = {}
        self.memory: dict[int, int] = {}  # what is lent, by address: bytes
        self.allocations = 0
        own = {n: _KINDS[n](getattr(self, f"_{n}")) for n, known in _FUNCTIONS if known is not None}
        self._api = _of(_Api, version=_of(_Version, major=0, minor=3), **own)

    def call(
        self,
        handler: Any,
        arguments: Sequence[Any],
        results: Sequence[Any],
        attributes: Mapping[str, Any],
        api_size: int | None = None,
    ) -> None:
        """Run the handler in a capsule over arrays on the device.

        Raises
        ------
        XlaError
            It returned one.
        """
        kept: list[Any] = []
        if api_size is not None:
            self._api.struct_size = api_size
        frame = _of(
            _CallFrame,
            api=ctypes.pointer(self._api),
            context=_CONTEXT,
            stage=_EXECUTE,
            arguments=_buffers(arguments, kept),
            results=_buffers(results, kept),
            attributes=_attributes(attributes, kept),
        )
        get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
        get_pointer.restype = c_void_p
        get_pointer.argtypes = (ctypes.py_object, c_char_p)
        address = get_pointer(handler, b"xla._CUSTOM_CALL_TARGET")
        error = ctypes.CFUNCTYPE(c_void_p, POINTER(_CallFrame))(address)(ctypes.byref(frame))
        if error:
            message, code = self._errors.pop(error)
            raise XlaError(message.decode(), code)
        assert not self._errors

    def _error(self, message: bytes, code: int) -> int:
        number = len(self._errors) + 1
        self._errors[number] = message, code
        return number

    def _create_error(self, args: Any) -> int:
        return self._error(args[0].message, args[0].code)

    def _message_of(self, args: Any) -> None:
        args[0].message = self._errors[args[0].error][0]

    def _destroy_error(self, args: Any) -> None:
        del self._errors[args[0].error]

    def _get_stream(self, args: Any) -> int | None:
        assert args[0].context == _CONTEXT
        if self._fails == "stream":
            return self._error(b"no stream here", 13)
        args[0].stream = self._stream
        return None

    def _get_ordinal(self, args: Any) -> None:
        assert args[0].context == _CONTEXT
        args[0].ordinal = 0

    def _allocate(self, args: Any) -> int | None:
        assert args[0].context == _CONTEXT
        if self._fails == "memory" or args[0].alignment > 16:
            return self._error(b"no memory", _RESOURCE_EXHAUSTED)
        address = self._emulator.allocate(args[0].size + 16, 0, self._stream) + 16
        args[0].data = address
        self.memory[address] = args[0].size
        self.allocations += 1
        return None

    def _free(self, args: Any) -> None:
        assert self.memory.pop(args[0].data) == args[0].size
        self._emulator.call("release_on", args[0].data - 16, 0, self._stream)


def _buffers(arrays: Sequence[Any], kept: list[Any]) -> Any:
    items = []
    for array in arrays:
        dims = (c_int64 * max(len(array.shape), 1))(*array.shape)
        kind = _TYPES[array.dtype.name]
        rank = len(array.shape)
        buffer = _of(_Buffer, dtype=kind, data=array.address, rank=rank, dims=dims)
        kept += [dims, buffer]
        items.append(ctypes.addressof(buffer))
    pointers = (c_void_p * max(len(items), 1))(*items)
    types = (c_int * max(len(items), 1))(*[_BUFFER] * len(items))
    kept += [pointers, types]
    return _of(_Buffers, size=len(items), types=types, items=pointers)


def _attributes(attributes: Mapping[str, Any], kept: list[Any]) -> Any:
    types, names, items = [], [], []
    for name, value in attributes.items():
        if isinstance(value, str):
            kind, item = _STRING, _Span(value.encode(), len(value))
        elif isinstance(value, np.ndarray):
            kind = _ARRAY
            item = _Array(_TYPES[value.dtype.name], value.size, value.ctypes.data)
        else:
            number = ctypes.c_double(value)
            kind, item = _SCALAR, _Scalar(_TYPES["float64"], ctypes.addressof(number))
            kept.append(number)
        span = _Span(name.encode(), len(name))
        kept += [value, item, span]
        types.append(kind)
        names.append(ctypes.pointer(span))
        items.append(ctypes.addressof(item))
    arrays = (
        (c_int * len(types))(*types),
        (POINTER(_Span) * len(names))(*names),
        (c_void_p * len(items))(*items),
    )
    kept += arrays
    return _of(_Attributes, size=len(types), types=arrays[0], names=arrays[1], items=arrays[2])
