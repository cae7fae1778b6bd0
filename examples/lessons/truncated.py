"""Truncated backpropagation through time: loss against time and memory.

    python examples/lessons/truncated.py

A stream has no end, so its gradient cannot wait for one. Every k1 steps the loss of these steps
goes back through the last k2 (R. J. Williams, J. Peng, "An efficient gradient-based algorithm for
on-line training of recurrent network trajectories", Neural Computation 2, 1990):

    d L_(t-k1+1 .. t) / dw   with h_(t-k2) held constant

Forward, the state goes on for ever; backward, what lies more than k2 steps before an effect is no
cause. Here the output is the input of DELAY steps ago, so a k2 below DELAY + 1 sees no cause at
all. A small k1 gives more updates out of the same data, and computes k2 / k1 steps for each of
them. With k1 = k2 only the last outputs of a chunk see their cause; with k2 = k1 + DELAY all of
them do.

In the picture, left: the loss over the seconds it took, the middle of the seeds. Right: the last
loss by seed, over the bytes that training keeps of a window.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from common import Model, arguments, picture, table

import fusedrnn as fr
from fusedrnn import nn

DELAY, BATCH, HIDDEN, PIECE = 8, 16, 32, 400


def echo(steps: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Signs [T, B, 1], and those of DELAY steps before."""
    signs = rng.choice(np.array([-1, 1], np.float32), (steps + DELAY, BATCH, 1))
    return signs[DELAY:], signs[:steps]


def learn(k1: int, k2: int, steps: int, seed: int) -> tuple[Any, float]:
    """The loss of each PIECE of the stream, as it was met, and the seconds that all took."""
    x, target = echo(steps, np.random.default_rng(seed))
    model = Model(fr.GRU(1, HIDDEN, seed=seed), 1, 5e-3)
    losses, began = np.zeros(steps // PIECE), time.perf_counter()
    for chunk in fr.tbptt(model.layer, x, k1=k1, k2=k2):
        wanted = target[chunk.start : chunk.stop]
        value, dy, readout = model.read(chunk.y, lambda z, wanted=wanted: nn.mse_grad(z, wanted))
        model.apply(chunk.backward(dy), readout)
        losses[chunk.start // PIECE] += value * len(wanted) / PIECE
    return losses, time.perf_counter() - began


def kept(steps: int) -> int:
    """Bytes that a forward pass over so many steps leaves for backward."""
    *_, tape = fr.GRU(1, HIDDEN).forward(np.zeros((steps, BATCH, 1), np.float32))
    return int(tape.reserve.nbytes)


def main(given: Sequence[str] | None = None) -> dict[tuple[int, int], Any]:
    o = arguments(__doc__, given)
    steps, seeds = (6_000, 1) if o.small else (24_000, 5)
    pairs = [(5, 5), (5, 13), (20, 20), (20, 40), (100, 100), (400, 400)]
    if o.small:
        pairs = [(5, 5), (5, 13)]
    last, curves, rows = {}, {}, []
    for k1, k2 in pairs:
        runs = [learn(k1, k2, steps, o.seed + k) for k in range(seeds)]
        losses, seconds = np.array([run[0] for run in runs]), float(np.median([s for _, s in runs]))
        last[k1, k2] = np.sort(losses[:, -1])
        curves[k1, k2] = seconds * np.linspace(0, 1, losses.shape[1]), np.median(losses, axis=0)
        ends = ", ".join(f"{end:.2g}" for end in last[k1, k2])
        rows.append((f"{k1}, {k2}", steps // k1, kept(k2) // 1024, seconds, ends))
    table(("k1, k2", "updates", "KiB kept", "seconds", "last loss of every seed"), rows)

    def draw(left: Any, right: Any) -> None:
        for k1, k2 in pairs:
            left.semilogy(*curves[k1, k2], label=f"k1 = {k1}, k2 = {k2}")
            right.loglog(np.full(seeds, kept(k2) / 1024), last[k1, k2], "o")
        left.set(xlabel="seconds", ylabel="loss (1: nothing learnt)")
        left.legend()
        right.set(xlabel="KiB kept of a window", ylabel="last loss, by seed")

    picture(o.out / "truncated.png", draw)
    return last


if __name__ == "__main__":
    main()
