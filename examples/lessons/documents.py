"""State carried on against state reset, between chunks and between documents.

    python examples/lessons/documents.py

A stream of documents is read in chunks. What should the state be at a chunk's first step? Within a
document it holds what the document is about, so it is carried on; at a new document it is about
another one, so it is set to zero there, in the middle of a chunk too (`resets`):

    h_t = cell(x_t, (1 - reset_t) h_(t-1))

Here a document is a walk of one of four Markov chains over eight symbols. No symbol tells which.
The least loss that is possible is known: with P_k the chains and w_k their probabilities after what
the document has shown (Bayes' rule), predict sum_k w_k P_k.

    windows     zero where a chunk begins: independent pieces of text
    carried     never zero: a document goes on in the next one
    documents   zero where a document begins, carried on otherwise

In the picture: the loss by place in the document. At first the carried state is sure of the wrong
chain; later windows do not know what they knew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import Model, arguments, picture, table

import fusedrnn as fr
from fusedrnn import nn

CHAINS, SYMBOLS, BATCH, CHUNK, HIDDEN, SHOWN = 4, 8, 16, 20, 32, 40
WAYS = ("windows", "carried", "documents")


def text(steps: int, chains: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """Symbols [T + 1, B], and where documents begin."""
    begins = rng.random((steps + 1, BATCH)) < 1 / 40
    begins[0] = True
    symbols, chain = np.zeros((steps + 1, BATCH), int), np.zeros(BATCH, int)
    draws, anything = rng.random((steps + 1, BATCH, 1)), np.arange(1, SYMBOLS + 1) / SYMBOLS
    for t in range(steps + 1):
        chain = np.where(begins[t], rng.integers(0, CHAINS, BATCH), chain)
        rows = np.where(begins[t][:, None], anything, chains[chain, symbols[t - 1]].cumsum(-1))
        symbols[t] = np.minimum((draws[t] > rows).sum(-1), SYMBOLS - 1)
    return symbols, begins


def surprises(predicted: Any, target: Any) -> Any:
    """-log of the probability, of [T, B, 8], that was given to what came [T, B]."""
    return -np.log(np.take_along_axis(predicted, target[..., None], -1)[..., 0])


def best(symbols: Any, begins: Any, chains: Any) -> Any:
    """The probabilities [T, B, 8] of the next symbol, from the chains by Bayes' rule."""
    found, weight = [], np.ones((BATCH, CHAINS))
    for t in range(len(symbols) - 1):
        if t:
            weight = weight * chains[:, symbols[t - 1], symbols[t]].T
        weight = np.where(begins[t][:, None], 1.0, weight)
        weight /= weight.sum(-1, keepdims=True)
        found.append(np.einsum("bk,kbs->bs", weight, chains[:, symbols[t]]))
    return np.array(found)


def main(given: Sequence[str] | None = None) -> dict[str, float]:
    o = arguments(__doc__, given)
    rng = np.random.default_rng(o.seed)
    chains = rng.dirichlet(np.full(SYMBOLS, 0.5), (CHAINS, SYMBOLS))
    seen, begins = text(12_000 if o.small else 100_000, chains, rng)
    fresh, fresh_begins = text(2_000 if o.small else 10_000, chains, rng)
    times = np.arange(len(fresh))[:, None]
    place = (times - np.maximum.accumulate(np.where(fresh_begins, times, 0), axis=0))[1:]
    scored = place > 0  # the first symbol of a document is noise

    def resets(way: str, begins: Any) -> Any:
        if way == "documents":
            return begins[:-1]
        marks = np.zeros_like(begins[:-1])
        marks[::CHUNK] = way == "windows"
        return marks

    losses, one_hot = {}, np.eye(SYMBOLS, dtype=np.float32)
    for way in WAYS:
        model = Model(fr.GRU(SYMBOLS, HIDDEN, seed=o.seed), SYMBOLS, 5e-3)
        x = one_hot[seen[:-1]]
        for chunk in fr.tbptt(model.layer, x, k1=CHUNK, resets=resets(way, begins)):
            part = slice(1 + chunk.start, 1 + chunk.stop)

            def loss(z: Any, part: slice = part) -> tuple[float, Any]:
                return nn.cross_entropy_grad(z, seen[part], mask=~begins[part])

            _, dy, readout = model.read(chunk.y, loss)
            model.apply(chunk.backward(dy), readout)
        outputs = model(one_hot[fresh[:-1]], resets=resets(way, fresh_begins))
        p = np.exp(outputs - outputs.max(-1, keepdims=True))
        losses[way] = surprises(p / p.sum(-1, keepdims=True), fresh[1:])
    losses["the least possible"] = surprises(best(fresh, fresh_begins, chains), fresh[1:])

    def curve(loss: Any) -> list[float]:
        return [float(loss[scored & (place == n)].mean()) for n in range(1, SHOWN)]

    found = {way: float(loss[scored].mean()) for way, loss in losses.items()}
    rows = [(w, found[w], *(curve(losses[w])[n - 1] for n in (1, 2, 5, 10, 30))) for w in losses]
    table(("state", "loss (nats)", "symbol 1", "2", "5", "10", "30"), rows)

    def draw(axis: Any) -> None:
        for way, loss in losses.items():
            axis.plot(range(1, SHOWN), curve(loss), "--" if way not in WAYS else "-", label=way)
        axis.set(xlabel="place in the document", ylabel="loss (nats)")
        axis.legend()

    picture(o.out / "documents.png", draw, columns=1)
    return found


if __name__ == "__main__":
    main()
