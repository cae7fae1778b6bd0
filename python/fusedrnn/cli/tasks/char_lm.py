"""``train char-lm``: which character follows, by truncated back-propagation through a text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fusedrnn.cli import settings as s
from fusedrnn.cli.characters import (
    UNKNOWN,
    Indices,
    Streams,
    Vocabulary,
    split,
    unigram_entropy,
)
from fusedrnn.cli.errors import CommandError
from fusedrnn.cli.settings import Setting
from fusedrnn.cli.tasks.base import Array, Source, Task, common, with_defaults
from fusedrnn.models import CharModel

#: Each stream of the validation text starts without context, so there are few and long ones.
EVALUATION_STREAM_LENGTH = 4096
EVALUATION_CHUNK = 256
#: Characters that an evaluation looks at, at most.
EVALUATED = 2**18


class CharLM(Task):
    """A language model over characters."""

    name = "char-lm"
    help = "a language model over the characters of a text; then: generate"
    data_help = "UTF-8 text; -: standard input"
    unit = "characters"
    measure = "bits per character"
    loss_name = "bits/char"
    settings = (
        *with_defaults(
            common(hidden=256, layers=2, batch=32, steps=1000, lr=4e-3, every=100), clip=40.0
        ),
        Setting("embedding", 64, s.SIZE, "embedding size", "model"),
        Setting("chunk", 64, s.SIZE, "time steps to back-propagate through"),
    )

    def __init__(self, values: Mapping[str, Any], knowledge: Mapping[str, Any]) -> None:
        super().__init__(values, knowledge)
        self.vocabulary = Vocabulary(knowledge["characters"])
        self.state: Any = None
        self.begin = 0  # the update at which this text began
        self.model = CharModel(
            len(self.vocabulary),
            cell=values["cell"],
            embedding=values["embedding"],
            hidden=values["hidden"],
            layers=values["layers"],
            dropout=values["dropout"],
            seed=values["seed"],
        )

    @classmethod
    def parse(cls, source: Source, values: Mapping[str, Any]) -> tuple[str, str]:
        """Return the text to train on, and the text held out."""
        training, validation = split(source.text, values["validation"])
        if not training.strip(UNKNOWN):
            raise CommandError(f"{source.where}: too short: no character to train on")
        batch, chunk = values["batch"], values["chunk"]
        if len(training) < batch * chunk + 1:
            raise CommandError(
                f"{source.where}: too short: {len(source.text)} characters, {len(training)} of "
                f"them to train on; --batch {batch} and --chunk {chunk} need {batch * chunk + 1}"
            )
        return training, validation

    @classmethod
    def learn(cls, data: tuple[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the characters of the text."""
        return {"characters": Vocabulary.of(data[0]).characters}

    def use(self, data: tuple[str, str]) -> str:
        """Encode the text; say how long it is."""
        training, self.validation = (self.vocabulary.encode(part) for part in data)
        self.streams = Streams(training, self.values["batch"], self.values["chunk"])
        unknown = int((training == 0).sum() + (self.validation == 0).sum())
        return (
            f"{sum(map(len, data)):,} characters ({len(training):,} to train on, "
            f"{len(self.validation):,} held out), vocabulary {len(self.vocabulary)}"
            + (f", {unknown:,} characters outside it" if unknown else "")
        )

    def model_words(self) -> str:
        """Return the sizes of the model."""
        return f"{super().model_words()}, embedding {self.values['embedding']}"

    def loss_and_gradients(self, update: int) -> tuple[float, dict[str, Array], int]:
        """Go on in the text: bits per character, and gradients of the loss summed over time."""
        inputs, targets, first = self.streams.at(update - self.begin)
        loss, gradients, self.state = self.model.loss_and_gradients(
            inputs, targets, None if first else self.state
        )
        return loss / len(inputs) / math.log(2), gradients, inputs.size

    def evaluate(self) -> dict[str, float]:
        """Return the bits per character of the text held out, as "validation_loss"."""
        return {"validation_loss": bits_per_character(self.model, self.validation[:EVALUATED])}

    def baseline(self) -> str:
        """Return what ignoring the context would give."""
        return f"unigram entropy {unigram_entropy(self.validation[:EVALUATED]):.3f}"

    def restart(self, update: int) -> None:
        """Begin a text, or another way through it, at an update."""
        self.begin, self.state = update, None

    def arrays(self) -> dict[str, Array]:
        """Return where the text began, and the state that is carried from chunk to chunk."""
        shape, names = self._state_arrays()
        state = self.state
        if state is None:  # zeros: a checkpoint is as large before the training as after it
            state = tuple(np.zeros(shape, np.float32) for _ in names)
        parts = state if isinstance(state, tuple) else (state,)
        return {"begin": np.array(self.begin)} | dict(zip(names, parts, strict=True))

    def load_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Take what `arrays` returned."""
        shape, names = self._state_arrays()
        if list(arrays) != ["begin", *names]:
            raise ValueError(f"expected arrays begin, {', '.join(names)}, got {', '.join(arrays)}")
        self.begin = int(arrays["begin"])
        if self.begin < 0:
            raise ValueError(f"begin: expected at least 0, got {self.begin}")
        parts = [arrays[name] for name in names]
        for name, array in zip(names, parts, strict=True):
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name}: expected float32 {shape}, got {array.shape}")
        self.state = tuple(parts) if len(parts) > 1 else parts[0]

    def _state_arrays(self) -> tuple[tuple[int, ...], list[str]]:
        v = self.values
        names = ["state.0", "state.1"] if v["cell"] == "lstm" else ["state.0"]
        return (v["layers"], v["batch"], v["hidden"]), names

    def generate(
        self, prompt: str, count: int, generator: np.random.Generator, **draw: Any
    ) -> Iterator[str]:
        """Yield characters that may follow a prompt; the unknown one is never drawn."""
        indices = self.vocabulary.encode(prompt)
        if not prompt:
            # Two line ends before: a paragraph begins, where the text has paragraphs.
            indices = np.array([max(self.vocabulary.characters.find("\n"), 1)] * 2)
        written = self.model.generate(indices, count, never=(0,), generator=generator, **draw)
        return (self.vocabulary.characters[index] for index in written)


def bits_per_character(model: CharModel, indices: Indices) -> float:
    """Return the mean cross-entropy of a text in bits per character."""
    batch = max(1, len(indices) // EVALUATION_STREAM_LENGTH)
    chunk = min(EVALUATION_CHUNK, (len(indices) - 1) // batch)
    nats, count = 0.0, 0
    state: Any = None
    for inputs, targets in Streams(indices, batch, chunk).one_pass():
        loss, state = model.loss(inputs, targets, state)
        nats += loss * batch
        count += inputs.size
    return nats / count / math.log(2)
