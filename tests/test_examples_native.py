"""The programs of `examples/` in C, C++ and Rust, built with the installed package and run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

import fusedrnn as fr

WARNINGS = "-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*command: str | os.PathLike[str]) -> str:
    one_thread = os.environ | {"FUSEDRNN_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=one_thread)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def built(language: str, name: str, folder: Path) -> Path:
    """A program of a folder that CMake knows."""
    found = f"-Dfusedrnn_DIR={fr.get_cmake_dir()}"
    options = [found, *(f"-DCMAKE_{name}_FLAGS={WARNINGS}" for name in ("C", "CXX"))]
    run("cmake", "-G", "Ninja", "-S", EXAMPLES / language, "-B", folder / "build", *options)
    run("cmake", "--build", folder / "build")
    return folder / "build" / name


def test_c_streams_audio(tmp_path: Path) -> None:
    program = built("c", "stream", tmp_path)
    frozen = fr.LSTM(1, 32, 2, proj_size=1, seed=0).freeze()
    model, output = tmp_path / "amp.frnn", tmp_path / "out.f32"
    frozen.save(model)
    # That a block comes late while others use the machine is its affair; that one takes more CPU
    # time than it plays is not, in one of some runs: a virtual machine's time can be another's.
    for _ in range(5):
        said = run(program, model, "0.2", output)
        blocks, worst, too_slow, xruns = (part.split() for part in said.split(";"))
        assert blocks[:2] == ["blocks", str(int(0.2 * 48000) // 64 + 1)]
        assert float(worst[2]) > 0
        assert float(worst[-2]) > 0
        assert int(xruns[1]) >= 0
        if too_slow == ["too", "slow", "0"]:
            break
    else:
        raise AssertionError(f"blocks took longer to compute than to play: {said}")
    x = np.arange(int(blocks[1]) * 64, dtype="float32") % 256 / np.float32(128) - np.float32(1)
    y, _ = frozen(x[:, None])
    np.testing.assert_array_equal(np.fromfile(output, "float32"), y[:, 0])

    fr.LSTM(2, 4, seed=0).freeze().save(model)
    for arguments, message in [
        ([model, "1"], "expected a model of float32 that takes one number a step"),
        ([EXAMPLES / "c" / "stream.c", "1"], "expected a model file of fusedrnn, got other bytes"),
        ([model], "usage"),
    ]:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert message in done.stderr


def test_cpp_trains(tmp_path: Path) -> None:
    said = run(built("cpp", "train", tmp_path), tmp_path / "echo.frnn")
    losses = [float(line.split()[-1]) for line in said.splitlines()[:-1]]
    assert losses[-1] < losses[0] / 10
    loaded = fr.load_frozen(tmp_path / "echo.frnn")
    assert (loaded.input_size, loaded.hidden_size) == (1, 24)


def check_rust(tmp_path: Path) -> None:
    source = EXAMPLES / "rust" / "stream.rs"
    folder = Path(fr.get_include()).parent
    library = f"link-arg={folder / 'libfusedrnn.so.1'}"
    options = ["-C", library, "-C", f"link-arg=-Wl,-rpath,{folder}", "-D", "warnings"]
    run("rustc", "--edition=2021", source, *options, "-o", tmp_path / "stream")
    frozen = fr.GRU(5, 7, 2, seed=0).freeze("int8")
    frozen.save(tmp_path / "model")
    numbers = run(tmp_path / "stream", tmp_path / "model", "20").strip("[]\n").split(", ")
    x = np.tile(np.arange(5, dtype="float32") / 8, (20, 1))
    y, _ = frozen(x)
    np.testing.assert_array_equal(np.array(numbers, "float32"), y[-1])
    wrong = [tmp_path / "stream", source, "1"]
    done = subprocess.run(wrong, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "expected a model file of fusedrnn" in done.stderr


# The package needs no compiler of it, and its tests neither.
if shutil.which("rustc"):

    def test_rust_streams(tmp_path: Path) -> None:
        check_rust(tmp_path)
