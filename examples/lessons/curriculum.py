"""Short sequences first, against random order.

    python examples/lessons/curriculum.py

Over a short lag a gradient arrives, over a long one it does not (long_memory.py). But the weights
that solve the short problem are a good beginning for the next longer one: a curriculum (Y. Bengio,
J. Louradour, R. Collobert, J. Weston, "Curriculum learning", ICML 2009). An LSTM learns the adding
problem for 200 steps in three ways, from the same weights and each with the same number of time
steps to compute:

    long     all sequences have 200 steps
    random   lengths are drawn from 10 to 200
    short    from 10 at the start to 200 after half the time steps, evenly

In the picture, left: the error on 200 steps, thin for each seed and thick for the middle of them,
over the time steps computed. Right: how many it took each seed to an error of 0.01. Long sequences
alone teach nothing in this time; mixed lengths do, for the short ones among them show the way; and
short ones first do it sooner, with more unrest on the way. What is won is time, not a better end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import Model, arguments, picture, table
from long_memory import adding

import fusedrnn as fr
from fusedrnn import nn

SHORTEST, ORDERS, POINTS, SOLVED = 10, ("long", "random", "short"), 50, 0.01


def length(order: str, longest: int, share: float, rng: np.random.Generator) -> int:
    """Steps of the next batch, when this share of the work is done."""
    if order == "long":
        return longest
    if order == "random":
        return int(rng.integers(SHORTEST, longest + 1))
    return round(SHORTEST + (longest - SHORTEST) * min(1.0, 2 * share))


def learn(order: str, longest: int, work: int, seed: int) -> Any:
    """The error on the longest sequences, at times evenly spread over the work."""
    rng = np.random.default_rng(seed)
    model = Model(fr.LSTM(2, 32, forget_bias=1.0, seed=seed), 1, 1e-2, last=1)
    x_test, sums_test = adding(longest, np.random.default_rng(1000), 128)
    done, errors = 0, []
    while done < work:
        x, sums = adding(length(order, longest, done / work, rng), rng)
        model.update(x, lambda z, sums=sums: nn.mse_grad(z, sums))
        done += len(x)
        while len(errors) < min(POINTS, POINTS * done // work):
            errors.append(nn.mse(model(x_test), sums_test))
    return np.array(errors)


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    o = arguments(__doc__, given)
    longest, work, seeds = (60, 30_000, 1) if o.small else (200, 160_000, 5)
    errors = {
        order: np.array([learn(order, longest, work, o.seed + k) for k in range(seeds)])
        for order in ORDERS
    }
    at = np.arange(1, POINTS + 1) * work / POINTS / 1000
    took, rows = {}, []
    for order, runs in errors.items():
        solved = runs < SOLVED
        took[order] = np.sort(np.where(solved.any(1), at[solved.argmax(1)], np.inf))
        ends = ", ".join(f"{t:.0f}" for t in took[order])
        rows.append((order, float(np.median(runs[:, -1])), float(np.median(took[order])), ends))
    table(("order", "last error", f"thousand steps to {SOLVED}", "of every seed"), rows)

    def draw(left: Any, right: Any) -> None:
        for number, (order, runs) in enumerate(errors.items()):
            left.semilogy(at, runs.T, color=f"C{number}", linewidth=0.4)
            left.semilogy(at, np.median(runs, axis=0), color=f"C{number}", label=order)
            shown = np.minimum(took[order], 1.1 * at[-1])
            right.plot(np.full(seeds, order), shown, "o", color=f"C{number}")
        left.set(xlabel="thousands of time steps computed", ylabel=f"error on {longest} steps")
        left.legend()
        right.axhspan(1.05 * at[-1], 1.15 * at[-1], color="0.9")
        right.set(ylabel="thousands of time steps (grey: never)", ylim=(0, 1.15 * at[-1]))

    picture(o.out / "curriculum.png", draw)
    return took


if __name__ == "__main__":
    main()
