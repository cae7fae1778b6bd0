"""The examples of wirings, small: what each says at its end is far from what comes by chance."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import char_model
from fusedrnn import nn
from support import PNG, same_bits

FOLDER = Path(__file__).parent.parent / "examples" / "wirings"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "shared")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def example(program: Callable[[str], Any]) -> Callable[[str], Any]:
    """An example's module by name."""
    return lambda name: program(f"wirings/{name}")


@pytest.fixture
def run(
    example: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """What an example finds, with its picture and its model."""

    def small(name: str, *words: object) -> Any:
        found = example(name).main(["--quiet", "--out", str(tmp_path), *map(str, words)])
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG)
        assert nn.load_checkpoint(tmp_path / f"{name}.safetensors").metadata["config"]
        assert f"{name}.png: drawn" in capsys.readouterr().out
        return found

    return small


def test_characters(run: Callable[..., Any]) -> None:
    words = ("--steps", 60, "--hidden", 64, "--batch", 16, "--write", 30)
    found = run("characters", *words)
    assert found["128 to 256 read"] < 3.8  # of whichever text this Python ships
    assert found["128 to 256 read"] < found["1 character read"] - 0.5


def test_frames(run: Callable[..., Any]) -> None:
    found = run("frames", "--steps", 80, "--batch", 16)
    alone, forward, both = found.values()
    assert alone + 0.05 < forward < both


def test_dna(run: Callable[..., Any]) -> None:
    found = run("dna", "--steps", 250, "--sequences", 800, "--batch", 32)
    assert found["recurrent"] > 0.3
    assert found["scan by log-odds"] > 0.4


def test_sentiment(run: Callable[..., Any]) -> None:
    found = run("sentiment", "--steps", 150)
    assert found["bag of words"] < 0.65
    assert found["recurrent"] > 0.95


def test_calls(run: Callable[..., Any]) -> None:
    found = run("calls", "--steps", 250, "--recordings", 900)
    assert found["recurrent"] > found["mean spectrum"] + 0.1


def test_video(run: Callable[..., Any]) -> None:
    found = run("video", "--steps", 200)
    assert found["mean frame"] < 0.5
    assert found["recurrent"] > 0.8


def test_strokes(run: Callable[..., Any]) -> None:
    found = run("strokes", "--steps", 120, "--hidden", 64)
    assert found["held out"] > 0.9
    assert found["drawn"] > 0.3  # by chance 0.125
    assert found["nats"] < 0.5


def test_captions(run: Callable[..., Any]) -> None:
    found = run("captions", "--steps", 300)
    assert found["seen combinations"] > 0.5  # by chance 0.003


def test_dates(run: Callable[..., Any], tmp_path: Path) -> None:
    found = run("dates", "--steps", 20, "--hidden", 16, "--held_out", 30)
    assert set(found) == {"attention", "tenth", "plain", "plain_tenth"}
    parameters = nn.load_checkpoint(tmp_path / "dates_without_attention.safetensors").model
    assert not any(name.startswith("attention") for name in parameters)


def test_forecast(run: Callable[..., Any]) -> None:
    found = run("forecast", "--steps", 60, "--hidden", 32)
    assert found["recurrent"] < 0.8 * found["seasonal naive"]


def test_every_example_has_a_test() -> None:
    assert {f"test_{name}" for name in NAMES} <= set(globals())


def test_dates_are_written_as_people_do(example: Callable[[str], Any]) -> None:
    dates = example("dates")
    assert [dates.ordinal(n) for n in (1, 2, 12, 20, 23, 31)] == [
        "first", "second", "twelfth", "twentieth", "twenty-third", "thirty-first",
    ]  # fmt: skip
    assert [dates.suffixed(n) for n in (1, 2, 3, 11, 12, 13, 22)] == [
        "1st", "2nd", "3rd", "11th", "12th", "13th", "22nd",
    ]  # fmt: skip
    assert [dates.year(n) for n in (1900, 1984, 2000, 2007)] == [
        "nineteen hundred", "nineteen hundred and eighty-four", "two thousand",
        "two thousand and seven",
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    forms = {dates.written(datetime.date(2003, 2, 9), rng) for _ in range(300)}
    assert len(forms) == 12
    assert "on sunday, the ninth of february in the year two thousand and three" in forms
    seen, held_out = (dates.pairs(300, rng, kind) for kind in (False, True))
    assert not {target for _, target in seen} & {target for _, target in held_out}


def test_data_are_as_stated(example: Callable[[str], Any]) -> None:
    dna = example("dna")
    bases, labels = dna.sequences(60, np.random.default_rng(0))
    odds = dna.log_odds(bases)
    for kind in range(2):
        assert odds[kind][labels == 1 + kind].mean() > odds[kind][labels == 0].mean() + 3
    sentiment = example("sentiment")
    rng = np.random.default_rng(0)
    for praise in (False, True):
        words = sentiment.clause(rng, praise).split()
        turned = bool({"not", "never", "far", "anything", "hardly"} & set(words))
        assert bool(set(words) & set(sentiment.GOOD)) == (praise != turned)


@pytest.mark.parametrize("name", ["characters", "calls"])
def test_an_example_that_is_resumed_ends_in_the_same_bits(
    name: str, example: Callable[[str], Any], tmp_path: Path
) -> None:
    def trained(folder: str, *words: str) -> Any:
        small = ["--steps", "6", "--hidden", "16", "--batch", "8", "--quiet"]
        small += ["--write", "1"] if name == "characters" else ["--recordings", "240"]
        example(name).main([*small, "--out", str(tmp_path / folder), *words])
        return nn.load_checkpoint(tmp_path / folder / f"{name}.safetensors")

    whole = trained("whole")
    assert trained("parts", "--stop", "3").metadata["step"] == 3
    resumed = trained("parts", "--resume")
    assert resumed.metadata == whole.metadata
    same_bits(resumed.model, whole.model)
    same_bits(resumed.optimizer, whole.optimizer)
    same_bits(resumed.arrays, whole.arrays)


def test_a_whole_training_is_that_of_pytorch(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        words = ["--characters", "3072", "--streams", "8", "--block", "3", "--threads", "1"]
        assert char_model.main([*words, "--out", str(tmp_path / "runs.json")]) == 0
    finally:
        torch.set_num_threads(threads)
    trainings = json.loads((tmp_path / "runs.json").read_text())["trainings"]
    assert [(t["cell"], t["streams"], t["steps"]) for t in trainings] == [
        ("gru", 8, 6),
        ("lstm", 8, 6),
    ]
    for training in trainings:
        ours, theirs = (r["bits_per_character"] for r in training["runs"].values())
        assert ours == pytest.approx(theirs, abs=1e-3)
    assert "| LSTM | 8 | 6 |" in (tmp_path / "runs.md").read_text()


def test_without_matplotlib_the_table_is_there(
    example: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    words = ["--steps", "2", "--hidden", "4", "--quiet", "--out", str(tmp_path)]
    example("video").main(words)
    shown = capsys.readouterr().out
    assert "video.png: not drawn, which needs matplotlib: pip install 'fusedrnn[plot]'" in shown
    assert "mean frame" in shown
    assert not (tmp_path / "video.png").exists()
