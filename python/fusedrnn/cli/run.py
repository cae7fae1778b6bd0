"""A training under way, and the file that holds all of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import fusedrnn
from fusedrnn import nn
from fusedrnn.cli.errors import CommandError
from fusedrnn.cli.files import check_regular
from fusedrnn.cli.tasks import TASKS, Task

FORMAT = "fusedrnn-train-1"

T = TypeVar("T", int, float, str)


@dataclass
class Run:
    """Everything that training changes or depends on; a checkpoint is this and nothing else.

    Attributes
    ----------
    source, fingerprint : str
        The path of the data, and their digest.
    rows : list of dict
        What the evaluations found so far.
    total, count : float, int
        Sum and number of the losses since the last of them.
    best : float
        Least validation loss so far.
    """

    task: Task
    optimizer: fusedrnn.Adam
    source: str
    fingerprint: str
    rows: list[dict[str, float]] = field(default_factory=list)
    total: float = 0.0
    count: int = 0
    best: float = math.inf

    @property
    def update(self) -> int:
        return self.optimizer.updates


def build(task: type[Task], values: Mapping[str, Any], knowledge: Mapping[str, Any]) -> Task:
    """Return a task with its model; `CommandError` for sizes beyond what an array can have."""
    try:
        return task(values, knowledge)
    except (ValueError, OverflowError) as error:
        raise CommandError(f"the model cannot be made: {error}") from None
    except MemoryError:
        raise CommandError("out of memory: the model is too large") from None


def save(path: Path, run: Run, *, whole: bool = True) -> None:
    """Write a run to a file, or its model alone: all of it, or what was there before stays.

    Raises
    ------
    CommandError
        Where that fails.
    """
    try:
        write(path, run, whole=whole)
    except (OSError, ValueError, ImportError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CommandError(f"{path}: {reason}") from None


def write(path: Path, run: Run, *, whole: bool = True) -> None:
    """Do what `save` does, with the errors of `nn.save_checkpoint`."""
    task = run.task
    metadata = {
        "format": FORMAT,
        "task": task.name,
        "settings": {k: "inf" if v == math.inf else v for k, v in task.values.items()},
        "knowledge": dict(task.knowledge),
        "source": run.source,
        "fingerprint": run.fingerprint,
        "rows": run.rows,
        "total": run.total,
        "count": run.count,
        "best": None if run.best == math.inf else run.best,
    }
    if whole:
        nn.save_checkpoint(path, task.model, run.optimizer, arrays=task.arrays(), metadata=metadata)
    else:
        nn.save_checkpoint(path, task.model, metadata=metadata)


def load(option: str, path: Path, *, whole: bool = True) -> Run:
    """Read what `save` wrote; ``whole``: with all that training goes on from.

    Raises
    ------
    CommandError
        If the file is missing, damaged, or none of ours.
    """
    try:
        check_regular(option, path)
        return _run(nn.load_checkpoint(path), whole)
    except OSError as error:
        raise CommandError(f"{option} {path}: {error.strerror or error}") from None
    except ImportError as error:
        raise CommandError(f"{option} {path}: {error}") from None
    except CommandError:
        raise
    except MemoryError:
        raise CommandError(f"{option} {path}: out of memory") from None
    except (AttributeError, KeyError, IndexError, ArithmeticError) as error:
        raise _foreign(option, path, f"{type(error).__name__}: {error}") from None
    except (RecursionError, TypeError, ValueError) as error:
        raise _foreign(option, path, str(error)) from None


def _foreign(option: str, path: Path, reason: str) -> CommandError:
    return CommandError(f"{option} {path}: expected a checkpoint of train, got another ({reason})")


def _run(saved: nn.Checkpoint, whole: bool) -> Run:
    header = saved.metadata
    if header.get("format") != FORMAT:
        raise ValueError(f"expected the format {FORMAT}")
    task_class = TASKS[header["task"]]
    values = _settings(task_class, header["settings"])
    for group in (saved.model, saved.optimizer or {}, saved.arrays):
        for name, value in group.items():
            if not np.isfinite(value).all():
                raise ValueError(f"{name}: not finite")
    for name, value in saved.model.items():
        if value.dtype != np.float32:
            raise ValueError(f"{name}: expected float32, got {value.dtype}")
    _check_sizes(values, saved)
    task = task_class(values, header["knowledge"])
    optimizer = fusedrnn.Adam(task.model.parameters())
    saved.restore(task.model, optimizer if whole else None)
    if whole:
        task.load_arrays(saved.arrays)
    best = header["best"]
    run = Run(
        task,
        optimizer,
        _typed(str, header["source"]),
        _typed(str, header["fingerprint"]),
        [_row(row) for row in header["rows"]],
        _typed(float, header["total"]),
        _typed(int, header["count"]),
        math.inf if best is None else _typed(float, best),
    )
    if run.count < 0 or not math.isfinite(run.total):
        raise ValueError("count, total: expected a sum of losses")
    return run


def _typed(kind: type[T], value: Any) -> T:
    if type(value) is not kind:
        raise ValueError(f"expected {kind.__name__}, got {value!r}")
    return value


def _row(row: Mapping[str, Any]) -> dict[str, float]:
    """Of an evaluation."""
    for value in (row["update"], row["loss"], row["validation_loss"], *row.values()):
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError(f"rows: expected numbers, got {value!r}")
    return dict(row)


def _settings(task: type[Task], found: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for setting in task.settings:
        value = found[setting.name]
        if value == "inf":
            value = math.inf
        optional = value is None and setting.default is None
        values[setting.name] = None if optional else setting.kind.check(value)
    return values


def _check_sizes(values: Mapping[str, Any], saved: nn.Checkpoint) -> None:
    """Hold the sizes against the arrays before any memory is asked for on their word."""
    sizes = {size for array in saved.model.values() for size in array.shape}
    for name in ("hidden", "embedding"):
        if name in values and values[name] not in sizes:
            raise ValueError(f"{name}: no array has the size {values[name]}")
    if values["layers"] > len(saved.model):
        raise ValueError(f"layers: expected at most {len(saved.model)}, got {values['layers']}")
