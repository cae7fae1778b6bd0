"""Many to one: the action in a sequence of video frames.

    python examples/wirings/video.py

The frames are generated, 12 by 12 pixels in noise: a blob that begins anywhere goes left, right,
up or down, grows, shrinks or turns around a centre in either sense. A frame alone does not tell,
and neither does the mean of all: that of "left" is that of "right". An LSTM reads the pixels as
they are, frame by frame.

In the picture: four actions, every other frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from shared import arguments, picture, regression, table, train

from fusedrnn.models import Classifier

SIDE, FRAMES = 12, 12
ACTIONS = ("left", "right", "up", "down", "grows", "shrinks", "clockwise", "anticlockwise")


def videos(count: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Frames [T, B, 144] and actions [B]."""
    labels = rng.integers(0, len(ACTIONS), count)
    t = np.linspace(-1, 1, FRAMES)[:, None]
    speed = rng.uniform(2, 4, count)
    move = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)] + [(0, 0)] * 4)[labels] * speed[:, None]
    turn = np.select([labels == 6, labels == 7], [1.0, -1.0])
    angle = rng.uniform(0, 2 * np.pi, count) + turn * t * rng.uniform(1.5, 2.5, count)
    radius = np.where(turn == 0, 0, rng.uniform(2, 3, count))
    start = rng.uniform(-2, 2, (2, count)) + (SIDE - 1) / 2
    x = start[0] + move[:, 0] * t + radius * np.cos(angle)
    y = start[1] + move[:, 1] * t + radius * np.sin(angle)
    size = rng.uniform(1.2, 2, count) * np.exp(
        0.5 * np.select([labels == 4, labels == 5], [1.0, -1.0]) * t
    )
    row, column = np.mgrid[:SIDE, :SIDE]
    off = (column - x[..., None, None]) ** 2 + (row - y[..., None, None]) ** 2
    frames = np.exp(-off / (2 * size[..., None, None] ** 2)) + rng.normal(0, 0.2, off.shape)
    return frames.reshape(FRAMES, count, -1).astype(np.float32), labels


def main(given: Sequence[str] | None = None) -> dict[str, float]:
    o = arguments(__doc__, given, steps=600, batch=64, hidden=64)
    rng = np.random.default_rng(o.seed)
    x, labels = videos(1000, rng)
    model = Classifier(
        len(ACTIONS), input_size=SIDE * SIDE, cell="lstm", hidden=o.hidden, bidirectional=False,
        seed=o.seed,
    )  # fmt: skip
    train("video", model, lambda training: videos(o.batch, training.generator), o, 5e-3)
    seen, their_labels = videos(4000, rng)
    of_means = regression(seen.mean(0), their_labels, len(ACTIONS))
    hit = {
        "mean frame": of_means(x.mean(0)) == labels,
        "recurrent": model.predict(x).argmax(-1) == labels,
    }
    table(("accuracy, held out", *ACTIONS, "all"),
          [(name, *(float(h[labels == k].mean()) for k in range(len(ACTIONS))), float(h.mean()))
           for name, h in hit.items()])  # fmt: skip

    def draw(*axes: Any) -> None:
        for axis, k in zip(axes, (0, 3, 4, 6), strict=True):
            frames = x[::2, int(np.argmax(labels == k))].reshape(-1, SIDE, SIDE)
            axis.imshow(np.hstack(np.pad(frames, ((0, 0), (1, 1), (1, 1)), constant_values=1)),
                        cmap="gray")  # fmt: skip
            axis.set_title(ACTIONS[k], fontsize=9)
            axis.set_axis_off()

    picture(o.out / "video.png", draw, rows=2, size=(4.5, 1.1))
    return {name: float(h.mean()) for name, h in hit.items()}


if __name__ == "__main__":
    main()
