"""The command line's parser: settings become options, and what is wrong is one sentence."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fusedrnn.cli.settings import Kind, Setting, Switch


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" where one of the known words is near, else ""."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` without abbreviations, whose errors name the nearest option."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog=f"python -m {prog}", allow_abbrev=False, **options)
        self._name = prog

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        # Options may stand between the inputs of a command.
        found, unknown = self.parse_known_intermixed_args(args, namespace)
        if unknown:
            word = unknown[0].partition("=")[0]
            options = [name for name in self._option_string_actions if name.startswith("--")]
            self.error(f"unrecognized arguments: {' '.join(unknown)}{nearest(word, options)}")
        return found

    def error(self, message: str) -> NoReturn:
        print(f"{self._name}: {message} (all options: --help)", file=sys.stderr)
        sys.exit(2)


def path_of(word: str) -> Path:
    """Return the path of a word, for argparse."""
    if not word or "\0" in word:
        raise argparse.ArgumentTypeError(f"expected a path, got {word!r}")
    return Path(word)


def converter(kind: Kind) -> Any:
    """Return what argparse calls with a word."""

    def convert(word: str) -> Any:
        try:
            return kind.parse(word)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def add_settings(parser: argparse.ArgumentParser, settings: Sequence[Setting]) -> None:
    """Add an option for each setting; where it is not given it is None."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for setting in settings:
        if setting.group not in groups:
            groups[setting.group] = parser.add_argument_group(setting.group)
        add = groups[setting.group].add_argument
        default = "" if setting.default is None else f" (default: {shown(setting.default)})"
        help_ = (setting.help + default).replace("%", "%%")
        if isinstance(setting.kind, Switch):
            add(f"--{setting.name}", action=argparse.BooleanOptionalAction, help=help_)
            continue
        add(
            f"--{setting.name}",
            type=converter(setting.kind),
            metavar=setting.kind.metavar,
            help=help_,
        )


def values_of(options: argparse.Namespace, settings: Sequence[Setting]) -> dict[str, Any]:
    """Return the value of each setting by its name, the default where it was not given."""
    given = {x.name: getattr(options, x.name.replace("-", "_")) for x in settings}
    return {x.name: x.default if given[x.name] is None else given[x.name] for x in settings}


def shown(value: Any) -> str:
    """Return a value as the command line takes it."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
