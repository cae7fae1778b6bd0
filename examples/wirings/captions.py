"""One to many: a caption in words, from a vector that describes a scene.

    python examples/wirings/captions.py

A scene is one to three things of one kind somewhere in a square. Its vector, of 12 numbers, is
what an image network might say of it: shares of shape, colour and number, all with noise, and
the place. The captions to learn from choose their words freely ("two red circles at the top
left", "at the right there is a blue square"). Of what the model writes every word is held against
the scene. Some combinations of number, colour and shape are held out: the model has never seen
two green circles, but two circles, two green things, and green circles.

In the picture: which word for the place the model chooses, by the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from shared import arguments, picture, table, train

from fusedrnn.models import Captioner, Symbols, pad

SHAPES = ("circle", "square", "star", "triangle")
COLOURS = ("red", "green", "blue")
COUNTS = ("a", "two", "three")
PLACES = ("top", "bottom", "left", "right", "middle")
GRID = [float(v) for v in np.linspace(-1, 1, 30)]
# Scenes of these are not trained on, though every two of the words are seen together.
NEVER = {("two", "green", "circle"), ("a", "blue", "star"), ("three", "red", "square")}


class Scene(NamedTuple):
    """A scene; the place is -1 to 1 from left to right and from bottom to top."""

    shape: int
    colour: int
    count: int
    x: float
    y: float

    def place(self) -> str:
        words = ["top"] * (self.y > 0.33) + ["bottom"] * (self.y < -0.33)
        words += ["left"] * (self.x < -0.33) + ["right"] * (self.x > 0.33)
        return " ".join(words) or "middle"

    def held_out(self) -> bool:
        return (COUNTS[self.count], COLOURS[self.colour], SHAPES[self.shape]) in NEVER

    def caption(self, rng: np.random.Generator) -> str:
        many = self.count > 0
        things = f"{COUNTS[self.count]} {COLOURS[self.colour]} {SHAPES[self.shape]}" + "s" * many
        if rng.random() < 0.5:
            return f"{things} {rng.choice(['at', 'in'])} the {self.place()}"
        return f"at the {self.place()} there {'are' if many else 'is'} {things}"

    def vector(self, rng: np.random.Generator) -> Any:
        shares = [np.eye(n)[k] for n, k in
                  ((4, self.shape), (3, self.colour), (3, self.count))]  # fmt: skip
        numbers = np.concatenate([*shares, [self.x, self.y]])
        return (numbers + rng.normal(0, [0.1] * 10 + [0.02] * 2)).astype(np.float32)

    def told(self, words: list[str]) -> tuple[bool, bool, bool, bool]:
        """Whether shape, colour, number and place are as said, each with just its word."""
        where = [w for w in words if w in PLACES]
        return (
            [w.removesuffix("s") for w in words if w.removesuffix("s") in SHAPES]
            == [SHAPES[self.shape]],
            [w for w in words if w in COLOURS] == [COLOURS[self.colour]],
            [w for w in words if w in COUNTS] == [COUNTS[self.count]],
            where == self.place().split(),
        )


def scene(rng: np.random.Generator) -> Scene:
    shape, colour, count = (int(rng.integers(n)) for n in (4, 3, 3))
    return Scene(shape, colour, count, *(float(v) for v in rng.uniform(-1, 1, 2)))


def main(given: Sequence[str] | None = None) -> dict[str, float]:
    o = arguments(__doc__, given, steps=1200, batch=64, hidden=64)
    rng = np.random.default_rng(o.seed)
    scenes = [scene(rng) for _ in range(6000)]
    known = [some for some in scenes if not some.held_out()]
    fresh = [some for some in (scene(rng) for _ in range(3000)) if some.held_out()]
    captions = [some.caption(rng).split() for some in known]
    vocabulary = Symbols.of(captions)
    targets, lengths = pad([vocabulary.encode(words) for words in captions])
    vectors = np.stack([some.vector(rng) for some in known])
    cut = len(known) - 500

    model = Captioner(12, len(vocabulary), hidden=o.hidden, seed=o.seed)

    def batch(training: Any) -> tuple[Any, Any, Any]:
        chosen = training.generator.integers(0, cut, o.batch)
        return vectors[chosen], targets[:, chosen], lengths[chosen]

    train("captions", model, batch, o, 1e-2)

    def right(some: list[Scene], beam: int) -> Any:
        said, _ = model.generate(np.stack([s.vector(rng) for s in some]), max_length=16, beam=beam)
        words = [vocabulary.decode(indices) for indices in said]
        if beam > 1:
            print(*(f"  {' '.join(text)}" for text in words[:3]), sep="\n")
        return np.array([s.told(text) for s, text in zip(some, words, strict=True)])

    found, rows = {}, []
    for name, some in {"seen combinations": known[cut:], "never seen ones": fresh}.items():
        of = right(some, 4)
        found[name] = float(of.all(axis=1).mean())
        rows.append((name, *(float(share) for share in of.mean(axis=0)), found[name],
                     float(right(some, 1).all(axis=1).mean())))  # fmt: skip
    table(("right, beam of 4", "shape", "colour", "number", "place", "all", "greedy"), rows)

    def draw(axis: Any) -> None:
        some = [Scene(0, 0, 0, x, y) for x in GRID for y in GRID]
        exact = np.stack([s.vector(np.random.default_rng(0)) for s in some])
        exact[:, 10:] = [(s.x, s.y) for s in some]
        said, _ = model.generate(exact, max_length=16)
        places = [
            " ".join(w for w in vocabulary.decode(indices) if w in PLACES) for indices in said
        ]
        for k, place in enumerate(sorted(set(places))):
            at = [(s.x, s.y) for s, p in zip(some, places, strict=True) if p == place]
            axis.plot(*np.transpose(at), "s", markersize=5, color=f"C{k}")
            axis.annotate(place, np.mean(at, axis=0), ha="center", va="center", fontsize=8)
        for line in (-0.33, 0.33):
            axis.axvline(line, color="black", lw=0.5)
            axis.axhline(line, color="black", lw=0.5)

    picture(o.out / "captions.png", draw, columns=1, size=(4.5, 4))
    return found


if __name__ == "__main__":
    main()
