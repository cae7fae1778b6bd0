"""What clipping does to a loss with a cliff.

    python examples/lessons/cliff.py

One unit, two weights, 50 steps without input from h_0 = 0.5:

    h_t = s(w h_(t-1) + b)        loss = (h_50 - 0.7)^2

Where w is large there are two places for h to end, near 0 and near 1. A tiny change of b moves it
from one to the other, so the loss has a cliff, and on it the gradient is a product of 50 slopes
above 1. One step of gradient descent from there lands far away. Clipping keeps the direction and
limits the length (R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent
neural networks", ICML 2013, figure 6 and algorithm 1):

    g <- g min(1, limit / |g|)

In the picture, left: the loss over (w, b), and two descents from one place. Right: their losses.
The landscape is one call: with `heads=N` the N units of a layer see themselves alone, so each is a
network with weights of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import arguments, picture, table

import fusedrnn as fr

STEPS, TARGET, START, RATE, LIMIT = 50, 0.7, (5.3, -1.8), 0.3, 0.5


def losses(w: Any, b: Any) -> tuple[Any, dict[str, Any]]:
    """The loss of each pair of weights w [N], b [N], and its gradients."""
    n = len(w)
    nothing = np.zeros((STEPS, 1))
    h, _, tape = fr.rnn_forward(
        nothing,
        np.zeros((n, 1)),
        w[:, None],
        b,
        h0=np.full(n, 0.5),
        nonlinearity="sigmoid",
        heads=n,
    )
    back = fr.rnn_backward(tape, dh_n=2 * (h[-1] - TARGET))
    return (h[-1] - TARGET) ** 2, {"w": back.dw_hh[:, 0], "b": back.db_ih}


def descend(updates: int, limit: float) -> tuple[Any, Any, Any]:
    """The way (w, b), the losses and the norms of the gradient."""
    weights = {"w": np.array([START[0]]), "b": np.array([START[1]])}
    sgd = fr.SGD(weights, RATE)
    way, loss, norms = [], [], []
    for _ in range(updates):
        value, grads = losses(weights["w"], weights["b"])
        way.append((weights["w"][0], weights["b"][0]))
        loss.append(value[0])
        norms.append(fr.clip_grad_norm(grads, limit))
        sgd.step(grads)
    return np.array(way), np.array(loss), np.array(norms)


def main(given: Sequence[str] | None = None) -> dict[str, tuple[float, float]]:
    o = arguments(__doc__, given, seeded=False)
    updates, grid = 150, 20 if o.small else 120
    found, rows, ways = {}, [], {}
    for name, limit in (("plain", np.inf), (f"clipped to {LIMIT}", LIMIT)):
        way, loss, norms = ways[name] = descend(updates, limit)
        longest = float(np.linalg.norm(np.diff(way, axis=0), axis=1).max())
        found[name] = longest, float(loss[-1])
        rows.append((name, float(norms.max()), longest, float(loss[-1])))
    table(("descent", "largest gradient", "longest step", "last loss"), rows)

    def draw(left: Any, right: Any) -> None:
        w, b = np.meshgrid(np.linspace(3, 7, grid), np.linspace(-4, -1, grid))
        surface = losses(w.ravel(), b.ravel())[0].reshape(w.shape)
        drawn = left.pcolormesh(w, b, surface, cmap="Greys", shading="auto", rasterized=True)
        left.figure.colorbar(drawn, ax=left, label="loss")
        for (name, (way, loss, _)), colour in zip(ways.items(), ("C3", "C0"), strict=True):
            left.plot(way[:, 0], way[:, 1], ".-", color=colour, linewidth=1, label=name)
            right.semilogy(loss, color=colour, label=name)
        left.set(xlabel="w", ylabel="b", xlim=(3, 7), ylim=(-4, -1))
        right.set(xlabel="updates", ylabel="loss")
        right.legend()

    picture(o.out / "cliff.png", draw)
    return found


if __name__ == "__main__":
    main()
