"""The examples of docs/ and of the docstrings run, and show what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest

import fusedrnn as fr
from pages import blocks, run, show

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(
    page
    for page in DOCS.glob("*.md")
    if any(block.language in ("python", "pycon") for block in blocks(page.read_text("utf-8")))
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    threads = fr.get_num_threads()
    try:
        assert run(page, {"__name__": page.stem})
    finally:
        fr.set_num_threads(threads)


def docstrings() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder()
    names = [
        module.name
        for module in pkgutil.walk_packages(fr.__path__, "fusedrnn.")
        if not module.name.rpartition(".")[2].startswith("_")
    ]
    found = {
        test.name: test
        for name in ("fusedrnn", *names)
        for test in finder.find(importlib.import_module(name), extraglobs={"np": np, "fr": fr})
        if test.examples
    }
    return list(found.values())


@pytest.mark.parametrize("test", docstrings(), ids=lambda test: test.name)
def test_the_examples_of_a_docstring_run(
    test: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    show(test)


def test_there_are_examples() -> None:
    assert {"tutorial", "cells", "streaming", "pytorch", "jax", "faq"} <= {p.stem for p in PAGES}
    assert "fusedrnn.layers.loaded.load_frozen" in {test.name for test in docstrings()}
