"""`info()`, and `python -m fusedrnn`."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn.__main__ import main


def test_info() -> None:
    known = fr.info()
    assert known["version"] == fr.__version__ == importlib.metadata.version("fusedrnn")
    assert known["python"] == platform.python_version()
    assert known["numpy"] == np.__version__
    assert known["isa"] in known["isas_available"]
    assert set(known["isas_available"]) <= set(known["isas_compiled"])
    assert known["threads"] == fr.get_num_threads() >= 1
    assert known["cuda_devices"] == []
    assert known["cuda"]


def test_the_info_command_prints_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = dict(line.split("  ", 1) for line in lines)
    assert [name.strip().replace(" ", "_") for name in shown] == list(fr.info())
    assert any("version" in line and fr.__version__ in line for line in lines)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["info", "more"], ["--info"]])
def test_anything_else_prints_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "usage: python -m fusedrnn" in captured.err
    assert not captured.out


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "usage: python -m fusedrnn" in capsys.readouterr().out


def test_as_a_program() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fusedrnn", *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    assert fr.__version__ in run("info").stdout
    assert run("nonsense").returncode == 2
