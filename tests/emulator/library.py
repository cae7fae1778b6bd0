"""The emulated devices, as the library that runs over them lets tests control them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

POINTER, SIZE, INT, LONG = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int64

# As emulator.h declares them: what they return, what they take.
FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "allocate_on": (POINTER, (SIZE, INT, POINTER)),
    "release_on": (INT, (POINTER, INT, POINTER)),
    "copy_to_device": (INT, (POINTER, POINTER, SIZE)),
    "copy_from_device": (INT, (POINTER, POINTER, SIZE)),
    "copy_strided": (
        INT,
        (POINTER, POINTER, INT, ctypes.POINTER(LONG), ctypes.POINTER(LONG), SIZE, POINTER),
    ),
    "new_stream": (POINTER, ()),
    "end_stream": (INT, (POINTER,)),
    "synchronize": (INT, (POINTER,)),
    "synchronize_device": (INT, ()),
    "wait_for_stream": (INT, (POINTER, POINTER)),
    "begin_capture": (INT, (POINTER,)),
    "end_capture": (POINTER, (POINTER,)),
    "launch_graph": (INT, (POINTER, POINTER)),
    "release_graph": (INT, (POINTER,)),
    "set_devices": (INT, (INT,)),
    "set_device": (INT, (INT,)),
    "get_device": (INT, ()),
    "set_seed": (None, (ctypes.c_uint64,)),
    "fail_allocation_after": (None, (LONG,)),
    "set_quarantine": (None, (SIZE,)),
    "live_bytes": (SIZE, ()),
    "launches": (LONG, ()),
    "blocks": (LONG, (ctypes.c_char_p,)),
    "error_text": (ctypes.c_char_p, (INT,)),
    "last_error": (ctypes.c_char_p, ()),
    "reset_error": (None, ()),
}


class EmulatorError(RuntimeError):
    """A call of the emulator failed, or work that ran in it."""


class Emulator:
    """The library at `path`, which must be the one that the product has opened.

    `call("name", ...)` is `emulator_name(...)` of emulator.h, whose errors it raises.
    """

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(self._library, f"emulator_{name}")
            function.restype, function.argtypes = result, arguments

    def call(self, name: str, *arguments: Any) -> Any:
        result = getattr(self._library, f"emulator_{name}")(*arguments)
        if FUNCTIONS[name][0] is INT and result != 0 and name != "get_device":
            text = self._library.emulator_error_text(result).decode()
            raise EmulatorError(f"emulator_{name}: {text}")
        return result

    def allocate(self, nbytes: int, device: int, stream: int) -> int:
        """Return the address of memory for use on `stream`.

        Raises
        ------
        MemoryError
            There is none, or `fail_allocation_after` wants this one to fail.
        """
        address = self.call("allocate_on", nbytes, device, stream)
        if address is None:
            raise MemoryError(f"emulator: no {nbytes} bytes on device {device}")
        return int(address)

    @contextmanager
    def seed(self, value: int) -> Iterator[None]:
        """Run threads, blocks and streams in an order drawn from `value`; 0 is in order."""
        self.call("set_seed", value)
        try:
            yield
        finally:
            self.call("set_seed", 0)

    @contextmanager
    def devices(self, count: int) -> Iterator[None]:
        """Have `count` devices instead of one."""
        self.call("set_devices", count)
        try:
            yield
        finally:
            self.call("set_devices", 1)

    @contextmanager
    def failing_allocation(self, after: int) -> Iterator[None]:
        """Let the allocation that follows `after` others fail, and those behind it."""
        self.call("fail_allocation_after", after)
        try:
            yield
        finally:
            self.call("fail_allocation_after", -1)

    def synchronize(self) -> None:
        """Wait for the current device, and raise what its work has met with."""
        self.call("synchronize_device")

    def live_bytes(self) -> int:
        return int(self.call("live_bytes"))

    def launches(self) -> int:
        return int(self.call("launches"))

    def blocks(self, kernel: str) -> int:
        """Return how many blocks all launches of a kernel had, once the queued ones have run."""
        self.synchronize()
        return int(self.call("blocks", kernel.encode()))

    def last_error(self) -> str:
        """Return the text of the error that no call survives until `reset`; "" for none."""
        text: bytes = self.call("last_error")
        return text.decode()

    def reset(self) -> None:
        self.call("reset_error")
