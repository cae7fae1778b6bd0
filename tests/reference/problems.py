"""Random problems for every test of a cell, and the one way to compare their results."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .cells import CELLS, LAYER_NAMES

Arguments = dict[str, Any]

# Every cell with every value of its options.
VARIANTS: list[tuple[str, Arguments]] = [
    *(("rnn", {"nonlinearity": act}) for act in ("tanh", "relu", "sigmoid", "identity")),
    *(("gru", {"reset_after": after}) for after in (True, False)),
    ("lstm", {}),
]
# Those that PyTorch has not, and whose parameters are others.
NEWER_VARIANTS: list[tuple[str, Arguments]] = [
    *((cell, {"candidate": g}) for cell in ("mingru", "minlstm") for g in ("linear", "positive")),
    *(("slstm", {"forget": forget}) for forget in ("sigmoid", "exp")),
]
# Those with layer normalisation. Of one unit or two their gradients are nearly zero.
NORMED_VARIANTS: list[tuple[str, Arguments]] = [
    (cell, {}) for cell in ("lstm_layer_norm", "gru_layer_norm", "gru_world_model")
]


def ids_of(variants: list[tuple[str, Arguments]]) -> list[str]:
    return ["-".join([cell, *map(str, options.values())]) for cell, options in variants]


VARIANT_IDS, NEWER_VARIANT_IDS = ids_of(VARIANTS), ids_of(NEWER_VARIANTS)
NORMED_VARIANT_IDS = ids_of(NORMED_VARIANTS)


def random_problem(
    cell: str,
    *,
    steps: int = 5,
    batch: int = 3,
    input_size: int = 2,
    hidden_size: int = 3,
    seed: int = 0,
    bias: bool = True,
    initial: bool = True,
    lengths: bool = False,
    resets: bool = False,
) -> tuple[Arguments, Arguments]:
    """Arguments of `forward` after the cell, and the upstream gradients that `gradients` adds.

    Weights are of scale 1/sqrt(fan-in), everything else standard normal, but an n0 above 1, and of
    a normalised cell gains, around 1, and biases (it has them whether or not `bias`) of scale 1/2.
    Of the lengths one is `steps` and, from a batch of 2 on, one is 0; a third of the resets are
    true, some of them beyond the lengths.
    """
    rng = np.random.default_rng(seed)
    rows, states = CELLS[cell].gates * hidden_size, CELLS[cell].states
    weights = CELLS[cell].weights
    problem: Arguments = {
        "x": rng.standard_normal((steps, batch, input_size)),
        "w_ih": rng.standard_normal((rows, input_size)) / np.sqrt(input_size),
    }
    if "w_hh" in weights:
        problem["w_hh"] = rng.standard_normal((rows, hidden_size)) / np.sqrt(hidden_size)
    if CELLS[cell].vectors:
        problem |= {
            name: name.startswith("g") + 0.5 * rng.standard_normal(blocks * hidden_size)
            for name, blocks in CELLS[cell].vectors.items()
        }
    elif bias:
        names = ("b_ih", "b_hh") if "b_hh" in weights else ("b_ih",)
        problem |= {name: rng.standard_normal(rows) for name in names}
    if initial:
        problem |= {f"{s}0": rng.standard_normal((batch, hidden_size)) for s in states}
    if initial and "n" in states:
        problem["n0"] = 1.0 + np.abs(problem["n0"])  # what a walk leaves
    if lengths:
        drawn = rng.integers(0, steps + 1, size=batch)
        drawn[:2] = (steps, 0)[:batch]
        problem["lengths"] = rng.permutation(drawn)
    if resets:
        problem["resets"] = rng.random((steps, batch)) < 1 / 3
    upstream: Arguments = {"dy": rng.standard_normal((steps, batch, hidden_size))}
    upstream |= {f"d{s}_n": rng.standard_normal((batch, hidden_size)) for s in states}
    return problem, upstream


def random_stack(
    cell: str,
    *,
    num_layers: int = 2,
    bidirectional: bool = True,
    steps: int = 4,
    batch: int = 3,
    input_size: int = 2,
    hidden_size: int = 2,
    seed: int = 0,
    bias: bool = True,
    initial: bool = True,
    lengths: bool = False,
    resets: bool = False,
) -> tuple[Arguments, Arguments]:
    """Arguments of `stack` after the cell, and the upstream gradients of `stack_gradients`."""
    ends = ("", "_reverse") if bidirectional else ("",)
    width = len(ends) * hidden_size
    problem: Arguments = {"parameters": {}}
    upstream: Arguments = {}
    states: list[tuple[Arguments, Arguments]] = []
    for k in range(num_layers):
        for end in ends:
            one, above = random_problem(
                cell,
                steps=steps,
                batch=batch,
                input_size=width if k else input_size,
                hidden_size=hidden_size,
                seed=seed * 1000 + len(states),
                bias=bias,
                initial=initial,
                lengths=lengths,
                resets=resets,
            )
            if not states:
                problem |= {s: one[s] for s in ("x", "lengths", "resets") if s in one}
            for short, long in LAYER_NAMES.items():
                if short in one:
                    problem["parameters"][f"{long}_l{k}{end}"] = one[short]
            states.append((one, above))
    for s in CELLS[cell].states:
        if initial:
            problem[f"{s}0"] = np.stack([one[f"{s}0"] for one, _ in states])
        upstream[f"d{s}_n"] = np.stack([above[f"d{s}_n"] for _, above in states])
    rng = np.random.default_rng(seed)
    upstream["dy"] = rng.standard_normal((steps, batch, width))
    return problem, upstream


def relative_error(actual: ArrayLike, expected: ArrayLike) -> float:
    """||actual - expected|| / ||expected||, or ||actual|| where nothing is expected.

    NaN where either holds one, so that `error <= bound` is false. Raises AssertionError on a
    difference in shape: nothing broadcasts.
    """
    a, e = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert a.shape == e.shape, f"expected shape {e.shape}, got {a.shape}"
    norm = float(np.linalg.norm(e))
    return float(np.linalg.norm(a - e)) / (norm or 1.0)
