"""What the demo's tests share: a text that is quickly learnt, and options for short runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

SMALL = ["--hidden", "16", "--layers", "1", "--embedding", "8", "--batch", "4", "--chunk", "16"]
QUICK = [*SMALL, "--quiet", "--generate", "40"]

cells = pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])


def write_corpus(folder: Path) -> Path:
    """Sentences of eight words: little to learn, so a short run shows that it is learnt."""
    rng = np.random.default_rng(0)
    words = ["the", "cat", "dog", "sees", "hears", "a", "bird", "and"]
    path = folder / "sentences.txt"
    path.write_text("".join(" ".join(rng.choice(words, 6)) + ".\n" for _ in range(250)))
    return path
