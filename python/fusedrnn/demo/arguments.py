"""The command line's options and their defaults."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from fusedrnn.demo.train import TrainingOptions

CELLS = ("gru", "lstm", "rnn")

# Where neither the command line nor a checkpoint says otherwise.
CELL, HIDDEN, LAYERS, EMBEDDING = "gru", 256, 2, 64
TRAINING = TrainingOptions(batch=32, chunk=64, lr=4e-3, clip=40.0, seed=0)
STEPS = 600
GENERATE = 500
TEMPERATURE = 0.7


def parser() -> argparse.ArgumentParser:
    """Build the parser. An option that a checkpoint may answer is None where it is not given."""
    result = argparse.ArgumentParser(
        prog="python -m fusedrnn demo",
        description="Train a character-level language model and let it write. Ctrl-C ends the "
        "training early and keeps what was trained.",
        epilog="The sizes of a loaded model are fixed; --batch, --chunk, --lr, --clip and --seed "
        "default to what it was trained with.",
        allow_abbrev=False,
    )

    def add(
        group: argparse._ArgumentGroup, name: str, default: object, convert: Converter, help_: str
    ) -> None:
        help_ = f"{help_} (default: {default})"
        group.add_argument(f"--{name}", type=convert, metavar=convert.metavar, help=help_)

    count = Converter(int, "N", "an integer of at least 0", lambda n: n >= 0)
    size = Converter(int, "N", "an integer of at least 1", lambda n: n >= 1)
    above = Converter(float, "X", "a number above 0", lambda x: 0 < x < math.inf)
    limit = Converter(float, "X", "a number above 0, or inf", lambda x: x > 0)
    least = Converter(float, "X", "a number of at least 0", lambda x: 0 <= x < math.inf)

    model = result.add_argument_group("model")
    model.add_argument("--cell", choices=CELLS, help=f"kind of cell (default: {CELL})")
    add(model, "hidden", HIDDEN, size, "hidden size")
    add(model, "layers", LAYERS, size, "recurrent layers")
    add(model, "embedding", EMBEDDING, size, "embedding size")

    training = result.add_argument_group("training")
    add(training, "batch", TRAINING.batch, size, "streams of text side by side")
    add(training, "chunk", TRAINING.chunk, size, "time steps to back-propagate through")
    add(training, "steps", STEPS, count, "updates, on top of a loaded model's; 0: evaluate only")
    add(training, "lr", TRAINING.lr, above, "Adam's learning rate at its highest")
    clip = "limit of the gradient's norm, the loss being summed over time; inf: none"
    add(training, "clip", TRAINING.clip, limit, clip)
    add(training, "seed", TRAINING.seed, count, "seed of the weights and of the generated text")

    text = result.add_argument_group("text")
    source = "UTF-8 text to learn (default: Python's own help topics)"
    text.add_argument("--text", type=Path, metavar="FILE", help=source)
    add(text, "generate", GENERATE, count, "characters to write at the end")
    heat = "below 1 the likely becomes likelier; 0: always the likeliest"
    add(text, "temperature", TEMPERATURE, least, heat)
    result.set_defaults(steps=STEPS, generate=GENERATE, temperature=TEMPERATURE)

    files = result.add_argument_group("files and output")
    files.add_argument("--save", type=Path, metavar="FILE", help="write a checkpoint (safetensors)")
    files.add_argument("--load", type=Path, metavar="FILE", help="go on from a checkpoint")
    files.add_argument("--quiet", action="store_true", help="no progress bar")
    return result


class Converter:
    """Turns a word of the command line into a number, and says what it wanted if it cannot."""

    def __init__(
        self, kind: type[int | float], metavar: str, wanted: str, accept: Callable[[float], bool]
    ) -> None:
        self.metavar = metavar
        self._kind = kind
        self._wanted = wanted
        self._accept = accept

    def __call__(self, word: str) -> float:
        try:
            value = self._kind(word)
        except ValueError:
            value = math.nan  # no condition accepts it
        if not self._accept(value):
            raise argparse.ArgumentTypeError(f"expected {self._wanted}, got {word!r}")
        return value
