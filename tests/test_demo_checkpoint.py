"""The demo loses nothing that was trained: checkpoints, failing saves, Ctrl-C."""

from __future__ import annotations

import json
import math
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from demo_support import QUICK, SMALL, cells, write_corpus
from fusedrnn import nn
from fusedrnn.cli import loop
from fusedrnn.cli import run as runs
from fusedrnn.cli.characters import UNKNOWN
from fusedrnn.cli.demo import main
from fusedrnn.cli.errors import CommandError
from fusedrnn.nn import checkpoints


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def trained(corpus: Path, tmp_path: Path) -> Path:
    path = tmp_path / "trained.safetensors"
    assert main([*QUICK, "--text", str(corpus), "--steps", "3", "--save", str(path)]) == 0
    return path


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(path)


@cells
def test_a_continued_run_ends_in_the_same_bits(cell: str, corpus: Path, tmp_path: Path) -> None:
    whole, half, rest = (tmp_path / f"{name}.safetensors" for name in ("whole", "half", "rest"))
    options = [*QUICK, "--text", str(corpus)]
    fresh = [*options, "--cell", cell, "--lr", "0.01", "--clip", "3", "--seed", "5"]
    # A pass has 94 chunks: the second half begins within it, with a state to carry over.
    assert main([*fresh, "--steps", "60", "--save", str(whole)]) == 0
    assert main([*fresh, "--steps", "30", "--save", str(half)]) == 0
    resumed = ["--text", str(corpus), "--quiet", "--steps", "30", "--load", str(half)]
    assert main([*resumed, "--save", str(rest)]) == 0
    expected, got = arrays_of(whole), arrays_of(rest)
    assert "arrays.state.0" in expected
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].tobytes() == value.tobytes(), name


def test_loading_for_no_step_evaluates_the_same_model(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.safetensors"
    options = ["--text", str(corpus), "--quiet"]
    assert main([*QUICK, *options, "--steps", "4", "--save", str(path)]) == 0
    before = capsys.readouterr().out
    assert main([*options, "--generate", "40", "--load", str(path), "--steps", "0"]) == 0
    after = capsys.readouterr().out
    assert before.split("validation:")[1] == after.split("validation:")[1]
    assert "4 updates so far" in after


def test_a_model_goes_on_with_another_text(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("Quite another text! " * 50)
    assert main(["--text", str(other), "--load", str(trained), "--steps", "2", "--quiet"]) == 0
    output = capsys.readouterr()
    assert "another text" in output.err
    assert "characters outside it" in output.out


def test_another_text_goes_on_where_it_was(trained: Path, tmp_path: Path) -> None:
    other, whole, half, rest = (tmp_path / name for name in ("other", "whole", "half", "rest"))
    other.write_text("Quite another text! " * 50)
    options = ["--text", str(other), "--quiet", "--load"]
    assert main([*options, str(trained), "--steps", "4", "--save", str(whole)]) == 0
    assert main([*options, str(trained), "--steps", "2", "--save", str(half)]) == 0
    assert main([*options, str(half), "--steps", "2", "--save", str(rest)]) == 0
    for name, value in arrays_of(whole).items():
        assert arrays_of(rest)[name].tobytes() == value.tobytes(), name


def test_a_model_goes_on_with_another_batch(corpus: Path, trained: Path) -> None:
    options = ["--text", str(corpus), "--load", str(trained), "--steps", "2", "--quiet"]
    assert main([*options, "--batch", "3", "--save", str(trained)]) == 0
    assert arrays_of(trained)["arrays.state.0"].shape == (1, 3, 16)


def test_the_sizes_of_a_loaded_model_are_fixed(
    corpus: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--text", str(corpus), "--load", str(trained), "--hidden", "17"]) == 2
    assert f"--hidden 17: the model of --load {trained} has 16" in capsys.readouterr().err


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.98, 0.9999])
def test_a_file_cut_short_is_refused(share: float, trained: Path) -> None:
    data = trained.read_bytes()
    trained.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CommandError, match=r"trained\.safetensors: expected a checkpoint of train"):
        runs.load("--load", trained)


def test_a_damaged_byte_is_noticed(trained: Path) -> None:
    data = bytearray(trained.read_bytes())
    data[len(data) // 2] ^= 0x10
    trained.write_bytes(data)
    with pytest.raises(CommandError, match="expected a checkpoint of train"):
        runs.load("--load", trained)


def file_of(arrays: dict[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    data: bytes = safetensors.numpy.save(arrays, metadata)
    return data


def checkpoint_of(metadata: dict[str, Any]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        nn.save_checkpoint(path, nn.Linear(1, 1, seed=0), metadata=metadata)
        return path.read_bytes()


FOREIGN = {
    "text": b"just some words",
    "pickle": pickle.dumps({"header": 1}),
    "other arrays": file_of({"weights": np.zeros(3)}),
    "no json": file_of({"weights": np.zeros(3)}, {"format": "fusedrnn-checkpoint-1"}),
    "other model": checkpoint_of({}),
    "other format": checkpoint_of({"format": "fusedrnn-demo-0"}),
    "header alone": checkpoint_of({"format": runs.FORMAT}),
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_refused(
    data: bytes, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(data)
    assert main([*QUICK, "--text", str(corpus), "--load", str(path)]) == 2
    assert (
        f"--load {path}: expected a checkpoint of train, got another (" in capsys.readouterr().err
    )


def altered(path: Path, **changes: Any) -> None:
    """Replace members of a checkpoint, or drop them (None), or change its header (a dict)."""
    arrays, texts = checkpoints._read(path)
    for name, change in changes.items():
        if isinstance(change, dict):
            texts["metadata"][name] = texts["metadata"][name] | change
        elif name in texts["metadata"]:
            texts["metadata"][name] = change
        elif change is None:
            del arrays[name]
        else:
            arrays[name] = change
    checkpoints._write(path, arrays, {name: json.dumps(text) for name, text in texts.items()})


CHANGES = {
    "no parameter": {"model.out.bias": None},
    "no moment": {"optimizer.exp_avg_sq.out.bias": None},
    "shape": {"model.out.bias": np.zeros(3, np.float32)},
    "dtype": {"model.rnn.bias_hh_l0": np.zeros(48)},
    "moment not finite": {"optimizer.exp_avg.rnn.bias_hh_l0": np.full(48, np.nan, np.float32)},
    "updates": {"optimizer.updates": np.array(-1)},
    "not finite": {"arrays.state.0": np.full((1, 4, 16), np.nan, np.float32)},
    "begin": {"arrays.begin": np.array(-1)},
    "other arrays": {"arrays.more": np.zeros(1)},
    "hidden": {"settings": {"hidden": 10**12}},
    "layers": {"settings": {"layers": 10**9}},
    "cell": {"settings": {"cell": "cfc"}},
    "other cell": {"settings": {"cell": "lstm"}},
    "type": {"settings": {"embedding": "8"}},
    "batch": {"settings": {"batch": 0}},
    "rate": {"settings": {"lr": math.nan}},
    "no setting": {"settings": None},
    "vocabulary": {"knowledge": {"characters": UNKNOWN + "abc"}},
    "vocabulary twice": {"knowledge": {"characters": UNKNOWN + "aa"}},
    "knowledge": {"knowledge": None},
    "rows": {"rows": 5},
    "rows of nothing": {"rows": [{}]},
    "rows of words": {"rows": [{"update": 1, "loss": 1.0, "validation_loss": "x"}]},
    "best": {"best": "x"},
    "total": {"total": math.nan},
    "count": {"count": -1},
    "task": {"task": "paint"},
    "another task": {"task": "classify"},
    "a task of another type": {"task": ["char-lm"]},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_that_contradicts_itself_is_refused(
    changes: dict[str, Any], trained: Path
) -> None:
    altered(trained, **changes)
    with pytest.raises(CommandError, match="expected a checkpoint of train"):
        runs.load("--load", trained)


def test_ctrl_c_keeps_every_finished_update(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stopped, whole = tmp_path / "stopped.safetensors", tmp_path / "whole.safetensors"
    options = [*QUICK, "--text", str(corpus)]
    assert main([*options, "--steps", "5", "--save", str(whole)]) == 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    rate = loop.learning_rate

    def press_in_the_fifth(base: float, step: int) -> float:
        if step == 5:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)  # an impatient user
        return rate(base, step)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "learning_rate", press_in_the_fifth)
            assert main([*options, "--steps", "1000", "--save", str(stopped)]) == 0
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    output = capsys.readouterr()
    assert "interrupted: 5 of 1000 updates done" in output.err
    assert output.out.count("validation:") == 2
    expected, got = arrays_of(whole), arrays_of(stopped)
    for name, value in expected.items():
        assert got[name].tobytes() == value.tobytes(), name


def test_ctrl_c_from_outside(corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "stopped.safetensors"
    # A background job may have been started with SIGINT ignored; a terminal's never is.
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from fusedrnn.cli.demo import main; sys.exit(main(sys.argv[1:]))"
    )
    options = [*SMALL, "--text", str(corpus), "--steps", str(10**7), "--save", str(path)]
    with subprocess.Popen(
        [sys.executable, "-c", script, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stderr is not None
            progress = b""
            while b"bits/char" not in progress:
                byte = process.stderr.read(1)
                assert byte, progress
                progress += byte
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert b"interrupted: " in err
    assert b"validation: " in out
    assert b"generated:" in out
    assert runs.load("--load", path).update > 0
