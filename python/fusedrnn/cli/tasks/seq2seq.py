"""``train seq2seq``: another sequence for each sequence, with or without attention."""

from __future__ import annotations

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
#: Sequences that an evaluation writes, at most: that takes longer than their loss.
WRITTEN = 512


@dataclass(frozen=True)
class Pairs:
    """Sources and targets as symbols, and which of them are trained on and held out."""

    sources: list[list[str]]
    targets: list[list[str]]
    training: Any
    validation: Any


class Sequences(Task):
    """A sequence for a sequence."""

    name = "seq2seq"
    help = "another text for each text, such as a date or a translation; then: predict"
    data_help = "TSV or CSV of two columns; -: standard input"
    unit = "pairs"
    measure = "cross-entropy in nats per symbol"
    settings = (
        *common(hidden=128, layers=1, batch=32, steps=2000, lr=4e-3, every=200),
        Setting("embedding", 32, s.SIZE, "embedding size of the symbols", "model"),
        Setting("attention", True, s.Switch(), "look at the whole source at each step", "model"),
        Setting("source", None, s.Word(), "column of the sources, named by the first line", "data"),
        Setting("target", None, s.Word(), "column of the targets, named by the first line", "data"),
        Setting("units", "characters", s.Choice("words", "characters"), "what a step is", "data"),
    )

    def __init__(self, values: Mapping[str, Any], knowledge: Mapping[str, Any]) -> None:
        super().__init__(values, knowledge)
        units = values["units"]
        self.source = inputs.SymbolReader(units, knowledge["sources"])
        self.target = inputs.SymbolReader(units, knowledge["targets"])
        self.longest = s.SIZE.check(knowledge["longest"])
        self.model = models.Seq2Seq(
            self.source.vocabulary,
            self.target.vocabulary,
            attention=values["attention"],
            cell=values["cell"],
            embedding=values["embedding"],
            hidden=values["hidden"],
            layers=values["layers"],
            dropout=values["dropout"],
            seed=values["seed"],
        )

    @classmethod
    def parse(cls, source: Source, values: Mapping[str, Any]) -> Pairs:
        """Return the pairs of a table: of its two columns, or of those that are named."""
        named = values["source"], values["target"]
        if (named[0] is None) != (named[1] is None):
            raise CommandError("expected --source and --target, or neither, got one of them")
        header = named[0] is not None
        table = tables.parse(source.where, source.path, source.text, header)
        if header:
            columns = [table.column(name) for name in named]
        elif len(table.rows[0]) != 2:
            raise CommandError(
                f"{source.where}: expected 2 columns, or --source NAME --target NAME, "
                f"got {len(table.rows[0])}"
            )
        else:
            columns = [[row[k] for row in table.rows] for k in (0, 1)]
        units = values["units"]
        sources, targets = (
            [inputs.read(units, cell, table.at(row)) for row, cell in enumerate(column)]
            for column in columns
        )
        return Pairs(sources, targets, *split(source.where, len(sources), values))

    @classmethod
    def learn(cls, data: Pairs, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the symbols of both sides, and the length of the longest target."""
        return {
            "sources": inputs.learn_symbols([data.sources[k] for k in data.training]),
            "targets": inputs.learn_symbols([data.targets[k] for k in data.training]),
            "longest": max(map(len, data.targets)),
        }

    def use(self, data: Pairs) -> str:
        """Encode the pairs; say how many there are."""
        sources = [self.source.encode(x) for x in data.sources]
        targets = [self.target.encode(x) for x in data.targets]
        self.training, self.validation = (
            ([sources[k] for k in part], [targets[k] for k in part])
            for part in (data.training, data.validation)
        )
        return (
            f"{len(sources):,} pairs of {self.values['units']} ({len(data.training):,} to train "
            f"on, {len(data.validation):,} held out), vocabularies "
            f"{self.source.vocabulary - 2:,} and {self.target.vocabulary - 2:,}"
        )

    def model_words(self) -> str:
        """Return the sizes of the model."""
        with_ = "with" if self.values["attention"] else "without"
        return f"{super().model_words()}, {with_} attention"

    def loss_and_gradients(self, update: int) -> tuple[float, dict[str, Array], int]:
        """Return the mean cross-entropy of a batch, and its gradients."""
        sources, targets = self.training
        chosen = batch_indices(self.values["seed"], len(sources), self.values["batch"], update)
        x, x_lengths = models.pad([sources[k] for k in chosen])
        y, y_lengths = models.pad([targets[k] for k in chosen])
        loss, gradients = self.model.loss_and_gradients(x, y, x_lengths, y_lengths)
        return loss, gradients, len(chosen)

    def evaluate(self) -> dict[str, float]:
        """Return cross-entropy, and the share of targets that are written without an error."""
        sources, targets = self.validation
        total = weight = 0.0
        for k in range(0, len(sources), EVALUATION_BATCH):
            x, x_lengths = models.pad(sources[k : k + EVALUATION_BATCH])
            y, y_lengths = models.pad(targets[k : k + EVALUATION_BATCH])
            count = float((y_lengths + 1).sum())
            total += self.model.loss(x, y, x_lengths, y_lengths) * count
            weight += count
        written = self._write(sources[:WRITTEN], 1)[0]
        exact = [a == list(b) for a, b in zip(written, targets, strict=False)]
        return {"validation_loss": total / weight, "exact": float(np.mean(exact))}

    def _write(self, sources: Sequence[Array], beam: int) -> tuple[list[list[int]], list[float]]:
        written: list[list[int]] = []
        scores: list[float] = []
        for k in range(0, len(sources), EVALUATION_BATCH):
            x, lengths = models.pad(sources[k : k + EVALUATION_BATCH])
            found, score = self.model.generate(x, lengths, max_length=self.longest + 8, beam=beam)
            written += found
            scores += score.tolist()
        return written, scores

    def predict(
        self, source: Source | None, given: Sequence[str], beam: int = 4
    ) -> list[list[Any]]:
        """Return what is written for each source, and its log-probability."""
        cells, where = list(given), "input"
        if source is not None:
            cells, where = self._sources(source), source.where
        units = self.values["units"]
        read = [self.source.encode(inputs.read(units, cell, where)) for cell in cells]
        written, scores = self._write(read, beam)
        space = "" if units == "characters" else " "
        table: list[list[Any]] = [["source", "target", "log_probability"]]
        for cell, symbols, score in zip(cells, written, scores, strict=True):
            table.append([cell, space.join(self.target.symbols.decode(symbols)), f"{score:.4f}"])
        return table

    def _sources(self, source: Source) -> list[Any]:
        """Of a table the sources, of other files each line."""
        header = self.values["source"] is not None
        if source.path.suffix.lower() in tables.FORMATS:
            table = tables.parse(source.where, source.path, source.text, header)
            if header:
                return table.column(self.values["source"])
            return [row[0] for row in table.rows]
        lines = [line for line in source.text.split("\n") if line.strip()]
        if not lines:
            raise CommandError(f"{source.where}: expected a line for each source, got none")
        return lines
