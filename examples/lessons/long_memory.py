"""Why long memory is hard: the adding and the copy problem at growing lags.

    python examples/lessons/long_memory.py

Adding (S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9, 1997): of T
random numbers two are marked, and the last output shall be their sum. Copy, in small: two symbols
of four come first, then T blank steps, then the question for each. Nothing between helps, so the
gradient has to come back over the lag, through T factors W_hh' diag(act') (gradient_flow.py).

    RNN          h = tanh(W_ih x + W_hh h' + b)
    RNN-relu     with relu, from W_hh = 1 (Q. V. Le, N. Jaitly, G. E. Hinton, "A simple way to
                 initialize recurrent networks of rectified linear units", 2015)
    GRU, LSTM    whose gates remember from the start, for times up to T: the bias of the gate that
                 keeps is log(u), u uniform in [1, T - 1] (C. Tallec, Y. Ollivier, "Can recurrent
                 neural networks warp time?", ICLR 2018)

In the picture, by lag: the share of the sum's variance that is explained, and of symbols that are
right (by chance 0 and 1/4); "nan" is a loss that exploded. Tanh fails from some tens of steps on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from common import Model, arguments, picture, table

import fusedrnn as fr
from fusedrnn import nn

SYMBOLS, COPIED, BATCH, HIDDEN = 4, 2, 32, 32
RATES = {"RNN": 3e-3, "RNN-relu": 1e-3, "GRU": 1e-2, "LSTM": 1e-2}


def adding(lag: int, rng: np.random.Generator, batch: int = BATCH) -> tuple[Any, Any]:
    """Numbers and marks [T, B, 2], one mark in each half, and sums [1, B, 1]."""
    x = np.zeros((lag, batch, 2), np.float32)
    x[..., 0] = rng.random((lag, batch))
    of_batch = np.arange(batch)
    first, second = rng.integers(0, lag // 2, batch), rng.integers(lag // 2, lag, batch)
    x[first, of_batch, 1] = x[second, of_batch, 1] = 1
    return x, (x[first, of_batch, 0] + x[second, of_batch, 0])[None, :, None]


def copying(lag: int, rng: np.random.Generator, batch: int = BATCH) -> tuple[Any, Any]:
    """Symbols, blanks, questions [T, B, 4 + 2], and the symbols [2, B]."""
    symbols = rng.integers(0, SYMBOLS, (COPIED, batch))
    x = np.zeros((lag + 2 * COPIED, batch, SYMBOLS + COPIED), np.float32)
    x[:COPIED, :, :SYMBOLS] = np.eye(SYMBOLS)[symbols]
    x[:COPIED, :, SYMBOLS:] = x[-COPIED:, :, SYMBOLS:] = np.eye(COPIED)[:, None]
    return x, symbols


def layer(cell: str, inputs: int, lag: int, seed: int) -> Any:
    if cell == "RNN":
        return fr.RNN(inputs, HIDDEN, seed=seed)
    if cell == "RNN-relu":
        made = fr.RNN(inputs, HIDDEN, nonlinearity="relu", bias=False, seed=seed)
        made.parameters()["weight_hh_l0"][...] = np.eye(HIDDEN)
        return made
    made = {"GRU": fr.GRU, "LSTM": fr.LSTM}[cell](inputs, HIDDEN, seed=seed)
    kept = np.log(np.random.default_rng(seed).uniform(1, lag - 1, HIDDEN))
    w = made.parameters()
    w["bias_ih_l0"][HIDDEN : 2 * HIDDEN] = kept  # z of a GRU, f of an LSTM
    w["bias_hh_l0"][HIDDEN : 2 * HIDDEN] = 0
    if cell == "LSTM":
        w["bias_ih_l0"][:HIDDEN] = -kept  # i: what is kept long is written seldom
    return made


def success(problem: str, cell: str, lag: int, updates: int, seed: int) -> float:
    """Train one cell on one problem; of fresh sequences, how well it does."""
    data: Callable[..., Any] = adding if problem == "adding" else copying
    loss = nn.mse_grad if problem == "adding" else nn.cross_entropy_grad
    rng = np.random.default_rng(seed)
    made = layer(cell, 2 if problem == "adding" else SYMBOLS + COPIED, lag, seed)
    outputs, last = (1, 1) if problem == "adding" else (SYMBOLS, COPIED)
    model = Model(made, outputs, RATES[cell], last=last)
    recent = 1.0
    for _ in range(updates):
        x, target = data(lag, rng)
        value, _ = model.update(x, lambda z, target=target: loss(z, target))
        recent += 0.05 * (value - recent)
        if not value < 1e8:
            return float("nan")  # exploded
        if recent < 0.005:
            break
    x, target = data(lag, rng, 512)
    if problem == "adding":
        return 1 - nn.mse(model(x), target) / float(np.var(target))
    return float(np.mean(model(x).argmax(-1) == target))


def main(given: Sequence[str] | None = None) -> dict[tuple[str, str, int], float]:
    o = arguments(__doc__, given)
    lags, updates = ([10, 30], 600) if o.small else ([10, 30, 100, 200, 500], 800)
    cells, problems, found = ("RNN", "RNN-relu", "GRU", "LSTM"), ("adding", "copy"), {}
    for problem in problems:
        for cell in cells:
            for lag in lags:
                found[problem, cell, lag] = success(problem, cell, lag, updates, o.seed)
        rows = [(cell, *(found[problem, cell, lag] for lag in lags)) for cell in cells]
        table((f"{problem}, lag", *map(str, lags)), rows)

    def draw(*axes: Any) -> None:
        for axis, problem in zip(axes, problems, strict=True):
            for cell in cells:
                axis.plot(lags, [found[problem, cell, lag] for lag in lags], "o-", label=cell)
            axis.set(xscale="log", xlabel="lag", title=problem, ylim=(-0.1, 1.05))
        axes[0].set_ylabel("variance explained")
        axes[1].set_ylabel("symbols right")
        axes[0].legend()

    picture(o.out / "long_memory.png", draw)
    return found


if __name__ == "__main__":
    main()
