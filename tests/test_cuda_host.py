"""The side that calls the CUDA library, without a GPU: over a library of the tests' own.

Each process opens at most one library, so everything here runs in processes of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fusedrnn import _core

TESTS = Path(__file__).parent
CSRC = TESTS.parent / "csrc"
CALL = """
import numpy as np, fusedrnn as fr
from fake_cuda.arrays import FakeArray
try:
    fr.rnn(*(FakeArray(np.ones(shape, "float32")) for shape in ((1, 1, 1), (1, 1), (1, 1))))
except RuntimeError as error:
    print(error)
"""
INFO = "import fusedrnn; known = fusedrnn.info(); print(known['cuda_devices'], known['cuda'])"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake CUDA library, in a package of the name of the real one's."""
    package = tmp_path_factory.mktemp("site") / "fusedrnn_cuda13"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('nobody needs to import this')")
    path = package / "libfusedrnn_cuda.so"
    compiler = os.environ.get("CXX", "c++")
    options = ["-std=c++20", "-shared", "-fPIC", f"-I{CSRC}", f"-I{CSRC / 'include'}"]
    source = TESTS / "fake_cuda" / "plugin.cpp"
    subprocess.run([compiler, *options, source, "-o", path], check=True)
    return path


def run(*command: Any, paths: tuple[Any, ...] = (), **environment: Any) -> str:
    """What Python prints; `environment` without a CUDA library unless it names one."""
    known = {k: v for k, v in os.environ.items() if k != "FUSEDRNN_CUDA_LIBRARY"}
    searched = [*map(str, paths), str(TESTS), *filter(None, [known.get("PYTHONPATH")])]
    known["PYTHONPATH"] = os.pathsep.join(searched)
    known |= {name: str(value) for name, value in environment.items()}
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=known, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_calls(library: Path) -> None:
    inside = TESTS / "fake_cuda" / "inside.py"
    options = ["-q", "-p", "no:cacheprovider", "-W", "error", "--rootdir", TESTS.parent]
    run("-m", "pytest", *options, inside, FUSEDRNN_CUDA_LIBRARY=library)


def test_without_a_library() -> None:
    why = "no CUDA library is installed: pip install 'fusedrnn[cuda13]', "
    why += "or name one in FUSEDRNN_CUDA_LIBRARY"
    for nothing in ({}, {"FUSEDRNN_CUDA_LIBRARY": ""}):
        assert run("-c", INFO, **nothing) == f"[] {why}"
    assert run("-c", CALL) == f"x: cuda:0 cannot be used: {why}"


def test_the_plugin_package_is_found(library: Path) -> None:
    assert "Fake 0" in run("-c", INFO, paths=(library.parent.parent,))


def test_a_package_without_the_library_is_none(tmp_path: Path) -> None:
    (tmp_path / "fusedrnn_cuda13").mkdir()
    assert "no CUDA library is installed" in run("-c", INFO, paths=(tmp_path,))


def test_the_environment_has_the_last_word(library: Path) -> None:
    paths = (library.parent.parent,)
    shown = run("-c", INFO, paths=paths, FUSEDRNN_CUDA_LIBRARY="/nowhere/lib.so")
    assert shown.startswith(
        "[] FUSEDRNN_CUDA_LIBRARY: cannot open the CUDA library: /nowhere/lib.so: "
    )
    shown = run("-c", CALL, FUSEDRNN_CUDA_LIBRARY="/nowhere/lib.so")
    assert shown.startswith("x: cuda:0 cannot be used: FUSEDRNN_CUDA_LIBRARY: cannot open")


def test_another_library() -> None:
    shown = run("-c", INFO, FUSEDRNN_CUDA_LIBRARY=_core.__file__)
    assert shown == (
        f"[] FUSEDRNN_CUDA_LIBRARY: {_core.__file__} is not the CUDA library of fusedrnn: "
        "it has no fusedrnn_cuda_plugin"
    )


def test_another_version(library: Path) -> None:
    shown = run("-c", INFO, FUSEDRNN_CUDA_LIBRARY=library, FAKE_CUDA_VERSION=77)
    assert f"{library} has interface 77, but fusedrnn {_core.__version__} needs interface" in shown
    assert shown.endswith("install the two in the same version")


def test_products_of_the_plain_kernel_are_counted(library: Path) -> None:
    code = "import fusedrnn; print(fusedrnn.info()['cuda_plain_products'])"
    assert run("-c", code) == "0"
    shown = run("-c", code, FUSEDRNN_CUDA_LIBRARY=library, FAKE_CUDA_PLAIN_PRODUCTS=3)
    assert shown == "3"


def test_no_device(library: Path) -> None:
    why = "there is no CUDA driver here"
    environment = {"FUSEDRNN_CUDA_LIBRARY": library, "FAKE_CUDA_DEVICES": 0}
    assert run("-c", INFO, **environment) == f"[] {why}"
    assert run("-c", CALL, **environment) == f"x: cuda:0 cannot be used: {why}"


def test_a_device_that_does_not_answer(library: Path) -> None:
    environment = {"FUSEDRNN_CUDA_LIBRARY": library, "FAKE_CUDA_LOST": 0}
    assert run("-c", INFO, **environment).startswith("[] cuda:0: it is lost; ")
    assert run("-c", CALL, **environment) == "x: cuda:0 cannot be used: it is lost"


def test_only_cuda_arrays_open_it(library: Path) -> None:
    """`import` and calls on the CPU leave the driver alone."""
    call = "fusedrnn.rnn(*map(np.ones, ((1, 1, 1), (1, 1), (1, 1))))"
    shown = "print('libfusedrnn_cuda' in open('/proc/self/maps').read())"
    code = f"import fusedrnn, numpy as np; {call}; {shown}; fusedrnn.info(); {shown}"
    assert run("-c", code, FUSEDRNN_CUDA_LIBRARY=library) == "False\nTrue"
