"""The package that a GPU session runs: built in advance for another machine, or completed on it.

`python bench/gpu/build.py PACKAGE` completes it on the machine with the GPU and says what is there:
a core that its Python cannot import and a CUDA library that is missing are built, if they can be.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LIBRARY, PROBES = "libfusedrnn_cuda.so", "fusedrnn_probes"
# What a core for first contact has: the other sets take most of the time to build.
ISAS = "scalar;avx2"
# The newest CUDA whose libraries the machines in mind run for certain.
CUDA = (13, 0)
# What fusedrnn says of a CUDA library that was built for another machine or version.
UNUSABLE = ("cannot open the CUDA library", "has interface")
SHOWN = """
import fusedrnn
known = fusedrnn.info()
print("fusedrnn {version}, {isa}, {threads} threads; {cuda_devices}".format(**known))
print("{cuda}; {cuda_plain_products} plain products".format(**known))
raise SystemExit(not known["cuda_devices"])
"""


class BuildError(Exception):
    """What is missing for a build."""


def configuration(
    build: Path, python: str, pybind11: str, *, archs: str, ninja: bool = True
) -> list[str]:
    """The command that configures the build; without `archs` it has no CUDA library."""
    command = ["cmake", "-S", str(ROOT), "-B", str(build), "--log-level=NOTICE"]
    command += ["-G", "Ninja"] if ninja else []
    cuda = ["-DFUSEDRNN_CUDA=ON", f"-DFUSEDRNN_CUDA_ARCHS={archs}"] if archs else []
    return [
        *command,
        "-DFUSEDRNN_PYTHON=ON",
        f"-DFUSEDRNN_ISAS={ISAS}",
        *(cuda or ["-DFUSEDRNN_CUDA=OFF"]),
        f"-DPython_EXECUTABLE={python}",
        f"-Dpybind11_DIR={pybind11}",
    ]


def compile_targets(
    build: Path, python: str, archs: str, targets: Sequence[str], jobs: int
) -> None:
    """Configure and build; raises CalledProcessError where a step fails."""
    ninja = shutil.which("ninja") is not None
    command = configuration(build, python, pybind11_folder(), archs=archs, ninja=ninja)
    subprocess.run(command, check=True)
    step = ["cmake", "--build", str(build), "--parallel", str(jobs), "--target"]
    subprocess.run([*step, *targets], check=True)


def pybind11_folder() -> str:
    """Where CMake finds pybind11."""
    try:
        import pybind11  # noqa: PLC0415 (only builds need it)
    except ImportError:
        raise BuildError("pybind11 is not installed") from None
    return str(pybind11.get_cmake_dir())


def assemble(build: Path, package: Path) -> None:
    """Put Python's files and what was built beside them; what the build lacks stays as it is."""
    skipped = shutil.ignore_patterns("__pycache__", "*.so")
    target = package / "fusedrnn"
    shutil.copytree(ROOT / "python" / "fusedrnn", target, ignore=skipped, dirs_exist_ok=True)
    for pattern in ("_core*.so", f"csrc/cuda/{LIBRARY}"):
        for library in build.glob(pattern):
            shutil.copy2(library, target)
    for program in build.glob(f"csrc/**/{PROBES}"):
        if program.is_file():
            shutil.copy2(program, package)


# In advance


def prepare(package: Path, build: Path, python: str, archs: str, jobs: int) -> list[str]:
    """Build the package for another machine; lines that say what it holds.

    Raises BuildError where nvcc or the other Python is missing or unfit.
    """
    nvcc = nvcc_version()
    version = python_version(python)
    shutil.rmtree(package, ignore_errors=True)
    compile_targets(build, python, archs, ["_core", "fusedrnn_cuda", PROBES], jobs)
    assemble(build, package)
    # For a core that has to be built there after all.
    import pybind11  # noqa: PLC0415

    skipped = shutil.ignore_patterns("__pycache__")
    source = Path(pybind11.__file__).parent
    shutil.copytree(source, package / "site" / "pybind11", ignore=skipped)
    stripped = [*package.glob("fusedrnn/*.so"), package / PROBES]
    if shutil.which("strip"):
        subprocess.run(["strip", "--strip-unneeded", *map(str, stripped)], check=True)
    facts = {"python": version, "nvcc": nvcc, "archs": archs, "commit": commit()}
    (package / "package.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    sizes = [f"{path.relative_to(package)}: {mebibytes(path)}" for path in stripped]
    needed = [f"needs {', '.join(symbol_versions(path))}" for path in stripped[:2]]
    return [str(facts), *sizes, *needed, f"{package}: {mebibytes(package)} in all"]


def nvcc_version() -> str:
    """nvcc's version; raises BuildError where there is none, or it is newer than the driver."""
    program = shutil.which(os.environ.get("CUDACXX", "nvcc")) or "/usr/local/cuda/bin/nvcc"
    try:
        text = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        raise BuildError("no nvcc was found") from None
    found = re.search(r"release (\d+)\.(\d+)", text)
    if found is None or (int(found[1]), int(found[2])) != CUDA:
        got = found[0] if found else text.strip()[:80]
        raise BuildError(f"{program}: expected release {CUDA[0]}.{CUDA[1]}, got {got!r}")
    return f"{found[1]}.{found[2]}"


def python_version(python: str) -> str:
    """The version of another Python; raises BuildError where it lacks its headers."""
    code = "import sysconfig, sys; print(sys.version.split()[0], sysconfig.get_path('include'))"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{python}: {error.strerror}") from None
    version, _, headers = done.stdout.strip().partition(" ")
    if done.returncode != 0 or not (Path(headers) / "Python.h").is_file():
        raise BuildError(f"{python}: expected a Python with Python.h in {headers or 'its folder'}")
    return version


def find_python(version: str) -> str:
    """A Python of that version, as in 3.12: this one, one on the PATH, pyenv's or uv's."""
    candidates = [sys.executable, shutil.which(f"python{version}") or ""]
    for home in (".pyenv/versions", ".local/share/uv/python"):
        candidates += sorted(map(str, (Path.home() / home).glob(f"*{version}.*/bin/python3")))
    for python in filter(None, candidates):
        try:
            if python_version(python).startswith(f"{version}."):
                return python
        except BuildError:
            continue
    raise BuildError(f"no Python {version} with its headers was found: name one with --python")


def symbol_versions(library: Path) -> list[str]:
    """The newest of glibc and of the C++ library that it asks for."""
    text = library.read_bytes().decode("latin-1")
    newest: dict[str, str] = {}
    for name, number in re.findall(r"\b(GLIBC|GLIBCXX)_([0-9.]+)\x00", text):
        newest[name] = max(newest.get(name, ""), number, key=_numbers)
    return [f"{name} {number}" for name, number in sorted(newest.items())]


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part]


def mebibytes(path: Path) -> str:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return f"{sum(file.stat().st_size for file in files) / 2**20:.1f} MiB"


def commit() -> str:
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


# On the machine with the GPU


def complete(package: Path) -> None:
    """Build what the package lacks, or what this Python cannot import."""
    has_core, said = _imports(package)
    named = bool(os.environ.get("FUSEDRNN_CUDA_LIBRARY"))
    has_library = named or (package / "fusedrnn" / LIBRARY).is_file()
    if has_core and not named and any(words in said for words in UNUSABLE):
        has_library = False
    if has_core and has_library:
        return
    missing = [] if has_core else ["the core"]
    missing += [] if has_library else [LIBRARY]
    print(f"building {' and '.join(missing)}: {said}", flush=True)
    sys.path.append(str(package / "site"))
    targets = ["_core"] if not has_core else []
    targets += [] if has_library else ["fusedrnn_cuda", PROBES]
    build, archs = package / "build", "" if has_library else "native"
    for stale in [] if has_core else package.glob("fusedrnn/_core*.so"):
        stale.unlink()
    compile_targets(build, sys.executable, archs, targets, os.cpu_count() or 1)
    assemble(build, package)


def _imports(package: Path) -> tuple[bool, str]:
    """Whether this Python imports the package; what that says of CUDA, or why it does not."""
    code = f"import sys; sys.path.insert(0, {str(package)!r}); import fusedrnn; "
    code += "print(fusedrnn.info()['cuda'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = done.stdout if done.returncode == 0 else done.stderr
    return done.returncode == 0, (said.strip().splitlines() or [""])[-1][:160]


def versions() -> list[str]:
    """Of the machine and of what is installed, found without an import."""
    lines = [f"python {platform.python_version()}, {' '.join(platform.libc_ver())}"]
    lines[0] += f", {os.cpu_count()} CPUs, kernel {platform.release()}, {sysconfig.get_platform()}"
    installed = []
    for name in ("torch", "cupy-cuda13x", "jax", "numpy", "ml_dtypes", "hypothesis", "pytest"):
        try:
            installed.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            installed.append(f"no {name}")
    lines.append(", ".join(installed))
    smi = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    lines.append(f"nvidia-smi: {_said(smi)}")
    lines.append(f"nvcc: {_said(['nvcc', '--version'])}; cmake: {_said(['cmake', '--version'])}")
    lines.append(f"compute-sanitizer: {sanitizer() or 'none'}")
    return lines


def sanitizer() -> str | None:
    return shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin"
    )


def _said(command: list[str]) -> str:
    """The line of a program's answer that has a version in it."""
    try:
        said = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"none ({error})"[:100]
    return next((line for line in said.splitlines() if re.search(r"\d+\.\d+", line)), said.strip())


def main(arguments: Sequence[str]) -> int:
    """Complete the package and say what there is; 1 where fusedrnn finds no GPU."""
    package = Path(arguments[0]).resolve()
    print("\n".join(versions()), flush=True)
    complete(package)
    told = f"import sys; sys.path.insert(0, {str(package)!r})\n{SHOWN}"
    return subprocess.run([sys.executable, "-c", told], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
