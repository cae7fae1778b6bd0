"""First contact with a GPU in one command, on a machine where nothing can be installed.

    python bench/gpu_session.py prepare --out build/session            # here: the package
    python bench/gpu_session.py run --package build/session --out OUT  # there: 300 s of it

`prepare` needs nvcc of CUDA 13.0, CMake, pybind11 and a Python of the other machine's version with
its headers; no GPU. `run` needs PyTorch with CUDA and what the tests import; what its Python cannot
import, or is not there, it builds. The most telling parts come first. It leaves OUT/summary.txt and
OUT/results.tar.gz, the logs of all parts, both up to date after each part.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import site
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a script: `bench` is a package beside its folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.gpu import build
from bench.gpu.session import Outcome, Part, archive, last_lines, run_parts, summary

ROOT = Path(__file__).resolve().parent.parent
SUMMARY, ARCHIVE = "summary.txt", "results.tar.gz"
# Seconds that the table keeps of its time, to end by itself after the case that is running.
TABLE_MARGIN = 15.0
# Seconds that the tests leave to what comes behind them.
SANITIZER_SECONDS = 45.0
# Processes that share the GPU's tests, each with its own few hundred MB of context on the GPU.
MOST_WORKERS = 8
# Libraries whose first import reads gigabytes from a cold disk.
WARMED = ("torch", "cupy", "jax")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every part succeeded, 1 where one did not, 2 where nothing can be prepared."""
    options = _parser().parse_args(arguments)
    return int(options.function(options))


def prepare(options: argparse.Namespace) -> int:
    """Build the package and say how large it is."""
    try:
        python = options.python or build.find_python(options.python_version)
        lines = build.prepare(
            options.out.resolve(), options.build.resolve(), python, options.archs, options.jobs
        )
    except build.BuildError as why:
        print(f"not prepared: {why}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


def run(options: argparse.Namespace) -> int:
    """Run the parts; the summary and the archive are brought up to date after each."""
    package, out = options.package.resolve(), options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="gpu-session-") as name:
        logs = Path(name)
        chosen = parts(package, logs, sys.executable, Rehearsal() if options.rehearse else Device())
        chosen = [part for part in chosen if not options.parts or part.name in options.parts]

        def save(outcomes: Sequence[Outcome]) -> None:
            text = "\n".join(summary(outcomes)) + "\n"
            (out / SUMMARY).write_text(text, encoding="utf-8")
            archive(logs, out / ARCHIVE)

        outcomes = run_parts(chosen, logs, options.limit, environment(package), saved=save)
    print((out / SUMMARY).read_text(encoding="utf-8"), end="")
    return 0 if all(outcome.status == "ok" for outcome in outcomes) else 1


def environment(package: Path) -> dict[str, str]:
    """What the parts see beside what the session does."""
    return dict(os.environ) | {
        "PYTHONPATH": str(package),
        # Where NVIDIA's wheels are: a package outside of them finds no cuBLASLt beside itself.
        "FUSEDRNN_SITE_PACKAGES": os.pathsep.join(site.getsitepackages()),
        "PYTHONDONTWRITEBYTECODE": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # JAX would take most of the GPU's memory
        "PYTHONUNBUFFERED": "1",
    }


@dataclass(frozen=True)
class Device:
    """What the parts are told on a GPU."""

    warmed: tuple[str, ...] = WARMED
    smoke: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    table: tuple[str, ...] = ("--cases", "short", "--quick", "--rounds", "3")
    tests: tuple[str, ...] = ("tests/gpu", "-m", "gpu")
    workers: int = MOST_WORKERS


@dataclass(frozen=True)
class Rehearsal(Device):
    """The same over the emulator, which FUSEDRNN_CUDA_LIBRARY names, and less of it."""

    warmed: tuple[str, ...] = ("torch",)
    smoke: tuple[str, ...] = ("--rehearse", "--few")
    plain: tuple[str, ...] = ("--rehearse", "--few", "--calls", "1")
    probes: tuple[str, ...] = ("--native-only", "--rounds", "10")
    table: tuple[str, ...] = ("--rehearse", "--quick", "--rounds", "1", "--round-time", "0.001")
    tests: tuple[str, ...] = ("tests/gpu/test_gpu_reserve.py", "--cuda=emulator")
    workers: int = 0


def parts(package: Path, logs: Path, python: str, how: Device) -> list[Part]:
    """The session, most valuable first."""
    smoke = [python, "bench/gpu/smoke.py"]
    plain = ["env", "FUSEDRNN_CUDA_GEMM=plain"]
    needs = ("versions",)

    def table(seconds: float) -> list[str]:
        command = [python, "bench/gpu/run.py", *how.table, "--no-ceilings"]
        command += ["--out", str(logs / "table.json")]
        return [*command, "--time-limit", f"{max(seconds - TABLE_MARGIN, 1):.0f}"]

    probes = [python, "bench/gpu/probe.py", "--package", str(package), *how.probes]
    tests = [python, "-m", "pytest", *how.tests, "-q", "-p", "no:cacheprovider"]
    # Another version of PyTorch may warn of what ours does not: that is no failure here.
    tests += ["-W", "default", "--maxfail=20", "--tb=short", "--durations=3"]
    if importlib.util.find_spec("xdist") is not None:  # most of the time is the CPU's
        tests += ["-n", str(min(os.cpu_count() or 1, how.workers)), "--dist", "worksteal"]
    session = [
        Part(
            f"warm-{name}",
            _always([python, "bench/gpu/warm.py", name]),
            150,
            summarise=lambda text: last_lines(text, 2),
            background=True,
        )
        for name in how.warmed
    ]
    session += [
        # Minutes only where something has to be built.
        Part("versions", _always([python, "bench/gpu/build.py", str(package)]), 240, (), _told),
        Part("smoke", _always([*smoke, *how.smoke]), 150, needs, _smoked),
        Part("smoke-plain", _always([*plain, *smoke, *how.plain]), 60, needs, _smoked),
        Part("probes", _always(probes), 45, (), _probed),
        Part("table", table, 90, needs, _tabulated),
    ]
    sanitizer = build.sanitizer()
    left = SANITIZER_SECONDS if sanitizer else 0.0
    session.append(Part("tests", _always(tests), 3600, needs, _tested, leaves=left))
    if sanitizer:
        command = [*plain, sanitizer, "--tool", "memcheck", "--kernel-name", "kns=fusedrnn"]
        command += ["--error-exitcode", "9", *smoke, *how.plain, "--few", "--calls", "1"]
        session.append(Part("memcheck", _always(command), 120, needs, _sanitized))
    return session


def _always(command: list[str]) -> Callable[[float], list[str]]:
    """The command, however much time it has."""
    return lambda seconds: command


def _told(text: str) -> list[str]:
    """What was found; of a build its end."""
    return [line[:200] for line in text.splitlines() if line.strip()][-12:]


def _smoked(text: str) -> list[str]:
    return last_lines(text, 8)


def _probed(text: str) -> list[str]:
    """Three figures a line, which are short; then the end of what else was said."""
    lines = last_lines(text, 60)
    figures = [line for line in lines if re.fullmatch(r"\w+ [0-9.]+ \S+", line)]
    others = [line for line in lines if line not in figures]
    rows = [", ".join(figures[n : n + 3]) for n in range(0, len(figures), 3)]
    return [*rows, *others[-4:]]


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
    return [*cases[:14], *([mark + tail.splitlines()[0]] if mark else []), *tail.splitlines()[1:9]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/gpu_session.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="prepare|run")
    package = ROOT / "build" / "session"

    add = commands.add_parser("prepare", help="build the package, without a GPU").add_argument
    add("--out", type=Path, default=package, metavar="FOLDER", help="default %(default)s")
    add("--python", metavar="PROGRAM", help="the other machine's Python, with headers")
    add("--python-version", default="3.12", metavar="X.Y", help="looked for, default %(default)s")
    add("--archs", default="90a-real", help="GPUs, as FUSEDRNN_CUDA_ARCHS; default %(default)s")
    add("--build", type=Path, default=ROOT / "build" / "session-build", metavar="FOLDER")
    add("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="default %(default)s")
    commands.choices["prepare"].set_defaults(function=prepare)

    add = commands.add_parser("run", help="run the session").add_argument
    add("--package", type=Path, default=package, metavar="FOLDER", help="default %(default)s")
    add("--out", type=Path, default=ROOT / "build" / "session-results", metavar="FOLDER")
    add("--limit", type=float, default=300, metavar="S", help="seconds in all, default 300")
    names = [part.name for part in parts(Path(), Path(), "", Device())]
    add("--parts", nargs="+", choices=names, metavar="PART", help=f"only these: {', '.join(names)}")
    add("--rehearse", action="store_true", help="over the emulator, in FUSEDRNN_CUDA_LIBRARY")
    commands.choices["run"].set_defaults(function=run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
