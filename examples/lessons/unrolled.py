"""The unrolled network: backpropagation through time by hand, then by the kernels.

    python examples/lessons/unrolled.py

One cell is used at every step, so the network of T steps is a feedforward network of T layers that
share their weights. To read "hell" and say "ello":

    h_t = tanh(W_ih x_t + W_hh h_(t-1) + b)    logits_t = V h_t    loss = mean of -log p_t(target)

Backward, the same graph from right to left: h_t is read by the readout and by step t + 1, so

    dh_t = V' dlogits_t + W_hh' da_(t+1)         da_t = dh_t (1 - h_t^2)
    dW_hh = sum_t da_t h_(t-1)'                  dW_ih = sum_t da_t x_t'          db = sum_t da_t

and a shared weight's gradient is the sum over all its uses (P. J. Werbos, "Backpropagation through
time: what it does and how to do it", Proceedings of the IEEE 78, 1990). Central differences,
(L(w + e) - L(w - e)) / 2e, must give the same numbers, and so must the kernels.

In the picture, left: how far central differences are off. Where e is large the loss is not straight
(e^2), where it is small rounding is divided by it. Right: both learn the word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import arguments, picture, table

import fusedrnn as fr
from fusedrnn import nn

LETTERS, WORD, HIDDEN = "helo", "hello", 8


def by_hand(w: dict[str, Any], x: Any, target: Any) -> tuple[float, dict[str, Any]]:
    """The loss of one sequence x [T, I], and the gradient of every weight."""
    h = np.zeros((len(x) + 1, HIDDEN))  # h[t + 1] leaves step t
    for t in range(len(x)):
        h[t + 1] = np.tanh(w["ih"] @ x[t] + w["hh"] @ h[t] + w["b"])
    loss, dlogits = nn.cross_entropy_grad(h[1:] @ w["v"].T, target)
    grads = {name: np.zeros_like(value) for name, value in w.items()}
    grads["v"] = dlogits.T @ h[1:]
    from_later = np.zeros(HIDDEN)
    for t in reversed(range(len(x))):
        da = (w["v"].T @ dlogits[t] + from_later) * (1 - h[t + 1] ** 2)
        grads["hh"] += np.outer(da, h[t])
        grads["ih"] += np.outer(da, x[t])
        grads["b"] += da
        from_later = w["hh"].T @ da
    return loss, grads


def by_kernels(w: dict[str, Any], x: Any, target: Any) -> tuple[float, dict[str, Any]]:
    """The same in a call forward and a call backward."""
    h, _, tape = fr.rnn_forward(x, w["ih"], w["hh"], w["b"])
    loss, dlogits = nn.cross_entropy_grad(h @ w["v"].T, target)
    back = fr.rnn_backward(tape, dlogits @ w["v"])
    return loss, {"ih": back.dw_ih, "hh": back.dw_hh, "b": back.db_ih, "v": dlogits.T @ h}


def numerical(w: dict[str, Any], x: Any, target: Any, e: float) -> dict[str, Any]:
    """Central differences: two losses for every single weight."""
    grads = {name: np.zeros_like(value) for name, value in w.items()}
    for name, value in w.items():
        for place in np.ndindex(value.shape):
            kept = value[place]
            for value[place], sign in ((kept + e, 1), (kept - e, -1)):
                grads[name][place] += sign * by_hand(w, x, target)[0] / (2 * e)
            value[place] = kept
    return grads


def distance(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Between gradients, relative to b."""
    apart = sum(np.sum((a[name] - b[name]) ** 2) for name in b)
    return float(np.sqrt(apart / sum(np.sum(value**2) for value in b.values())))


def main(given: Sequence[str] | None = None) -> dict[str, float]:
    o = arguments(__doc__, given)
    rng = np.random.default_rng(o.seed)
    symbols = np.array([LETTERS.index(letter) for letter in WORD])
    x, target = np.eye(len(LETTERS))[symbols[:-1]], symbols[1:]
    shapes = {"ih": (HIDDEN, 4), "hh": (HIDDEN, HIDDEN), "b": (HIDDEN,), "v": (4, HIDDEN)}
    w = {name: rng.normal(0, 0.4, shape) for name, shape in shapes.items()}

    _, hand = by_hand(w, x, target)
    errors = {e: distance(numerical(w, x, target, e), hand) for e in 10.0 ** -np.arange(1, 12)}
    of_kernels = distance(by_kernels(w, x, target)[1], hand)
    found = {"central differences": min(errors.values()), "kernels": of_kernels}
    losses: dict[str, list[float]] = {}
    for name, gradients in (("by hand", by_hand), ("kernels", by_kernels)):
        own = {key: value.copy() for key, value in w.items()}
        losses[name] = []
        for _ in range(100):
            loss, grads = gradients(own, x, target)
            losses[name].append(loss)
            own = {key: value - 0.5 * grads[key] for key, value in own.items()}
        h, _ = fr.rnn(x, own["ih"], own["hh"], own["b"])
        said = "".join(LETTERS[k] for k in (h @ own["v"].T).argmax(-1))
        print(f'{name}: loss {losses[name][-1]:.4f} after 100 updates, "{WORD[:-1]}" -> "{said}"')

    table(("gradients", "distance from by hand"), list(found.items()))

    def draw(left: Any, right: Any) -> None:
        left.loglog(list(errors), list(errors.values()), "o-")
        left.set(xlabel="e of central differences", ylabel="relative error of the gradient")
        for (name, values), style in zip(losses.items(), ("-", "--"), strict=True):
            right.semilogy(values, style, label=name)
        right.set(xlabel="updates", ylabel="loss")
        right.legend()

    picture(o.out / "unrolled.png", draw)
    return found


if __name__ == "__main__":
    main()
