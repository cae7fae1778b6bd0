"""Gradients of the long short-term memory: a record for each set of weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from fusedrnn.cells.rnn import RNNGradients
from fusedrnn.functional import frozen_record
from fusedrnn.interop import A


@dataclass(frozen=True, eq=False)
class LSTMGradients(RNNGradients[A]):
    """As `RNNGradients`, with those of the cell state; weights and biases have 4H rows.

    Those of i, f, g and o; with coupled gates 3H, of i, g and o.

    Attributes
    ----------
    dc0 : array [B, H]
    dreset_c : array [H], or None
        None where there was no reset state.
    dw_peephole : array [3H], with coupled gates [2H], or None
        None where there is no such weight.
    dw_hr : array [P, H], or None
        None where there is no such weight.
    """

    dc0: A
    dreset_c: Any = field(default=None, kw_only=True)
    dw_peephole: ClassVar[Any] = None
    dw_hr: ClassVar[Any] = None


@dataclass(frozen=True, eq=False)
class PeepholeLSTMGradients(LSTMGradients[A]):
    """As `LSTMGradients`, with that of the peepholes."""

    dw_peephole: A  # type: ignore[misc]


@dataclass(frozen=True, eq=False)
class ProjectionLSTMGradients(LSTMGradients[A]):
    """As `LSTMGradients`, with that of the projection."""

    dw_hr: A  # type: ignore[misc]


@dataclass(frozen=True, eq=False)
class PeepholeProjectionLSTMGradients(LSTMGradients[A]):
    """As `LSTMGradients`, with those of peepholes and projection."""

    dw_peephole: A  # type: ignore[misc]
    dw_hr: A  # type: ignore[misc]


def record_of(by_name: dict[str, A]) -> LSTMGradients[A]:
    """Of gradients by their names."""
    if "dw_peephole" in by_name and "dw_hr" in by_name:
        return frozen_record(PeepholeProjectionLSTMGradients, by_name)
    if "dw_peephole" in by_name:
        return frozen_record(PeepholeLSTMGradients, by_name)
    if "dw_hr" in by_name:
        return frozen_record(ProjectionLSTMGradients, by_name)
    return frozen_record(LSTMGradients, by_name)
