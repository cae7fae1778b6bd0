"""What a task of ``train`` is: data, a model, batches by number, and what to measure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fusedrnn.cli import reading, settings
from fusedrnn.cli.errors import CommandError
from fusedrnn.cli.settings import Setting

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]

#: Sequences that an evaluation looks at, at most.
EVALUATED = 4096


@dataclass(frozen=True)
class Source:
    """Data as text, and what messages call it."""

    option: str
    path: Path
    text: str

    @property
    def where(self) -> str:
        return f"{self.option} {self.path}"

    @cached_property
    def fingerprint(self) -> str:
        return reading.fingerprint(self.text)

    @classmethod
    def read(cls, option: str, path: Path) -> Source:
        return cls(option, path, reading.read_text(option, path))


class Task(ABC):
    """A model, and the data that it learns from.

    Parameters
    ----------
    values : mapping
        Of all `settings`, by name.
    knowledge : mapping
        What `learn` found in the data: it goes into the checkpoint, as JSON.

    Attributes
    ----------
    unit, measure : str
        What the speed counts, and what the loss is called.
    settings : tuple of Setting
    model : Module
    """

    name: ClassVar[str]
    help: ClassVar[str]
    data_help: ClassVar[str]
    unit: ClassVar[str]
    measure: ClassVar[str]
    #: The loss in the progress.
    loss_name: ClassVar[str] = "loss"
    settings: ClassVar[tuple[Setting, ...]]
    model: Any

    def __init__(self, values: Mapping[str, Any], knowledge: Mapping[str, Any]) -> None:
        self.values = values
        self.knowledge = knowledge

    @classmethod
    @abstractmethod
    def parse(cls, source: Source, values: Mapping[str, Any]) -> Any:
        """Return the data in a text; `CommandError` where it has none."""

    @classmethod
    @abstractmethod
    def learn(cls, data: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the model has to know of its data: a vocabulary, labels, a scale."""

    @abstractmethod
    def use(self, data: Any) -> str:
        """Take data to train on; what was found in them, in words."""

    @abstractmethod
    def loss_and_gradients(self, update: int) -> tuple[float, dict[str, Array], int]:
        """Return loss and gradients of the batch of an update, and how many units it has."""

    def model_words(self) -> str:
        """Return the sizes of the model, in words."""
        v = self.values
        return f"{v['cell']}, layers {v['layers']}, hidden {v['hidden']}"

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Return "validation_loss", and more measures by name."""

    def baseline(self) -> str:
        """Return what the loss of `evaluate` is to be compared with, in words; "" if nothing."""
        return ""

    def predict(self, source: Source | None, given: Sequence[str]) -> list[list[Any]]:
        """Return a table, its first row the names, for data or for inputs that are given."""
        raise CommandError(f"expected a model that predicts, got one of {self.name}")

    def arrays(self) -> dict[str, Array]:
        """Return what a checkpoint has to keep beside the model."""
        return {}

    def load_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Take what `arrays` returned; ValueError where that cannot be."""
        if arrays:
            raise ValueError(f"expected no more arrays, got {', '.join(arrays)}")


def common(
    *, hidden: int, layers: int, batch: int, steps: int, lr: float, every: int
) -> tuple[Setting, ...]:
    """Return the settings of every task, with a task's defaults."""
    s = settings
    return (
        Setting("cell", "gru", s.Choice("rnn", "gru", "lstm"), "kind of cell", "model"),
        Setting("hidden", hidden, s.SIZE, "hidden size", "model"),
        Setting("layers", layers, s.LAYERS, "recurrent layers", "model"),
        Setting("dropout", 0.0, s.SHARE, "share of values dropped in training", "model"),
        Setting("steps", steps, s.SIZE, "updates, all together", fixed=False),
        Setting("batch", batch, s.SIZE, "sequences side by side"),
        Setting("lr", lr, s.ABOVE, "Adam's learning rate at its highest", fixed=False),
        Setting("clip", 1.0, s.LIMIT, "limit of the gradient's norm; inf: none", fixed=False),
        Setting("every", every, s.SIZE, "updates between evaluations", fixed=False),
        Setting("validation", 0.1, s.PART, "share of the data that is held out"),
        Setting("seed", 0, s.COUNT, "of the weights and of the order of the data"),
    )


def with_defaults(found: Sequence[Setting], **defaults: Any) -> tuple[Setting, ...]:
    """Return settings of which some have other defaults."""
    return tuple(replace(x, default=defaults.get(x.name, x.default)) for x in found)


@lru_cache(maxsize=1)
def _order(seed: int, count: int, epoch: int) -> Indices:
    return np.random.default_rng([seed, epoch]).permutation(count)


def batch_indices(seed: int, count: int, batch: int, update: int) -> Indices:
    """Return which of ``count`` samples an update sees: each once a pass, in a new order.

    It follows from the number alone, so that a run goes on where another one ended.
    """
    size = min(batch, count)
    epoch, at = divmod(update, count // size)
    return _order(seed, count, epoch)[at * size : (at + 1) * size]


def split(where: str, count: int, values: Mapping[str, Any]) -> tuple[Indices, Indices]:
    """Return which samples are trained on and which are held out, at random.

    Raises
    ------
    CommandError
        Where there are fewer than two.
    """
    if count < 2:
        raise CommandError(f"{where}: too short: expected 2 rows or more, got {count}")
    held_out = min(max(1, round(count * values["validation"])), count - 1)
    order = np.random.default_rng([values["seed"], 0, 0]).permutation(count)
    return np.sort(order[held_out:]), np.sort(order[:held_out])[:EVALUATED]
