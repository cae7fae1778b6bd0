"""What the training calls of a layer draw: which elements are dropped, and other noise."""

from __future__ import annotations

import os
import threading
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fusedrnn import options

if TYPE_CHECKING:
    from typing_extensions import Self

# What the compiled module takes: a rate, a seed, and what step 0 counts as.
Drop = tuple[float, int, int]

_SEEDS = 1 << 64


class Draws:
    """Seeds of calls, one after the other; without a rate and `noise` inside layers none."""

    _lock: ClassVar = threading.Lock()  # of all: a lock of its own could not be pickled

    def __init__(self, rate: object, num_layers: int, seed: int | None, noise: bool) -> None:
        self.rate = options.number("dropout", rate, least=0.0, below=1.0)
        if self.rate and num_layers == 1:
            warnings.warn(
                f"dropout: {self.rate} has no effect on a single layer; it drops what one layer "
                "hands to the next",
                UserWarning,
                stacklevel=4,  # of a layer's constructor: its class's, the layers' own, this one
            )
        self._drawn = noise or (self.rate > 0 and num_layers > 1)
        # Not among the numbers that the parameters are drawn from.
        words = np.random.SeedSequence(seed, spawn_key=(0,)).generate_state(1, np.uint64)
        self._seed, self._calls = int(words[0]), 0

    def next(self) -> Drop | None:
        """Return what the next call draws."""
        if not self._drawn:
            return None
        with self._lock:
            number = self._calls
            self._calls += 1
        return self.rate, (self._seed + number) % _SEEDS, 0

    @property
    def state(self) -> tuple[int, int]:
        """The seed of the first call, and how many there were."""
        with self._lock:
            return self._seed, self._calls

    @state.setter
    def state(self, value: Any) -> None:
        checked = state_argument("dropout_state", value)
        with self._lock:
            self._seed, self._calls = checked


def state_argument(name: str, value: object) -> tuple[int, int]:
    """A `dropout_state`."""
    seed, calls = options.values(name, ("seed", "calls"), value)
    first = options.count(f"{name}[0]", seed)
    if first >= _SEEDS:
        raise ValueError(f"{name}[0]: expected less than 2**64, got {first}")
    return first, options.count(f"{name}[1]", calls)


class DropoutMode:
    """Whether a layer is in training, and where it stands in its random masks."""

    _draws: Draws
    _training: bool

    @property
    def training(self) -> bool:
        """Whether `forward` draws what `dropout` and noise say; True at first."""
        return self._training

    def train(self, mode: bool = True) -> Self:
        """Make `forward` drop elements and draw noise, or with False not; return the layer."""
        self._training = options.flag("mode", mode)
        return self

    def eval(self) -> Self:
        """Make `forward` drop and draw nothing, until `train` is called; return the layer."""
        return self.train(False)

    @property
    def dropout_state(self) -> tuple[int, int]:
        """Where the layer stands in its random masks, as (seed, calls), two ints; it can be set.

        The seed follows from the constructor's, calls counts those of `forward` that drew masks:
        call k draws by ``seed + k`` (docs/math.md). It is no parameter, and not in `state_dict`.
        Training that goes on from a checkpoint draws the masks of training that was never
        interrupted once this is as it was::

            saved = layer.state_dict(), layer.dropout_state
            ...
            parameters, layer.dropout_state = saved
            layer.load_state_dict(parameters)

        Raises
        ------
        ValueError, TypeError
            Where it is set to anything but two ints of at least 0, the seed below 2**64.
        """
        return self._draws.state

    @dropout_state.setter
    def dropout_state(self, value: tuple[int, int]) -> None:
        self._draws.state = value

    def _next_drop(self) -> Drop | None:
        """What the next training call draws."""
        return self._draws.next() if self._training else None


def _renew_lock() -> None:
    """In a child: a thread that was left behind may hold the parent's."""
    Draws._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
