"""``train classify``: the label of a text, or of numbers step by step."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusedrnn import models
from fusedrnn.cli import settings as s
from fusedrnn.cli import tables
from fusedrnn.cli.errors import CommandError
from fusedrnn.cli.settings import Setting
from fusedrnn.cli.tasks import inputs
from fusedrnn.cli.tasks.base import Array, Source, Task, batch_indices, common, split

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Rows:
    """Raw inputs and labels, and which of them are trained on and held out."""

    where: str
    kind: str
    inputs: list[Any]
    labels: list[str]
    training: Any
    validation: Any


class Classify(Task):
    """One label for a sequence."""

    name = "classify"
    help = "the label of a text, or of numbers step by step; then: predict"
    data_help = "CSV, TSV or JSON lines, with names of columns; -: standard input"
    unit = "sequences"
    measure = "cross-entropy in nats"
    settings = (
        *common(hidden=64, layers=1, batch=32, steps=500, lr=5e-3, every=50),
        Setting("bidirectional", True, s.Switch(), "read in both directions", "model"),
        Setting("embedding", 32, s.SIZE, "embedding size of words and characters", "model"),
        Setting("input", None, s.Word(), "column of what is read (default: the only one)", "data"),
        Setting("label", "label", s.Word(), "column of the labels", "data"),
        Setting(
            "units",
            "auto",
            s.Choice("auto", *inputs.UNITS),
            "what a step is; auto: numbers where the first row has some, else words",
            "data",
        ),
    )

    def __init__(self, values: Mapping[str, Any], knowledge: Mapping[str, Any]) -> None:
        super().__init__(values, knowledge)
        self.reader = inputs.reader(knowledge)
        self.labels = [str(label) for label in knowledge["labels"]]
        self.model = models.Classifier(
            len(self.labels),
            input_size=self.reader.input_size,
            vocabulary=self.reader.vocabulary,
            cell=values["cell"],
            embedding=values["embedding"],
            hidden=values["hidden"],
            layers=values["layers"],
            bidirectional=values["bidirectional"],
            dropout=values["dropout"],
            seed=values["seed"],
        )

    @classmethod
    def parse(cls, source: Source, values: Mapping[str, Any]) -> Rows:
        """Return the rows of a table with a column of labels and one of inputs."""
        table = tables.parse(source.where, source.path, source.text)
        labels = []
        for row, label in enumerate(table.column(values["label"])):
            if isinstance(label, bool) or not isinstance(label, (str, int)) or label == "":
                raise CommandError(f"{table.at(row)}: expected a label, got {label!r}")
            labels.append(str(label))
        if len(set(labels)) < 2:
            raise CommandError(f"{source.where}: expected 2 labels or more, got {labels[0]!r} only")
        found = _column(table, values["input"], values["label"])
        kind = inputs.units_of(found) if values["units"] == "auto" else values["units"]
        raw = [inputs.read(kind, cell, table.at(row)) for row, cell in enumerate(found)]
        if kind == "numbers":
            for row, sequence in enumerate(raw):
                if sequence.shape[1] != raw[0].shape[1]:
                    raise CommandError(
                        f"{table.at(row)}: expected {raw[0].shape[1]} numbers in each step, "
                        f"got {sequence.shape[1]}"
                    )
        return Rows(source.where, kind, raw, labels, *split(source.where, len(raw), values))

    @classmethod
    def learn(cls, data: Rows, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the labels, and the vocabulary or the scale of what is trained on."""
        trained = [data.inputs[k] for k in data.training]
        return {"labels": sorted(set(data.labels))} | inputs.learn(data.where, data.kind, trained)

    def use(self, data: Rows) -> str:
        """Encode the rows; say how many there are."""
        numbers = {label: k for k, label in enumerate(self.labels)}
        x = [self.reader.encode(raw) for raw in data.inputs]
        y = np.array([numbers[label] for label in data.labels])
        self.training = [x[k] for k in data.training], y[data.training]
        self.validation = [x[k] for k in data.validation], y[data.validation]
        (_, often), *_ = Counter(data.labels).most_common(1)
        return (
            f"{len(x):,} rows of {data.kind} ({len(data.training):,} to train on, "
            f"{len(data.validation):,} held out), {len(self.labels)} labels, the most frequent "
            f"one of {often / len(x):.0%}" + self.reader.words()
        )

    def loss_and_gradients(self, update: int) -> tuple[float, dict[str, Array], int]:
        """Return the mean cross-entropy of a batch, and its gradients."""
        x, y = self.training
        chosen = batch_indices(self.values["seed"], len(x), self.values["batch"], update)
        batch, lengths = models.pad([x[k] for k in chosen])
        loss, gradients = self.model.loss_and_gradients(batch, y[chosen], lengths)
        return loss, gradients, len(chosen)

    def evaluate(self) -> dict[str, float]:
        """Return cross-entropy and accuracy on what is held out."""
        x, y = self.validation
        chances = self._chances(x)
        of_label = chances[np.arange(len(y)), y]
        return {
            "validation_loss": float(-np.log(np.maximum(of_label, 1e-30)).mean()),
            "accuracy": float((chances.argmax(axis=1) == y).mean()),
        }

    def _chances(self, sequences: Sequence[Array]) -> Array:
        parts = []
        for k in range(0, len(sequences), EVALUATION_BATCH):
            batch, lengths = models.pad(sequences[k : k + EVALUATION_BATCH])
            parts.append(self.model.predict(batch, lengths))
        return np.concatenate(parts).astype(np.float64)

    def predict(self, source: Source | None, given: Sequence[str]) -> list[list[Any]]:
        """Return the label of each input, and its probability, below names of the columns."""
        kind = self.reader.kind
        if source is None:
            cells, raw = list(given), [inputs.read(kind, g, f"input {g!r}") for g in given]
        else:
            cells, raw = self._rows(source, kind)
        chances = self._chances([self.reader.encode(value) for value in raw])
        table: list[list[Any]] = [["input", "label", "probability"]]
        for cell, row in zip(cells, chances, strict=True):
            best = int(row.argmax())
            shown = cell if isinstance(cell, str) else json.dumps(cell)
            table.append([shown, self.labels[best], f"{row[best]:.4f}"])
        return table

    def _rows(self, source: Source, kind: str) -> tuple[list[Any], list[Any]]:
        if source.path.suffix.lower() not in tables.FORMATS:
            lines = [line for line in source.text.split("\n") if line.strip()]
            if not lines:
                raise CommandError(f"{source.where}: expected a line for each input, got none")
            return lines, [inputs.read(kind, line, source.where) for line in lines]
        table = tables.parse(source.where, source.path, source.text)
        cells = _column(table, self.values["input"], self.values["label"], "")
        return cells, [inputs.read(kind, c, table.at(row)) for row, c in enumerate(cells)]


def _column(
    table: tables.Table, name: str | None, label: str, or_: str = ", or --input NAME"
) -> list[Any]:
    """Those inputs; `or_` is what else a command offers."""
    if name is not None:
        return table.column(name)
    others = [other for other in table.names if other != label]
    if len(others) != 1:
        raise CommandError(
            f"{table.where}: expected one column beside {label!r}{or_}, "
            f"got {', '.join(others) or 'none'}"
        )
    return table.column(others[0])
