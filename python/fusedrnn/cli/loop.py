"""The training loop: updates, evaluations, checkpoints, Ctrl-C."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusedrnn.cli import results
from fusedrnn.cli import run as runs
from fusedrnn.cli.errors import CommandError, TrainingError
from fusedrnn.cli.interrupt import Interrupt
from fusedrnn.cli.progress import Progress
from fusedrnn.cli.run import Run
from fusedrnn.models import clipped_step

WARM_UP = 50
DECAY_FROM = 150


def learning_rate(base: float, update: int) -> float:
    """Return the rate of update number ``update`` (from 1).

    It rises linearly, stays at ``base``, then falls with the inverse square root of the number: it
    depends on no total, so that training can be continued at any time.
    """
    return base * min(1.0, update / WARM_UP, math.sqrt(DECAY_FROM / update))


@dataclass
class Outcome:
    """How a training ended."""

    interrupted: bool = False
    #: What could not be written at last.
    failure: CommandError | None = None


def update(run: Run) -> tuple[float, float, int]:
    """Do one update; the loss, the gradient's norm before it was clipped, and the units seen.

    Raises
    ------
    TrainingError
        If the loss or a gradient is no longer finite.
    """
    values, number = run.task.values, run.update
    run.optimizer.lr = learning_rate(values["lr"], number + 1)
    with np.errstate(over="ignore", invalid="ignore"):  # reported below, once
        loss, gradients, amount = run.task.loss_and_gradients(number)
        try:
            norm = clipped_step(
                run.optimizer, loss, gradients, values["clip"], f"update {number + 1}"
            )
        except FloatingPointError as error:
            raise TrainingError(f"{error}; try a smaller --lr") from None
    return loss, norm, amount


def train(run: Run, folder: Path, interrupt: Interrupt, quiet: bool = False) -> Outcome:
    """Train to the end of ``steps``, or until ``interrupt``, with all results in ``folder``.

    A file that cannot be written ends no training: the next one may find room.

    Raises
    ------
    TrainingError
        If the loss or a gradient is no longer finite; the files stay those of the last evaluation.
    """
    task, outcome = run.task, Outcome()
    steps, every = task.values["steps"], task.values["every"]
    with Progress(run.update, steps, task.unit, task.loss_name, quiet) as progress:
        while run.update < steps and not interrupt.requested:
            loss, _, amount = update(run)
            run.total += loss
            run.count += 1
            progress.update(loss, amount)
            if run.update % every == 0 or run.update >= steps:
                outcome.failure = _evaluate(run, folder, progress)
        outcome.interrupted = interrupt.requested and run.update < steps
        if outcome.interrupted:
            outcome.failure = _attempt(run, folder, best=False)
    return outcome


def _evaluate(run: Run, folder: Path, progress: Progress) -> CommandError | None:
    found = run.task.evaluate()
    if not all(math.isfinite(value) for value in found.values()):
        raise TrainingError(f"training diverged by update {run.update}; try a smaller --lr")
    row = {"update": run.update, "loss": run.total / run.count, **found}
    run.rows.append(row | {"speed": round(progress.speed, 1)})
    run.total, run.count = 0.0, 0
    best = found["validation_loss"] < run.best
    run.best = min(run.best, found["validation_loss"])
    progress.evaluated(
        ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in row.items())
        .removeprefix("update ")
        .partition(", ")[2]
    )
    return _attempt(run, folder, best)


def _attempt(run: Run, folder: Path, best: bool) -> CommandError | None:
    try:
        if best:
            runs.save(folder / results.MODEL, run, whole=False)
        runs.save(folder / results.CHECKPOINT, run)
        if run.rows:
            results.write_metrics(folder, run.rows)
    except CommandError as error:
        print(f"fusedrnn train: {error}", file=sys.stderr)
        return error
    return None
