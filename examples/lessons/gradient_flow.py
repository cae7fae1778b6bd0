"""Gradients over time, beside the singular values of W_hh.

    python examples/lessons/gradient_flow.py

A gradient that enters at the last step goes back through one Jacobian a step,

    dh_(t-1) = J_t' dh_t        J_t = diag(1 - h_t^2) W_hh

As no slope of tanh is above 1, a step multiplies its norm by at most the largest singular value of
W_hh (R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
ICML 2013, section 2.1): below 1 it must vanish, above 1 it may explode. May: the direction of the
largest singular value is not where the matrix sends it next. Over many steps the rate is rather
that of the largest eigenvalue, about half as much in a random matrix. In an orthogonal one all of
them are 1, and the norm is lost only to the slopes of tanh. A gate of an LSTM makes a way around
W_hh, dc_(t-1) = f dc_t, and f may be near 1 without any matrix to balance.

In the picture, left: the norm k steps back, measured by `return_flow=True`; dotted, the bound by
the largest singular value. Right: all the singular values. The bound is sharp where they are
equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import arguments, picture, table

import fusedrnn as fr


def matrices(hidden: int, rng: np.random.Generator) -> dict[str, Any]:
    """Random and orthogonal recurrent weights, scaled to a largest singular value."""
    gaussian = rng.standard_normal((hidden, hidden))
    gaussian /= np.linalg.norm(gaussian, 2)
    orthogonal = np.linalg.qr(rng.standard_normal((hidden, hidden)))[0]
    random = {f"random, largest {s}": s * gaussian for s in (0.9, 1.5, 2.5)}
    return random | {f"orthogonal, all {s}": s * orthogonal for s in (0.9, 1.0, 1.1)}


def main(given: Sequence[str] | None = None) -> dict[str, tuple[float, float]]:
    o = arguments(__doc__, given)
    steps, hidden = (40, 16) if o.small else (100, 64)
    rng = np.random.default_rng(o.seed)
    x = 0.1 * rng.standard_normal((steps, 1, 8))
    last = rng.standard_normal((1, hidden))
    last /= np.linalg.norm(last)

    flows, bounds, values = {}, {}, {}
    rows, rates = [], {}
    w_ih = 0.1 * rng.standard_normal((hidden, 8))
    for name, w_hh in matrices(hidden, rng).items():
        _, _, tape = fr.rnn_forward(x, w_ih, w_hh)
        _, norms = fr.rnn_backward(tape, dh_n=last, return_flow=True)
        flows[name] = norms["h"][::-1]  # from the last step back
        values[name] = np.linalg.svd(w_hh, compute_uv=False)
        bounds[name] = values[name][0] ** np.arange(steps)
        rate = float(flows[name][-1] ** (1 / (steps - 1)))
        rates[name] = rate, float(values[name][0])
        radius = float(np.abs(np.linalg.eigvals(w_hh)).max())
        rows.append((name, float(values[name][-1]), rates[name][1], radius, rate, flows[name][-1]))
    lstm = fr.LSTM(8, hidden, dtype="float64", seed=o.seed, forget_bias=3.0)
    _, _, tape = lstm.forward(x)
    _, norms = lstm.backward(tape, dstate=(None, last[None]), return_flow=True)
    name = "c of an LSTM, forget bias 3"
    flows[name] = norms["c"][0, ::-1]
    rates[name] = float(flows[name][-1] ** (1 / (steps - 1))), 1.0
    rows.append((name, "", "", "", rates[name][0], flows[name][-1]))
    head = ("W_hh", "smallest s.v.", "largest s.v.", "largest eigenv.", "rate a step")
    table((*head, f"left of 1 after {steps - 1}"), rows)

    def draw(left: Any, right: Any) -> None:
        for number, (name, flow) in enumerate(flows.items()):
            left.semilogy(flow, color=f"C{number}", label=name)
            if name in bounds:
                left.semilogy(bounds[name], ":", color=f"C{number}", linewidth=1)
                right.plot(np.arange(1, hidden + 1), values[name], color=f"C{number}")
        left.set(xlabel="steps back", ylabel="norm of the gradient", ylim=(1e-15, 1e15))
        left.legend(fontsize=6)
        right.axhline(1, color="grey", linewidth=0.5)
        right.set(xlabel="number", ylabel="singular values of W_hh")

    picture(o.out / "gradient_flow.png", draw)
    return rates


if __name__ == "__main__":
    main()
