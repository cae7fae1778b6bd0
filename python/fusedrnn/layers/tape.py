"""What a training call of a layer leaves for its backward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from fusedrnn import _core, stale
from fusedrnn.functional import cut_gates
from fusedrnn.interop import A
from fusedrnn.layers.devices import Results

if TYPE_CHECKING:
    from fusedrnn.layers.base import Layer


class LayerCall(NamedTuple):
    """What a call of a layer runs over: arrays [T,B,n], as the compiled module takes them."""

    x: Any
    weights: Mapping[str, Any]
    state: tuple[Any, ...]
    masks: Any


@dataclass(frozen=True, eq=False)
class LayerTape(Generic[A]):
    """What `forward` of one layer saved for its `backward`.

    It is immutable: backward may run any number of times, and gives the same bits.
    """

    layer: Layer
    batch_first: bool = field(repr=False)
    core: _core.Tape = field(repr=False)
    results: Results[A] = field(repr=False)
    stamps: Mapping[str, stale.Stamp] = field(repr=False)
    call: LayerCall = field(repr=False)

    @property
    def _swapped(self) -> bool:
        """Whether the user's arrays are [B, T, n]."""
        return self.batch_first and not self.core.unbatched

    @property
    def reserve(self) -> Any:
        """What the forward pass computed for backward, as a NumPy array of bytes.

        It may be copied or saved; None on a CUDA device.
        """
        return self.core.reserve

    def gates(self) -> dict[str, A]:
        """Return the gates of every step, for looking inside; nothing goes back through them.

        Returns
        -------
        dict
            Arrays [T, B, H], or [B, T, H] with ``batch_first=True``, of the kind of `x`, by the
            letter of the gate and the end of its parameters' names: "i_l0", "f_l0", ...,
            "o_l1_reverse". What they hold says `fusedrnn.Tape.gates`.

        Raises
        ------
        ValueError
            For a layer whose tape has none: without gates, or with ``memory="lean"``, limits,
            other activations than the usual ones, peepholes beside a projection or recurrent
            dropout of candidates.
        """
        found: dict[str, A] = {}
        for number, end in enumerate(self.layer._stack.ends):
            gates = cut_gates(self.core, number, self.results.hand_over)
            found |= {
                f"{name}{end}": gate.swapaxes(0, 1) if self._swapped else gate
                for name, gate in gates.items()
            }
        return found
