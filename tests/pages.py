"""The examples of a page in Markdown: its fenced blocks, run one after the other in one namespace.

A block of `python` is a program; one of `pycon` has prompts, and below them what is shown.
"""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any, NamedTuple

#: A comment before a block says why it cannot run.
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")


class Block(NamedTuple):
    """A fenced block: the heading above it, its language, its first line, its text, why not run."""

    section: str
    language: str
    line: int
    code: str
    not_run: str


def blocks(text: str) -> list[Block]:
    found, section, begin, reason = [], "", 0, ""
    lines = text.splitlines()
    kind: str | None = None
    for number, line in enumerate(lines, 1):
        if line.startswith("```"):
            if kind is None:
                kind, begin = line.removeprefix("```"), number + 1
            else:
                # Blank lines before it, so that a traceback names the line of the page.
                code = "\n" * (begin - 1) + "\n".join(lines[begin - 1 : number - 1])
                found.append(Block(section, kind, begin, code, reason))
                kind, reason = None, ""
        elif kind is None and line.startswith("#"):
            section = line.lstrip("# ")
        elif kind is None and line:
            match = NOT_RUN.fullmatch(line)
            reason = match[1] if match else ""
    assert kind is None, "a block without an end"
    return found


def run(page: Path, namespace: dict[str, Any]) -> int:
    """Run a page's examples; return how many there are."""
    examples = 0
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "python":
            if not block.not_run:
                exec(compile(block.code, str(page), "exec"), namespace)
                examples += 1
        elif block.language == "pycon" and not block.not_run:
            test = doctest.DocTestParser().get_doctest(block.code, {}, page.name, str(page), 0)
            test.globs = namespace  # no copy: what it binds is there for the next block
            examples += show(test)
    return examples


def show(test: doctest.DocTest) -> int:
    """Run prompts, and compare with what is below them; return how many there are."""
    try:
        doctest.DebugRunner().run(test, clear_globs=False)
    except doctest.DocTestFailure as failure:
        example = failure.example
        raise AssertionError(
            f"{test.name}, line {(test.lineno or 0) + example.lineno + 1}: "
            f"{example.source.strip()}\n"
            f"expected {example.want.strip()}\ngot      {failure.got.strip()}"
        ) from None
    except doctest.UnexpectedException as failure:
        raise failure.exc_info[1] from None
    return len(test.examples)
