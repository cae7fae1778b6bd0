"""Plots of a run on a GPU, where matplotlib is installed; the same for the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..peers.base import require
from ..plots import STYLE
from .peers import COMPARED
from .records import Run
from .scenarios import SCENARIOS
from .summary import Section, ratio, sections

# Safe for the colour-blind.
MARKERS = {
    "pytorch": ("o", "#d55e00"),
    "pytorch-graph": ("s", "#e69f00"),
    "cudnn": ("D", "#0072b2"),
}


def draw(run: Run, folder: Path, stem: str) -> list[Path]:
    """Write a figure a scenario as SVG; UnavailableError without matplotlib."""
    require("matplotlib").use("Agg")
    pyplot = require("matplotlib.pyplot")
    paths = []
    with pyplot.rc_context(STYLE):
        for scenario in SCENARIOS:
            panels = [
                found
                for found in sections(run.cases)
                if found.scenario == scenario
                and any(ratio(run, case, peer) for case in found.cases for peer in COMPARED)
            ]
            if not panels:
                continue
            figure = _figure(pyplot, run, scenario, panels)
            path = folder / f"{stem}-{scenario}.svg"
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
            pyplot.close(figure)
            paths.append(path)
    return paths


def _figure(pyplot: Any, run: Run, scenario: str, panels: list[Section]) -> Any:
    """Each case a line, each peer a mark at its time over ours; one panel a precision."""
    shapes = list(dict.fromkeys(case.shape for found in panels for case in found.cases))
    places = {shape: place for place, shape in enumerate(shapes)}
    figure, axes = pyplot.subplots(
        1,
        len(panels),
        sharey=True,
        squeeze=False,
        layout="constrained",
        figsize=(3 * len(panels) + 1.5, 0.17 * len(shapes) + 1.6),
    )
    for axis, found in zip(axes[0], panels, strict=True):
        for peer, (marker, colour) in MARKERS.items():
            ratios = [(ratio(run, case, peer), places[case.shape]) for case in found.cases]
            points = [(value, place) for value, place in ratios if value is not None]
            axis.plot(
                [value for value, _ in points],
                [place for _, place in points],
                linestyle="none",
                marker=marker,
                markersize=4,
                color=colour,
                label=peer,
            )
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_yticks(range(len(shapes)), [shape.label for shape in shapes])
        axis.set_title(found.title, fontsize=7)
        axis.set_xlabel("time over fusedrnn's")
    axes[0][0].invert_yaxis()
    figure.suptitle(f"{scenario}: beyond 1 fusedrnn is faster")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=len(MARKERS))
    return figure
