"""Test files of Flax, of which its wheel has none: out of the source package of that version."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType

import flax

VARIABLE = "FUSEDRNN_FLAX_SDIST"
ARCHIVE = f"flax-{flax.__version__}.tar.gz"
KEPT = Path(__file__).parent.parent / "build" / "flax" / ARCHIVE


def source_package() -> Path:
    """The file that the environment names, or one from pip, which stays in build/flax.

    Raises
    ------
    RuntimeError
        There is neither: nothing here is ever skipped.
    """
    given = os.environ.get(VARIABLE)
    if given:
        path = Path(given)
        if path.name != ARCHIVE or not path.is_file():
            raise RuntimeError(f"{VARIABLE}: expected a file {ARCHIVE}, got {given}")
        return path
    if not KEPT.is_file():
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT.parent) as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--no-binary", "flax", "--dest", folder, f"flax=={flax.__version__}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found = Path(folder) / ARCHIVE
            if done.returncode != 0 or not found.is_file():
                raise RuntimeError(
                    f"Flax's own tests need {ARCHIVE}, and pip could not bring it. Without a "
                    f"network, let {VARIABLE} name the file.\n{done.stderr}"
                )
            found.replace(KEPT)
    return KEPT


def test_module(path: str) -> ModuleType:
    """A test file of the package, as a module."""
    name = f"{ARCHIVE.removesuffix('.tar.gz')}/{path}"
    with tarfile.open(source_package()) as archive:
        file = archive.extractfile(name)
        assert file is not None
        text = file.read().decode()
    module = ModuleType(Path(path).stem)
    exec(compile(text, name, "exec"), module.__dict__)
    return module
