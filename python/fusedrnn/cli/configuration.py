"""Configuration files in TOML: flat, one key a setting, nothing unknown."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusedrnn.cli.errors import CommandError
from fusedrnn.cli.parser import nearest
from fusedrnn.cli.reading import read_text
from fusedrnn.cli.settings import Setting

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Keys that are no settings of a model: what to train, on which data, where to write.
PLACES = ("task", "data", "out")


def read(path: Path, task: str, settings: Sequence[Setting]) -> dict[str, Any]:
    """Return what a file sets, by name.

    Raises
    ------
    CommandError
        If it cannot be read, is no TOML, has an unknown key or a value of the wrong kind.
    """
    where = f"--config {path}"
    try:
        values = tomllib.loads(read_text("--config", path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise CommandError(f"{where}: expected TOML, got {error or 'too deep a nesting'}") from None
    found = {}
    kinds = {setting.name: setting.kind for setting in settings}
    for name, value in values.items():
        if name in PLACES:
            if not isinstance(value, str) or not value or "\0" in value:
                raise CommandError(f"{where}: {name}: expected a string, got {value!r}")
            found[name] = value
            continue
        if name not in kinds:
            near = nearest(name, [*kinds, *PLACES])
            raise CommandError(f"{where}: {name}: expected a setting of {task}, got another{near}")
        try:
            found[name] = kinds[name].check(value)
        except ValueError as error:
            raise CommandError(f"{where}: {name}: {error}") from None
    if found.pop("task", task) != task:
        raise CommandError(f"{where}: expected one for {task}, got one for {values['task']}")
    return found


def write(values: Mapping[str, Any]) -> str:
    """Return settings as TOML; None, of which there is none, is left out."""
    lines = [f"{name} = {_toml(value)}" for name, value in values.items() if value is not None]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, float):
        return str(value)  # inf as well
    # A string of JSON is one of TOML, but for DEL; so are lists, integers, true and false.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
