"""What a forward function saves, and what a backward function returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic

from fusedrnn import _core
from fusedrnn.interop import A


@dataclass(frozen=True, eq=False)
class Tape(Generic[A]):
    """What a function such as `rnn_forward` saved for its gradients.

    It is immutable: backward may run any number of times, and gives the same bits.
    """

    function: str  # the one that made it, such as "rnn_forward"
    core: _core.Tape = field(repr=False)
    to_kind: Callable[[Any], A] = field(repr=False)

    @property
    def reserve(self) -> Any:
        """What the forward pass computed for backward, as a NumPy array of bytes.

        It may be copied or saved; None on a CUDA device.
        """
        return self.core.reserve


@dataclass(frozen=True, eq=False)
class RNNGradients(Generic[A]):
    """Gradients of a scalar with respect to each input, in that input's shape.

    Those of biases or an initial state that was not given are the gradients of zeros in its place.
    """

    dx: A
    dw_ih: A
    dw_hh: A
    db_ih: A
    db_hh: A
    dh0: A


@dataclass(frozen=True, eq=False)
class GRUGradients(RNNGradients[A]):
    """As `RNNGradients`."""


@dataclass(frozen=True, eq=False)
class LSTMGradients(RNNGradients[A]):
    """As `RNNGradients`, with that of the initial cell state; `dw_peephole` is None."""

    dc0: A
    dw_peephole: ClassVar[Any] = None


@dataclass(frozen=True, eq=False)
class PeepholeLSTMGradients(LSTMGradients[A]):
    """As `LSTMGradients`, with that of the peepholes."""

    dw_peephole: A  # type: ignore[misc]


@dataclass(frozen=True, eq=False)
class IndRNNGradients(Generic[A]):
    """As `RNNGradients`; `dw_hh` is [H], and there is no `db_hh`."""

    dx: A
    dw_ih: A
    dw_hh: A
    db_ih: A
    dh0: A
