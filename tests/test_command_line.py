"""`info()`, and `python -m fusedrnn`."""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.metadata
import io
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn.__main__ import COMMANDS, main


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a command, got none"),
        (["nonsense"], "expected a command, got 'nonsense'"),
        (["nonsense", "info"], "expected a command, got 'nonsense'"),
        (["--info"], "expected a command, got '--info'; did you mean info?"),
        (["trian"], "expected a command, got 'trian'; did you mean train?"),
        (["--verison"], "expected a command, got '--verison'; did you mean --version?"),
        ([""], "expected a command, got ''"),
        (["info", "more"], "info: expected no argument, got 'more'"),
        (["help", "me"], "help: expected no argument, got 'me'"),
        (["--version", "2"], "--version: expected no argument, got '2'"),
    ],
)
def test_a_wrong_command_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    first, blank, usage, *_ = captured.err.splitlines()
    assert (first, blank) == (f"fusedrnn: {message}", "")
    assert usage.startswith("usage: python -m fusedrnn")
    assert not captured.out


@pytest.mark.parametrize("arguments", [["help"], ["-h"], ["--help"], ["info", "--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "usage: python -m fusedrnn" in captured.out
    for command in ("train", "generate", "predict", "info", "demo", "help", "--version"):
        assert f"\n  {command} " in captured.out
    assert not captured.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fusedrnn {fr.__version__}\n"


def test_the_exit_status_of_argparse_is_returned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--help"]) == 0
    assert "usage: python -m fusedrnn demo" in capsys.readouterr().out
    assert main(["demo", "--hidden", "0"]) == 2
    assert "expected an integer of at least 1" in capsys.readouterr().err


# As a process

PROGRAM = [sys.executable, "-m", "fusedrnn"]


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.run([*PROGRAM, *arguments], check=False, **options)


def shell(arguments: list[str], redirected: str) -> subprocess.CompletedProcess[str]:
    command = f"exec {shlex.join([*PROGRAM, *arguments])} {redirected}"
    return subprocess.run(command, shell=True, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments", [["--version"], ["help"], ["nonsense"], ["demo", "--lr", "x"]]
)
def test_the_installed_program_is_the_same(arguments: list[str]) -> None:
    # What pip makes of the entry in [project.scripts].
    metadata = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^fusedrnn = "([\w.]+):(\w+)"$', metadata, re.MULTILINE)
    assert found
    script = f"import sys; from {found[1]} import {found[2]}; sys.exit({found[2]}())"
    installed = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    module = run(*arguments)
    assert installed.returncode == module.returncode
    assert (installed.stdout, installed.stderr) == (module.stdout, module.stderr)
    assert module.stdout or module.stderr


@pytest.mark.parametrize("command", ["info", "demo"])
def test_an_environment_that_cannot_be_used(command: str) -> None:
    failed = run(command, env=os.environ | {"FUSEDRNN_NUM_THREADS": "many"})
    assert failed.returncode == 2
    assert re.fullmatch(
        r"fusedrnn: FUSEDRNN_NUM_THREADS: expected a number .*, got 'many'\n", failed.stderr
    )


# What happens while the package is imported

AS_MODULE = ["-m", "fusedrnn"]
AS_SCRIPT = ["fusedrnn"]  # by the name that pip gives it
as_a_program = pytest.mark.parametrize("program", [AS_MODULE, AS_SCRIPT], ids=["module", "script"])


def in_folder(
    folder: Path, program: list[str], *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the program from a folder, whose modules come first."""
    (folder / "fusedrnn").write_text(
        "import sys; from fusedrnn.__main__ import main; sys.exit(main())"
    )
    path = os.pathsep.join([str(Path(fr.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@as_a_program
@pytest.mark.parametrize("swallowed", [False, True])
def test_ctrl_c_while_numpy_is_imported(
    program: list[str], swallowed: bool, tmp_path: Path
) -> None:
    pressed = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    if swallowed:  # as some of its extension modules do
        pressed = f"try: {pressed}\nexcept BaseException: raise ImportError('no datetime')"
    (tmp_path / "numpy.py").write_text(pressed)
    ended = in_folder(tmp_path, program, "info")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "fusedrnn: interrupted\n")


def test_ctrl_c_between_the_import_and_the_command(tmp_path: Path) -> None:
    (tmp_path / "difflib.py").write_text("raise KeyboardInterrupt")
    ended = in_folder(tmp_path, AS_MODULE, "info")
    assert (ended.returncode, ended.stderr) == (130, "fusedrnn: interrupted\n")


@as_a_program
@pytest.mark.parametrize(
    ("isa", "message"),
    [
        ("foo", r"expected one of scalar, .*, got 'foo'"),
        ("neon" if platform.machine() == "x86_64" else "avx2", r"\w+ cannot run .*; available: .*"),
    ],
)
def test_an_instruction_set_that_cannot_be_used(
    program: list[str], isa: str, message: str, tmp_path: Path
) -> None:
    failed = in_folder(tmp_path, program, "info", FUSEDRNN_ISA=isa)
    assert failed.returncode == 2
    assert not failed.stdout
    assert re.fullmatch(f"fusedrnn: FUSEDRNN_ISA: {message}\n", failed.stderr)


def test_an_import_is_no_program(tmp_path: Path) -> None:
    """Others' exceptions and signals are theirs, and mistakes of ours are shown whole."""
    code = (
        "import signal, sys; import fusedrnn; assert sys.excepthook is sys.__excepthook__; "
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").write_text(code)
    (tmp_path / "other" / "__main__.py").touch()
    for program in (["-c", code], ["-m", "other", "fusedrnn"]):
        ended = in_folder(tmp_path, program)
        assert (ended.returncode, ended.stderr) == (0, "")
    failed = in_folder(tmp_path, ["-c", "import fusedrnn"], FUSEDRNN_ISA="foo")
    assert "ImportError: FUSEDRNN_ISA: expected one of" in failed.stderr
    (tmp_path / "difflib.py").write_text("raise ModuleNotFoundError('none', name='none')")
    assert "Traceback" in in_folder(tmp_path, AS_MODULE, "info").stderr


@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-"])
def test_an_import_that_fails_without_a_place_for_messages(
    redirected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSEDRNN_ISA", "foo")
    failed = shell(["info"], redirected)
    assert (failed.returncode, failed.stdout) == (2, "")


# An output that cannot be written. `demo` stands for all that fails before its training, too.
WRITERS = [["info"], ["help"], ["--help"], ["--version"], ["demo", "--help"], ["demo"]]

# Buffered, nothing fails before the end; without a buffer every print does.
writers = pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [(arguments, "") for arguments in WRITERS] + [(["info"], "1"), (["demo", "--help"], "1")],
)
needs_full_device = pytest.mark.skipif(
    not Path("/dev/full").is_char_device(), reason="this system has no /dev/full"
)


@needs_full_device
@writers
def test_a_full_output(arguments: list[str], unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        failed = run(*arguments, stdout=full, env=os.environ | {"PYTHONUNBUFFERED": unbuffered})
    assert failed.returncode == 2
    assert failed.stderr == "fusedrnn: standard output: No space left on device\n"


@writers
def test_an_output_whose_reader_has_left(arguments: list[str], unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = run(*arguments, stdout=writer, env=os.environ | {"PYTHONUNBUFFERED": unbuffered})
    finally:
        os.close(writer)
    assert ended.returncode == 2
    assert ended.stderr == "fusedrnn: standard output: Broken pipe\n"


@pytest.mark.parametrize("arguments", [["info"], ["demo", "--help"]], ids=" ".join)
def test_an_output_that_was_closed_before(arguments: list[str]) -> None:
    failed = shell(arguments, ">&-")
    assert failed.returncode == 2
    assert failed.stderr == "fusedrnn: standard output: Bad file descriptor\n"


@needs_full_device
@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["info"], 0), (["nonsense"], 2), (["info", "more"], 2), (["demo", "--lr", "x"], 2)],
)
@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-"])
def test_messages_that_cannot_be_written_change_nothing(
    arguments: list[str], status: int, redirected: str
) -> None:
    assert shell(arguments, redirected).returncode == status


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_ctrl_c_while_a_command_is_loaded(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", pressed)
    assert main([command]) == 130
    assert capsys.readouterr() == ("", "fusedrnn: interrupted\n")


def test_an_output_in_memory_has_no_descriptor(capsys: pytest.CaptureFixture[str]) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with contextlib.redirect_stdout(Full()) as full:
        assert main(["info"]) == 2
        assert sys.stdout is full
    assert capsys.readouterr().err == "fusedrnn: standard output: No space left on device\n"


def test_characters_that_the_output_lacks() -> None:
    # The C++ side reports a path as it is.
    environment = {"FUSEDRNN_CUDA_LIBRARY": "/tmp/\u00e9.so", "PYTHONIOENCODING": "ascii"}
    shown = run("info", env=os.environ | environment)
    assert shown.returncode == 0, shown.stderr
    assert "/tmp/?.so" in shown.stdout
