"""Sequences as models take and write them: symbols by number, batches, sampling, beam search."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedrnn import options
from fusedrnn.nn import arrays

Indices = NDArray[np.int64]

#: Before the first symbol of a sequence that is written, and behind its last one.
MARK = 0


class Symbols:
    """Symbols by number: the k-th one, counted from 1; 0 is the `MARK` of decoders.

    Parameters
    ----------
    symbols : sequence
        Characters, words or others; each once.
    """

    def __init__(self, symbols: Sequence[Hashable]) -> None:
        self.symbols = list(symbols)
        self._numbers = {symbol: k for k, symbol in enumerate(self.symbols, MARK + 1)}
        if len(self._numbers) != len(self.symbols):
            raise ValueError("symbols: expected each once, got some more often")

    @classmethod
    def of(cls, sequences: Iterable[Iterable[Any]]) -> Symbols:
        """Collect all symbols of some sequences, in rising order."""
        return cls(sorted({symbol for sequence in sequences for symbol in sequence}))

    def __len__(self) -> int:
        """Return how many numbers there are: the V of models, with the mark."""
        return len(self.symbols) + 1

    def encode(self, sequence: Iterable[Hashable], unknown: int | None = None) -> Indices:
        """Return the numbers [T]; `unknown` stands for symbols that are not known.

        Raises
        ------
        ValueError
            For a symbol that is not known, where `unknown` is None.
        """
        if unknown is not None and options.count("unknown", unknown) >= len(self):
            raise ValueError(f"unknown: expected a number below {len(self)}, got {unknown}")
        symbols = list(sequence)
        numbers = [self._numbers.get(symbol, unknown) for symbol in symbols]
        if None in numbers:
            strange = symbols[numbers.index(None)]
            raise ValueError(f"sequence: expected known symbols, got {strange!r}")
        return np.array(numbers, np.int64)

    def decode(self, indices: Iterable[int]) -> list[Any]:
        """Return the symbols of numbers; those of text are joined by ``"".join``.

        Raises
        ------
        ValueError, TypeError
            For a number that no symbol has; `MARK` is left out.
        """
        numbers = arrays.integers("indices", list(indices), (None,), len(self)).tolist()
        return [self.symbols[k - 1] for k in numbers if k != MARK]


def pad(sequences: Sequence[Any]) -> tuple[NDArray[Any], Indices]:
    """Put sequences of several lengths side by side: [T, B, ...] with zeros, and lengths [B].

    Raises
    ------
    ValueError
        Where there is none, or their steps are of several shapes.
    """
    rows = [_row(k, sequence) for k, sequence in enumerate(sequences)]
    if not rows:
        raise ValueError("sequences: expected at least one, got none")
    shapes = {row.shape[1:] for row in rows}
    if len(shapes) > 1:
        raise ValueError(f"sequences: expected steps of one shape, got {sorted(shapes)}")
    lengths = np.array([len(row) for row in rows])
    # An empty list is one of no type, and not of float64.
    dtype = np.result_type(*([row for row in rows if row.size] or rows))
    result = np.zeros((int(lengths.max()), len(rows), *shapes.pop()), dtype)
    for b, row in enumerate(rows):
        result[: len(row), b] = row
    return result, lengths


def _row(number: int, sequence: Any) -> NDArray[Any]:
    try:
        row = np.asarray(sequence)
    except ValueError:
        raise ValueError(f"sequences[{number}]: expected steps of one shape, got several") from None
    if not row.ndim:
        raise TypeError(
            f"sequences[{number}]: expected a sequence of numbers, got {type(sequence).__name__}"
        )
    return row


def marked(
    targets: Any, lengths: Any, *, batch: int | None, vocabulary: int, name: str = "lengths"
) -> tuple[Indices, Indices, Indices]:
    """Return what a decoder reads and what it should write, [T + 1, B] each, and the lengths.

    Parameters
    ----------
    targets : array of int [T, B]
        From 1 to vocabulary - 1: a mark among them would be an end that is none.
    lengths : integers [B], or None
    batch : int or None
        B.
    vocabulary : int
    name : str
        What the lengths are called.
    """
    symbols = arrays.integer_array("targets", targets, (None, batch))
    steps, batch = symbols.shape
    ends = np.full(batch, steps) if lengths is None else lengths
    ends = arrays.lengths(name, ends, batch, steps)
    valid = np.arange(steps)[:, None] < ends
    arrays.check_range("targets", symbols, vocabulary, MARK + 1, valid)
    symbols = np.where(valid, symbols, MARK)
    mark = np.full((1, batch), MARK, symbols.dtype)
    return np.concatenate([mark, symbols]), np.concatenate([symbols, mark]), ends + 1


def draw(
    logits: Any,
    generator: np.random.Generator,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> int:
    """Draw an index by its logits [V].

    Parameters
    ----------
    logits : array [V]
    generator : numpy.random.Generator
    temperature : float
        Divides the logits: below 1 the likely becomes likelier; at 0 the likeliest is taken.
    top_k : int, optional
        Only the k likeliest are drawn from; more where the last of them has equals.
    top_p : float, optional
        Only the likeliest that have this share of all probability together (Holtzman et al. 2020,
        "nucleus sampling"), at least one; after `temperature` and `top_k`.

    Raises
    ------
    ValueError, TypeError
        Where an option is out of its range, or no logit is finite.
    """
    check_draw(temperature, top_k, top_p)
    check_generator(generator)
    heat = float(temperature)
    values = np.asarray(logits, np.float64)
    if values.ndim != 1 or not np.isfinite(values.max(initial=-np.inf)):
        raise ValueError(f"logits: expected numbers of shape (V,), got {values}")
    if heat == 0:
        return int(np.argmax(values))
    with np.errstate(over="ignore"):  # a tiny temperature: -inf, whose exp is 0, as it should be
        weights = np.exp((values - values.max()) / heat)
    if top_k is not None:
        k = min(top_k, len(values))
        weights[values < np.partition(values, -k)[-k]] = 0
    if top_p is not None:
        order = np.argsort(-weights, kind="stable")
        sums = np.cumsum(weights[order])
        kept = int(np.searchsorted(sums, top_p * sums[-1])) + 1
        weights[order[kept:]] = 0
    sums = np.cumsum(weights)
    at = np.searchsorted(sums, generator.random() * sums[-1], side="right")
    return min(int(at), len(values) - 1)


def check_draw(temperature: object, top_k: object, top_p: object) -> None:
    """That options of `draw` are within their ranges, whether they are looked at or not."""
    if not 0 <= options.real("temperature", temperature) < np.inf:
        raise ValueError(f"temperature: expected at least 0, got {temperature}")
    if top_k is not None:
        options.positive("top_k", top_k)
    if top_p is not None and not 0 < options.real("top_p", top_p) <= 1:
        raise ValueError(f"top_p: expected above 0 and at most 1, got {top_p}")


def check_generator(value: object) -> np.random.Generator:
    """A generator, for None a new one."""
    if value is None:
        return np.random.default_rng()
    if not isinstance(value, np.random.Generator):
        raise TypeError(f"generator: expected a numpy.random.Generator, got {type(value).__name__}")
    return value


def beam_search(
    step: Any, state: Any, batch: int, *, width: int, max_length: int
) -> tuple[list[list[int]], NDArray[np.float64]]:
    """Write the likeliest sequences: of each, the `width` best beginnings are gone on with.

    Parameters
    ----------
    step : callable
        ``step(symbols [B * width], state)`` returns logits [B * width, V] and the new state.
    state : nested tuples of arrays [..., B * width, H]
        The first one, rows of one sequence side by side.
    batch, width, max_length : int
        With a width of 1 the search is greedy.

    Returns
    -------
    sequences : list of B lists of int
        Without marks.
    scores : array [B]
        Their log-probabilities, that of the end included.

    Raises
    ------
    ValueError
        Where logits are NaN or infinite: those of a model that diverged.
    """
    options.positive("beam", width)
    options.positive("max_length", max_length)
    rows = batch * width
    symbols = np.full(rows, MARK)
    written = np.zeros((max_length, rows), np.int64)
    scores = np.full((batch, width), -np.inf)
    scores[:, 0] = 0.0  # all begin alike: one of them is enough
    done = np.zeros(rows, bool)
    first = np.arange(batch)[:, None] * width
    for t in range(max_length):
        logits, state = step(symbols, state)
        values = np.asarray(logits, np.float64)
        if not np.isfinite(values.max(axis=1)).all():
            raise ValueError(f"logits: expected numbers, got others at step {t}")
        chances = _log_softmax(values)
        chances[done] = -np.inf  # what has ended stays as it is
        chances[done, MARK] = 0.0
        count = chances.shape[1]
        total = (scores.reshape(rows, 1) + chances).reshape(batch, width * count)
        best = np.argsort(-total, axis=1, kind="stable")[:, :width]
        scores = np.take_along_axis(total, best, axis=1)
        parents = (first + best // count).reshape(-1)
        symbols = (best % count).reshape(-1)
        if width > 1:
            written, state = written[:, parents], _rows(state, parents)
        written[t] = symbols
        done = done[parents] | (symbols == MARK)
        if done.all():
            break
    return [list(_until_mark(written[:, b * width])) for b in range(batch)], scores[:, 0]


def _until_mark(symbols: Indices) -> Iterator[int]:
    for symbol in symbols:
        if symbol == MARK:
            return
        yield int(symbol)


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _rows(state: Any, rows: Indices) -> Any:
    if isinstance(state, tuple):
        return tuple(_rows(part, rows) for part in state)
    return None if state is None else np.ascontiguousarray(state[..., rows, :])
