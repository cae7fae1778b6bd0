"""``train forecast``: quantiles of the next values of a series, beside a naive forecast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusedrnn import models, nn
from fusedrnn.cli import settings as s
from fusedrnn.cli import tables
from fusedrnn.cli.errors import CommandError
from fusedrnn.cli.settings import Setting
from fusedrnn.cli.tasks.base import EVALUATED, Array, Source, Task, batch_indices, common
from fusedrnn.cli.tasks.inputs import scale

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Series:
    """A series, and where its part that is held out begins."""

    values: Array
    cut: int


class Forecast(Task):
    """What comes next in a series of numbers."""

    name = "forecast"
    help = "quantiles of the next values of a column of numbers; then: predict"
    data_help = "CSV with a column of numbers; -: standard input"
    unit = "windows"
    measure = "quantile loss of the scaled series"
    settings = (
        *common(hidden=64, layers=1, batch=32, steps=600, lr=5e-3, every=50),
        Setting("column", None, s.Word(), "of the series (default: the only numeric one)", "data"),
        Setting("window", 96, s.SIZE, "values that a forecast sees", "data"),
        Setting("horizon", 24, s.SIZE, "values ahead", "data"),
        Setting("quantiles", [0.1, 0.5, 0.9], s.Quantiles(), "what is forecast", "data"),
        Setting("season", 1, s.SIZE, "of the naive forecast: so many values ago; 1: the last one",
                "data"),
    )  # fmt: skip

    def __init__(self, values: Mapping[str, Any], knowledge: Mapping[str, Any]) -> None:
        super().__init__(values, knowledge)
        self.column = s.Word().check(knowledge["column"])
        self.mean, self.spread = float(knowledge["mean"]), float(knowledge["spread"])
        if not self.spread > 0:
            raise ValueError("spread: expected a number above 0")
        self.model = models.Forecaster(
            1,
            values["horizon"],
            values["quantiles"],
            cell=values["cell"],
            hidden=values["hidden"],
            layers=values["layers"],
            dropout=values["dropout"],
            seed=values["seed"],
        )

    @classmethod
    def parse(cls, source: Source, values: Mapping[str, Any]) -> tuple[str, Series]:
        """Return the name of the column and its series."""
        name, series = read_column(source, values["column"])
        held_out = max(round(len(series) * values["validation"]), values["horizon"])
        cut = len(series) - held_out
        window, horizon = values["window"], values["horizon"]
        least = max(window, int(_seasons_back(values).max())) + horizon
        if cut < least:
            raise CommandError(
                f"{source.where}: too short: {len(series)} values, {max(cut, 0)} of them to train "
                f"on; --window {window}, --horizon {horizon} and --season {values['season']} "
                f"need {least}"
            )
        return name, Series(series, cut)

    @classmethod
    def learn(cls, data: tuple[str, Series], values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the column's name, and the scale of what is trained on."""
        name, series = data
        return {"column": name} | scale(f"column {name!r}", series.values[: series.cut])

    def use(self, data: tuple[str, Series]) -> str:
        """Scale the series; say how long it is."""
        _, series = data
        v = self.values
        self.series = ((series.values - self.mean) / self.spread).astype(np.float32)
        # A forecast begins behind its window, and ends before what it does not know.
        first = max(v["window"], int(_seasons_back(v).max()))
        self.training = np.arange(first, series.cut - v["horizon"] + 1)
        self.validation = np.arange(series.cut, len(self.series) - v["horizon"] + 1)[:EVALUATED]
        self.naive = self._naive_loss()
        return (
            f"column {self.column!r}, {len(self.series):,} values ({series.cut:,} to train on, "
            f"{len(self.series) - series.cut:,} held out)"
        )

    def model_words(self) -> str:
        """Return the sizes of the model."""
        quantiles = ", ".join(f"{q:g}" for q in self.values["quantiles"])
        return f"{super().model_words()}, quantiles {quantiles}"

    def _windows(self, begins: Array) -> tuple[Array, Array]:
        """What is seen, [T, B, 1], and what follows, [B, N]."""
        before = begins + np.arange(-self.values["window"], 0)[:, None]
        after = begins[:, None] + np.arange(self.values["horizon"])
        return self.series[before][..., None], self.series[after]

    def loss_and_gradients(self, update: int) -> tuple[float, dict[str, Array], int]:
        """Return the quantile loss of a batch of windows, and its gradients."""
        count = len(self.training)
        chosen = batch_indices(self.values["seed"], count, self.values["batch"], update)
        loss, gradients = self.model.loss_and_gradients(*self._windows(self.training[chosen]))
        return loss, gradients, len(chosen)

    def evaluate(self) -> dict[str, float]:
        """Return the quantile loss, and the share of values between the outer quantiles."""
        total, inside = 0.0, 0
        for k in range(0, len(self.validation), EVALUATION_BATCH):
            x, y = self._windows(self.validation[k : k + EVALUATION_BATCH])
            forecast = self.model.predict(x)
            total += nn.quantile(forecast, y, self.values["quantiles"]) * len(y)
            inside += int(((forecast[..., 0] <= y) & (y <= forecast[..., -1])).sum())
        count = len(self.validation)
        return {
            "validation_loss": total / count,
            "covered": inside / count / self.values["horizon"],
        }

    def _naive_loss(self) -> float:
        """That of the value a season ago, for every quantile as far off as in the training data."""
        back = _seasons_back(self.values)
        errors = {}
        for name, begins in (("training", self.training), ("validation", self.validation)):
            at = begins[:, None] + np.arange(len(back))
            errors[name] = self.series[at] - self.series[at - back]
        quantiles = self.values["quantiles"]
        offsets = np.quantile(errors["training"], quantiles, axis=0).T
        y = errors["validation"]
        forecast = np.broadcast_to(offsets.astype(np.float32), (len(y), *offsets.shape))
        return nn.quantile(np.ascontiguousarray(forecast), y, quantiles)

    def baseline(self) -> str:
        """Return what the naive forecast gives."""
        season = self.values["season"]
        of = f"the value {season} steps ago" if season > 1 else "the last value"
        return f"naive forecast, {of}: {self.naive:.4g}"

    def predict(self, source: Source | None, given: Sequence[str]) -> list[list[Any]]:
        """Return the quantiles of the values that follow a series."""
        if source is None:
            raise CommandError("expected --data FILE with the series to go on with, got none")
        _, series = read_column(source, self.values["column"] or self.column)
        window = self.values["window"]
        if len(series) < window:
            raise CommandError(
                f"{source.where}: too short: expected {window} values, got {len(series)}"
            )
        x = ((series[-window:] - self.mean) / self.spread).astype(np.float32)
        forecast = self.model.predict(x[:, None, None])[0].astype(np.float64)
        table: list[list[Any]] = [["step", *(f"q{q:g}" for q in self.values["quantiles"])]]
        for step, row in enumerate(forecast * self.spread + self.mean, 1):
            table.append([step, *(f"{value:.6g}" for value in row)])
        return table


def _seasons_back(values: Mapping[str, Any]) -> Array:
    """How far back the naive forecast of each step looks: whole seasons, to what is known."""
    ahead = np.arange(values["horizon"]) + 1
    return np.asarray(-(-ahead // values["season"]) * values["season"])


def read_column(source: Source, name: str | None) -> tuple[str, Array]:
    """Return a column of numbers and its name; a lone one needs no line of names.

    Raises
    ------
    CommandError
        Where there is none, or something else stands in it.
    """
    first = source.text.strip().partition("\n")[0]
    bare = _number(first) is not None
    table = tables.parse(source.where, source.path, source.text, header=not bare)
    if bare:
        return "value", _series(table, [row[0] for row in table.rows], "value")
    if name is None:
        numeric = [n for n in table.names if _number(table.column(n)[0]) is not None]
        if len(numeric) != 1:
            raise CommandError(
                f"{source.where}: expected one column of numbers, or --column NAME, "
                f"got {', '.join(numeric) or 'none'} of {', '.join(table.names)}"
            )
        name = numeric[0]
        if _number(name) is not None:
            raise CommandError(
                f"{source.where}: expected a first line with names of columns, or --column NAME, "
                f"got {', '.join(table.names)}"
            )
    return name, _series(table, table.column(name), name)


def _series(table: tables.Table, cells: Sequence[Any], name: str) -> Array:
    values = [_number(cell) for cell in cells]
    for row, value in enumerate(values):
        if value is None:
            raise CommandError(
                f"{table.at(row)}: {name}: expected a number, got {str(cells[row])[:40]!r}"
            )
    return np.array(values, np.float64)


def _number(cell: Any) -> float | None:
    try:
        value = float(cell) if not isinstance(cell, bool) else np.nan
    except (TypeError, ValueError, OverflowError):
        return None
    return value if np.isfinite(value) else None
