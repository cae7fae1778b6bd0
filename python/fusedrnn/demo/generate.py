"""Text from a trained model."""

from __future__ import annotations

import numpy as np

from fusedrnn.demo.text import Vocabulary
from fusedrnn.models import CharModel


def generate(
    model: CharModel, vocabulary: Vocabulary, count: int, temperature: float, seed: int
) -> str:
    """Return ``count`` characters, each drawn from what the model expects after those before.

    `temperature` is that of `fusedrnn.models.draw`.
    """
    # Two line ends before: a paragraph begins, where the text has paragraphs.
    line_end = max(vocabulary.characters.find("\n"), 1)
    drawn = model.generate(
        [line_end, line_end],
        count,
        temperature=temperature,
        never=(0,),  # stands for no character in particular
        generator=np.random.default_rng(seed),
    )
    return "".join(vocabulary.characters[index] for index in drawn)
