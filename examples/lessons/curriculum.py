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
over the time steps computed; dotted, that of always saying 1. Right: the last ones, by seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import Model, arguments, picture, squared_error, table
from long_memory import adding

import fusedrnn as fr

SHORTEST, ORDERS = 10, ("long", "random", "short")


def length(order: str, longest: int, share: float, rng: np.random.Generator) -> int:
    """Steps of the next batch, when this share of the work is done."""
    if order == "long":
        return longest
    if order == "random":
        return int(rng.integers(SHORTEST, longest + 1))
    return round(SHORTEST + (longest - SHORTEST) * min(1.0, 2 * share))


def learn(order: str, longest: int, work: int, seed: int) -> Any:
    """The error on the longest sequences, at twenty times evenly spread over the work."""
    rng = np.random.default_rng(seed)
    model = Model(fr.LSTM(2, 32, forget_bias=1.0, seed=seed), 1, 1e-2, last=1)
    x_test, sums_test = adding(longest, np.random.default_rng(1000), 256)
    done, errors = 0, []
    while done < work:
        x, sums = adding(length(order, longest, done / work, rng), rng)
        model.update(x, lambda z, sums=sums: squared_error(z, sums))
        done += len(x)
        while len(errors) < min(20, 20 * done // work):
            errors.append(squared_error(model.readout(model.layer(x_test)[0]), sums_test)[0])
    return np.array(errors)


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    o = arguments(__doc__, given)
    longest, work, seeds = (60, 20_000, 1) if o.small else (200, 160_000, 5)
    errors = {
        order: np.array([learn(order, longest, work, o.seed + k) for k in range(seeds)])
        for order in ORDERS
    }
    last = {order: np.sort(runs[:, -1]) for order, runs in errors.items()}
    rows = [
        (order, float(np.median(ends)), ", ".join(f"{end:.2g}" for end in ends))
        for order, ends in last.items()
    ]
    table(("order", "last error, the middle", "of every seed"), rows)

    def draw(left: Any, right: Any) -> None:
        at = np.linspace(0.05, 1, 20) * work / 1000
        for number, (order, runs) in enumerate(errors.items()):
            left.semilogy(at, runs.T, color=f"C{number}", linewidth=0.5)
            left.semilogy(at, np.median(runs, axis=0), color=f"C{number}", label=order)
            right.semilogy(np.full(seeds, order), last[order], "o", color=f"C{number}")
        left.axhline(1 / 6, color="grey", linestyle=":")
        left.set(xlabel="thousands of time steps computed", ylabel=f"error on {longest} steps")
        left.legend()
        right.set(ylabel="last error, by seed")

    picture(o.out / "curriculum.png", draw)
    return last


if __name__ == "__main__":
    main()
