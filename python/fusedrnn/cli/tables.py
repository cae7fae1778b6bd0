"""Tables from text: CSV, TSV and JSON lines, with the line of whatever is wrong."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusedrnn.cli.errors import CommandError
from fusedrnn.cli.parser import nearest

FORMATS = {".csv": "CSV", ".tsv": "TSV", ".jsonl": "JSON lines", ".ndjson": "JSON lines"}


@dataclass(frozen=True)
class Table:
    """Rows of equal columns.

    Attributes
    ----------
    where : str
        What messages begin with.
    names : list of str
        Of the columns; empty where the table has no line of them.
    rows : list of list
        Strings; of JSON whatever stands there.
    lines : list of int
        Of each row, for messages.
    """

    where: str
    names: list[str]
    rows: list[list[Any]]
    lines: list[int]

    def column(self, name: str) -> list[Any]:
        """Return the values of a column.

        Raises
        ------
        CommandError
            Where there is none of that name.
        """
        if name not in self.names:
            near = nearest(name, self.names)
            raise CommandError(
                f"{self.where}: expected a column {name!r}, got {', '.join(self.names)}{near}"
            )
        at = self.names.index(name)
        return [row[at] for row in self.rows]

    def at(self, row: int) -> str:
        """Return what a message about a row begins with."""
        return f"{self.where}: line {self.lines[row]}"


def parse(where: str, path: Path, text: str, header: bool = True) -> Table:
    """Return the table in a text, whose format the name of the file tells, or the text itself.

    Raises
    ------
    CommandError
        If there is no row, a row has too many or too few columns, or none can be read.
    """
    kind = FORMATS.get(path.suffix.lower()) or _guess(text)
    table = _json_lines(where, text) if kind == "JSON lines" else _csv(where, text, kind, header)
    if not table.rows:
        raise CommandError(f"{where}: expected rows of {kind}, got none")
    return table


def _guess(text: str) -> str:
    first = text.lstrip().partition("\n")[0]
    if first.startswith("{"):
        return "JSON lines"
    return "TSV" if "\t" in first else "CSV"


def _csv(where: str, text: str, kind: str, header: bool) -> Table:
    reader: Any
    if kind == "TSV":
        reader = csv.reader(text.split("\n"), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        # Lines end where `reading` says, not at every sign that splitlines knows.
        reader = csv.reader(io.StringIO(text), strict=True, skipinitialspace=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    names: list[str] = []
    limit = csv.field_size_limit(len(text))  # a second of sound is more than it allows
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if header and not names:
                names = _names(where, [name.strip() for name in row])
                continue
            width = len(names or (rows[0] if rows else row))
            if len(row) != width:
                raise CommandError(
                    f"{where}: line {reader.line_num}: expected {width} columns of {kind}, "
                    f"got {len(row)}"
                )
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise CommandError(f"{where}: line {reader.line_num}: no {kind}: {error}") from None
    finally:
        csv.field_size_limit(limit)
    return Table(where, names, rows, lines)


def _json_lines(where: str, text: str) -> Table:
    names: list[str] = []
    rows, lines = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or not value:
            raise CommandError(
                f"{where}: line {number}: expected an object of JSON, got {line.strip()[:40]!r}"
            )
        names = names or list(value)
        if value.keys() != set(names):
            raise CommandError(
                f"{where}: line {number}: expected {', '.join(names)}, got {', '.join(value)}"
            )
        rows.append([value[name] for name in names])
        lines.append(number)
    return Table(where, names, rows, lines)


def _names(where: str, names: Sequence[str]) -> list[str]:
    for name in names:
        if not name:
            raise CommandError(f"{where}: expected a name for each column, got an empty one")
        if names.count(name) > 1:
            raise CommandError(f"{where}: expected each column once, got {name!r} again")
    return list(names)
