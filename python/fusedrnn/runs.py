"""The runs of a network, and the bytes that stand for them (`RunRecord` in csrc/core/network.h).

The compiled module takes these bytes; model files and programs of XLA hold them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

# cell, reverse, reads, writes, num_constants, two offsets, four sizes, noise, constants
_RECORD = struct.Struct("=32s4i6q5d16d")
_MOST_CONSTANTS = 16


class Run(NamedTuple):
    """A cell over a sequence in one direction, as in fusedrnn.h."""

    cell: str
    reverse: bool
    reads: int
    writes: int
    read_offset: int
    write_offset: int
    input_size: int
    hidden_size: int
    projection_size: int
    heads: int
    constants: tuple[float, ...] = ()  # none: the usual ones
    noise: tuple[float, ...] = ()  # none, or the five rates

    def record(self) -> bytes:
        """Return its bytes; what they say is checked where they are read."""
        cell, reverse, reads, writes, *sizes, constants, noise = self
        unused = (0.0,) * (_MOST_CONSTANTS - len(constants))
        rows = (reverse, reads, writes, len(constants))
        try:
            return _RECORD.pack(
                cell.encode(), *rows, *sizes, *(noise or (0.0,) * 5), *constants, *unused
            )
        except struct.error as error:
            raise ValueError(
                f"runs: expected what a record can hold, got {self}: {error}"
            ) from None

    @classmethod
    def of_record(cls, record: bytes) -> Run:
        cell, reverse, reads, writes, count, *others = _RECORD.unpack(record)
        sizes, noise, constants = others[:6], others[6:11], others[11 : 11 + count]
        name = cell.rstrip(b"\0").decode()
        rows = (name, bool(reverse), reads, writes)
        return cls._make((*rows, *sizes, tuple(constants), tuple(noise)))


def to_records(runs: Iterable[Run]) -> bytes:
    return b"".join(run.record() for run in runs)


def of_records(records: bytes) -> list[Run]:
    size = _RECORD.size
    return [Run.of_record(records[i : i + size]) for i in range(0, len(records), size)]
