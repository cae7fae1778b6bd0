"""Text in, batches of character indices out.

Letters: T chunk length, B streams side by side, V vocabulary size.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fusedrnn.cli.errors import CommandError

Indices = npt.NDArray[np.intp]

#: Stands for every character outside the vocabulary; always index 0, never generated.
UNKNOWN = "\ufffd"
#: Upper bound of V: the softmax's cost grows with it.
MAX_VOCABULARY = 1024
#: Share of the text, at its end, that is held out.
VALIDATION_SHARE = 0.1

# Typographic variants that would each cost a rare symbol and teach the model nothing.
_PLAIN = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2013": "-",
        "\u2014": "-",
        "\u2026": "...",
        "\u00a0": " ",
    }
)


def default_text() -> str:
    """Return the English text every Python ships: the help topics of its language reference.

    Topics quote one another at length. A paragraph is kept where it first appears and dropped
    afterwards, or the validation text would hold whole pages of the training text.

    Raises
    ------
    CommandError
        If this Python comes without ``pydoc_data`` (some distributions split it off).
    """
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise CommandError("this Python comes without pydoc_data.topics; use --text FILE") from None
    seen: set[str] = set()
    kept: list[str] = []
    for name in sorted(topics):
        for paragraph in re.split(r"\n[ \t]*\n", normalise(topics[name]).strip("\n")):
            words = " ".join(paragraph.split())
            if words and words not in seen:
                seen.add(words)
                kept.append(paragraph)
    return "\n\n".join(kept)


def normalise(text: str) -> str:
    """Turn typographic quotes, dashes and spaces into their ASCII forms."""
    return text.translate(_PLAIN)


@dataclass(frozen=True)
class Vocabulary:
    """The characters a model knows; ``characters[i]`` is the character of index i."""

    characters: str

    def __post_init__(self) -> None:
        if len(self.characters) < 2 or self.characters[0] != UNKNOWN:
            raise ValueError("characters: expected the unknown character and at least one more")
        if len(set(self.characters)) != len(self.characters):
            raise ValueError("characters: expected each character once")

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """Collect the characters of ``text``, the most frequent ones where there are too many."""
        counts = Counter(text)
        counts.pop(UNKNOWN, None)
        # Ties are broken by code point, so that the choice depends on the text alone.
        ranked = sorted(counts, key=lambda character: (-counts[character], character))
        return cls(UNKNOWN + "".join(sorted(ranked[: MAX_VOCABULARY - 1])))

    def __len__(self) -> int:
        return len(self.characters)

    @cached_property
    def _lookup(self) -> tuple[npt.NDArray[np.uint32], Indices]:
        points = _code_points(self.characters)
        order = np.argsort(points)
        return points[order], order

    def encode(self, text: str) -> Indices:
        """Return the index of every character, ``[len(text)]``; 0 for one that is unknown."""
        points, indices = self._lookup
        wanted = _code_points(text)
        at = np.minimum(np.searchsorted(points, wanted), len(points) - 1)
        return np.where(points[at] == wanted, indices[at], 0)


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    # surrogatepass: a lone surrogate is a character like any other to a str.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def split(text: str, share: float = VALIDATION_SHARE) -> tuple[str, str]:
    """Cut ``text`` into the part to train on and the part held out, in this order."""
    cut = len(text) - max(2, int(len(text) * share))
    return text[: max(cut, 0)], text[max(cut, 0) :]


def unigram_entropy(indices: Indices) -> float:
    """Return the entropy of the characters' frequencies, in bits per character.

    No model that ignores the context can do better, even one that knows these frequencies.
    """
    counts = np.bincount(indices)
    frequencies = counts[counts > 0] / len(indices)
    return float(-np.sum(frequencies * np.log2(frequencies)))


class Streams:
    """A text cut into B equal streams that are read side by side, T characters at a time.

    Column b of chunk k+1 goes on where column b of chunk k ended, so the recurrent state may be
    carried over; at position 0 of every pass it starts from zero. Up to B + T*B characters at
    the end of a pass are left out.

    Parameters
    ----------
    indices : array of int, [N]
    batch, chunk : int
        B and T.

    Raises
    ------
    ValueError
        If there are fewer than ``B * T + 1`` characters.
    """

    def __init__(self, indices: Indices, batch: int, chunk: int) -> None:
        if len(indices) < batch * chunk + 1:
            raise ValueError(
                f"indices: expected at least {batch * chunk + 1} characters, got {len(indices)}"
            )
        length = (len(indices) - 1) // batch
        starts = np.arange(batch) * length
        # One row more than the inputs need: the targets are the inputs one step later.
        self._columns = indices[np.arange(length + 1)[:, None] + starts]
        self.batch = batch
        self.chunk = chunk
        self.length = length
        self.chunks_per_pass = length // chunk

    def at(self, position: int) -> tuple[Indices, Indices, bool]:
        """Return inputs ``[T, B]``, targets ``[T, B]`` and whether a pass begins here.

        ``position`` counts chunks from the start of the first pass; passes follow one another.
        """
        within = position % self.chunks_per_pass
        return *self._rows(within * self.chunk), within == 0

    def one_pass(self) -> list[tuple[Indices, Indices]]:
        """Return the inputs and targets of a whole pass, its last chunk shorter than T."""
        return [self._rows(first) for first in range(0, self.length, self.chunk)]

    def _rows(self, first: int) -> tuple[Indices, Indices]:
        last = min(first + self.chunk, self.length)
        return self._columns[first:last], self._columns[first + 1 : last + 1]
