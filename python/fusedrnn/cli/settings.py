"""Settings of a training: one table for the options, the configuration file and the checkpoint."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

#: Integers below it are floats as well: no product of times overflows.
LARGEST = 2**53


class Kind(ABC):
    """What a setting may be: read from a word of the command line, or checked in a file."""

    metavar: str | None = None
    wanted: str

    def parse(self, word: str) -> Any:
        """Return the value of a word, which is the word itself; ValueError where it has none."""
        return self.check(word)

    @abstractmethod
    def check(self, value: Any) -> Any:
        """Return a value of TOML or JSON; ValueError where it is none of this kind."""

    def wrong(self, got: object) -> ValueError:
        return ValueError(f"expected {self.wanted}, got {got!r}")


class Number(Kind):
    """An integer or a float within limits."""

    def __init__(
        self, kind: type[int | float], wanted: str, accept: Callable[[float], bool]
    ) -> None:
        self.metavar = "N" if kind is int else "X"
        self.wanted = wanted
        self._kind = kind
        self._accept = accept

    def parse(self, word: str) -> float:
        try:
            value = self._kind(word)
        except ValueError:
            raise self.wrong(word) from None
        return self._accepted(value, word)

    def check(self, value: Any) -> float:
        if type(value) is int and self._kind is float:
            value = float(value)
        if type(value) is not self._kind:
            raise self.wrong(value)
        return self._accepted(value, value)

    def _accepted(self, value: float, got: object) -> float:
        if self._kind is int and value >= LARGEST:
            raise ValueError(f"expected an integer below 2**53, got {str(got)[:40]}")
        if not self._accept(value):
            raise self.wrong(got)
        return value


class Choice(Kind):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.metavar = "{" + ",".join(words) + "}"
        self.wanted = "one of " + ", ".join(words)

    def check(self, value: Any) -> str:
        if value not in self.words:
            raise self.wrong(value)
        return str(value)


class Switch(Kind):
    """True or false: ``--name`` and ``--no-name``."""

    wanted = "true or false"

    def check(self, value: Any) -> bool:
        if type(value) is not bool:
            raise self.wrong(value)
        return value


class Word(Kind):
    """A name, such as that of a column."""

    metavar = "NAME"
    wanted = "a name"

    def check(self, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise self.wrong(value)
        return value


class Quantiles(Kind):
    """Rising numbers between 0 and 1: with commas, or as a list."""

    metavar = "X,X,..."
    wanted = "rising numbers between 0 and 1"

    def parse(self, word: str) -> list[float]:
        try:
            return self.check([float(part) for part in word.split(",")])
        except ValueError:
            raise self.wrong(word) from None

    def check(self, value: Any) -> list[float]:
        if not (isinstance(value, list) and value and all(type(q) is float for q in value)):
            raise self.wrong(value)
        between = [0.0, *value, 1.0]
        if not all(low < high for low, high in pairwise(between)):
            raise self.wrong(value)
        return value


COUNT = Number(int, "an integer of at least 0", lambda n: n >= 0)
SIZE = Number(int, "an integer of at least 1", lambda n: n >= 1)
LAYERS = Number(int, "an integer from 1 to 1000", lambda n: 1 <= n <= 1000)
ABOVE = Number(float, "a number above 0", lambda x: 0 < x < math.inf)
LIMIT = Number(float, "a number above 0, or inf", lambda x: x > 0)
LEAST = Number(float, "a number of at least 0", lambda x: 0 <= x < math.inf)
SHARE = Number(float, "a number of at least 0 and below 1", lambda x: 0 <= x < 1)
PART = Number(float, "a number between 0 and 1", lambda x: 0 < x < 1)
CHANCE = Number(float, "a number above 0 and at most 1", lambda x: 0 < x <= 1)


@dataclass(frozen=True)
class Setting:
    """One of them.

    Attributes
    ----------
    name : str
        ``--name`` on the command line and ``name`` in a file.
    default : object
        None where data decide.
    kind : Kind
    help : str
    group : str
        Under which heading ``--help`` shows it.
    fixed : bool
        Whether a run that goes on keeps what it began with.
    """

    name: str
    default: Any
    kind: Kind
    help: str
    group: str = "training"
    fixed: bool = True
