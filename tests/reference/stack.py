"""Stacked and bidirectional layers under PyTorch's parameter names, by the functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .cells import CELLS, LAYER_NAMES
from .rounding import Array
from .sequence import forward, gradients

Parameters = Mapping[str, ArrayLike]


def stack(cell: str, x: ArrayLike, parameters: Parameters, **arguments: Any) -> dict[str, Array]:
    """Outputs y [T,B,D*H], h_n [L*D,B,H] (and c_n); takes what `oracle.stack` takes."""
    y = np.asarray(x, dtype=np.float64)
    runs: list[dict[str, Array]] = []
    for suffixes in _layers(parameters):
        calls = _calls(cell, y, parameters, arguments, suffixes=suffixes, row=len(runs))
        layer = [forward(cell, **call) for call in calls]
        runs += layer
        y = np.concatenate([out["y"] for out in layer], axis=-1)
    finals = [f"{letter}_n" for letter in CELLS[cell].states]
    cells = {
        name: np.concatenate([out[name] for out in layer], axis=-1)
        for name in {"c"} & layer[0].keys()
    }
    return {"y": y, **cells, **{name: np.stack([out[name] for out in runs]) for name in finals}}


def stack_gradients(
    cell: str,
    x: ArrayLike,
    parameters: Parameters,
    *,
    dy: ArrayLike | None = None,
    dh_n: ArrayLike | None = None,
    dc_n: ArrayLike | None = None,
    dc: ArrayLike | None = None,
    **arguments: Any,
) -> dict[str, Array]:
    """Gradients under the parameters' own names, "x", "h0" (and "c0")."""
    y, layers, row = np.asarray(x, dtype=np.float64), [], 0
    for suffixes in _layers(parameters):
        calls = _calls(cell, y, parameters, arguments, suffixes=suffixes, row=row)
        layers.append((suffixes, calls, row))
        row += len(suffixes)
        y = np.concatenate([forward(cell, **call)["y"] for call in calls], axis=-1)

    grads: dict[str, Array] = {}
    letters = CELLS[cell].states
    given = [f"reset_{s}" for s in letters if arguments.get(f"reset_{s}") is not None]
    rows: dict[str, list[Array]] = {name: [] for name in (*(f"{s}0" for s in letters), *given)}
    below = np.zeros_like(y) if dy is None else np.asarray(dy, dtype=np.float64)
    for suffixes, calls, first in reversed(layers):
        parts = np.split(below, len(suffixes), axis=-1)
        cells = (
            [None] * len(suffixes) if dc is None else np.split(np.asarray(dc), len(suffixes), -1)
        )
        dc = None  # of the last layer alone
        below = np.zeros_like(calls[0]["x"])
        layer_rows = {name: list[Array]() for name in rows}
        for d, (suffix, call, part) in enumerate(zip(suffixes, calls, parts, strict=True)):
            upstream: dict[str, Any] = {
                "dy": part,
                "dh_n": _row(dh_n, first + d),
                "dc_n": _row(dc_n, first + d),
                "dc": cells[d],
            }
            grad = gradients(cell, **call, **upstream)
            below = below + grad["dx"]
            for name, taken in layer_rows.items():
                taken.append(grad[f"d{name}"])
            for short, long in LAYER_NAMES.items():
                if long + suffix in parameters:
                    grads[long + suffix] = grad[f"d{short}"]
        rows = {name: layer_rows[name] + above for name, above in rows.items()}
    return {"x": below, **{name: np.stack(value) for name, value in rows.items()}, **grads}


def _layers(parameters: Parameters) -> list[list[str]]:
    """The suffixes of every layer's directions, in order."""
    layers: list[list[str]] = []
    while (forth := f"_l{len(layers)}") and f"weight_ih{forth}" in parameters:
        back = f"{forth}_reverse"
        layers.append([forth, back] if f"weight_ih{back}" in parameters else [forth])
    return layers


def _calls(
    cell: str,
    x: Array,
    parameters: Parameters,
    arguments: Mapping[str, Any],
    *,
    suffixes: list[str],
    row: int,
) -> list[dict[str, Any]]:
    """The arguments of each direction's run; `row` is the first one's place in h0."""
    of_runs = ("h0", "c0", "reset_h", "reset_c")
    shared = {name: value for name, value in arguments.items() if name not in of_runs}
    return [
        {
            "x": x,
            "reverse": suffix.endswith("_reverse"),
            **{
                s: parameters[n + suffix]
                for s, n in LAYER_NAMES.items()
                if n + suffix in parameters
            },
            **{name: _row(arguments.get(name), row + d) for name in of_runs},
            **shared,
        }
        for d, suffix in enumerate(suffixes)
    ]


def _row(states: ArrayLike | None, row: int) -> Array | None:
    return None if states is None else np.asarray(states, dtype=np.float64)[row]
