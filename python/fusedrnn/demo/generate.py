"""Sampling text from a trained model."""

from __future__ import annotations

import numpy as np

from fusedrnn.demo.model import CharModel, State
from fusedrnn.demo.text import Vocabulary


def generate(
    model: CharModel, vocabulary: Vocabulary, count: int, temperature: float, seed: int
) -> str:
    """Return ``count`` characters, each drawn from what the model expects after those before.

    Parameters
    ----------
    count : int
    temperature : float
        Divides the logits: below 1 the likely becomes likelier; at 0 the likeliest is taken.
    seed : int
    """
    rng = np.random.default_rng(seed)
    # Two line ends before: a paragraph begins, where the text has paragraphs.
    index = max(vocabulary.characters.find("\n"), 1)
    state: State
    _, state = model.step(np.array([index]))
    drawn = []
    for _ in range(count):
        logits, state = model.step(np.array([index]), state)
        # Index 0 stands for no character in particular, so it is never drawn.
        known = logits[0, 1:].astype(np.float64)
        index = 1 + _draw(known, temperature, rng)
        drawn.append(vocabulary.characters[index])
    return "".join(drawn)


def _draw(
    logits: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    temperature: float,
    rng: np.random.Generator,
) -> int:
    if temperature == 0:
        return int(np.argmax(logits))
    with np.errstate(over="ignore"):  # a tiny temperature: -inf, whose exp is 0, as it should be
        cumulative = np.cumsum(np.exp((logits - logits.max()) / temperature))
    at = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    return min(int(at), len(logits) - 1)
