"""The bias of the forget gate.

    python examples/lessons/forget_bias.py

What an LSTM's cell keeps over k steps is a product of forget gates, and so is the gradient that
comes back along it:

    c_t = f_t c_(t-1) + i_t g_t        dc_(t-k) = f_t f_(t-1) ... f_(t-k+1) dc_t + ...

At the start f is about s(b), with b its bias. b = 0 halves the cell at every step: half a symbol
is left after one, 1e-12 of it after 40. b = 1 leaves 0.73 a step, b = 3 leaves 0.95, b = 5 leaves
0.993. So a bias of 1 or more was advised from the gate's beginning (F. Gers, J. Schmidhuber, F.
Cummins, "Learning to forget", Neural Computation 12, 2000), and is the one setting that mattered
in a search through ten thousand architectures (R. Jozefowicz, W. Zaremba, I. Sutskever, "An
empirical exploration of recurrent network architectures", ICML 2015).

The task: a symbol of eight, then noise, and at the end the question which it was.

In the picture, left: the gradient of c on its way back through untrained cells. Right: the loss,
the middle of the seeds. The later the gradient reaches the first step, the later learning begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import Model, arguments, picture, table

import fusedrnn as fr
from fusedrnn import nn

SYMBOLS, BATCH, HIDDEN, DONE = 8, 32, 32, 0.1


def recall(lag: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """The first symbol of [T, B, 8 + 1], noise in the last channel, and which it was [1, B]."""
    x = np.zeros((lag + 1, BATCH, SYMBOLS + 1), np.float32)
    symbols = rng.integers(0, SYMBOLS, BATCH)
    x[0, :, :SYMBOLS] = np.eye(SYMBOLS)[symbols]
    x[1:, :, SYMBOLS] = 0.5 * rng.standard_normal((lag, BATCH))
    return x, symbols[None]


def gradient_back(bias: float, lag: int, seed: int) -> Any:
    """What is left of a gradient of c, by the steps that it came back through."""
    lstm = fr.LSTM(SYMBOLS + 1, HIDDEN, forget_bias=bias, seed=seed)
    x, _ = recall(lag, np.random.default_rng(seed))
    _, (_, c), tape = lstm.forward(x)
    _, norms = lstm.backward(tape, dstate=(None, np.ones_like(c)), return_flow=True)
    return norms["c"][0, ::-1] / norms["c"][0, -1]


def learn(bias: float, lag: int, updates: int, seed: int) -> Any:
    """The loss at each update."""
    rng = np.random.default_rng(seed)
    lstm = fr.LSTM(SYMBOLS + 1, HIDDEN, forget_bias=bias, seed=seed)
    model = Model(lstm, SYMBOLS, 5e-3, last=1)
    losses = []
    for _ in range(updates):
        x, target = recall(lag, rng)
        losses.append(model.update(x, lambda z, target=target: nn.cross_entropy_grad(z, target))[0])
    return np.array(losses)


def main(given: Sequence[str] | None = None) -> dict[float, float]:
    o = arguments(__doc__, given)
    lag, updates, seeds = (30, 250, 1) if o.small else (40, 400, 5)
    biases = (0.0, 3.0) if o.small else (0.0, 1.0, 2.0, 3.0, 5.0)
    flows, losses, rows, found = {}, {}, [], {}
    for bias in biases:
        flows[bias] = gradient_back(bias, lag, o.seed)
        runs = np.array([learn(bias, lag, updates, o.seed + k) for k in range(seeds)])
        losses[bias] = np.median(runs, axis=0)
        solved = [int(np.argmax(run < DONE)) if (run < DONE).any() else updates for run in runs]
        found[bias] = float(np.median(solved))
        of_seeds = ", ".join(str(n) if n < updates else "never" for n in sorted(solved))
        rows.append((bias, 1 / (1 + np.exp(-bias)), flows[bias][-1], of_seeds))
    head = ("bias", "s(bias)", f"gradient of c left after {lag}")
    table((*head, f"updates until the loss is {DONE}, by seed"), rows)

    def draw(left: Any, right: Any) -> None:
        for bias in biases:
            left.semilogy(flows[bias], label=f"bias {bias:g}")
            right.plot(losses[bias], label=f"bias {bias:g}")
        left.set(xlabel="steps back", ylabel="norm of the gradient of c")
        right.axhline(np.log(SYMBOLS), color="grey", linestyle=":", linewidth=1)
        right.set(xlabel="updates", ylabel="loss (dotted: by chance)")
        left.legend()

    picture(o.out / "forget_bias.png", draw)
    return found


if __name__ == "__main__":
    main()
