"""The lessons, small: each shows what it teaches, and draws its picture."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import PNG

ROOT = Path(__file__).parent.parent
LESSONS = ROOT / "examples" / "lessons"
NAMES = sorted(path.stem for path in LESSONS.glob("*.py") if path.stem != "common")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def lesson(program: Callable[[str], Any]) -> Callable[[str], Any]:
    """A lesson's module by name."""
    return lambda name: program(f"lessons/{name}")


@pytest.fixture
def run(lesson: Callable[[str], Any], tmp_path: Path) -> Callable[[str], Any]:
    """What the small form of a lesson finds."""

    def find(name: str) -> Any:
        found = lesson(name).main(["--small", "--out", str(tmp_path / "new")])
        assert (tmp_path / "new" / f"{name}.png").read_bytes()[:8] == PNG
        return found

    return find


def test_unrolled(run: Callable[[str], Any], capsys: pytest.CaptureFixture[str]) -> None:
    found = run("unrolled")
    assert found["central differences"] < 1e-8
    assert found["kernels"] < 1e-12
    assert capsys.readouterr().out.count('"hell" -> "ello"') == 2


def test_long_memory(run: Callable[[str], Any], lesson: Callable[[str], Any]) -> None:
    found = run("long_memory")
    for cell in ("GRU", "LSTM"):
        assert found["adding", cell, 30] > 0.8 > found["adding", "RNN", 30]
        assert found["copy", cell, 10] > 0.9
    # What the lesson is there for: a gate reaches over 200 steps, tanh does not.
    success = lesson("long_memory").success
    assert success("adding", "GRU", 200, 800, 0) > 0.9
    assert success("adding", "RNN", 200, 300, 0) < 0.1


def test_gradient_flow(run: Callable[[str], Any]) -> None:
    rates = run("gradient_flow")
    cell, _ = rates.pop("c of an LSTM, forget bias 3")
    assert 0.9 < cell < 1.1
    for rate, largest in rates.values():
        assert rate <= largest
    for name, (rate, largest) in rates.items():
        assert (rate > 0.9 * largest) == name.startswith("orthogonal")


def test_cliff(run: Callable[[str], Any]) -> None:
    found = run("cliff")
    (long, lost), (short, low) = found["plain"], found["clipped to 0.5"]
    assert long > 5
    assert lost > 0.05
    assert short <= 0.5 * 0.3 + 1e-12  # the limit times the rate
    assert low < 0.02


def test_forget_bias(run: Callable[[str], Any]) -> None:
    found = run("forget_bias")
    assert found[0.0] == 250  # all there were
    assert found[3.0] < 230


def test_curriculum(run: Callable[[str], Any]) -> None:
    took = run("curriculum")
    assert np.isinf(took["long"]).all()
    assert took["short"][0] < took["random"][0] < np.inf


def test_truncated(run: Callable[[str], Any]) -> None:
    last = run("truncated")
    assert last[5, 5][0] > 0.8
    assert last[5, 13][0] < 0.1


def test_documents(run: Callable[[str], Any]) -> None:
    found = run("documents")
    least = found["the least possible"]
    assert least < found["documents"] < found["carried"] - 0.02
    assert found["documents"] < found["windows"] - 0.04


def test_documents_least_loss_knows_where_documents_begin(lesson: Callable[[str], Any]) -> None:
    module, rng = lesson("documents"), np.random.default_rng(0)
    chains = rng.dirichlet(np.full(8, 0.5), (4, 8))
    symbols, begins = module.text(2_000, chains, rng)
    losses = []
    for shift in (0, 1, len(begins)):  # at the right place, one too late, never
        known = np.zeros_like(begins)
        known[shift:] = begins[: len(begins) - shift]
        known[0] = True
        found = module.best(symbols, known, chains)
        np.testing.assert_allclose(found.sum(-1), 1)
        losses.append(float(module.surprises(found, symbols[1:])[~begins[1:]].mean()))
    assert losses[0] < losses[1] < losses[2]


def test_depth_and_direction(run: Callable[[str], Any]) -> None:
    found = run("depth_and_direction")
    assert found["1 layer, both directions"] > found["1 layer"] + 0.05


def test_inside(run: Callable[[str], Any]) -> None:
    found = run("inside")
    assert found["letters"] > 0.4
    assert found["quotation"] > 0.15


def test_inside_knows_quotations(lesson: Callable[[str], Any]) -> None:
    answers = lesson("inside").questions('a "bc"\n"d\n\nef')
    assert answers["quotation"].tolist() == [0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0]
    assert answers["letters"].tolist() == [1, 0, 0, 1, 2, 0, 0, 0, 1, 0, 0, 1, 2]
    assert answers["column"].tolist() == [1, 2, 3, 4, 5, 6, 0, 1, 2, 0, 0, 1, 2]


def test_attention(run: Callable[[str], Any]) -> None:
    found = run("attention")
    assert found[True, 12] > found[False, 12] + 0.3
    assert found[True, 2] > 0.9


def test_attention_has_the_gradients_of_its_loss(lesson: Callable[[str], Any]) -> None:
    model = lesson("attention").Translator(True, 0)
    rng = np.random.default_rng(0)
    x, target = rng.integers(0, 32, (2, 5, 3))
    _, grads = model.gradients(x, target)
    for name in (parameters := model.parameters()):
        array = parameters[name]
        direction = rng.standard_normal(array.shape).astype(np.float32)
        direction /= np.linalg.norm(direction)
        sides = []
        for sign in (1, -2):
            array += sign * np.float32(0.05) * direction
            sides.append(model.gradients(x, target)[0])
        array += np.float32(0.05) * direction
        along = (sides[0] - sides[1]) / 0.1
        assert along == pytest.approx(float(np.sum(grads[name] * direction)), abs=1e-3), name


def test_without_matplotlib_the_table_is_there(
    lesson: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    lesson("cliff").main(["--small", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "longest step" in said
    assert "pip install 'fusedrnn[plot]'" in said
    assert not list(tmp_path.iterdir())


def test_a_lesson_is_at_most_120_lines() -> None:
    long = {path.name: len(path.read_text("utf-8").splitlines()) for path in LESSONS.glob("*.py")}
    assert max(long.values()) <= 120, long


def test_the_page_shows_every_lesson() -> None:
    page = (ROOT / "docs" / "lessons.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\(plots/lessons/(\w+)\.png\)", page)) == NAMES
    programs = re.findall(r"literalinclude\} \.\./examples/lessons/(\w+)\.py", page)
    assert sorted(programs) == sorted([*NAMES, "common"])
    for name in NAMES:
        picture = (ROOT / "docs" / "plots" / "lessons" / f"{name}.png").read_bytes()
        assert picture[:8] == PNG
        assert len(picture) < 80_000
