"""What a second layer gains, and the other direction.

    python examples/lessons/depth_and_direction.py

A layer over a layer reads what the first has made of the input, a word, say, instead of a letter:
h^2_t = cell(h^1_t, h^2_(t-1)). A layer in the other direction reads from the end, and both
together know all of the sequence at every step (M. Schuster, K. K. Paliwal, "Bidirectional
recurrent neural networks", IEEE Transactions on Signal Processing 45, 1997; A. Graves, A. Mohamed,
G. Hinton, "Speech recognition with deep recurrent neural networks", ICASSP 2013):

    y_t = [h_forward(x_1 .. x_t), h_reverse(x_T .. x_t)]

The task needs both: theenglishtextofthelanguagereference without its spaces, and for every letter
whether a word ends there. "the" may end, or go on as "these": what follows tells. All four
networks have about the same number of weights, so what they gain is not of more of them.

In the picture, left: the loss on text held out, the middle of the seeds. Right: F1 of word ends by
seed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from common import Model, arguments, picture, reference_text, table

import fusedrnn as fr
from fusedrnn import nn

LETTERS, STEPS, BATCH = "abcdefghijklmnopqrstuvwxyz", 60, 32
# Layers, directions and units, for about as many weights.
SHAPES = {
    "1 layer": (1, False, 96),
    "2 layers": (2, False, 60),
    "1 layer, both directions": (1, True, 62),
    "2 layers, both directions": (2, True, 34),
}


def letters_and_ends() -> tuple[Any, Any]:
    """All letters of the text, and whether a word ends with each."""
    words = re.findall("[a-z]+", reference_text().lower())
    letters = np.array([LETTERS.index(letter) for word in words for letter in word])
    ends = np.zeros(len(letters), int)
    ends[np.cumsum([len(word) for word in words]) - 1] = 1
    return letters, ends


def f1(said: Any, true: Any) -> float:
    """Of word ends: the harmonic mean of how many said are true and how many true are said."""
    return float(2 * np.sum(said & true) / (np.sum(said) + np.sum(true)))


def main(given: Sequence[str] | None = None) -> dict[str, float]:
    o = arguments(__doc__, given)
    updates, seeds = (60, 1) if o.small else (800, 3)
    one_hot = np.eye(len(LETTERS), dtype=np.float32)
    letters, ends = letters_and_ends()
    held = len(letters) // 10 // STEPS * STEPS
    # [T, B]: what is held out is cut into pieces of STEPS letters.
    test, test_ends = (a[-held:].reshape(-1, STEPS).T for a in (letters, ends))
    curves, scores, found, rows = {}, {}, {}, []
    for name, (layers, both, hidden) in SHAPES.items():
        losses, scores[name] = [], []
        for seed in range(o.seed, o.seed + seeds):
            rng = np.random.default_rng(seed)
            layer = fr.GRU(len(LETTERS), hidden, layers, bidirectional=both, seed=seed)
            model = Model(layer, 2, 5e-3)
            losses.append([])
            for update in range(1, updates + 1):
                at = rng.integers(0, len(letters) - held - STEPS, BATCH) + np.arange(STEPS)[:, None]
                model.update(
                    one_hot[letters[at]], lambda z, at=at: nn.cross_entropy_grad(z, ends[at])
                )
                if update % (updates // 10) == 0:
                    outputs = model(one_hot[test])
                    losses[-1].append(nn.cross_entropy(outputs, test_ends))
            scores[name].append(f1(outputs.argmax(-1), test_ends))
        curves[name] = np.median(losses, axis=0)
        found[name] = float(np.median(scores[name]))
        weights = sum(w.size for w in layer.parameters().values())
        rows.append((name, weights, float(curves[name][-1]), found[name], np.ptp(scores[name])))
    table(("network", "weights", "loss", "F1", "between seeds"), rows)

    def draw(left: Any, right: Any) -> None:
        for name in SHAPES:
            left.semilogy(np.linspace(updates / 10, updates, 10), curves[name], label=name)
            right.plot(scores[name], [name] * seeds, "o")
        left.set(xlabel="updates", ylabel="loss (nats a letter)")
        left.legend()
        right.set(xlabel="F1 of word ends")
        right.invert_yaxis()

    picture(o.out / "depth_and_direction.png", draw)
    return found


if __name__ == "__main__":
    main()
