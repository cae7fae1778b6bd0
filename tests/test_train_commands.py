"""`python -m fusedrnn train`: runs, their results folders, their configuration, going on."""

from __future__ import annotations

import csv
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fusedrnn.__main__ import main
from fusedrnn.cli import configuration, loop, progress, results
from fusedrnn.cli import run as runs
from fusedrnn.cli.tasks import TASKS
from pages import blocks
from support import PNG
from train_support import SMALL, arrays_of, data, refused, rows, train

__all__ = ["data"]  # a fixture

tasks = pytest.mark.parametrize("task", list(TASKS))
FILES = ["checkpoint.safetensors", "config.toml", "loss.png", "metrics.csv", "metrics.json",
         "model.safetensors"]  # fmt: skip


@tasks
def test_a_run_and_its_results(
    task: str, data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    folder = tmp_path / "new" / "run"
    assert train(task, "--data", data[task], "--out", folder) == 0
    out, err = capsys.readouterr()
    assert sorted(os.listdir(folder)) == FILES
    assert (folder / "loss.png").read_bytes().startswith(PNG)
    found = rows(folder)
    assert [row["update"] for row in found] == [3, 6]
    table = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert [float(row["validation_loss"]) for row in table] == [
        row["validation_loss"] for row in found
    ]
    assert out.splitlines()[0].startswith(f"data: {data[task]}, ")
    assert f"validation loss {found[-1]['validation_loss']:.4g}" in out
    assert out.splitlines()[-1] == f"results: {folder}"
    assert "3/6: loss " in err
    assert "/s, 00:0" in err
    best = min(found, key=lambda row: row["validation_loss"])["update"]
    model = runs.load("MODEL", folder / "model.safetensors", whole=False)
    assert model.rows[-1]["update"] == best
    assert not any(name.startswith("optimizer") for name in arrays_of(folder / "model.safetensors"))
    # The configuration makes the same run again.
    again = tmp_path / "again"
    arguments = ["--config", str(folder / "config.toml"), "--out", str(again), "--quiet"]
    assert main(["train", task, *arguments]) == 0
    assert capsys.readouterr().err == ""
    assert rows(again) == found
    assert (again / "config.toml").read_text() == (folder / "config.toml").read_text()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@tasks
def test_a_run_that_goes_on_ends_in_the_same_bits(
    task: str, cell: str, data: dict[str, Path], tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ["--cell", cell, "--layers", 2, "--dropout", 0.2, "--data", data[task], "--quiet"]
    assert train(task, *options, "--out", whole, steps=12, every=5) == 0
    # Stopped between two evaluations, and within a pass over the data.
    assert train(task, *options, "--out", parts, steps=7, every=5) == 0
    resumed = ["--resume", str(parts), "--steps", "12", "--quiet"]
    assert main(["train", task, *resumed]) == 0
    expected, got = (arrays_of(f / "checkpoint.safetensors") for f in (whole, parts))
    assert got == expected
    # One evaluation more, at 7, and nothing else is another.
    assert rows(parts)[-1] == rows(whole)[-1]
    assert [row["update"] for row in rows(parts)] == [5, 7, 10, 12]
    assert "steps = 12" in (parts / "config.toml").read_text()


@tasks
def test_ctrl_c_keeps_what_was_trained(
    task: str,
    data: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, whole = tmp_path / "run", tmp_path / "whole"
    assert train(task, "--data", data[task], "--out", whole, "--quiet", steps=8, every=4) == 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    rate = loop.learning_rate

    def press_in_the_sixth(base: float, update: int) -> float:
        if update == 6:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)  # an impatient user
        return rate(base, update)

    capsys.readouterr()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "learning_rate", press_in_the_sixth)
            options = ["--data", data[task], "--out", folder, "--quiet"]
            assert train(task, *options, steps=8, every=4) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    resume = f"python -m fusedrnn train {task} --resume {folder}"
    assert capsys.readouterr().err == (
        f"interrupted after 6 of 8 updates, all of them saved; to go on: {resume}\n"
    )
    assert main([*resume.split()[3:], "--quiet"]) == 0
    assert rows(folder) == rows(whole)
    expected, got = (arrays_of(f / "checkpoint.safetensors") for f in (whole, folder))
    assert got == expected


def test_a_run_that_is_killed_goes_on(data: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = f"--data {data['char-lm']} --out {folder} --steps 1000000 --every 20"
    command = [sys.executable, "-m", "fusedrnn", "train", "char-lm"]
    with subprocess.Popen(
        [*command, *SMALL["char-lm"].split(), *options.split()], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("40/"):
                break
        process.kill()
    done = runs.load("--resume", folder / "checkpoint.safetensors").update
    assert done >= 20
    options = f"--resume {folder} --steps {done + 20} --quiet"
    assert main(["train", "char-lm", *options.split()]) == 0
    assert rows(folder)[-1]["update"] == done + 20


def test_training_learns(data: dict[str, Path], tmp_path: Path) -> None:
    """Each model, so small and in so few updates, does clearly better than chance."""
    steps = {"char-lm": 60, "classify": 60, "seq2seq": 150, "forecast": 60}
    last = {}
    for task, number in steps.items():
        options = ["--data", data[task], "--out", tmp_path / task, "--quiet", "--lr", 0.02]
        assert train(task, *options, steps=number, every=number) == 0
        last[task] = rows(tmp_path / task)[-1]
    assert last["char-lm"]["validation_loss"] < 2.5
    assert last["classify"]["accuracy"] == 1
    assert last["seq2seq"]["exact"] > 0.5
    assert last["forecast"]["validation_loss"] < 0.15
    assert 0.3 < last["forecast"]["covered"] <= 1


def test_the_best_model_and_the_mean_loss(
    data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, found = loop.update, iter([2.0, 1.0, 3.0])
    monkeypatch.setattr(TASKS["classify"], "evaluate", lambda _: {"validation_loss": next(found)})
    monkeypatch.setattr(loop, "update", lambda run: (update(run) and run.update, 0.0, 1))
    folder = tmp_path / "run"
    assert train("classify", "--data", data["classify"], "--out", folder, "--quiet", steps=9) == 0
    assert [row["loss"] for row in rows(folder)] == [2, 5, 8]  # of 1, 2, 3; of 4, 5, 6; ...
    best = runs.load("MODEL", folder / "model.safetensors", whole=False)
    assert best.rows[-1]["update"] == 6


def test_the_loss_of_a_forecast_is_that_of_its_windows(
    data: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert train("forecast", "--data", data["forecast"], "--out", folder, "--quiet") == 0
    task = runs.load("MODEL", folder / "checkpoint.safetensors").task
    with open(data["forecast"]) as file:
        series = np.array([float(row["demand"]) for row in csv.DictReader(file)])
    series = (series - series[:270].mean()) / series[:270].std()
    begins = range(270, 300 - 6 + 1)  # of 300 values the last tenth, 6 ahead, after 24
    x = np.stack([series[b - 24 : b] for b in begins], axis=1)[..., None].astype(np.float32)
    error = np.stack([series[b : b + 6] for b in begins])[..., None] - task.model.predict(x)
    q = np.array([0.1, 0.5, 0.9])
    loss = np.maximum(q * error, (q - 1) * error).mean()
    assert rows(folder)[-1]["validation_loss"] == pytest.approx(loss, rel=1e-5)
    inside = (error[..., 0] >= 0) & (error[..., 2] <= 0)
    assert rows(folder)[-1]["covered"] == pytest.approx(inside.mean())


def test_default_folders_are_numbered(
    data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert train("classify", "--data", data["classify"], "--quiet", steps=1) == 0
    assert sorted(os.listdir("runs")) == ["classify-1", "classify-2"]


@pytest.mark.parametrize("option", ["--out", "--resume"])
def test_two_trainings_in_a_folder_do_not_mix(
    option: str, data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    words: list[object] = ["train", "char-lm", option, folder]
    if option == "--resume":
        assert train("char-lm", "--data", data["char-lm"], "--out", folder, "--quiet") == 0
        words += ["--steps", 9]
    else:
        folder.mkdir()
        words += ["--data", data["char-lm"], *SMALL["char-lm"].split()]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    capsys.readouterr()
    with results.alone("--out", folder):  # as the other training does
        refused(words, f"{option} {folder}: another training is writing there", capsys)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert main([*map(str, words), "--quiet", *([] if before else ["--steps", "3"])]) == 0


def test_a_training_that_comes_second_leaves_what_the_first_wrote(
    data: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    make = results.create

    def made(path: Path | None, task: str) -> Path:
        found = make(path, task)
        (found / "config.toml").write_text("the other's")  # between the look and the lock
        return found

    monkeypatch.setattr(results, "create", made)
    words = ["train", "char-lm", "--data", data["char-lm"], *SMALL["char-lm"].split()]
    refused([*words, "--out", folder], "expected a new or an empty folder, got files", capsys)
    assert [path.read_text() for path in folder.iterdir()] == ["the other's"]


def test_without_matplotlib(
    data: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    folder = tmp_path / "run"
    assert train("classify", "--data", data["classify"], "--out", folder) == 0
    assert capsys.readouterr().out.endswith(
        f"results: {folder}, without a picture, which needs matplotlib: "
        "pip install 'fusedrnn[plot]'\n"
    )
    assert "loss.png" not in os.listdir(folder)


def test_data_from_standard_input(data: dict[str, Path], tmp_path: Path) -> None:
    folder, usual = tmp_path / "run", tmp_path / "usual"
    options = [*SMALL["char-lm"].split(), "--steps", "4", "--every", "2", "--quiet"]
    command = [sys.executable, "-m", "fusedrnn", "train", "char-lm", *options]
    with open(data["char-lm"], "rb") as file:
        done = subprocess.run(
            [*command, "--text", "-", "--out", str(folder)],
            check=False, stdin=file, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("data: -, ")
    assert (
        main(["train", "char-lm", *options, "--data", str(data["char-lm"]), "--out", str(usual)])
        == 0
    )
    assert rows(folder) == rows(usual)
    resumed = ["train", "char-lm", "--resume", str(folder), "--steps", "6", "--quiet"]
    assert main(resumed) == 2
    assert main([*resumed, "--data", str(data["char-lm"])]) == 0


# Configuration


def test_the_command_line_goes_before_the_file(data: dict[str, Path], tmp_path: Path) -> None:
    config, folder = tmp_path / "c.toml", tmp_path / "run"
    config.write_text(
        f'data = "{data["forecast"]}"\nhidden = 5\nwindow = 24\nhorizon = 3\n'
        "quantiles = [0.2, 0.7]\nsteps = 2\nlr = 1\nclip = inf\n"
    )
    arguments = ["--config", config, "--hidden", 6, "--quiet", "--out", folder]
    assert main(["train", "forecast", *map(str, arguments)]) == 0
    kept = configuration.read(folder / "config.toml", "forecast", TASKS["forecast"].settings)
    assert kept["hidden"] == 6
    assert kept["lr"] == 1.0
    assert kept["clip"] == float("inf")
    assert kept["quantiles"] == [0.2, 0.7]
    assert kept["data"] == str(data["forecast"])
    assert kept["batch"] == 32
    # A run with an infinite limit goes on as well.
    assert main(["train", "forecast", "--resume", str(folder), "--steps", "3", "--quiet"]) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hiden = 3", "hiden: expected a setting of char-lm, got another; did you mean hidden?"),
        ("window = 3", "window: expected a setting of char-lm, got another"),
        ("[model]\nhidden = 3", "model: expected a setting of char-lm, got another"),
        ("hidden = 0", "hidden: expected an integer of at least 1, got 0"),
        ("hidden = 3.0", "hidden: expected an integer of at least 1, got 3.0"),
        ("hidden = true", "hidden: expected an integer of at least 1, got True"),
        ('hidden = "3"', "hidden: expected an integer of at least 1, got '3'"),
        ("lr = nan", "lr: expected a number above 0, got nan"),
        ('cell = "cfc"', "cell: expected one of rnn, gru, lstm, got 'cfc'"),
        ("cell = []", "cell: expected one of rnn, gru, lstm, got []"),
        ("validation = 1.0", "validation: expected a number between 0 and 1, got 1.0"),
        ("data = 3", "data: expected a string, got 3"),
        ('task = "classify"', "expected one for char-lm, got one for classify"),
        ("hidden", "expected TOML, got Expected '=' after a key"),
        ("a = " + "[" * 5000, "expected TOML, got "),
        ("\0", "expected a text file, got a binary one"),
        (None, "No such file or directory"),
    ],
)
def test_a_configuration_that_cannot_be_used(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.toml"
    if content is not None:
        config.write_text(content)
    refused(["train", "char-lm", "--config", config], f"--config {config}: {message}", capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "fusedrnn train: expected a task, char-lm, classify, seq2seq, forecast, got none"),
        (["clasify"], "got 'clasify'; did you mean classify?"),
        (["char-lm"], "expected --data FILE, or --resume FOLDER, got neither"),
        (["char-lm", "--hiden", "3"], "arguments: --hiden 3; did you mean --hidden?"),
        (["forecast", "--hidden", "many"], "expected an integer of at least 1, got 'many'"),
        (["forecast", "--quantiles", "0.9,0.1"], "expected rising numbers between 0 and 1, got"),
        (["forecast", "--quantiles", "0.1,x"], "expected rising numbers between 0 and 1, got"),
        (["forecast", "--steps", "9" * 400], "expected an integer below 2**53, got 9999"),
        (["forecast", "--layers", "1001"], "expected an integer from 1 to 1000, got '1001'"),
        (["classify", "--data", ""], "expected a path, got ''"),
        (["seq2seq", "--attention", "yes"], "unrecognized arguments: yes"),
    ],
)
def test_wrong_options_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(["train", *arguments], message, capsys)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {task} " in shown for task in TASKS)
    for name, task in TASKS.items():
        assert main(["train", name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert all(f"--{setting.name}" in shown for setting in task.settings)


def test_a_bar_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.Progress(2, 4, "pairs") as shown:
        for _ in range(2):
            shown.update(0.5, 32)
            time.sleep(0.11)  # tqdm draws ten times a second
        shown.evaluated("exact 0.9")
    err = capsys.readouterr().err
    assert "4/4: exact 0.9, " in err
    assert "loss 0.500, " in err
    assert "\r" in err


def test_the_commands_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of docs/command_line.md, in its order, with fewer updates."""
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parent.parent / "docs" / "command_line.md"
    ran = 0
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "python":
            exec(compile(block.code, str(page), "exec"), {})
        elif block.language == "toml":
            Path("page.toml").write_text(block.code)
            assert main(["train", "classify", "--config", "page.toml", "--steps", "2"]) == 0
        else:
            assert block.language == "sh"
            for line in filter(None, block.code.splitlines()):
                program, arguments = line.split(" ", 3)[:3], shlex.split(line)[3:]
                assert program == ["python", "-m", "fusedrnn"]
                if arguments[0] == "train":
                    arguments += ["--steps", "6" if "--resume" in arguments else "3"]
                assert main(arguments) == 0, (line, capsys.readouterr().err)
                ran += 1
    assert ran == 10
    assert len(Path("labels.csv").read_text().splitlines()) == 301
