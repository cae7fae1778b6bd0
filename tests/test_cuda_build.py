"""What the checks of a CUDA build say, and that the versions of its packages agree."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from tools import check_cuda_library, check_cuda_resources

ROOT = Path(__file__).resolve().parent.parent

LOG = """\
[1/2] Building CUDA object forward.cu.o
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4gatePf' for 'sm_80'
ptxas info    : Function properties for _Z4gatePf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 4096 bytes smem, 384 bytes cmem[0]
ptxas info    : Compile time = 3.2 ms
ptxas info    : Compiling entry function '_Z4gatePf' for 'sm_90a'
ptxas info    : Function properties for _Z4gatePf
    16 bytes stack frame, {stores} bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 0 barriers, 528 bytes cmem[0]
ptxas info    : Function properties for _Z4slowd
    40 bytes stack frame, 0 bytes spill stores, {loads} bytes spill loads
warning: an unused variable
"""


def check(log: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(log))
    return check_cuda_resources.main(list(arguments))


def test_resources_of_each_function() -> None:
    report = check_cuda_resources.parse(LOG.format(stores=0, loads=0).splitlines())
    assert [(f.arch, f.name, f.registers, f.shared, f.stack) for f in report.functions] == [
        ("sm_80", "_Z4gatePf", 40, 4096, 0),
        ("sm_90a", "_Z4gatePf", 168, 0, 16),
        ("sm_90a", "_Z4slowd", None, 0, 40),
    ]
    assert report.other == [
        "[1/2] Building CUDA object forward.cu.o",
        "warning: an unused variable",
    ]


@pytest.mark.parametrize(
    ("stores", "loads", "code"), [(0, 0, 0), (32, 8, 0), (36, 0, 1), (0, 40, 1)]
)
def test_a_spill_fails(
    stores: int,
    loads: int,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = LOG.format(stores=stores, loads=loads)
    assert check(log, monkeypatch, "--archs", "sm_80,sm_90a") == code
    printed, passed_on = capsys.readouterr()
    assert "sm_80: 1 kernels, at most 40 registers a thread, 0 with a stack frame" in printed
    assert ("registers spill" in printed) == bool(code)
    assert "an unused variable" in passed_on


def test_a_missing_report_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("ninja: no work to do.\n", monkeypatch) == 1
    assert "no report of any kernel" in capsys.readouterr().out
    assert check(LOG.format(stores=0, loads=0), monkeypatch, "--archs", "sm_80,sm_100") == 1
    assert "no report of sm_100" in capsys.readouterr().out


def test_what_the_library_may_need_and_export() -> None:
    plain = ["libstdc++.so.6", "libgcc_s.so.1", "libc.so.6", "ld-linux-x86-64.so.2"]
    assert check_cuda_library.violations(plain, ["fusedrnn_cuda_plugin"]) == []
    assert check_cuda_library.violations(["libcudart.so.13"], ["fusedrnn_cuda_plugin"]) == [
        "needs libcudart.so.13"
    ]
    (line,) = check_cuda_library.violations(plain, ["fusedrnn_cuda_plugin", "cudaMalloc"])
    assert line.endswith("got fusedrnn_cuda_plugin, cudaMalloc")
    assert check_cuda_library.violations(plain, [])[0].endswith("got nothing")


def test_the_extra_pins_this_version() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (version,) = re.findall(r'^version = "(.+)"$', text, re.MULTILINE)
    assert f'cuda13 = ["fusedrnn-cuda13=={version}"]' in text
