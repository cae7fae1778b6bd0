"""`python -m fusedrnn flow`."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from fusedrnn.__main__ import main
from fusedrnn.cli import flow
from support import PNG

SMALL = ["--steps", "30", "--hidden", "8", "--batch", "2"]


def test_a_picture_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "flow.png"
    assert main(["flow", *SMALL, "--save", str(picture)]) == 0
    assert picture.read_bytes().startswith(PNG)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split()[-1] == "29"
    # 9 plain RNNs and their bounds, a GRU, two LSTMs with their cell states, the head
    assert len(lines) == 1 + 2 * 9 + 1 + 2 * 2
    assert err == f"{picture}: written\n"
    assert main(["flow", *SMALL, "--no-png"]) == 0
    assert capsys.readouterr() == (out, "")  # the same seed, the same numbers


def test_what_the_lectures_teach() -> None:
    flows = {f.name: f for f in flow.measure(120, 32, 4, 0)}
    assert len(flows) == 12
    for f in flows.values():
        assert f.h[0] == pytest.approx(1)  # where it enters
        if f.bound is not None:
            assert (f.h <= f.bound * (1 + 1e-9)).all(), f.name
    for nonlinearity in flow.NONLINEARITIES:
        below, at, above = (flows[f"RNN {nonlinearity}, radius {r}"].h[-1] for r in flow.RADII)
        assert below < 1e-20
        assert below < at < above
    # Without an activation the norm goes as the radius to the number of steps.
    for radius in flow.RADII:
        h = flows[f"RNN identity, radius {radius}"].h
        assert (h[-1] / h[-41]) ** (1 / 40) == pytest.approx(radius, rel=0.03)
    assert flows["LSTM, forget bias 1"].h[-1] > 1e5 * flows["LSTM"].h[-1]
    c = flows["LSTM"].c
    assert c is not None
    assert c[0] == 0
    assert np.isfinite(c).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "argument --steps: expected an integer of at least 1, got '0'"),
        (["--hidden", "many"], "argument --hidden: expected an integer of at least 1, got 'many'"),
        (["--seed", "-1"], "argument --seed: expected an integer of at least 0, got '-1'"),
        (["--save", "/dev/null"], "--save /dev/null: expected a file, got a device"),
        (["--save", "/nowhere/f.png"], "--save /nowhere/f.png: there is no folder /nowhere"),
        (["--save", "/proc/f.png"], "--save /proc/f.png: cannot write in /proc: No such"),
        (["--save", "f\0"], "argument --save: expected a path, got 'f\\x00'"),
        (["more"], "unrecognized arguments: more"),
        (["--hiden", "3"], "unrecognized arguments: --hiden 3; did you mean --hidden?"),
    ],
)
def test_errors(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flow", *arguments, *SMALL]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_a_picture_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    picture = tmp_path / "flow.png"
    picture.write_text("before")
    monkeypatch.setattr(os, "replace", full)
    assert main(["flow", *SMALL, "--save", str(picture)]) == 2
    assert f"--save {picture}: No space left on device" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_a_rehearsal_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: int) -> None:
        assert list(tmp_path.iterdir()) == []
        raise MemoryError

    monkeypatch.setattr(flow, "measure", fails)
    assert main(["flow", "--save", str(tmp_path / "f.png")]) == 1
    assert capsys.readouterr() == ("", "fusedrnn flow: out of memory\n")
    assert list(tmp_path.iterdir()) == []


def test_one_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flow", "--steps", "1", "--no-png"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[-1] == "0"


def test_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is there, and how to get the rest."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    picture = tmp_path / "flow.png"
    assert main(["flow", *SMALL, "--save", str(picture)]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("gradient of h")
    assert "pip install 'fusedrnn[plot]'" in err
    assert not picture.exists()
