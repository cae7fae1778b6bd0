"""What C and C++ have of the package: headers, the library, what finds them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import fusedrnn as fr
from fusedrnn import information
from fusedrnn.__main__ import main

PROJECT = Path(__file__).parent / "package"


def run(*command: str | os.PathLike[str], **environment: str) -> str:
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_folders(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = {
        "--include": (fr.get_include(), "fusedrnn/fusedrnn.h"),
        "--cmake-dir": (fr.get_cmake_dir(), "fusedrnn-config.cmake"),
        "--pkgconfig-dir": (fr.get_pkgconfig_dir(), "fusedrnn.pc"),
    }
    for option, (folder, file) in wanted.items():
        assert (Path(folder) / file).is_file()
        assert main([option]) == 0
        assert capsys.readouterr().out == f"{folder}\n"
        assert main([option, "more"]) == 2
        assert f"{option}: expected no argument, got 'more'" in capsys.readouterr().err


def test_a_package_without_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(information, "__file__", str(tmp_path / "information.py"))
    with pytest.raises(FileNotFoundError, match=r"fusedrnn\.h: expected a file of the package"):
        fr.get_include()
    assert main(["--cmake-dir"]) == 2
    assert "fusedrnn-config.cmake: expected a file" in capsys.readouterr().err


def test_a_project_of_c_finds_it_by_cmake(tmp_path: Path) -> None:
    found = f"-Dfusedrnn_DIR={fr.get_cmake_dir()}"
    run("cmake", "-G", "Ninja", "-S", PROJECT, "-B", tmp_path, found)
    run("cmake", "--build", tmp_path)
    said = run(tmp_path / "uses_fusedrnn")
    assert said.startswith(f"fusedrnn {fr.__version__}, ABI ")
    assert said.endswith(", h 8\n")


def test_a_compiler_finds_it_by_itself(tmp_path: Path) -> None:
    folder = Path(fr.get_include()).parent
    (library,) = folder.glob("libfusedrnn.so.*")  # a wheel has no links: one file
    program = tmp_path / "program"
    flags = [f"-I{fr.get_include()}", str(library), f"-Wl,-rpath,{folder}"]
    run(os.environ.get("CC", "cc"), "-std=c99", PROJECT / "main.c", *flags, "-o", program)
    assert "h 8" in run(program)


def test_what_pkg_config_reads() -> None:
    folder = Path(fr.get_pkgconfig_dir())
    text = (folder / "fusedrnn.pc").read_text().replace("${pcfiledir}", str(folder))
    lines = text.splitlines()
    assert f"Version: {fr.__version__}" in lines
    names = dict(line.split("=", 1) for line in lines if "=" in line)
    assert Path(names["includedir"]).samefile(fr.get_include())
    flags = dict(line.split(": ", 1) for line in lines if ": " in line)
    assert flags["Cflags"] == "-I${includedir}"
    place, library = flags["Libs"].split()
    assert place == "-L${libdir}"
    assert (Path(names["libdir"]) / library.removeprefix("-l:")).is_file()
