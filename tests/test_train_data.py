"""What `train` reads and writes: bad data are named with their line, nothing is written over."""

from __future__ import annotations

import codecs
import csv
import errno
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from fusedrnn.__main__ import main
from fusedrnn.cli import loop, reading, tables
from fusedrnn.cli import run as runs
from fusedrnn.cli.tasks import TASKS
from fusedrnn.nn import checkpoints
from train_support import SMALL, arrays_of, data, refused, rows, train

__all__ = ["data"]  # a fixture

tasks = pytest.mark.parametrize("task", list(TASKS))


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused_data(
    task: str, content: bytes | str, message: str, capsys: Any, name: str = "data.csv", *more: str
) -> None:
    path = Path(name)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    refused(
        ["train", task, *SMALL[task].split(), "--data", name, *more],
        f"fusedrnn train {task}: --data {name}: {message}",
        capsys,
    )
    assert os.listdir() == [name]  # no results folder


@tasks
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9,1\n" * 100, "expected UTF-8, got byte 0xe9 at offset 3"),
        (b"a,\0b\n" * 100, "expected a text file, got a binary one"),
        (codecs.BOM_UTF16_LE + b"a\0", "expected UTF-8, got the byte-order mark of UTF-16 or"),
        (codecs.BOM_UTF32_BE, "expected UTF-8, got the byte-order mark of UTF-16 or UTF-32"),
    ],
    ids=["latin-1", "binary", "utf-16", "utf-32"],
)
def test_data_that_are_no_text(
    task: str, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused_data(task, content, message, capsys)


@tasks
@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n \n"])
def test_empty_data(task: str, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    message = "too short: " if task == "char-lm" else "expected rows of CSV, got none"
    refused_data(task, content, message, capsys)


@tasks
def test_a_byte_order_mark_and_carriage_returns_are_dropped(
    task: str, data: dict[str, Path], tmp_path: Path
) -> None:
    marked = tmp_path / data[task].name
    marked.write_bytes(codecs.BOM_UTF8 + data[task].read_bytes().replace(b"\n", b"\r\n"))
    assert train(task, "--data", marked, "--out", "marked", "--quiet") == 0
    assert train(task, "--data", data[task], "--out", "plain", "--quiet") == 0
    assert rows(Path("marked")) == rows(Path("plain"))


@pytest.mark.parametrize(
    ("content", "message", "more"),
    [
        ("text,mark\nx,1\n", "expected a column 'label', got text, mark", ()),
        ("text,lable\nx,1\n", "expected a column 'label', got text, lable; did you mean", ()),
        ("a,b,label\nx,y,1\nx,y,2\n", "expected one column beside 'label', or --input NAME", ()),
        ("label\n1\n2\n", "expected one column beside 'label', or --input NAME, got none", ()),
        ("text,label\nx,1\ny,\n", "line 3: expected a label, got ''", ()),
        ("text,label\nx,1\ny,1\n", "expected 2 labels or more, got '1' only", ()),
        ("text,label\nx,1\n\n ,2\n", "line 4: expected text, got none", ()),
        ("text,label\nx,1\ny\n", "line 3: expected 2 columns of CSV, got 1", ()),
        ('text,label\nx,1\n"y,2\n', "line 3: no CSV: unexpected end of data", ()),
        ("text,label\n", "expected rows of CSV, got none", ()),
        ("text,text\nx,1\n", "expected each column once, got 'text' again", ()),
        ("text,\nx,1\n", "expected a name for each column, got an empty one", ()),
        ("x,label\n1 2,a\n3 b,c\n", "line 3: expected numbers, got '3 b' (text: --units", ()),
        ("x,label\n1 2,a\n3 inf,c\n", "line 3: expected numbers, got '3 inf'", ()),
        ("x,label\n" + "1e308,a\n1e308,c\n" * 9, "expected smaller numbers, got one of 1e+308", ()),
        ("x,label\nb c,a\n3,c\n", "line 2: expected numbers, got 'b c'", ("--units", "numbers")),
        ("text,label\nx,1\ny,2\n", "expected a column 'txt', got text, label; did you mean text?",
         ("--input", "txt")),
    ],
)  # fmt: skip
def test_a_table_to_classify(
    content: str, message: str, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    refused_data("classify", content, message, capsys, "data.csv", *more)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"x": [1], "label": 1}\n[]\n', "line 2: expected an object of JSON, got '[]'"),
        ('{"x": [1], "label": 1}\n{"x": \n', "line 2: expected an object of JSON, got"),
        ('{"x": [1], "label": 1}\n{"x": [1]}\n', "line 2: expected x, label, got x"),
        ('{"x": [1], "label": 1}\n{"x": [1], "label": 1.5}\n', "line 2: expected a label, got 1.5"),
        ('{"x": [1], "label": 1}\n{"x": [NaN], "label": 2}\n', "line 2: expected numbers, got"),
        ('{"x": [1], "label": 1}\n{"x": [], "label": 2}\n', "line 2: expected numbers, got '[]'"),
        ('{"x": [1], "label": 1}\n{"x": {}, "label": 2}\n', "line 2: expected numbers, got '{}'"),
        ('{"x": [1], "label": 1}\n{"x": [[1, 2]], "label": 2}\n',
         "line 2: expected 1 numbers in each step, got 2"),
        ('{"x": "a", "label": 1}\n{"x": [1], "label": 2}\n', "line 2: expected text, got '[1]'"),
        ("[" * 100_000, "line 1: expected an object of JSON, got"),
    ],
)  # fmt: skip
def test_json_lines_to_classify(
    content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused_data("classify", content, message, capsys, "data.jsonl")


def test_cells_of_a_table_may_be_long_and_odd() -> None:
    before = csv.field_size_limit()
    for name, separator in (("data.csv", ","), ("data.tsv", "\t")):
        sound = " ".join(["0.25"] * 40_000)
        text = f"x{separator}label\n{sound}{separator}1\na\u2028b\x0c\x85{separator}2\n"
        table = tables.parse("", Path(name), text)
        assert table.column("x") == [sound, "a\u2028b\x0c\x85"]
        assert table.lines == [2, 3]
    assert csv.field_size_limit() == before


def test_numbers_step_by_step() -> None:
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(60):
        rising = rng.random() < 0.5
        steps = np.cumsum(rng.random((rng.integers(3, 9), 2)) * (1 if rising else -1), axis=0)
        lines.append(
            f'{{"x": {steps.round(3).tolist()}, "label": {"true" if rising else "false"}}}'
        )
    text = "\n".join(lines).replace("true", "1").replace("false", "0")
    Path("data.jsonl").write_text(text)
    options = ["--data", "data.jsonl", "--out", "run", "--quiet", "--lr", 0.03]
    assert train("classify", *options, steps=60, every=60) == 0
    assert rows(Path("run"))[-1]["accuracy"] == 1


@pytest.mark.parametrize(
    ("content", "message", "more"),
    [
        ("a\tb\tc\n", "expected 2 columns, or --source NAME --target NAME, got 3", ()),
        ("a\n", "expected 2 columns, or --source NAME --target NAME, got 1", ()),
        ("a\tb\na\n", "line 2: expected 2 columns of TSV, got 1", ()),
        ("a\tb\n", "too short: expected 2 rows or more, got 1", ()),
        ("a\tb\na\t\n", "line 2: expected text, got none", ()),
        ("a\tb\nc\td\n", "expected a column 'x', got a, b", ("--source", "x", "--target", "b")),
    ],
)
def test_a_table_of_pairs(
    content: str, message: str, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    refused_data("seq2seq", content, message, capsys, "data.tsv", *more)


SERIES = "time,value\n" + "".join(f"h{k},{k}\n" for k in range(200))


@pytest.mark.parametrize(
    ("content", "message", "more"),
    [
        ("a,b\nx,y\n", "expected one column of numbers, or --column NAME, got none of a, b", ()),
        ("a,b\n1x,2\n" * 1 + "1x,2\n", "too short: 2 values, 0 of them to train on", ()),
        ("a,b\n1,2\n" * 1, "expected one column of numbers, or --column NAME, got a, b", ()),
        ("d1,5\nd2,6\n", "expected a first line with names of columns, or --column NAME, got d1, 5",
         ()),
        (SERIES, "expected a column 'valu', got time, value; did you", ("--column", "valu")),
        (SERIES, "line 2: time: expected a number, got 'h0'", ("--column", "time")),
        (SERIES + "h200,\n", "line 202: value: expected a number, got ''", ()),
        (SERIES + "h200,nan\n", "line 202: value: expected a number, got 'nan'", ()),
        (SERIES, "too short: 200 values, 180 of them to train on; --window 500, --horizon 6 and "
                 "--season 12 need 506", ("--window", "500")),
        (SERIES, "too short: 200 values, 180 of them to train on; --window 24, --horizon 6 and "
                 "--season 190 need 196", ("--season", "190")),
    ],
)  # fmt: skip
def test_a_table_with_a_series(
    content: str, message: str, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    refused_data("forecast", content, message, capsys, "data.csv", *more)


def test_a_series_alone_needs_no_names() -> None:
    Path("plain.txt").write_text("".join(f"{k % 12}\n" for k in range(200)))
    assert train("forecast", "--data", "plain.txt", "--out", "run", "--quiet") == 0


@pytest.mark.parametrize("season", [1, 5, 24])
def test_the_naive_forecast_of_what_repeats_is_exact(
    season: int, capsys: pytest.CaptureFixture[str]
) -> None:
    period = 1 if season == 1 else season
    Path("plain.txt").write_text("".join(f"{k % period}\n" for k in range(200)))
    options = ["--data", "plain.txt", "--season", season, "--quiet", "--out", "run"]
    assert train("forecast", *options, steps=1) == 0
    assert "ago: 0)" in capsys.readouterr().out.replace("the last value: 0)", "ago: 0)")


@tasks
def test_dropout_has_an_effect_in_one_layer(task: str, data: dict[str, Path]) -> None:
    options = ["--data", data[task], "--layers", 1, "--quiet", "--out"]
    assert train(task, *options, "with", "--dropout", 0.5) == 0
    assert train(task, *options, "without") == 0
    assert rows(Path("with"))[0]["loss"] != rows(Path("without"))[0]["loss"]


@tasks
def test_sizes_beyond_all_memory(
    task: str, data: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", task, "--data", data[task], *SMALL[task].split()]
    refused([*arguments, "--hidden", 10**15], f"fusedrnn train {task}: ", capsys)
    assert os.listdir() == []


def test_training_that_diverges_says_so(
    data: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", data["char-lm"], "--out", "run", "--quiet", "--lr", 1e38]
    assert train("char-lm", *options, steps=200, every=100) == 1
    err = capsys.readouterr().err
    assert err.startswith("fusedrnn train char-lm: training diverged at update ")
    assert err.endswith("; try a smaller --lr\n")
    assert runs.load("--resume", Path("run/checkpoint.safetensors")).update == 0


# Reading


@tasks
@pytest.mark.skipif(not Path("/dev/zero").is_char_device(), reason="this system has no /dev/zero")
def test_data_without_an_end(
    task: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", task, "--data"]
    message = "--data /dev/zero: expected a text file, got a binary one"
    refused([*arguments, "/dev/zero"], message, capsys)
    monkeypatch.setattr(reading, "MAX_BYTES", 100)
    Path("long").write_text("x" * 101)
    refused([*arguments, "long"], "--data long: expected at most 100 bytes, got more", capsys)


def test_data_that_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    refused(["train", "char-lm", "--data", "none"], "--data none: No such file", capsys)
    refused(["train", "char-lm", "--data", "."], "--data .: Is a directory", capsys)


# Writing


@tasks
def test_what_is_there_is_no_results_folder(
    task: str, data: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text = data[task].read_bytes()
    arguments = ["train", task, "--data", data[task], *SMALL[task].split(), "--out"]
    message = f"--out {data[task]}: expected a folder, got a file"
    refused([*arguments, data[task]], message, capsys)
    assert data[task].read_bytes() == text
    os.mkfifo("fifo")
    refused([*arguments, "fifo"], "--out fifo: expected a folder, got a FIFO", capsys)
    assert stat.S_ISFIFO(os.stat("fifo").st_mode)
    Path("link").symlink_to("fifo")
    refused([*arguments, "link"], "--out link: expected a folder, got a FIFO", capsys)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        refused([*arguments, "socket"], "expected a folder, got a socket", capsys)
    refused([*arguments, "/dev/null"], "--out /dev/null: expected a folder, got a device", capsys)
    refused([*arguments, "/dev/null/x"], "--out /dev/null/x: Not a directory", capsys)
    refused([*arguments, "/proc/x"], "--out /proc/x: No such file or directory", capsys)
    Path("dangling").symlink_to("nowhere")
    refused([*arguments, "dangling"], "--out dangling: ", capsys)
    Path("full").mkdir()
    Path("full/notes").write_text("mine")
    message = "--out full: expected a new or an empty folder, got files"
    refused([*arguments, "full"], message, capsys)
    assert os.listdir("full") == ["notes"]
    Path("full/checkpoint.safetensors").touch()
    refused([*arguments, "full"], f"{message}; to go on with it: --resume full", capsys)


def test_a_disk_too_small_is_noticed_before_the_training(data: dict[str, Path]) -> None:
    # A limit of the process on the size of files stands for the disk.
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
        "from fusedrnn.__main__ import main; sys.exit(main())"
    )
    options = f"train char-lm --data {data['char-lm']} --out run {SMALL['char-lm']}"
    failed = subprocess.run(
        [sys.executable, "-c", limited, *options.split()],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    expected = "fusedrnn train char-lm: run/checkpoint.safetensors: File too large\n"
    assert (failed.returncode, failed.stdout, failed.stderr) == (2, "", expected)
    assert not Path("run").exists()


def test_a_disk_that_fills_up_costs_no_checkpoint(
    data: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fsync, rate = os.fsync, loop.learning_rate

    def fill_up(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def rate_and_a_full_disk(base: float, update: int) -> float:
        if update == 4:
            monkeypatch.setattr(os, "fsync", fill_up)
        if update == 7:
            monkeypatch.setattr(os, "fsync", fsync)
        return rate(base, update)

    monkeypatch.setattr(loop, "learning_rate", rate_and_a_full_disk)
    options = ["--data", data["classify"], "--quiet", "--out"]
    assert train("classify", *options, "short", steps=6) == 2
    assert "short/model.safetensors: No space left on device" in capsys.readouterr().err
    assert runs.load("--resume", Path("short/checkpoint.safetensors")).update == 3
    monkeypatch.setattr(os, "fsync", fsync)
    # Room again at the next evaluation: nothing is lost.
    assert train("classify", *options, "long", steps=9) == 0
    assert "No space left on device" in capsys.readouterr().err
    assert [row["update"] for row in rows(Path("long"))] == [3, 6, 9]
    assert not [name for name in os.listdir("long") if name.startswith(".")]


# Of a pipe the status is that of its last command.
@pytest.mark.parametrize(
    ("redirected", "status", "why"),
    [(">/dev/full", 2, "No space left on device"), ("| true", 0, "Broken pipe")],
)
def test_an_output_that_ends(redirected: str, status: int, why: str, data: dict[str, Path]) -> None:
    command = f"{sys.executable} -m fusedrnn train classify --data {data['classify']} --out run "
    command += f"{SMALL['classify']} --steps 3 --quiet {redirected}"
    done = subprocess.run(command, shell=True, check=False, capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr == f"fusedrnn: standard output: {why}\n"


# Going on


@pytest.fixture
def run(data: dict[str, Path]) -> Path:
    folder = Path("run")
    assert train("char-lm", "--data", data["char-lm"], "--out", folder, "--quiet") == 0
    return folder


def test_what_a_run_goes_on_with(
    run: Path, data: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    resume = ["train", "char-lm", "--resume", run]
    before = arrays_of(run / "checkpoint.safetensors")
    refused([*resume, "--hidden", 13], "--hidden 13: the run of --resume run has 12", capsys)
    refused([*resume, "--seed", 1], "--seed 1: the run of --resume run has 0", capsys)
    message = f"--data {data['seq2seq']}: expected the data of --resume run, got others"
    refused([*resume, "--data", data["seq2seq"]], message, capsys)
    refused([*resume, "--steps", 5], "--steps 5: the run of --resume run has done 6", capsys)
    refused([*resume, "--out", "other"], "expected --out or --resume", capsys)
    refused(["train", "classify", "--resume", run], "expected a classify, got a char-lm", capsys)
    refused(["train", "char-lm", "--resume", "none"], "--resume none: No such file", capsys)
    Path("bare").mkdir()
    refused(["train", "char-lm", "--resume", "bare"], "--resume bare/checkpoint", capsys)
    refused(["train", "char-lm", "--resume", data["char-lm"]], "expected a folder of", capsys)
    (run / "config.toml").unlink()
    (run / "config.toml").symlink_to("config.toml")
    refused([*resume, "--steps", 9], "config.toml: Too many levels of symbolic links", capsys)
    (run / "config.toml").unlink()
    assert main(["train", "char-lm", "--resume", "run", "--hidden", "12"]) == 0
    assert capsys.readouterr().out.endswith("all 6 updates are done; --steps N for more\n")
    assert arrays_of(run / "checkpoint.safetensors") == before


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_checkpoint_cut_short(
    share: float, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    path = run / "checkpoint.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    for arguments in (["train", "char-lm", "--resume", run], ["generate", path]):
        message = "checkpoint.safetensors: expected a checkpoint of train, got another ("
        refused(arguments, message, capsys)
    assert path.read_bytes() == whole[: int(share * len(whole))]


def test_foreign_files(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    path = run / "checkpoint.safetensors"
    for content in (
        b"words",
        safetensors.numpy.save({"weights": np.zeros(3)}),
        safetensors.numpy.save({"weights": np.zeros(3)}, {"format": "fusedrnn-checkpoint-1"}),
    ):
        path.write_bytes(content)
        refused(["train", "char-lm", "--resume", run], "expected a checkpoint of train", capsys)
    path.unlink()
    os.mkfifo(path)
    refused(["train", "char-lm", "--resume", run], "expected a file, got a FIFO", capsys)


#: What a checkpoint of each task may claim, and does not have.
CLAIMS: dict[str, list[dict[str, Any]]] = {
    "char-lm": [{"characters": 5}, {"characters": ""}, {"characters": None}],
    "classify": [
        {"labels": []}, {"labels": 5}, {"kind": "numbers"}, {"kind": "x"}, {"symbols": []},
        {"symbols": [1, 2]}, {"symbols": None}, {"symbols": ["\ufffd", "a", "a"]},
    ],
    "seq2seq": [{"longest": None}, {"longest": -1}, {"sources": [[]]}, {"targets": {}}],
    "forecast": [{"mean": "x"}, {"spread": 0}, {"spread": None}, {"column": None}],
}  # fmt: skip


@tasks
def test_a_checkpoint_that_contradicts_itself(
    task: str, data: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(task, "--data", data[task], "--out", "run", "--quiet", steps=1) == 0
    capsys.readouterr()
    path = Path("run/checkpoint.safetensors")
    arrays, texts = checkpoints._read(path)
    for claim in CLAIMS[task]:
        changed = {**texts["metadata"], "knowledge": {**texts["metadata"]["knowledge"], **claim}}
        headers = {**texts, "metadata": changed}
        checkpoints._write(path, arrays, {name: json.dumps(x) for name, x in headers.items()})
        refused(["train", task, "--resume", "run"], "expected a checkpoint of train", capsys)


def test_guesses_of_a_format() -> None:
    assert tables.parse("x", Path("-"), "a\tb\n1\t2\n").names == ["a", "b"]
    assert tables.parse("x", Path("-"), 'a,b\n"1,5",2\n').rows == [["1,5", "2"]]
    assert tables.parse("x", Path("-"), '\n{"a": 1}\n').rows == [[1]]
    assert tables.parse("x", Path("-"), 'a,b\n"two\nlines",2\nc,d\n').lines == [3, 4]
