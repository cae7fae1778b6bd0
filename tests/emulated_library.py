"""The CUDA library over the emulator: found where the environment names one, or built.

What a rehearsal of a session needs is built beside it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "emulator"
TARGET = "fusedrnn_cuda_emulated"
BESIDE = ("fake_cublaslt", "emulated_probes")


def find_or_build() -> Path:
    """Return the library; what is built stays in build/emulator and is brought up to date."""
    given = os.environ.get("FUSEDRNN_CUDA_LIBRARY")
    if given:
        return Path(given)
    cmake = shutil.which("cmake") or str(Path(sys.executable).parent / "cmake")
    configure = [cmake, "-S", ROOT, "-B", FOLDER, "-DFUSEDRNN_CUDA_EMULATOR=ON"]
    configure += [f"-DPython_EXECUTABLE={sys.executable}", "--log-level=WARNING"]
    jobs = str(os.cpu_count() or 1)
    build = [cmake, "--build", FOLDER, "--parallel", jobs, "--target", TARGET, *BESIDE]
    for command in (configure, build):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (library,) = FOLDER.rglob(f"lib{TARGET}.so")
    return library
