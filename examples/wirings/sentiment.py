"""Many to one: whether a sentence is for or against, where single words do not tell.

    python examples/wirings/sentiment.py

The sentences are made of templates. "not bad at all" is praise, "never dull" as well, "far from
good" is none, and of two halves with a "but" the second one counts, with an "although" the one
behind it does not. A bag of words, which has all words and their counts but no order, is the
baseline. No sentence is both in the training data and among those held out.

In the picture: the probability of praise after each word, from red to green.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from shared import arguments, picture, regression, table, train

from fusedrnn.models import Classifier, Symbols, pad

GOOD = [
    "good", "great", "funny", "clever", "moving", "brilliant", "charming", "gripping", "fresh",
    "warm",
]  # fmt: skip
BAD = ["bad", "awful", "dull", "stupid", "boring", "clumsy", "tedious", "weak", "stale", "cold"]
THINGS = [
    "film", "plot", "ending", "acting", "music", "script", "cast", "camera", "story", "humour",
]  # fmt: skip
# Before and behind the adjective, and whether it is turned round.
FRAMES = (
    ("", "", False), ("really", "", False), ("so very", "", False), ("nothing but", "", False),
    ("always", "", False), ("not", "", True), ("not", "at all", True), ("never", "", True),
    ("far from", "", True), ("anything but", "", True), ("hardly ever", "", True),
    ("not really", "to my surprise", True),
)  # fmt: skip
SHOWN = ("the film was not bad at all",
         "although the plot was dull , the ending was anything but boring",
         "the music was brilliant , but the script was far from good")  # fmt: skip


def clause(rng: np.random.Generator, praise: bool) -> str:
    """One judgement of one thing."""
    before, behind, turned = FRAMES[rng.integers(len(FRAMES))]
    word = rng.choice(GOOD if praise != turned else BAD)
    return " ".join(f"the {rng.choice(THINGS)} was {before} {word} {behind}".split())


def sentence(rng: np.random.Generator) -> tuple[str, int]:
    """A sentence, and 1 for praise."""
    praise = bool(rng.integers(2))
    kind = rng.integers(4)
    if kind == 0:
        return clause(rng, praise), int(praise)
    if kind == 1:
        return f"{clause(rng, praise)} and {clause(rng, praise)}", int(praise)
    if kind == 2:
        return f"{clause(rng, not praise)} , but {clause(rng, praise)}", int(praise)
    return f"although {clause(rng, not praise)} , {clause(rng, praise)}", int(praise)


def main(given: Sequence[str] | None = None) -> dict[str, float]:
    o = arguments(__doc__, given, steps=400, batch=64, hidden=32)
    rng = np.random.default_rng(o.seed)
    unique = dict(sentence(rng) for _ in range(9000))
    texts, labels = [text.split() for text in unique], np.array(list(unique.values()))
    vocabulary = Symbols.of(texts)
    x, lengths = pad([vocabulary.encode(text) for text in texts])
    cut = len(texts) * 2 // 3

    model = Classifier(2, vocabulary=len(vocabulary), embedding=16, hidden=o.hidden, seed=o.seed)

    def batch(training: Any) -> tuple[Any, ...]:
        chosen = training.generator.integers(0, cut, o.batch)
        return x[:, chosen], labels[chosen], lengths[chosen]

    train("sentiment", model, batch, o, 1e-2)
    counts = np.stack([np.bincount(row[:n], minlength=len(vocabulary))
                       for row, n in zip(x.T, lengths, strict=True)])  # fmt: skip
    of_counts = regression(counts[:cut], labels[:cut], 2)
    said = {
        "bag of words": of_counts(counts[cut:]),
        "recurrent": model.predict(x[:, cut:], lengths[cut:]).argmax(-1),
    }
    hit = {name: values == labels[cut:] for name, values in said.items()}
    single = np.array([not {",", "and"} & set(text) for text in texts[cut:]])
    rows = [(name, float(h[single].mean()), float(h[~single].mean()), float(h.mean()))
            for name, h in hit.items()]  # fmt: skip
    table(("accuracy, held out", "one clause", "two clauses", "all"), rows)

    def draw(axis: Any) -> None:
        for row, text in enumerate(SHOWN):
            known, at = text.split(), 0
            indices = vocabulary.encode(known)
            for n, word in enumerate(known):
                chance = float(model.predict(indices[: n + 1, None])[0, 1])
                shade = (1 - 0.6 * chance, 0.4 + 0.6 * chance, 0.4)  # from red to green
                axis.text(at, -row, word, family="monospace", fontsize=8, backgroundcolor=shade)
                at += len(word) + 1.5
        axis.set(xlim=(-1, 110), ylim=(0.6 - len(SHOWN), 0.8))
        axis.set_axis_off()

    picture(o.out / "sentiment.png", draw, columns=1, size=(8, 1.4))
    return {name: float(h.mean()) for name, h in hit.items()}


if __name__ == "__main__":
    main()
