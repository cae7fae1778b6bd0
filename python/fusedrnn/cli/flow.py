"""``python -m fusedrnn flow``: how gradients vanish and explode on their way back through time.

A gradient of norm 1 enters at the last step alone, and its norm is followed back to the first: in
plain RNNs whose recurrent matrix has a spectral radius below, at and above 1, in a GRU and in
LSTMs. Beside each plain RNN stands the bound that the largest singular value gives (Pascanu,
Mikolov and Bengio 2013): as no activation used here is steeper than 1, a step multiplies the norm
by at most sigma_max(W_hh).
"""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

import fusedrnn
from fusedrnn.cli import files, output
from fusedrnn.cli import settings as s
from fusedrnn.cli.errors import CommandError
from fusedrnn.cli.parser import Parser, add_settings, path_of, values_of
from fusedrnn.cli.settings import Setting

Norms = npt.NDArray[np.float64]

RADII = (0.5, 1.0, 1.5)
NONLINEARITIES: tuple[Literal["tanh", "relu", "identity"], ...] = ("tanh", "relu", "identity")
INPUT_SIZE = 16
SETTINGS = (
    Setting("steps", 200, s.SIZE, "time steps", "measuring"),
    Setting("hidden", 64, s.SIZE, "hidden units", "measuring"),
    Setting("batch", 8, s.SIZE, "sequences", "measuring"),
    Setting("seed", 0, s.COUNT, "of inputs and weights", "measuring"),
)
COLUMNS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # of the table: steps back


@dataclass(frozen=True)
class Flow:
    """What is left of a gradient ``k`` steps back: the norm of that of h, of c, and a bound."""

    name: str
    h: Norms  # [T]; that of the last step is 1
    c: Norms | None = None  # of an LSTM, over the same number
    bound: Norms | None = None


def measure(steps: int, hidden: int, batch: int, seed: int) -> list[Flow]:
    """Return the flow through each cell, for one random input."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((steps, batch, INPUT_SIZE))
    last = rng.standard_normal((batch, hidden))
    last /= np.linalg.norm(last)
    matrix = rng.standard_normal((hidden, hidden))
    matrix /= np.abs(np.linalg.eigvals(matrix)).max()
    w_ih = rng.standard_normal((hidden, INPUT_SIZE)) * (0.5 / math.sqrt(INPUT_SIZE))

    flows = []
    for nonlinearity in NONLINEARITIES:
        for radius in RADII:
            w_hh = radius * matrix
            *_, tape = fusedrnn.rnn_forward(x, w_ih, w_hh, nonlinearity=nonlinearity)
            _, norms = fusedrnn.rnn_backward(tape, None, last, return_flow=True)
            with np.errstate(under="ignore", over="ignore"):
                bound = np.linalg.norm(w_hh, 2) ** np.arange(steps, dtype=np.float64)
            flows.append(
                Flow(f"RNN {nonlinearity}, radius {radius}", norms["h"][::-1], None, bound)
            )
    cells: list[tuple[str, Any]] = [
        ("GRU", fusedrnn.GRU(INPUT_SIZE, hidden, dtype="float64", seed=seed)),
        ("LSTM", fusedrnn.LSTM(INPUT_SIZE, hidden, dtype="float64", seed=seed)),
        (
            "LSTM, forget bias 1",
            fusedrnn.LSTM(INPUT_SIZE, hidden, dtype="float64", seed=seed, forget_bias=1.0),
        ),
    ]
    for name, layer in cells:
        *_, state, tape = layer.forward(x)
        dstate = (last[None], None) if isinstance(state, tuple) else last[None]
        _, norms = layer.backward(tape, None, dstate, return_flow=True)
        c = norms["c"][0, ::-1] if "c" in norms else None
        flows.append(Flow(name, norms["h"][0, ::-1], c))
    return flows


def table(flows: Sequence[Flow]) -> str:
    """Return the norms some steps back, a line for each cell and each bound."""
    steps = len(flows[0].h)
    shown = [k for k in COLUMNS if k < steps]
    if steps - 1 not in shown:
        shown.append(steps - 1)
    lines = [f"{'gradient of h, steps back':28}" + "".join(f"{k:>10}" for k in shown)]

    def add(name: str, norms: Norms) -> None:
        lines.append(f"{name:28}" + "".join(f"{norms[k]:>10.2g}" for k in shown))

    for flow in flows:
        add(flow.name, flow.h)
        if flow.c is not None:
            add("  its c", flow.c)
        if flow.bound is not None:
            add("  at most, by sigma_max", flow.bound)
    return "\n".join(lines)


def draw(flows: Sequence[Flow], path: Path) -> bytes:
    """Return the norms as a PNG, for a path that messages name.

    Raises
    ------
    CommandError
        Where matplotlib is missing.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415  # of those who draw
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise CommandError(
            f"--save {path}: drawing needs matplotlib: pip install 'fusedrnn[plot]' (the table "
            "alone: --no-png)"
        ) from None
    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = [(f"RNN, {name}", f"RNN {name},") for name in NONLINEARITIES]
    panels.append(("gated cells", ""))
    axes = figure.subplots(2, 2, sharex=True).flat
    colours = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for axis, (title, prefix) in zip(axes, panels, strict=True):
        of_panel = [flow for flow in flows if flow.name.startswith("RNN") == bool(prefix)]
        of_panel = [flow for flow in of_panel if flow.name.startswith(prefix)]
        for colour, flow in zip(colours, of_panel, strict=False):
            label = flow.name.removeprefix(prefix).strip()
            axis.plot(_drawable(flow.h), color=colour, label=label)
            if flow.c is not None:
                axis.plot(_drawable(flow.c), color=colour, linestyle="--", label=f"{label}: c")
            if flow.bound is not None:
                axis.plot(_drawable(flow.bound), color=colour, linestyle=":", linewidth=1)
        axis.set_title(title + (" (dotted: bound by the largest singular value)" if prefix else ""))
        axis.set_yscale("log")
        axis.set_ylim(1e-20, 1e20)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
        axis.set_xlabel("steps back")
        axis.set_ylabel("norm of the gradient")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def _drawable(norms: Norms) -> Norms:
    """Zeros, which a logarithm does not know, and infinities are gaps."""
    return np.where((norms > 0) & np.isfinite(norms), norms, np.nan)


def main(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = Parser(
        "fusedrnn flow",
        description="Show how the norm of a gradient decays or grows on its way back through time, "
        "in plain RNNs, a GRU and LSTMs: as a table, and as a PNG.",
    )
    add_settings(parser, SETTINGS)
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--save", type=path_of, default=Path("flow.png"), metavar="FILE", help="(default: flow.png)"
    )
    target.add_argument("--no-png", action="store_true", help="the table alone")
    options = parser.parse_args(argv)
    return output.run("flow", lambda: _flow(options))


def _flow(options: argparse.Namespace) -> int:
    if not options.no_png:
        files.check_target(options.save, None)
        files.rehearse(f"--save {options.save}", options.save)
    flows = measure(**values_of(options, SETTINGS))
    print(table(flows))
    if not options.no_png:
        files.write(f"--save {options.save}", options.save, draw(flows, options.save))
        print(f"{options.save}: written", file=sys.stderr)
    return 0
