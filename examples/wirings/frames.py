"""Many to many in step: the sound that is spoken in each frame of a recording.

    python examples/wirings/frames.py

The recordings are generated from a stated model. Sounds follow one another by a table of chances,
each lasts 3 to 9 frames, and has eight numbers a frame of its own; but as in speech each one is
spoken on the way from the one before to the next, and there is noise. What comes next helps to
tell what is spoken now, so a stack of layers in both directions knows more than one forward.

In the picture: what is spoken, and what the stack in both directions says of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from shared import arguments, picture, regression, table, train

from fusedrnn.models import Tagger

SOUNDS, FEATURES, STEPS = 10, 8, 80


class Speech:
    """The model that recordings are drawn from."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.means = rng.normal(0, 1, (SOUNDS, FEATURES))
        self.follows = rng.dirichlet(np.full(SOUNDS, 0.4), SOUNDS)  # some hardly ever follow

    def recordings(self, count: int, rng: np.random.Generator) -> tuple[Any, Any]:
        """Frames [T, B, 8] and the sound of each [T, B]."""
        some = [self._one(rng) for _ in range(count)]
        x = np.stack([x for x, _ in some], axis=1).astype(np.float32)
        return x, np.stack([labels for _, labels in some], axis=1)

    def _one(self, rng: np.random.Generator) -> tuple[Any, Any]:
        sounds, sound = [], int(rng.integers(SOUNDS))
        while len(sounds) < STEPS:
            sounds += [sound] * int(rng.integers(3, 10))
            sound = int(rng.choice(SOUNDS, p=self.follows[sound]))
        labels = np.array(sounds[:STEPS])
        path = self.means[labels]
        wide = np.pad(path, ((3, 3), (0, 0)), mode="edge")
        smooth = sum(wide[k : k + STEPS] for k in range(7)) / 7  # on the way from sound to sound
        return smooth + rng.normal(0, 0.8, path.shape), labels


def main(given: Sequence[str] | None = None) -> dict[str, float]:
    o = arguments(__doc__, given, steps=300, batch=32, hidden=32)
    speech = Speech()
    x, labels = speech.recordings(200, np.random.default_rng(o.seed + 1))

    def trained(name: str, hidden: int, both: bool, o: argparse.Namespace) -> Tagger:
        model = Tagger(
            SOUNDS, input_size=FEATURES, hidden=hidden, layers=2, bidirectional=both, seed=o.seed
        )
        batch = lambda training: speech.recordings(o.batch, training.generator)  # noqa: E731
        return train(name, model, batch, o, 1e-2)

    both = trained("frames", o.hidden, True, o)
    forward = trained("frames_forward", o.hidden * 3 // 2, False, o)  # about as many weights
    seen, their_labels = speech.recordings(100, np.random.default_rng(o.seed + 2))
    alone = regression(seen.reshape(-1, FEATURES), their_labels.reshape(-1), SOUNDS)
    said = {
        "each frame alone": alone(x),
        "2 layers forward": forward.predict(x).argmax(-1),
        "2 layers in both directions": both.predict(x).argmax(-1),
    }
    right = {name: float((values == labels).mean()) for name, values in said.items()}
    table(("held out", "right frames"), list(right.items()))

    def draw(spoken: Any, heard: Any) -> None:
        spoken.imshow(np.eye(SOUNDS)[labels[:, 0]].T, aspect="auto", cmap="magma")
        spoken.set(title="spoken", xlabel="frame", ylabel="sound")
        heard.imshow(both.predict(x[:, :1])[:, 0].T, aspect="auto", cmap="magma")
        heard.set(title="probabilities", xlabel="frame")

    picture(o.out / "frames.png", draw)
    return right


if __name__ == "__main__":
    main()
