"""Plots of a run, where matplotlib is installed: bars against the peers, and rooflines.

Files are the same for the same run, so that they can be committed.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from .limits import WEIGHT_BYTES, Ceilings, intensity
from .peers import OURS, library
from .peers.base import require
from .records import Run
from .scenarios import CLASSES, KINDS
from .summary import Table, ceilings, tables

# One colour for each library whichever way it runs, and ours; safe for the colour-blind.
COLOURS = {
    OURS: "#000000",
    "pytorch": "#d55e00",
    "onnxruntime": "#0072b2",
    "openvino": "#009e73",
    "jax": "#cc79a7",
    "numpy": "#999999",
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fusedrnn",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(run: Run, folder: Path, stem: str) -> list[Path]:
    """Write the plots as SVG and return their paths; UnavailableError without matplotlib."""
    require("matplotlib").use("Agg")
    pyplot = require("matplotlib.pyplot")
    groups = tables(run.rows)
    limits = ceilings(run)
    figures = {}
    with pyplot.rc_context(STYLE):
        for (name, found), kind in itertools.product(CLASSES.items(), KINDS):
            chosen = [
                t
                for t in groups
                if (t.scenario, t.dtype) == found.case and t.kind == kind and t.best_ratios()
            ]
            if chosen:
                full = f"{name}-{kind}" if kind else name
                figures[full] = _bars(pyplot, full, chosen)
        for dtype in WEIGHT_BYTES:
            chosen = [
                t
                for t in groups
                if t.dtype == dtype and t.threads in limits and t.scenario != "memory"
            ]
            if chosen:
                figures[f"roofline-{dtype}"] = _rooflines(pyplot, dtype, chosen, limits)
        paths = []
        for name, figure in figures.items():
            path = folder / f"{stem}-{name}.svg"
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
            pyplot.close(figure)
            paths.append(path)
    return paths


def _bars(pyplot: Any, name: str, groups: list[Table]) -> Any:
    """A bar for the best peer of each shape, a dot for each other one; one panel a table."""
    shapes = list(dict.fromkeys(shape for table in groups for shape in table.best_ratios()))
    figure, axes = pyplot.subplots(
        1,
        len(groups),
        sharey=True,
        squeeze=False,
        layout="constrained",
        figsize=(4.2 * len(groups) + 1, 0.17 * len(shapes) + 1.6),
    )
    places = {shape: place for place, shape in enumerate(shapes)}
    for axis, table in zip(axes[0], groups, strict=True):
        for shape, ratio in table.best_ratios().items():
            best = table.best(shape)
            assert best is not None
            axis.barh(places[shape], ratio, color=_colour(best.peer), height=0.7, alpha=0.75)
        for peer in table.others:
            ratios = table.ratios(peer)
            axis.plot(
                list(ratios.values()),
                [places[shape] for shape in ratios],
                linestyle="none",
                marker=".",
                markersize=3,
                color=_colour(peer),
            )
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_yticks(range(len(shapes)), [shape.label for shape in shapes])
        axis.set_title(table.title)
        what = "memory" if table.scenario == "memory" else "time"
        axis.set_xlabel(f"{what} over fusedrnn's")
    axes[0][0].invert_yaxis()
    figure.suptitle(f"{name}: bar: best peer, dots: the others; beyond 1 fusedrnn needs less")
    _legend(pyplot, figure, {library(peer) for table in groups for peer in table.others})
    return figure


def _rooflines(pyplot: Any, dtype: str, groups: list[Table], limits: dict[int, Ceilings]) -> Any:
    """GFLOP/s over operations for each byte of weights read; one panel a number of threads."""
    counts = sorted({table.threads for table in groups})
    figure, axes = pyplot.subplots(
        1,
        len(counts),
        sharey=True,
        squeeze=False,
        layout="constrained",
        figsize=(4.2 * len(counts) + 1, 4),
    )
    markers = {"inference": "o", "training": "^", "step": "s"}
    for axis, threads in zip(axes[0], counts, strict=True):
        xs = [0.25, 1024.0]
        for level, rate in limits[threads].gbs.items():
            axis.plot(xs, [rate * x for x in xs], color="#bbbbbb", linewidth=0.8)
            axis.annotate(level, (xs[0], rate * xs[0]), fontsize=6, va="bottom")
        peak = limits[threads].gflops[dtype]
        axis.axhline(peak, color="#bbbbbb", linewidth=0.8)
        for table in (t for t in groups if t.threads == threads):
            for shape in table.shapes:
                x = intensity(table.scenario, shape, WEIGHT_BYTES[dtype])
                for row in (table.ours(shape), table.best(shape)):
                    if row is not None and row.gflops is not None:
                        axis.plot(
                            x,
                            row.gflops,
                            markers[table.scenario],
                            color=_colour(row.peer),
                            markersize=3,
                            alpha=0.8,
                        )
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_ylim(top=peak * 1.5, bottom=peak / 1000)
        axis.set_title(f"{dtype}, {threads} thread{'s' if threads > 1 else ''}")
        axis.set_xlabel("operations for each byte of weights read")
    axes[0][0].set_ylabel("GFLOP/s (circle inference, triangle training, square step)")
    figure.suptitle("Roofline: fusedrnn and the fastest peer of each case")
    names = {library(t.best(s).peer) for t in groups for s in t.shapes if t.best(s)}  # type: ignore[union-attr]
    _legend(pyplot, figure, {OURS, *names})
    return figure


def _colour(peer: str) -> str:
    return COLOURS.get(library(peer), "#f0e442")


def _legend(pyplot: Any, figure: Any, names: set[str]) -> None:
    ordered = [name for name in COLOURS if name in names] + sorted(names - COLOURS.keys())
    patches = [pyplot.Rectangle((0, 0), 1, 1, color=_colour(name)) for name in ordered]
    figure.legend(patches, ordered, loc="outside lower center", ncol=6)
