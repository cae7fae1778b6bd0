"""`python -m fusedrnn generate` and `predict`."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusedrnn import models
from fusedrnn.__main__ import main
from fusedrnn.cli.tasks import TASKS
from fusedrnn.cli.tasks.char_lm import CharLM
from train_support import data, refused, train

__all__ = ["data"]  # a fixture

STEPS = {"char-lm": 60, "classify": 60, "seq2seq": 200, "forecast": 100}


@pytest.fixture(scope="module")
def trained(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for task in TASKS:
        options = ["--data", data[task], "--out", folder / task, "--quiet", "--lr", 0.02]
        assert train(task, *options, steps=STEPS[task], every=STEPS[task]) == 0
    return {task: folder / task for task in TASKS}


def written(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


def table(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(written(capsys, *arguments))))


# generate


def test_text_that_goes_on_with_a_prompt(
    trained: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def of(*options: object) -> str:
        return written(capsys, "generate", trained["char-lm"], "--count", 60, *options)

    text = of("--prompt", "the cat ")
    assert text.startswith("the cat ")
    assert text.endswith("\n")
    assert len(text) == 8 + 60 + 1
    assert text == of("--prompt", "the cat ")
    assert text != of("--prompt", "the cat ", "--seed", 1)
    likeliest = of("--temperature", 0)
    assert likeliest == of("--top-k", 1, "--seed", 2)
    assert likeliest == of("--top-p", 1e-9, "--seed", 3)
    assert set(of("--temperature", 50)) <= set("thecadogshrbin .\n")
    assert len(of("--prompt", "\u00e9")) == 62  # a character that it does not know
    assert of("--count", 0) == "\n"


def test_generating_from_a_file_and_into_one(
    trained: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = trained["char-lm"] / "model.safetensors"
    shown = written(capsys, "generate", file, "--count", 20)
    out = tmp_path / "text.txt"
    assert written(capsys, "generate", file, "--count", 20, "--out", out) == ""
    assert out.read_text() == shown
    arguments = ["generate", file, "--count", 5, "--out"]
    refused([*arguments, out], f"--out {out}: expected a new file, got a file", capsys)
    assert out.read_text() == shown
    refused([*arguments, file], "expected a new file, got a file that is there", capsys)
    refused([*arguments, "/dev/null"], "expected a new file, got a device that is there", capsys)
    refused([*arguments, "/none/x"], "--out /none/x: there is no folder /none", capsys)
    # Said before anything is generated.
    monkeypatch.setattr(CharLM, "generate", None)
    words = "cannot write in /proc: No such file or directory"
    refused([*arguments, "/proc/x"], f"--out /proc/x: {words}", capsys)
    (tmp_path / "link").symlink_to(tmp_path / "none")
    refused([*arguments, tmp_path / "link"], "expected a new file, got a link to none", capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "text.txt"]


def test_a_run_without_an_evaluation_generates(
    data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("char-lm", "--data", data["char-lm"], "--out", tmp_path / "run", "--quiet") == 0
    (tmp_path / "run" / "model.safetensors").unlink()
    assert len(written(capsys, "generate", tmp_path / "run", "--count", 5)) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: MODEL"),
        (["none"], "MODEL none: No such file or directory"),
        (["."], "MODEL checkpoint.safetensors: No such file or directory"),
        (["/dev/zero"], "MODEL /dev/zero: expected a file, got a device"),
        (["x", "--count", "-1"], "expected an integer of at least 0, got '-1'"),
        (["x", "--top-p", "1.5"], "expected a number above 0 and at most 1, got '1.5'"),
        (["x", "--tempratur", "1"], "did you mean --temperature?"),
    ],
)
def test_wrong_options_of_generate(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(["generate", *arguments], message, capsys)


def test_another_model_generates_nothing(trained: dict[str, Path], capsys: Any) -> None:
    run = trained["classify"]
    refused(["generate", run], f"MODEL {run}: expected a char-lm, got a classify", capsys)


# predict


def test_labels(trained: dict[str, Path], data: dict[str, Path], capsys: Any) -> None:
    run = trained["classify"]
    films = ["the film, good", "the film, not good", "the film, not bad", "unheard-of"]
    found = table(capsys, "predict", run, *films)
    assert [row["input"] for row in found] == films
    assert [row["label"] for row in found[:3]] == ["like", "dislike", "like"]
    assert all(0.5 <= float(row["probability"]) <= 1 for row in found)
    with open(data["classify"]) as file:
        wanted = [row["label"] for row in csv.DictReader(file)]
    of_file = table(capsys, "predict", run, "--data", data["classify"])
    assert [row["label"] for row in of_file] == wanted


def test_inputs_line_by_line(trained: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "films.txt").write_text("the film, good\n\nthe film, not good\n")
    found = table(capsys, "predict", trained["classify"], "--data", tmp_path / "films.txt")
    assert [row["label"] for row in found] == ["like", "dislike"]
    (tmp_path / "films.csv").write_text("text\ngood\nnot good\n")  # no labels are needed
    found = table(capsys, "predict", trained["classify"], "--data", tmp_path / "films.csv")
    assert len(found) == 2
    command = [sys.executable, "-m", "fusedrnn", "predict", str(trained["classify"]), "--data", "-"]
    piped = subprocess.run(
        command, input="the film, not bad\n", check=False, capture_output=True, text=True
    )
    assert piped.stdout.splitlines()[1].startswith('"the film, not bad",like,')


def test_the_beam_is_that_of_the_option(
    trained: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    beams, generate = [], models.Seq2Seq.generate

    def noted(self: Any, *arguments: Any, beam: int, **options: Any) -> Any:
        beams.append(beam)
        return generate(self, *arguments, beam=beam, **options)

    monkeypatch.setattr(models.Seq2Seq, "generate", noted)
    table(capsys, "predict", trained["seq2seq"], "ab")
    table(capsys, "predict", trained["seq2seq"], "ab", "--beam", 7)
    assert beams == [4, 7]


def test_sequences(
    trained: dict[str, Path], data: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    run = trained["seq2seq"]
    found = table(capsys, "predict", run, "ab", "cab", "xyz")
    assert [row["target"] for row in found[:2]] == ["ba", "bac"]
    greedy = table(capsys, "predict", run, "--beam", 1, "ab")
    assert greedy[0]["target"] == "ba"
    out = tmp_path / "out.csv"
    assert written(capsys, "predict", run, "--data", data["seq2seq"], "--out", out) == ""
    with open(out) as file:
        rows = list(csv.DictReader(file))
    right = [row["target"] == row["source"][::-1] for row in rows]
    assert len(right) == 200
    assert np.mean(right) > 0.5
    refused(["predict", run, "ab", "--out", out], "expected a new file, got a file", capsys)


def test_a_forecast(trained: dict[str, Path], data: dict[str, Path], capsys: Any) -> None:
    found = table(capsys, "predict", trained["forecast"], "--data", data["forecast"])
    assert [row["step"] for row in found] == list("123456")
    middle = np.array([float(row["q0.5"]) for row in found])
    wanted = 50 + 10 * np.sin(np.arange(300, 306) * np.pi / 6)
    assert np.abs(middle - wanted).mean() < 2.5
    assert all(float(row["q0.1"]) <= float(row["q0.5"]) <= float(row["q0.9"]) for row in found)


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("classify", "", "expected a line for each input, got none"),
        ("classify", "x,y\n1,2\n", "expected one column beside 'label', got x, y"),
        ("seq2seq", "", "expected a line for each source, got none"),
        ("forecast", "", "expected rows of CSV, got none"),
        ("forecast", "1\n2\n3\n", "too short: expected 24 values, got 3"),
        ("forecast", "a,b\n1,2\n", "expected a column 'demand', got a, b"),
    ],
)
def test_data_that_cannot_be_predicted(
    task: str, content: str, message: str, trained: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    path = tmp_path / ("data.csv" if "," in content else "data.txt")
    path.write_text(content)
    arguments = ["predict", trained[task], "--data", path]
    refused(arguments, f"fusedrnn predict: --data {path}: {message}", capsys)


def test_wrong_uses_of_predict(
    trained: dict[str, Path], data: dict[str, Path], capsys: Any
) -> None:
    run = trained["classify"]
    refused(["predict"], "predict: the following arguments are required: MODEL (all", capsys)
    refused(["predict", run], "expected --data FILE or INPUT, got neither", capsys)
    refused(["predict", run, "x", "--data", "y"], "expected --data FILE or INPUT, got both", capsys)
    refused(["predict", run, " "], "input ' ': expected text, got none", capsys)
    refused(["predict", run, "x", "--beam", 2], "--beam 2: expected a model of seq2seq", capsys)
    refused(["predict", trained["forecast"], "5"], "expected --data FILE with the series", capsys)
    refused(["predict", trained["char-lm"], "5"], "expected a model that predicts", capsys)
    message = "expected a new file, got a file that is there"
    refused(
        ["predict", run, "--data", data["classify"], "--out", data["classify"]], message, capsys
    )


@pytest.mark.parametrize("command", ["generate", "predict"])
def test_a_full_output(command: str, trained: dict[str, Path]) -> None:
    run = trained["char-lm" if command == "generate" else "seq2seq"]
    inputs = [] if command == "generate" else ["ab"]
    with open("/dev/full", "w") as full:
        failed = subprocess.run(
            [sys.executable, "-m", "fusedrnn", command, str(run), *inputs],
            check=False, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert failed.returncode == 2
    assert failed.stderr == "fusedrnn: standard output: No space left on device\n"


def test_a_reader_that_leaves(trained: dict[str, Path]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "fusedrnn", "generate", str(trained["char-lm"])],
            check=False, stdout=writer, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (2, "fusedrnn: standard output: Broken pipe\n")
