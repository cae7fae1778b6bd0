"""Learning rates that change from update to update.

A schedule is a function of the number of updates done before, 0 for the first one, that returns the
rate of the next. An optimiser takes one in the place of a number::

    lr = fusedrnn.schedules.WarmUp(100, fusedrnn.schedules.Cosine(1e-3, 10_000))
    optimizer = fusedrnn.AdamW(layer.parameters(), lr)

Nothing is kept but what the constructor was given, so whoever knows the number of updates goes on
with the same rates. Any function of an int is as good.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from fusedrnn import options

Schedule: TypeAlias = Callable[[int], float]

__all__ = ["Constant", "Cosine", "Exponential", "Schedule", "Step", "WarmUp"]


@dataclass(frozen=True)
class Constant:
    """The same rate for all updates.

    Parameters
    ----------
    lr : float
        At least 0.

    Raises
    ------
    ValueError, TypeError
        For a wrong value or type; the message names it.
    """

    lr: float

    def __post_init__(self) -> None:
        rate("lr", self.lr)

    def __call__(self, update: int) -> float:
        return float(self.lr)


@dataclass(frozen=True)
class WarmUp:
    """Rises linearly over the first updates to what follows.

    Parameters
    ----------
    updates : int
        How many. The first has 1/updates of the rate, the last all of it.
    then : float or schedule
        The rate, or a schedule whose first update is the one after these; they rise to its first
        rate.

    Raises
    ------
    ValueError, TypeError
        As `Constant`.

    References
    ----------
    P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour" (2017),
    arXiv:1706.02677, section 2.2.

    Examples
    --------
    >>> lr = fr.schedules.WarmUp(4, fr.schedules.Cosine(1.0, 100))
    >>> [lr(update) for update in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    updates: int
    then: float | Schedule

    def __post_init__(self) -> None:
        options.positive("updates", self.updates)
        rate_or_schedule("then", self.then)

    def __call__(self, update: int) -> float:
        if update >= self.updates:
            return at("then", self.then, update - self.updates)
        return at("then", self.then, 0) * (update + 1) / self.updates


@dataclass(frozen=True)
class Cosine:
    """Falls from `lr` to `lowest` within `updates`, on half a period of a cosine; then stays there.

    Parameters
    ----------
    lr, lowest : float
        The first rate and the last one, each at least 0.
    updates : int
        How many there are from the one to the other, at least 1.

    Raises
    ------
    ValueError, TypeError
        As `Constant`.

    References
    ----------
    I. Loshchilov, F. Hutter, "SGDR: Stochastic gradient descent with warm restarts", ICLR (2017),
    without the restarts.
    """

    lr: float
    updates: int
    lowest: float = 0.0

    def __post_init__(self) -> None:
        rate("lr", self.lr)
        options.positive("updates", self.updates)
        rate("lowest", self.lowest)

    def __call__(self, update: int) -> float:
        share = min(update / self.updates, 1.0)
        return self.lowest + (self.lr - self.lowest) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class Exponential:
    """Multiplied by `factor` from each update to the next.

    Parameters
    ----------
    lr : float
        The rate of the first update, at least 0.
    factor : float
        At least 0; below 1 the rate falls.

    Raises
    ------
    ValueError, TypeError
        As `Constant`.
    """

    lr: float
    factor: float

    def __post_init__(self) -> None:
        rate("lr", self.lr)
        options.number("factor", self.factor, least=0)

    def __call__(self, update: int) -> float:
        return float(self.lr * self.factor**update)


@dataclass(frozen=True)
class Step:
    """Multiplied by `factor` once after every so many updates.

    Parameters
    ----------
    lr : float
        The rate of the first updates, at least 0.
    every : int
        How many updates have the same rate, at least 1.
    factor : float
        At least 0; below 1 the rate falls.

    Raises
    ------
    ValueError, TypeError
        As `Constant`.
    """

    lr: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        rate("lr", self.lr)
        options.positive("every", self.every)
        options.number("factor", self.factor, least=0)

    def __call__(self, update: int) -> float:
        return float(self.lr * self.factor ** (update // self.every))


def rate(name: str, value: object) -> float:
    """A learning rate."""
    return options.number(name, value, least=0)


def rate_or_schedule(name: str, value: object) -> float | Schedule:
    """A learning rate, or a function of the number of updates."""
    return value if callable(value) else rate(name, value)


def at(name: str, value: float | Schedule, update: int) -> float:
    """The rate of the update that follows on so many."""
    return rate(name, value(update)) if callable(value) else float(value)
