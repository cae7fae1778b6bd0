"""A whole session with a GPU, without one: every command of it runs over the emulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

import fusedrnn
from bench.gpu import smoke
from bench.gpu.session import MOST_LINES

ROOT = Path(__file__).resolve().parent.parent.parent
# As NVIDIA's: options of its own, then a command.
SANITIZER = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift 2; done
echo "========= products: $FUSEDRNN_CUDA_GEMM"
exec "$@"
"""
PARTS = ("versions", "smoke", "smoke-plain", "probes", "table", "tests", "memcheck")


def test_a_session_runs_from_end_to_end(library: Any, tmp_path: Path) -> None:
    emulated = Path(os.environ["FUSEDRNN_CUDA_LIBRARY"])
    package, programs, out = (tmp_path / name for name in ("package", "bin", "out"))
    package.mkdir()
    (package / "fusedrnn").symlink_to(Path(fusedrnn.__file__).parent)
    (package / "fusedrnn_probes").symlink_to(emulated.parent / "emulated_probes")
    programs.mkdir()
    (programs / "compute-sanitizer").write_text(SANITIZER)
    (programs / "compute-sanitizer").chmod(0o755)
    environment = os.environ | {
        "FUSEDRNN_CUBLASLT": str(emulated.parent / "backend" / "libfake_cublaslt.so"),
        "OMP_NUM_THREADS": "1",  # PyTorch's threads wait for longer than such problems take
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    environment.pop("FUSEDRNN_EMULATOR_SEED", None)
    command = [sys.executable, "bench/gpu_session.py", "run", "--rehearse", "--limit", "200"]
    command += ["--package", str(package), "--out", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

    lines = (out / "summary.txt").read_text().splitlines()
    assert len(lines) <= MOST_LINES
    assert done.stdout.splitlines()[-len(lines) :] == lines
    assert sorted(path.name for path in out.iterdir()) == ["results.tar.gz", "summary.txt"]
    with tarfile.open(out / "results.tar.gz") as archive:
        logs = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        text = {name: file.read().decode() for name, file in logs.items() if file is not None}
    outcomes = json.loads(text["session.json"])
    assert {outcome["name"]: outcome["status"] for outcome in outcomes} == dict.fromkeys(
        [*PARTS, "warm-torch"], "ok"
    )
    assert json.loads(text["table.json"])["rows"]
    log = {name.partition("-")[2].removesuffix(".log"): said for name, said in text.items()}
    few = len(smoke.FEW)
    for name in ("smoke", "smoke-plain"):
        assert f"{few} of {few} right" in log[name]
    assert "libfake_cublaslt.so" in log["smoke"]
    assert f"{few} of {few} with the same addresses in the last three calls" in log["smoke"]
    assert "plain products" in log["smoke-plain"]
    assert "cluster_exchange_16" in log["probes"]
    assert "training/bfloat16/lstm" in log["table"]
    assert "1 passed" in log["tests"]
    assert log["memcheck"].startswith("========= products: plain\n")
    check_that_plain_products_are_told(library)


def check_that_plain_products_are_told(library: Any) -> None:
    """In this process nothing asks for the plain kernel, and cuBLASLt is not found."""
    before = fusedrnn.info()["cuda_plain_products"]
    sizes = ((3, 2, 4), (5, 4), (5, 5))
    fusedrnn.rnn(*(library.array(np.ones(size, np.float32)) for size in sizes))
    known = fusedrnn.info()
    assert known["cuda_plain_products"] > before
    assert (
        "products by the plain kernel instead, the latest [2,5] x [5,5] of float32"
        in (known["cuda"])
    )
    found = f"{known['cuda_plain_products']} products by the plain kernel: CUDA runtime"
    assert smoke.plain_products(asked_for=False).startswith(found)
    assert smoke.plain_products(asked_for=True) == ""
