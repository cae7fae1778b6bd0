"""Everything that a GPU has to tell, in one command: `python bench/gpu_session.py --help`.

Builds the package for the GPU of this machine, then, most valuable first: small problems against
the reference, the GPU's tests, probes of the hardware, the most telling part of the table beside
PyTorch and cuDNN, compute-sanitizer over the small problems, the rest of the table. Nothing is
downloaded: it needs nvcc, CMake, pybind11, PyTorch with CUDA, and what the tests import. Python
packages that the machine lacks may lie in build/site (`pip install --target build/site pybind11`).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import site
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a script: `bench` is a package beside its folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.gpu.session import Part, last_lines, run_parts, summary

ROOT = Path(__file__).resolve().parent.parent
# Seconds that a table keeps of its time, to end by itself after the case that is running.
TABLE_MARGIN = 20.0
# Processes that share the GPU's tests, each with its own few hundred MB of context on the GPU.
MOST_WORKERS = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every part succeeded, else 1."""
    options = _parser().parse_args(arguments)
    folder, build = options.out.resolve(), options.build.resolve()
    package = options.package.resolve() if options.package else build / "package"
    built = options.package is not None or (options.parts and "build" not in options.parts)
    chosen = parts(build, folder, sys.executable, built=built)
    if options.parts:
        chosen = [part for part in chosen if part.name in options.parts]
    environment = dict(os.environ) | {
        "PYTHONPATH": os.pathsep.join([str(package), str(ROOT / "build" / "site")]),
        # Where NVIDIA's wheels are: a package outside of them finds no cuBLASLt beside itself.
        "FUSEDRNN_SITE_PACKAGES": os.pathsep.join(site.getsitepackages()),
        "PYTHONDONTWRITEBYTECODE": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # JAX would take most of the GPU's memory
        "PYTHONUNBUFFERED": "1",
    }
    os.chdir(ROOT)
    outcomes = run_parts(chosen, folder, options.limit, environment)
    lines = summary(outcomes)
    (folder / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0 if all(outcome.status == "ok" for outcome in outcomes) else 1


def parts(build: Path, folder: Path, python: str, *, built: bool = False) -> list[Part]:
    """The session, most valuable first; without its first part where the package is `built`."""
    needs = () if built else ("build",)
    smoke = [python, "bench/gpu/smoke.py"]

    def table(seconds: float) -> list[str]:
        """The cases that the file does not hold yet."""
        command = [python, "bench/gpu/run.py", "--cases", "table", "--resume", "--rounds", "3"]
        command += ["--out", str(folder / "table.json")]
        return [*command, "--time-limit", f"{max(seconds - TABLE_MARGIN, 1):.0f}"]

    def sanitizer(tool: str) -> Part:
        options = ["--tool", tool, "--kernel-name", "kns=fusedrnn", "--error-exitcode", "9"]
        command = [shutil.which("compute-sanitizer") or "compute-sanitizer", *options, *smoke]
        command.append("--few")
        return Part(tool, lambda seconds: command, 75, needs, _sanitized)

    tests = [python, "-m", "pytest", "tests/gpu", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    # Another version of PyTorch may warn of what ours does not: that is no failure here.
    tests += ["-W", "default", "--maxfail=20", "--tb=short", "--durations=3"]
    if importlib.util.find_spec("xdist") is not None:  # most of the time is the CPU's
        tests += ["-n", str(min(os.cpu_count() or 1, MOST_WORKERS)), "--dist", "worksteal"]
    session = [
        Part("build", lambda seconds: [python, "bench/gpu/build.py", str(build)], 240),
        Part("smoke", lambda seconds: smoke, 60, needs, lambda text: last_lines(text, 8)),
        Part("tests", lambda seconds: tests, 200, needs, _tested),
        Part(
            "probes",
            lambda seconds: [python, "bench/gpu/probe.py", "--build", str(build)],
            45,
            (),
            lambda text: last_lines(text, 24),
        ),
        Part("table", table, 160, needs, _tabulated),
        sanitizer("memcheck"),
        sanitizer("racecheck"),
        Part("table-rest", table, 3600, needs, _tabulated),
    ]
    return session[1:] if built else session


def _tested(text: str) -> list[str]:
    """What failed, and the counts."""
    lines = text.splitlines()
    failed = [line[:180] for line in lines if line.startswith(("FAILED", "ERROR", "E   "))]
    return [*failed[:16], *last_lines(text, 3)]


def _sanitized(text: str) -> list[str]:
    found = [line[:180] for line in text.splitlines() if line.startswith("=========")]
    return [*found[:8], *last_lines(text, 2)]


def _tabulated(text: str) -> list[str]:
    """The cases measured; then the summary."""
    head, mark, tail = text.partition("peer's time over ours:")
    cases = [line[:180] for line in head.splitlines() if " ms" in line or "/" in line[:20]]
    return [*([mark + tail.splitlines()[0]] if mark else []), *tail.splitlines()[1:25], *cases[:30]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/gpu_session.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--limit", type=float, default=480, metavar="S", help="seconds in all, default 480")
    add("--out", type=Path, default=ROOT / "build" / "gpu-session", help="default %(default)s")
    add("--build", type=Path, default=ROOT / "build" / "gpu", help="default %(default)s")
    add("--package", type=Path, metavar="DIR", help="a built package's folder: builds nothing")
    names = [part.name for part in parts(Path(), Path(), "")]
    add("--parts", nargs="+", choices=names, metavar="PART", help=f"only these: {', '.join(names)}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
