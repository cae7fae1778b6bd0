"""One to many: a stroke of the pen, drawn from what it should show.

    python examples/wirings/strokes.py

The strokes to learn from are generated: eight figures of any size, a little turned, drawn by a
hand that is not quite steady. The model says of each move where it probably goes, and whether it
is the last; what it draws is drawn from that. A classifier that was trained on the figures alone
judges what the model draws: of how many it sees what was asked for.

In the picture: above, strokes that were learnt from; below, strokes that the model drew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from shared import arguments, picture, table, train

from fusedrnn.models import Classifier, Sketcher, pad

# Points [n, 2] of each figure at times s from 0 to 1.
FIGURES = {
    "circle": lambda s: (np.cos(2 * np.pi * s), np.sin(2 * np.pi * s)),
    "spiral": lambda s: (s * np.cos(5 * np.pi * s), s * np.sin(5 * np.pi * s)),
    "eight": lambda s: (np.sin(4 * np.pi * s) / 1.5, np.cos(2 * np.pi * s)),
    "wave": lambda s: (2 * s - 1, np.sin(4 * np.pi * s) / 2),
    "zigzag": lambda s: (2 * s - 1, 2 * np.abs(s * 3 % 1 - 0.5) - 0.5),
    "square": lambda s: corners(s, [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]),
    "triangle": lambda s: corners(s, [(-1, -0.8), (1, -0.8), (0, 1), (-1, -0.8)]),
    "star": lambda s: corners(s, [(np.sin(0.8 * np.pi * k), np.cos(0.8 * np.pi * k))
                                  for k in range(6)]),
}  # fmt: skip


def corners(s: Any, points: Any) -> tuple[Any, Any]:
    """A path along straight lines."""
    x, y = np.transpose(points)
    at = np.linspace(0, 1, len(x))
    return np.interp(s, at, x), np.interp(s, at, y)


def stroke(label: int, rng: np.random.Generator) -> Any:
    """Moves [T, 2] of one drawing."""
    s = np.linspace(0, 1, int(rng.integers(24, 37)))
    points = np.stack(list(FIGURES.values())[label](s), axis=-1) * rng.uniform(0.7, 1.3)
    angle = rng.normal(0, 0.15)
    points = points @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moves = np.diff(points, axis=0) * 5  # of about 1
    return (moves + rng.normal(0, 0.06, moves.shape)).astype(np.float32)


def main(given: Sequence[str] | None = None) -> dict[str, float]:
    o = arguments(__doc__, given, steps=1500, batch=64, hidden=96)

    def strokes(count: int, rng: np.random.Generator) -> tuple[Any, Any, Any]:
        labels = rng.integers(0, len(FIGURES), count)
        return labels, *pad([stroke(label, rng) for label in labels])

    model = Sketcher(len(FIGURES), cell="lstm", hidden=o.hidden, seed=o.seed)
    train("strokes", model, lambda training: strokes(o.batch, training.generator), o, 1e-2)
    judge = Classifier(len(FIGURES), input_size=2, hidden=32, seed=o.seed)

    def batch(training: Any) -> tuple[Any, Any, Any]:
        labels, moves, lengths = strokes(o.batch, training.generator)
        return moves, labels, lengths

    train("strokes_judge", judge, batch, o, 1e-2)

    rng = np.random.default_rng(o.seed + 1)
    labels, moves, lengths = strokes(400, rng)
    drawn = model.generate(labels, temperature=0.5, generator=rng)
    held_out = model.loss(labels, moves, lengths)
    found = {}
    rows = []
    for name, (x, ends) in {"held out": (moves, lengths), "drawn": pad(drawn)}.items():
        hit = judge.predict(x, ends).argmax(-1) == labels
        found[name] = float(hit.mean())
        rows.append((name, *(float(hit[labels == k].mean()) for k in range(len(FIGURES))),
                     found[name]))  # fmt: skip
    table(("recognised", *FIGURES, "all"), rows)
    print(f"of strokes held out {held_out:.3f} nats a move")

    def draw(*axes: Any) -> None:
        for k, (axis, name) in enumerate(zip(axes, FIGURES, strict=True)):
            at = np.flatnonzero(labels == k)[:3]
            for row, some in (
                (0, [moves[: lengths[b], b] for b in at]),
                (1, [drawn[b] for b in at]),
            ):
                for column, line in enumerate(some):
                    x, y = np.cumsum(np.vstack([np.zeros((1, 2)), line]), axis=0).T
                    axis.plot(x - x.mean() + 16 * column, y - y.mean() - 18 * row, f"C{row}", lw=1)
            axis.set_title(name, fontsize=9)
            axis.set_aspect("equal")
            axis.set_axis_off()

    picture(o.out / "strokes.png", draw, rows=2, columns=4, size=(2.4, 1.7))
    return found | {"nats": held_out}


if __name__ == "__main__":
    main()
