"""What a sequence is read as: words, characters, or numbers step by step."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusedrnn.cli.errors import CommandError
from fusedrnn.cli.tasks.base import Array
from fusedrnn.models import Symbols

UNITS = ("words", "characters", "numbers")
#: Most frequent symbols that a model knows.
MAX_SYMBOLS = 20_000
#: Stands for all others.
UNKNOWN = "\ufffd"


def units_of(cells: Sequence[Any]) -> str:
    """Return "numbers" where the first cell is some, else "words"."""
    try:
        _numbers(cells[0])
    except (ValueError, TypeError, OverflowError):
        return "words" if isinstance(cells[0], str) else "numbers"
    return "numbers"


def read(kind: str, cell: Any, where: str) -> Any:
    """Return a cell as a list of symbols, or as numbers [T, I].

    Raises
    ------
    CommandError
        Where it is of another kind, or empty.
    """
    if kind == "numbers":
        try:
            values = _numbers(cell)
        except (ValueError, TypeError, OverflowError):
            raise CommandError(
                f"{where}: expected numbers, got {str(cell)[:40]!r} (text: --units words)"
            ) from None
        return values
    if not isinstance(cell, str):
        raise CommandError(f"{where}: expected text, got {str(cell)[:40]!r}")
    symbols = words(cell) if kind == "words" else list(cell)
    if not symbols:
        raise CommandError(f"{where}: expected text, got none")
    return symbols


def words(text: str) -> list[str]:
    """Return words in small letters, and every other sign alone."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def _numbers(cell: Any) -> Array:
    """Numbers with spaces between the steps, or a list of JSON: of numbers, or of lists of them."""
    if isinstance(cell, str):
        cell = [float(word) for word in cell.split()]
    values = np.array(cell, dtype=np.float64)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ValueError
    return values


def learn_symbols(sequences: Sequence[Sequence[str]]) -> list[str]:
    """Return the symbols of sequences, the most frequent ones where there are too many."""
    counts = Counter(symbol for sequence in sequences for symbol in sequence)
    counts.pop(UNKNOWN, None)
    # Ties are broken by code point, so that the choice depends on the data alone.
    ranked = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
    return [UNKNOWN, *sorted(ranked[:MAX_SYMBOLS])]


def learn(where: str, kind: str, sequences: Sequence[Any]) -> dict[str, Any]:
    """Return what `reader` needs: symbols, or the scale of numbers."""
    if kind != "numbers":
        return {"kind": kind, "symbols": learn_symbols(sequences)}
    return {"kind": kind} | scale(where, np.concatenate(list(sequences)))


def scale(where: str, values: Array) -> dict[str, Any]:
    """Return mean and spread of each column.

    Raises
    ------
    CommandError
        Where they are too large for a number.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        mean, spread = values.mean(axis=0), values.std(axis=0)
    if not (np.isfinite(mean).all() and np.isfinite(spread).all()):
        raise CommandError(f"{where}: expected smaller numbers, got one of {abs(values).max():g}")
    return {"mean": mean.tolist(), "spread": np.where(spread > 0, spread, 1.0).tolist()}


class SymbolReader:
    """Symbols to numbers."""

    input_size = None

    def __init__(self, kind: str, symbols: Sequence[str]) -> None:
        self.kind = kind
        if list(symbols[:1]) != [UNKNOWN] or not all(isinstance(x, str) for x in symbols):
            raise ValueError("symbols: expected the unknown one and others")
        self.symbols = Symbols(symbols)
        self.vocabulary = len(self.symbols)

    def encode(self, sequence: Sequence[str]) -> Array:
        """Return the numbers of symbols."""
        return self.symbols.encode(sequence, unknown=1)

    def words(self) -> str:
        return f", vocabulary {self.vocabulary - 2:,}"


class NumberReader:
    """Numbers to numbers of mean 0 and spread 1."""

    kind, vocabulary = "numbers", None

    def __init__(self, mean: Sequence[float], spread: Sequence[float]) -> None:
        self._mean, self._spread = np.array(mean, np.float64), np.array(spread, np.float64)
        self.input_size = len(self._mean)
        if self._mean.shape != self._spread.shape or not (self._spread > 0).all():
            raise ValueError("spread: expected numbers above 0")

    def encode(self, values: Array) -> Array:
        """Return the scaled numbers [T, I]."""
        if values.shape[1] != self.input_size:
            raise CommandError(
                f"expected {self.input_size} numbers in each step, got {values.shape[1]}"
            )
        return ((values - self._mean) / self._spread).astype(np.float32)

    def words(self) -> str:
        return f", {self.input_size} in each step"


def reader(knowledge: Mapping[str, Any]) -> SymbolReader | NumberReader:
    """Return the reader of what `learn` returned."""
    if knowledge["kind"] == "numbers":
        return NumberReader(knowledge["mean"], knowledge["spread"])
    if knowledge["kind"] not in UNITS:
        raise ValueError(f"kind: expected one of {UNITS}, got {knowledge['kind']!r}")
    return SymbolReader(knowledge["kind"], knowledge["symbols"])
