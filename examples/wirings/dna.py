"""Many to many in step: binding sites in DNA, labelled base by base.

    python examples/wirings/dna.py

The sequences are drawn from a stated model. The background is a Markov chain in which CG is rare.
Into it come sites of 10 bases of two proteins, each base drawn by the protein's table of chances,
and each site on either strand: half of them are read backwards, with A for T and C for G. A
protein's second kind of site is two halves with a gap of 2 to 6 bases, which a table of chances
has no place for. The baseline is the scan that biologists begin with: the log-odds of the table
against the background at every place and on both strands, above the threshold that is best on the
training data.

In the picture: log-odds and the network's probability along one sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from shared import arguments, picture, table, train

from fusedrnn.models import Tagger

LENGTH, WIDTH = 120, 10
BACKGROUND = np.array(  # of A, C, G, T after each of them
    [[0.32, 0.18, 0.24, 0.26], [0.34, 0.26, 0.06, 0.34], [0.28, 0.22, 0.24, 0.26],
     [0.22, 0.20, 0.26, 0.32]]
)  # fmt: skip
CONSENSUS = {"first": "TGACGTCATC", "second": "GGGACTTTCC"}
CHANCE = 0.88  # of the consensus' base


def tables() -> Any:
    """Chances [2, 10, 4] of each base of each site."""
    sites = np.array([["ACGT".index(base) for base in word] for word in CONSENSUS.values()])
    return np.where(np.eye(4, dtype=bool)[sites], CHANCE, (1 - CHANCE) / 3)


def sequences(count: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Bases [T, B], and labels [T, B]: 0 is background, 1 and 2 a site."""
    bases = np.empty((LENGTH, count), int)
    bases[0] = rng.integers(0, 4, count)
    sums = BACKGROUND.cumsum(1)
    for t in range(1, LENGTH):
        bases[t] = np.minimum((rng.random(count)[:, None] > sums[bases[t - 1]]).sum(1), 3)
    labels = np.zeros_like(bases)
    chances = tables().cumsum(-1)
    for b in range(count):
        for third in range(3):  # one place in each third of the sequence
            if rng.random() < 0.7:
                kind = int(rng.integers(2))
                site = np.minimum((rng.random((WIDTH, 1)) > chances[kind]).sum(1), 3)
                gap = int(rng.integers(2, 7)) * int(rng.integers(2))
                places = np.arange(WIDTH) + (np.arange(WIDTH) >= WIDTH // 2) * gap
                if rng.random() < 0.5:
                    site = 3 - site[::-1]  # A, C, G, T and their partners T, G, C, A
                    places = places[-1] - places[::-1]
                begin = third * (LENGTH // 3) + int(rng.integers(LENGTH // 3 - places[-1]))
                bases[begin + places, b] = site
                labels[begin + places, b] = 1 + kind
    return bases, labels


def log_odds(bases: Any) -> Any:
    """The best log-odds [2, T, B] of a site of either kind over each base."""
    share = np.linalg.matrix_power(BACKGROUND, 64)[0]
    result = np.full((2, *bases.shape), -np.inf)
    for kind, chances in enumerate(tables()):
        for weights in (np.log(chances / share), np.log(chances / share)[::-1, ::-1]):
            last = LENGTH - WIDTH + 1
            score = sum(weights[k][bases[k : k + last]] for k in range(WIDTH))
            for k in range(WIDTH):
                part = result[kind, k : k + last]
                np.maximum(part, score, out=part)
    return result


def f1(said: Any, labels: Any) -> float:
    """Of bases in sites, of both kinds: of how many said are right, and how many are found."""
    right = np.sum((said == labels) & (labels > 0))
    return float(2 * right / max(np.sum(said > 0) + np.sum(labels > 0), 1))


def main(given: Sequence[str] | None = None) -> dict[str, float]:
    o = arguments(__doc__, given, steps=400, batch=64, hidden=48, sequences=4000)
    rng = np.random.default_rng(o.seed)
    seen, their_labels = sequences(o.sequences, rng)
    bases, labels = sequences(400, rng)

    def scan(odds: Any, threshold: float) -> Any:
        return np.where(odds.max(0) > threshold, 1 + odds.argmax(0), 0)

    model = Tagger(3, vocabulary=4, embedding=8, hidden=o.hidden, seed=o.seed)

    def batch(training: Any) -> tuple[Any, ...]:
        chosen = training.generator.integers(0, o.sequences, o.batch)
        return seen[:, chosen], their_labels[:, chosen]

    train("dna", model, batch, o, 1e-2)
    odds = log_odds(seen[:, :1000])
    threshold = max(np.arange(0, 10, 0.5), key=lambda t: f1(scan(odds, t), their_labels[:, :1000]))
    shares = model.predict(bases)
    odds = log_odds(bases)
    found = {
        "scan by log-odds": f1(scan(odds, threshold), labels),
        "recurrent": f1(shares.argmax(-1), labels),
    }
    table(("held out", "F1 of bases"), list(found.items()))

    def draw(scanned: Any, read: Any) -> None:
        at = int(np.argmax([len(set(column)) * 1000 + (column > 0).sum() for column in labels.T]))
        for axis, values, name in (
            (scanned, odds[:, :, at], "log-odds"), (read, shares[:, at, 1:].T, "probability")
        ):  # fmt: skip
            for kind, protein in enumerate(CONSENSUS):
                axis.plot(values[kind], color=f"C{kind}", label=protein)
                there = labels[:, at] == 1 + kind
                axis.fill_between(np.arange(LENGTH), 0, 1, where=there, color=f"C{kind}", alpha=0.2,
                                  transform=axis.get_xaxis_transform(), step="mid")  # fmt: skip
            axis.set(xlabel="base", ylabel=name)
        read.legend(title="site of the protein", fontsize=7)

    picture(o.out / "dna.png", draw)
    return found


if __name__ == "__main__":
    main()
