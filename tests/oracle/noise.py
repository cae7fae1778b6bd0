"""Noise inside a run while it is trained: which numbers are drawn, and what they do.

The numbers are those of Philox4x32-10 (Salmon et al. 2011), keyed by a seed and counted by
(block of four units, sequence, step, mask and run); docs/math.md, section 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .autodiff import Scalar
from .vector import Vector

State = tuple[Vector, ...]

# What a mask is of, in the upper bits of the last word; below them the number of the run.
WEIGHTS = 1
ZONEOUT = 2  # of h; of the state behind it 3, ...
CANDIDATE = 6
STATE = 7


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Four random numbers of 32 bits."""
    a, b, c, d = counter
    even, odd = key
    for _ in range(10):
        first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b = (second >> 32) ^ b ^ even, second & 0xFFFFFFFF
        c, d = (first >> 32) ^ d ^ odd, first & 0xFFFFFFFF
        even, odd = (even + 0x9E3779B9) & 0xFFFFFFFF, (odd + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


class Noise(NamedTuple):
    """Rates, and what the numbers of one run follow from."""

    seed: int = 0
    step: int = 0  # what step 0 counts as
    run: int = 0  # its number in the network
    training: bool = True
    weight_dropout: float = 0.0
    zoneout: float | tuple[float, ...] = 0.0  # of all states, or of each
    candidate_dropout: float = 0.0
    recurrent_dropout: float = 0.0

    def of_run(self, run: int) -> Noise:
        return self._replace(run=run)

    def weights(self, w_hh: Sequence[Sequence[Scalar]]) -> list[list[Scalar]]:
        """DropConnect (Wan et al. 2013): elements are zero, for all steps, or divided by 1 - p."""
        if not (self.training and self.weight_dropout):
            return [list(row) for row in w_hh]
        return [
            (Vector(row) * self._factors(self.weight_dropout, WEIGHTS, 0, i, len(row))).items
            for i, row in enumerate(w_hh)
        ]

    def of_step(self, t: int, b: int, state: State) -> dict[str, Vector]:
        """What a cell is given: factors of its candidate, and of h where w_hh multiplies it.

        The first are drawn at each step (Semeniuta et al. 2016), the others are those of all steps
        (Gal and Ghahramani 2016).
        """
        masks = {}
        if self.training and self.candidate_dropout:
            masks["candidate_mask"] = self._factors(
                self.candidate_dropout, CANDIDATE, self.step + t, b, len(state[-1])
            )
        if self.training and self.recurrent_dropout:
            masks["operand_mask"] = self._factors(
                self.recurrent_dropout, STATE, 0, b, len(state[0])
            )
        return masks

    def zoned_out(self, t: int, b: int, before: State, after: State) -> State:
        """Zoneout (Krueger et al. 2016): units stay as they were; else what is expected of that."""
        rates = self.zoneout if isinstance(self.zoneout, tuple) else (self.zoneout,) * len(after)
        states = []
        for s, (z, old, new) in enumerate(zip(rates, before, after, strict=True)):
            if self.training:
                stay = self._hits(z, ZONEOUT + s, self.step + t, b, len(new))
                states.append(
                    Vector(o if hit else n for hit, o, n in zip(stay, old, new, strict=True))
                )
            else:
                states.append(Vector(z * o + (1 - z) * n for o, n in zip(old, new, strict=True)))
        return tuple(states)

    def _factors(self, rate: float, mask: int, t: int, b: int, size: int) -> Vector:
        """0 with probability `rate`, else 1 / (1 - rate)."""
        return Vector(0.0 if hit else 1 / (1 - rate) for hit in self._hits(rate, mask, t, b, size))

    def _hits(self, rate: float, mask: int, t: int, b: int, size: int) -> list[bool]:
        """Whether each of `size` units is one of those that a rate of them is."""
        key = (self.seed % 2**32, self.seed >> 32)
        numbers = [
            number
            for block in range(-(-size // 4))
            for number in philox(key, (block, b, t % 2**32, mask << 24 | self.run))
        ]
        return [number < rate * 2.0**32 for number in numbers[:size]]
