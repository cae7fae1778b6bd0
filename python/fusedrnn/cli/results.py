"""The results folder of a training, in which no run writes over another's.

===========================  ==========================================================
``config.toml``              all settings; ``train --config`` takes it
``checkpoint.safetensors``   where training goes on from
``model.safetensors``        the model that did best on what was held out
``metrics.csv``, ``.json``   what each evaluation found
``loss.png``                 the same as a picture, where matplotlib is there
===========================  ==========================================================
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fusedrnn.cli import files
from fusedrnn.cli.errors import CommandError

CONFIG, CHECKPOINT, MODEL = "config.toml", "checkpoint.safetensors", "model.safetensors"
DEFAULT = Path("runs")

Rows = Sequence[Mapping[str, Any]]


def create(path: Path | None, task: str) -> Path:
    """Make a new folder for a run, by default ``runs/<task>-<number>``, and return it.

    Raises
    ------
    CommandError
        Where something is there already, but for an empty folder, and where none can be made.
    """
    number = 1
    while True:
        folder = path or DEFAULT / f"{task}-{number}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if path is None and DEFAULT.is_dir():
                number += 1
                continue
            check_empty(folder)
            return folder
        except (OSError, ValueError) as error:
            raise CommandError(f"--out {folder}: {_reason(error)}") from None


@contextmanager
def alone(option: str, folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, for each would write over what another one wrote.

    The system takes the lock away with the process, however that ends.

    Raises
    ------
    CommandError
        Where another run is there already, or no folder is.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CommandError(f"{option} {folder}: {_reason(error)}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(f"{option} {folder}: another training is writing there") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def check_empty(folder: Path) -> None:
    """Raise `CommandError` unless an empty folder is there."""
    try:
        if not folder.is_dir():
            raise CommandError(f"--out {folder}: expected a folder, got {files.kind_of(folder)}")
        names = os.listdir(folder)
    except OSError as error:
        raise CommandError(f"--out {folder}: {_reason(error)}") from None
    if names:
        also = f"; to go on with it: --resume {folder}" if CHECKPOINT in names else ""
        raise CommandError(f"--out {folder}: expected a new or an empty folder, got files{also}")


def write(folder: Path, name: str, data: str | bytes) -> None:
    """Write a file of the folder: the whole new one is there then, or what was there before.

    Raises
    ------
    CommandError
        Where that fails.
    """
    target = folder / name
    files.write(
        str(target), target, data.encode(errors="replace") if isinstance(data, str) else data
    )


def write_metrics(folder: Path, rows: Rows) -> None:
    """Write what the evaluations found, as CSV and JSON."""
    table = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(table, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write(folder, "metrics.csv", table.getvalue())
    write(folder, "metrics.json", json.dumps(list(rows), indent=1) + "\n")


def draw(folder: Path, rows: Rows, measure: str) -> Path | None:
    """Draw the losses by updates where matplotlib is there; the picture's path."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        return None
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    steps = [row["update"] for row in rows]
    for name in ("loss", "validation_loss"):
        axis.plot(steps, [row[name] for row in rows], marker=".", label=name.replace("_", " "))
    axis.set_xlabel("updates")
    axis.set_ylabel(measure)
    axis.grid(alpha=0.3)
    axis.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write(folder, "loss.png", picture.getvalue())
    return folder / "loss.png"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
