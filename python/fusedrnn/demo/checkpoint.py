"""A training session in one file of `fusedrnn.nn`'s: safetensors, with a digest.

Its metadata has format, sizes, vocabulary, training options and counters. The model and Adam are
there as `nn.save_checkpoint` has them and, where there is a recurrent state to carry on, arrays
``state.0`` (h) and for an LSTM ``state.1`` (c).
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

import fusedrnn
from fusedrnn import nn
from fusedrnn.cli.errors import CommandError
from fusedrnn.cli.files import check_regular
from fusedrnn.demo.arguments import CELLS
from fusedrnn.demo.text import Vocabulary
from fusedrnn.demo.train import Session, TrainingOptions
from fusedrnn.models import CharModel

FORMAT = "fusedrnn-demo-3"
#: Of a model's configuration, and their types.
SIZES = {"cell": str, "vocabulary": int, "embedding": int, "hidden": int, "layers": int}

Arrays = Mapping[str, npt.NDArray[Any]]
Config = Mapping[str, Any]
T = TypeVar("T", int, float, str)


def rehearse(path: Path, session: Session) -> None:
    """Write a checkpoint beside ``path`` and take it away again, before the training.

    Permissions, a read-only or full disk, a quota: no question put to the system in advance
    answers all of them.

    Raises
    ------
    CommandError
        If `save` would fail.
    """
    config = session.model.config()
    shape = _state_shape(config, session.options.batch)
    parts = 2 if config["cell"] == "lstm" else 1
    state = tuple(np.zeros(shape, np.float32) for _ in range(parts))
    target = path.resolve()
    with _told_of(path, f"cannot write in {target.parent}: "):
        _write(target, session, state).unlink()


def save(path: Path, session: Session) -> None:
    """Write ``session`` to ``path``: either the whole new file is there, or the old one.

    Raises
    ------
    CommandError
        If the file cannot be written, or the old one not be replaced; the new one then stays
        where the message says.
    """
    target = path.resolve()  # through a symbolic link, which stays one
    with _told_of(path, f"cannot write in {target.parent}: "):
        written = _write(target, session, _state_parts(session.state))
    try:
        with _told_of(path):
            if target.exists():
                check_regular("--save", path)  # once more: the training may have taken hours
                shutil.copymode(target, written)
            os.replace(written, target)
    except CommandError as error:
        raise CommandError(f"{error}; the model is in {written}") from None


@contextmanager
def _told_of(path: Path, what: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CommandError(f"--save {path}: {what}{error.strerror or error}") from None
    except ImportError as error:
        raise CommandError(f"--save {path}: {error}") from None


def _write(target: Path, session: Session, state: tuple[npt.NDArray[Any], ...]) -> Path:
    """Write a session to a new file in the folder of ``target``: all of it, or there is no file."""
    # A name that nobody has, not even as a link to something else, and no longer than any name.
    path = target.with_name(f".fusedrnn-demo-{secrets.token_hex(8)}.safetensors")
    config = session.model.config()
    metadata = {
        "format": FORMAT,
        "model": {name: config[name] for name in SIZES},
        "vocabulary": session.vocabulary.characters,
        "options": asdict(session.options),
        "text": session.text,
        "position": session.position,
    }
    if session.options.clip == math.inf:
        metadata["options"] = asdict(session.options) | {"clip": None}  # JSON has no infinity
    arrays = {f"state.{k}": value for k, value in enumerate(state)}
    nn.save_checkpoint(path, session.model, session.adam, arrays=arrays, metadata=metadata)
    return path


def load(path: Path) -> Session:
    """Read what `save` wrote.

    Raises
    ------
    CommandError
        If the file is missing, damaged, or none of ours.
    """
    try:
        check_regular("--load", path)
        return _session(nn.load_checkpoint(path))
    except OSError as error:
        raise CommandError(f"--load {path}: {error.strerror or error}") from None
    except ImportError as error:
        raise CommandError(f"--load {path}: {error}") from None
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise CommandError(f"--load {path}: not a checkpoint of this demo ({reason})") from None


def _session(saved: nn.Checkpoint) -> Session:
    header = saved.metadata
    if header.get("format") != FORMAT:
        raise ValueError(f"expected the format {FORMAT}")
    vocabulary = Vocabulary(_typed(header, "vocabulary", str))
    sizes, training = header["model"], header["options"]
    config: Config = {name: _typed(sizes, name, kind) for name, kind in SIZES.items()}
    options = TrainingOptions(
        batch=_typed(training, "batch", int),
        chunk=_typed(training, "chunk", int),
        lr=_typed(training, "lr", float),
        clip=math.inf if training["clip"] is None else _typed(training, "clip", float),
        seed=_typed(training, "seed", int),
    )
    _check(config, options, vocabulary, saved.model)

    for group in (saved.model, saved.optimizer or {}):
        for name, value in group.items():
            _check_finite(name, value)
    model = CharModel(**config, seed=options.seed)
    for name, value in model.parameters().items():
        _array(saved.model, name, value.shape)
    adam = fusedrnn.Adam(model.parameters())
    saved.restore(model, adam)
    position = _typed(header, "position", int)
    if position < 0:
        raise ValueError("a count below zero")
    state = _state(saved.arrays, config, options.batch)
    return Session(model, vocabulary, adam, options, _typed(header, "text", str), position, state)


def _check(
    config: Config, options: TrainingOptions, vocabulary: Vocabulary, arrays: Arrays
) -> None:
    """Hold the sizes against the arrays before any memory is asked for on their word."""
    if config["cell"] not in CELLS:
        raise ValueError(f"unknown cell {config['cell']!r}")
    if (size := config["vocabulary"]) != len(vocabulary):
        raise ValueError(f"{len(vocabulary)} characters for a vocabulary of {size}")
    _array(arrays, "embed.weight", (size, config["embedding"]))
    _array(arrays, "out.weight", (size, config["hidden"]))
    _array(arrays, f"rnn.bias_hh_l{config['layers'] - 1}", None)
    if min(options.batch, options.chunk) < 1 or not (options.lr > 0 and options.clip > 0):
        raise ValueError("training options out of range")


def _state_parts(state: Any) -> tuple[npt.NDArray[Any], ...]:
    if state is None:
        return ()
    return state if isinstance(state, tuple) else (state,)


def _state_shape(config: Config, batch: int) -> tuple[int, ...]:
    return config["layers"], batch, config["hidden"]


def _state(arrays: Arrays, config: Config, batch: int) -> Any:
    if "state.0" not in arrays:
        return None
    shape = _state_shape(config, batch)
    h = _array(arrays, "state.0", shape)
    return (h, _array(arrays, "state.1", shape)) if config["cell"] == "lstm" else h


def _array(arrays: Arrays, name: str, shape: tuple[int, ...] | None) -> npt.NDArray[np.float32]:
    value = arrays[name]
    if value.dtype != np.float32 or (shape is not None and value.shape != shape):
        raise ValueError(f"{name}: expected float32 {shape}, got {value.dtype} {value.shape}")
    _check_finite(name, value)
    return value


def _check_finite(name: str, value: npt.NDArray[Any]) -> None:
    if not np.isfinite(value).all():
        raise ValueError(f"{name}: not finite")


def _typed(values: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = values[name]
    if type(value) is not kind:
        raise ValueError(f"{name}: expected {kind.__name__}, got {value!r}")
    return value
