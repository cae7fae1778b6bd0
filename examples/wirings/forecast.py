"""Many to several: the hours of a day ahead, with the range they will probably lie in.

    python examples/wirings/forecast.py

A GRU reads a week of hourly demand and the calendar, and says three quantiles of each of the next
24 hours. The quantile loss is compared with that of the seasonal naive forecast: what was seen at
this hour a week ago, for every quantile as far off as it was in the training data.

In the picture: three days that follow one another, what was forecast at midnight of each, and
what came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from shared import arguments, picture, table, train

from fusedrnn import nn
from fusedrnn.models import Forecaster

HOURS, WEEK, AHEAD = 24, 168, 24
QUANTILES = (0.1, 0.5, 0.9)


def demand(weeks: int, rng: np.random.Generator) -> Any:
    """Invented: days and weeks, and a weather that comes and goes within some days."""
    t = np.arange(weeks * WEEK)
    day = np.sin(2 * np.pi * (t - 8) / HOURS) + 0.4 * np.sin(4 * np.pi * t / HOURS)
    weekend = t // HOURS % 7 >= 5
    weather, cold = np.zeros(len(t)), 0.0
    for hour, shock in enumerate(rng.normal(0, 0.12, len(t))):
        cold = 0.985 * cold + shock
        weather[hour] = cold
    noise = rng.normal(0, 0.1, len(t))
    return (day * np.where(weekend, 0.5, 1.0) + weather + noise).astype(np.float32)


def windows(series: Any, begins: Any) -> tuple[Any, Any]:
    """Inputs [T, B, 5] up to each beginning, and the hours [B, 24] that follow."""
    t = begins + np.arange(-WEEK, 0)[:, None]
    of_day, of_week = 2 * np.pi * t / HOURS, 2 * np.pi * t / WEEK
    calendar = [np.sin(of_day), np.cos(of_day), np.sin(of_week), np.cos(of_week)]
    x = np.stack([series[t], *calendar], axis=-1).astype(np.float32)
    return x, series[begins[:, None] + np.arange(AHEAD)]


def main(given: Sequence[str] | None = None) -> dict[str, float]:
    o = arguments(__doc__, given, steps=600, batch=32, hidden=64)
    series = demand(104, np.random.default_rng(o.seed))
    end = 84 * WEEK  # of what is trained on
    model = Forecaster(5, AHEAD, QUANTILES, hidden=o.hidden, seed=o.seed)

    def batch(training: Any) -> tuple[Any, Any]:
        return windows(series, training.generator.integers(WEEK, end - AHEAD, o.batch))

    train("forecast", model, batch, o, 4e-3)
    begins = np.arange(end + WEEK, len(series) - AHEAD, HOURS)
    x, target = windows(series, begins)
    week_ago = series[begins[:, None] + np.arange(AHEAD) - WEEK]
    usual = np.quantile(series[WEEK:end] - series[: end - WEEK], QUANTILES).astype(np.float32)
    said = {"seasonal naive": week_ago[..., None] + usual, "recurrent": model.predict(x)}
    loss = {name: nn.quantile(y, target, QUANTILES) for name, y in said.items()}
    table(("held out", "quantile loss", "within 0.1 and 0.9"),
          [(name, loss[name], float(np.mean((y[..., 0] <= target) & (target <= y[..., 2]))))
           for name, y in said.items()])  # fmt: skip

    def draw(*axes: Any) -> None:
        for axis, (name, y) in zip(axes, said.items(), strict=True):
            low, middle, high = y[10:13].reshape(-1, len(QUANTILES)).T
            hours = np.arange(len(middle))
            axis.fill_between(hours, low, high, alpha=0.3, label="0.1 to 0.9")
            axis.plot(hours, middle, label="0.5")
            axis.plot(hours, target[10:13].reshape(-1), "k", lw=1, label="what came")
            axis.set(title=name, xlabel="hour")
        axes[0].legend(fontsize=8)

    picture(o.out / "forecast.png", draw, sharey=True)
    return loss


if __name__ == "__main__":
    main()
