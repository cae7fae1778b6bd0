"""State carried on against state reset, between chunks and between documents.

    python examples/lessons/documents.py

A stream of documents is read in chunks. What should the state be at a chunk's first step? Within a
document it holds what the document is about, so it is carried on; at a new document it is about
another one, so it is set to zero there, in the middle of a chunk too (`resets`):

    h_t = cell(x_t, (1 - reset_t) h_(t-1))

Here a document is a walk of one of four Markov chains over eight symbols. Which one, no symbol tells:
it must be gathered. So the least loss that is possible can be computed: with P_k the chains and w_k
their probabilities after what the document has shown (Bayes' rule), predict sum_k w_k P_k.

    windows     zero at each chunk's beginning: independent pieces of text
    carried     never zero: the last document goes on in the next one
    documents   zero where a document begins, carried on otherwise

In the picture: the loss over a symbol's place in its document, on fresh text. The windows forget what
they knew; the carried state is sure of the wrong chain at first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import Model, arguments, cross_entropy, picture, table

import fusedrnn as fr

CHAINS, SYMBOLS, BATCH, CHUNK, HIDDEN, SHOWN = 4, 8, 16, 20, 32, 40
WAYS = ("windows", "carried", "documents")


def text(steps: int, chains: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """Symbols [T + 1, B], and where documents begin."""
    begins = rng.random((steps + 1, BATCH)) < 1 / 40
    begins[0] = True
    symbols, chain = np.zeros((steps + 1, BATCH), int), np.zeros(BATCH, int)
    cumulated, draws = chains.cumsum(-1), rng.random((steps + 1, BATCH, 1))
    anything = np.arange(1, SYMBOLS + 1) / SYMBOLS
    for t in range(steps + 1):
        chain = np.where(begins[t], rng.integers(0, CHAINS, BATCH), chain)
        rows = np.where(begins[t][:, None], anything, cumulated[chain, symbols[t - 1]])
        symbols[t] = np.minimum((draws[t] > rows).sum(-1), SYMBOLS - 1)
    return symbols, begins


def surprises(predicted: Any, target: Any) -> Any:
    """The loss [T, B] of probabilities or, with its exponential, of outputs."""
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
    steps = 4_000 if o.small else 100_000
    chains = rng.dirichlet(np.full(SYMBOLS, 0.5), (CHAINS, SYMBOLS))
    seen, begins = text(steps, chains, rng)
    fresh, fresh_begins = text(2_000 if o.small else 10_000, chains, rng)
    place = np.zeros(fresh_begins.shape, int)
    for t in range(1, len(place)):
        place[t] = np.where(fresh_begins[t], 0, place[t - 1] + 1)
    scored = ~fresh_begins[1:]  # the first symbol of a document is noise

    def resets(way: str, begins: Any) -> Any:
        if way == "documents":
            return begins[:-1]
        first = np.arange(len(begins) - 1) % CHUNK == 0
        return np.broadcast_to((first & (way == "windows"))[:, None], begins[:-1].shape)

    losses = {}
    for way in WAYS:
        model = Model(fr.GRU(SYMBOLS, HIDDEN, seed=o.seed), SYMBOLS, 3e-3)
        x, marks = np.eye(SYMBOLS, dtype=np.float32)[seen[:-1]], resets(way, begins).copy()
        for chunk in fr.tbptt(model.layer, x, k1=CHUNK, resets=marks):
            target = seen[1 + chunk.start : 1 + chunk.stop]
                _, slope = cross_entropy(model.readout(chunk.y), target)
            slope[begins[1 + chunk.start : 1 + chunk.stop]] = 0  # nothing can be known of it
            dy, grads = model.through_readout(chunk.y, slope)
            model.apply(chunk.backward(dy) | grads)
        x, marks = np.eye(SYMBOLS, dtype=np.float32)[fresh[:-1]], resets(way, fresh_begins).copy()
        outputs = model.readout(model.layer(x, resets=marks)[0])
        p = np.exp(outputs - outputs.max(-1, keepdims=True))
        losses[way] = surprises(p / p.sum(-1, keepdims=True), fresh[1:])
    losses["the least possible"] = surprises(best(fresh, fresh_begins, chains), fresh[1:])

    def curve(loss: Any) -> list[float]:
        return [float(loss[scored & (place[1:] == n)].mean()) for n in range(1, SHOWN)]

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
