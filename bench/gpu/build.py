"""Build the package for this machine's GPU with plain CMake: `python bench/gpu/build.py BUILD`.

Leaves BUILD/package/fusedrnn, for PYTHONPATH, and what there is of probes in BUILD.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def configuration(build: Path, python: str, pybind11: str, ninja: bool) -> list[str]:
    """The command that configures the build."""
    command = ["cmake", "-S", str(ROOT), "-B", str(build), "--log-level=NOTICE"]
    command += ["-G", "Ninja"] if ninja else []
    return [
        *command,
        "-DFUSEDRNN_PYTHON=ON",
        "-DFUSEDRNN_CUDA=ON",
        "-DFUSEDRNN_CUDA_ARCHS=native",
        f"-DPython_EXECUTABLE={python}",
        f"-Dpybind11_DIR={pybind11}",
    ]


def assemble(build: Path) -> Path:
    """Put Python's files and the two libraries together; the folder for PYTHONPATH."""
    package = build / "package" / "fusedrnn"
    shutil.rmtree(package, ignore_errors=True)
    skipped = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "python" / "fusedrnn", package, ignore=skipped)
    for pattern in ("_core*.so", "csrc/cuda/libfusedrnn_cuda.so"):
        (library,) = build.glob(pattern)
        shutil.copy2(library, package)
    return package.parent


def main(arguments: Sequence[str]) -> int:
    """Build; raises CalledProcessError where a step fails."""
    build = Path(arguments[0]).resolve()
    import pybind11  # noqa: PLC0415 (missing, it is the build that fails)

    ninja = shutil.which("ninja") is not None
    subprocess.run(
        configuration(build, sys.executable, pybind11.get_cmake_dir(), ninja), check=True
    )
    jobs = ["--parallel", str(os.cpu_count() or 1)]
    step = ["cmake", "--build", str(build), *jobs, "--target"]
    subprocess.run([*step, "_core", "fusedrnn_cuda"], check=True)
    package = assemble(build)
    told = subprocess.run([*step, "help"], check=False, capture_output=True, text=True).stdout
    if "fusedrnn_probes" in told:  # whose failure costs no more than the probes
        subprocess.run([*step, "fusedrnn_probes"], check=False)
    shown = "import fusedrnn; print(*fusedrnn.info().items(), sep='\\n')"
    found = f"import sys; sys.path.insert(0, {str(package)!r}); {shown}"
    subprocess.run([sys.executable, "-c", found], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
