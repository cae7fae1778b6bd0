"""Forecasting in NumPy alone: the hours of a day ahead, with the range they will probably lie in.

    python examples/forecast.py

A GRU reads a week of hourly demand and the calendar, and a linear layer says three quantiles of
each of the next 24 hours. The quantile loss is compared with that of the seasonal naive forecast:
what was seen at this hour a week ago, for every quantile as far off as it was in the training data.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

import fusedrnn as fr
from fusedrnn.schedules import Cosine

HOURS, WEEK, AHEAD = 24, 168, 24
QUANTILES = np.array([0.1, 0.5, 0.9], np.float32)


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


def pinball(forecast: Any, target: Any) -> tuple[float, Any]:
    """The quantile loss of [B, 24, 3], and its gradient."""
    error = target[..., None] - forecast
    slope = np.where(error > 0, QUANTILES, QUANTILES - 1)
    return float(np.mean(slope * error)), (-slope / error.size).astype(np.float32)


def main(arguments: Sequence[str] | None = None) -> tuple[float, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=64)
    o = parser.parse_args(arguments)

    rng = np.random.default_rng(0)
    series = demand(104, rng)
    end = 84 * WEEK  # of what is trained on
    gru = fr.GRU(5, o.hidden, seed=0)
    size = AHEAD * len(QUANTILES)
    head = {
        "weight": rng.normal(0, o.hidden**-0.5, (size, o.hidden)).astype(np.float32),
        "bias": np.zeros(size, np.float32),
    }
    schedule = Cosine(4e-3, o.steps)
    optimizer = fr.Adam(gru.parameters() | head, schedule)

    def forecast(h: Any) -> Any:
        return (h @ head["weight"].T + head["bias"]).reshape(-1, AHEAD, len(QUANTILES))

    for step in range(1, o.steps + 1):
        x, target = windows(series, rng.integers(WEEK, end - AHEAD, o.batch))
        _, h_n, tape = gru.forward(x)
        loss, d_forecast = pinball(forecast(h_n[0]), target)
        d_forecast = d_forecast.reshape(o.batch, size)
        grads = gru.backward(tape, dstate=(d_forecast @ head["weight"])[None])
        grads |= {"weight": d_forecast.T @ h_n[0], "bias": d_forecast.sum(0)}
        optimizer.step({name: grads[name] for name in gru.parameters() | head})
        if step % 100 == 0:
            print(f"step {step}: loss {loss:.4f}")

    begins = np.arange(end + WEEK, len(series) - AHEAD, HOURS)
    x, target = windows(series, begins)
    ours, _ = pinball(forecast(gru(x)[1][0]), target)
    week_ago = series[begins[:, None] + np.arange(AHEAD) - WEEK]
    usual = np.quantile(series[WEEK:end] - series[: end - WEEK], QUANTILES)
    naive, _ = pinball(week_ago[..., None] + usual, target)
    print(f"quantile loss {ours:.4f}, of the seasonal naive forecast {naive:.4f}")
    return ours, naive


if __name__ == "__main__":
    main()
