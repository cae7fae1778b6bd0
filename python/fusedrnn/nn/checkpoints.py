"""A training in one file, in the format of safetensors.

Arrays are named "model.<parameter>", "optimizer.<state>" and "arrays.<name>"; what is no array
stands in the file's header, as JSON, with a SHA-256 digest of all of it. Other programs that read
safetensors read the weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fusedrnn import options
from fusedrnn.convert import files, packages, safetensors
from fusedrnn.nn.arrays import Array
from fusedrnn.optimizers import Optimizer

FORMAT = "fusedrnn-checkpoint-1"
_GROUPS = ("model", "optimizer", "arrays")


class Model(Protocol):
    """What has parameters to be saved: a `Module`, or a recurrent layer."""

    def state_dict(self) -> dict[str, Array]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file of `save_checkpoint` holds.

    Attributes
    ----------
    metadata : dict
        As it was given.
    model : dict of arrays
        The parameters by name.
    arrays : dict of arrays
        As they were given.
    """

    metadata: dict[str, Any]
    model: dict[str, Array] = field(repr=False)
    arrays: dict[str, Array] = field(repr=False)
    optimizer: dict[str, Array] | None = field(repr=False)
    optimizer_class: str | None = field(repr=False)
    random: dict[str, Any] | None = field(repr=False)
    generator: dict[str, Any] | None = field(repr=False)

    def restore(
        self,
        model: Model,
        optimizer: Optimizer | None = None,
        *,
        generator: np.random.Generator | None = None,
    ) -> None:
        """Put a model, an optimiser and a generator where they were when the file was written.

        With the same data the training that goes on is, to the bit, the one that was never
        interrupted: the model's random masks go on too.

        Parameters
        ----------
        model : Module or layer
            Of the same parts and sizes.
        optimizer : Optimizer, optional
            Of the same class and options, over the model's parameters.
        generator : numpy.random.Generator, optional
            With the same bit generator.

        Raises
        ------
        ValueError, TypeError
            Where the file has no such thing, or of another kind, or a name or a shape is another.
            Nothing has been changed then.
        """
        if optimizer is not None:
            name = type(optimizer).__name__
            if self.optimizer is None:
                raise ValueError("optimizer: expected None, as the checkpoint has none")
            if name != self.optimizer_class:
                raise ValueError(f"optimizer: expected {self.optimizer_class}, got {name}")
        if generator is not None:
            _check_generator(generator)
            if self.generator is None:
                raise ValueError("generator: expected None, as the checkpoint has none")
            kind = type(generator.bit_generator).__name__
            if kind != self.generator["bit_generator"]:
                raise ValueError(
                    f"generator: expected one of {self.generator['bit_generator']}, got {kind}"
                )
        _check_model(model)
        before = model.state_dict()
        model.load_state_dict(self.model)
        try:
            # The optimiser before the random state: each of them is as it was where it raises.
            random = _random(model)
            if self.random is not None:
                _load_random(model, self.random)
            if optimizer is not None:
                optimizer.load_state_dict(self.optimizer or {})
        except BaseException:
            model.load_state_dict(before)
            if random is not None:
                _load_random(model, random)
            raise
        if generator is not None:
            generator.bit_generator.state = self.generator or {}


def save_checkpoint(
    path: Any,
    model: Model,
    optimizer: Optimizer | None = None,
    *,
    generator: np.random.Generator | None = None,
    arrays: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a training to a file: the whole new one is there afterwards, or what was there before.

    Parameters
    ----------
    path : path
    model : Module or layer
        Its parameters, and where it stands in its random masks.
    optimizer : Optimizer, optional
        Its whole state.
    generator : numpy.random.Generator, optional
        That of the data's order, say.
    arrays : mapping of str to array, optional
        More to keep, such as a recurrent state that is carried on.
    metadata : mapping, optional
        What JSON can hold: sizes from which the model is made again, counters, a vocabulary.

    Raises
    ------
    ValueError, TypeError
        Where something cannot be written so, or something that is no file is at the path.
    OSError
        Where the file cannot be written.
    ImportError
        Where the package safetensors is missing.
    """
    _check_model(model)
    found: dict[str, Array] = _group("model", model.state_dict())
    texts: dict[str, Any] = {"metadata": _metadata(metadata)}
    random = _random(model)
    if random is not None:
        texts["random"] = random
    if optimizer is not None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"optimizer: expected one of fusedrnn's, got {type(optimizer).__name__}"
            )
        found |= _group("optimizer", optimizer.state_dict())
        texts["optimizer"] = type(optimizer).__name__
    if generator is not None:
        _check_generator(generator)
        texts["generator"] = _plain(generator.bit_generator.state)
    found |= _group("arrays", arrays or {})
    _write(path, found, {name: json.dumps(value) for name, value in texts.items()})


def load_checkpoint(path: Any) -> Checkpoint:
    """Read a file of `save_checkpoint`; `Checkpoint.restore` puts a model there.

    Raises
    ------
    ValueError
        Where the file is damaged, cut short, or no checkpoint.
    OSError
        Where it cannot be read.
    ImportError
        Where the package safetensors is missing.
    """
    found, texts = _read(path)
    groups: dict[str, dict[str, Array]] = {name: {} for name in _GROUPS}
    for name, array in sorted(found.items()):
        group, _, rest = name.partition(".")
        if group not in groups:
            raise ValueError(f"path: expected names that begin with {_GROUPS}, got {name}")
        groups[group][rest] = array
    optimizer_class = texts.get("optimizer")
    return Checkpoint(
        metadata=texts["metadata"],
        model=groups["model"],
        arrays=groups["arrays"],
        optimizer=None if optimizer_class is None else groups["optimizer"],
        optimizer_class=optimizer_class,
        random=texts.get("random"),
        generator=texts.get("generator"),
    )


def _group(group: str, members: Mapping[str, Any]) -> dict[str, Array]:
    if not isinstance(members, Mapping):
        raise TypeError(f"{group}: expected a mapping, got {type(members).__name__}")
    for name in members:
        if not isinstance(name, str):
            raise TypeError(f"{group}: expected names that are str, got {name!r}")
        if any("\ud800" <= letter <= "\udfff" for letter in name):  # which UTF-8 has not
            raise ValueError(f"{group}: expected names of Unicode, got {name!r}")
    return {f"{group}.{name}": value for name, value in members.items()}


def _metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata: expected a mapping, got {type(metadata).__name__}")
    plain = dict(metadata)
    try:
        same = json.loads(json.dumps(plain, allow_nan=False)) == plain
    except (TypeError, ValueError) as error:
        raise TypeError(f"metadata: expected what JSON can hold, got others ({error})") from None
    if not same:
        raise TypeError("metadata: expected what JSON gives back as it was: lists, names of str")
    return plain


def _random(model: Any) -> dict[str, Any] | None:
    """Where the model stands in its random masks; of a layer under the empty name."""
    if hasattr(model, "random_state"):
        return {name: list(state) for name, state in model.random_state().items()}
    if hasattr(model, "dropout_state"):
        return {"": list(model.dropout_state)}
    return None


def _load_random(model: Any, state: Mapping[str, Any]) -> None:
    if hasattr(model, "load_random_state"):
        model.load_random_state(state)
    else:
        options.same_names("random", state, ("",), "the random state of a layer")
        model.dropout_state = tuple(state[""])


def _check_model(model: object) -> None:
    if not (hasattr(model, "state_dict") and hasattr(model, "load_state_dict")):
        raise TypeError(f"model: expected a Module or a layer, got {type(model).__name__}")


def _check_generator(generator: object) -> None:
    if not isinstance(generator, np.random.Generator):
        raise TypeError(
            f"generator: expected a numpy.random.Generator, got {type(generator).__name__}"
        )


def _plain(state: Any) -> Any:
    """A bit generator's state without arrays."""
    if isinstance(state, Mapping):
        return {name: _plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state


def _digest(arrays: Mapping[str, Array], texts: Mapping[str, str]) -> str:
    """Of every name, dtype, shape, number and word; what moves in the file does not count."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    for name in sorted(texts):
        digest.update(f"{name}\0{texts[name]}\0".encode())
    return digest.hexdigest()


def _write(path: Any, arrays: Mapping[str, Any], texts: dict[str, str]) -> None:
    packed = packages.load("save_checkpoint", "safetensors.numpy")
    dense = {name: _dense(name, value) for name, value in arrays.items()}
    header = texts | {"format": FORMAT, "sha256": _digest(dense, texts)}
    files.write(path, packed.save(dense, header))


def _dense(name: str, value: Any) -> Array:
    """An array as the file has it: what cannot be read again is not written."""
    try:
        array = np.asarray(value, order="C")
    except ValueError:
        raise ValueError(f"{name}: expected an array, got rows of several lengths") from None
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if not safetensors.has_dtype(array):
        raise TypeError(f"{name}: expected a dtype that safetensors has, got {array.dtype}")
    return array


def _read(path: Any) -> tuple[dict[str, Array], dict[str, Any]]:
    target = files.path_of("path", path)
    if target.exists() and not target.is_file():  # nothing without an end
        raise ValueError(f"path: expected a file at {target}, got something else")
    data = files.read("path", path)
    arrays = safetensors.parse("load_checkpoint", path, data)
    header = safetensors.metadata_of(data)
    texts = {name: text for name, text in header.items() if name not in ("format", "sha256")}
    if header.get("format") != FORMAT:
        raise ValueError(
            f"path: expected a checkpoint of format {FORMAT} at {target}, "
            f"got {header.get('format', 'another file of safetensors')}"
        )
    if header.get("sha256") != _digest(arrays, texts):
        raise ValueError(f"path: expected a whole checkpoint at {target}, got a damaged one")
    return arrays, {name: json.loads(text) for name, text in texts.items()}
