"""The GPU session: parts run in order, fail alone, end in time, and leave what they found."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from site import getsitepackages
from typing import Any

import pytest
import torch

import fusedrnn
from bench import gpu_session
from bench.gpu import build, probe, run, smoke, warm
from bench.gpu.fusedrnn_peer import FusedRnn
from bench.gpu.scenarios import Case
from bench.gpu.session import MOST_LINES, Outcome, Part, archive, last_lines, run_parts, summary
from bench.scenarios import Shape

ROOT = Path(__file__).resolve().parent.parent


def python(name: str, code: str, most: float = 60, **more: object) -> Part:
    """A part that runs a few lines of Python."""
    return Part(name, lambda seconds: [sys.executable, "-c", code], most, **more)  # type: ignore[arg-type]


def statuses(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    return [(outcome.name, outcome.status) for outcome in outcomes]


def test_a_failure_stops_only_what_needs_it(tmp_path: Path) -> None:
    parts = [
        python("build", "print('built')"),
        python("tests", "print('1 failed'); raise SystemExit(1)", needs=("build",)),
        python("table", "print('a table')", needs=("build",)),
        python("rest", "print('never')", needs=("tests",)),
        Part("absent", lambda seconds: ["/nowhere/program"], 60),
    ]
    outcomes = run_parts(parts, tmp_path, 60)
    assert statuses(outcomes) == [
        ("build", "ok"),
        ("tests", "failed"),
        ("table", "ok"),
        ("rest", "skipped"),
        ("absent", "failed"),
    ]
    assert [outcome.message for outcome in outcomes[1:4]] == ["exit code 1", "", "needs tests"]
    assert outcomes[1].lines == ["1 failed"]
    assert (tmp_path / "2-table.log").read_text() == "a table\n"


def test_each_part_is_saved_as_it_ends(tmp_path: Path) -> None:
    show = "import sys; print(open(sys.argv[1]).read())"
    record = tmp_path / "session.json"
    second = Part("second", lambda seconds: [sys.executable, "-c", show, str(record)], 60)
    outcomes = run_parts([python("first", "print(7)"), second], tmp_path, 60)
    assert '"name": "first"' in (tmp_path / "1-second.log").read_text()
    saved = [Outcome(**data) for data in json.loads(record.read_text())]
    assert saved == outcomes


def test_a_part_that_takes_too_long_ends_with_all_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; print('begun', flush=True);"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    (outcome,) = run_parts([python("slow", code, most=1.5)], tmp_path, 60)
    assert (outcome.status, outcome.message) == ("out of time", "ended after 2 s")
    assert outcome.seconds < 20
    begun, child, *_ = (tmp_path / "0-slow.log").read_text().splitlines()
    assert begun == "begun"
    for _ in range(100):
        if not _runs(int(child)):
            break
        time.sleep(0.05)
    assert not _runs(int(child))


def test_a_part_that_takes_too_long_may_say_what_it_found(tmp_path: Path) -> None:
    code = (
        "import time\ntry:\n  print('begun', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt: print('1 failed')"
    )
    (outcome,) = run_parts([python("slow", code, most=1.5)], tmp_path, 60)
    assert (outcome.status, outcome.lines) == ("out of time", ["begun", "1 failed"])


def _runs(process: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def test_the_limit_is_that_of_all_parts(tmp_path: Path) -> None:
    clock = iter([0.0, 0.0, 0.0, 90.0, 90.0, 97.0, 97.0])
    given: list[float] = []

    def command(seconds: float) -> list[str]:
        given.append(seconds)
        return [sys.executable, "-c", ""]

    parts = [Part(name, command, 30 if name == "a" else 500) for name in "ab"]
    outcomes = run_parts(parts, tmp_path, 94, now=lambda: next(clock))
    assert given == [30]
    assert statuses(outcomes) == [("a", "ok"), ("b", "skipped")]
    assert outcomes[1].message == "no time left"


def test_the_environment_reaches_the_parts(tmp_path: Path) -> None:
    code = "import os; print(os.environ['WHERE'])"
    (outcome,) = run_parts([python("a", code)], tmp_path, 60, {"WHERE": "here"})
    assert outcome.lines == ["here"]


def test_the_summary_is_short() -> None:
    outcomes = [
        Outcome("build", "ok", 12.4, "", ["one", "two"]),
        Outcome("tests", "failed", 3.0, "exit code 1", [f"line {n}" for n in range(300)]),
        Outcome("table", "skipped", message="no time left"),
    ]
    lines = summary(outcomes)
    assert len(lines) == MOST_LINES
    assert lines[:3] == ["build: ok, 12 s", "  one", "  two"]
    assert lines[3] == "tests: failed, 3 s: exit code 1"
    assert lines[-2].startswith("  ... ")
    assert lines[-2].endswith(" more lines in the log")
    assert lines[-1] == "table: skipped, 0 s: no time left"
    assert summary(outcomes[:1]) == lines[:3]


def test_last_lines() -> None:
    assert last_lines("a\n\nb \n c\n", 2) == ["b", " c"]
    assert last_lines("x" * 500, 1, width=10) == ["x" * 10]


def test_the_archive_holds_what_there_is(tmp_path: Path) -> None:
    logs, out = tmp_path / "logs", tmp_path / "results.tar.gz"
    seen: list[list[str]] = []

    def saved(outcomes: Sequence[Outcome]) -> None:
        archive(logs, out)
        with tarfile.open(out) as file:
            seen.append(sorted(file.getnames()))

    run_parts([python("a", "print(7)"), python("b", "1/0")], logs, 60, saved=saved)
    assert seen == [["0-a.log", "session.json"], ["0-a.log", "1-b.log", "session.json"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "results.tar.gz"]


def test_parts_of_the_background_run_beside_the_others(tmp_path: Path) -> None:
    """The first waits for a file that the second writes, and the third for one of the first."""
    wait = "import pathlib, time\nwhile not pathlib.Path({!r}).exists(): time.sleep(0.01)\n"
    wait += "pathlib.Path({!r}).touch()"
    a, b, c = (str(tmp_path / name) for name in "abc")
    parts = [
        python("warm", wait.format(a, b), background=True),
        python("slow", "import time; time.sleep(60)", most=1.5, background=True),
        python("first", f"import pathlib; pathlib.Path({a!r}).touch()"),
        python("second", wait.format(b, c)),
    ]
    outcomes = run_parts(parts, tmp_path / "logs", 60)
    assert sorted(statuses(outcomes)) == [
        ("first", "ok"),
        ("second", "ok"),
        ("slow", "out of time"),
        ("warm", "ok"),
    ]
    assert (tmp_path / "logs" / "1-slow.log").exists()


def test_a_part_leaves_time_to_others(tmp_path: Path) -> None:
    given: list[float] = []

    def command(seconds: float) -> list[str]:
        given.append(seconds)
        return [sys.executable, "-c", ""]

    parts = [Part("a", command, 500, leaves=45), Part("b", command, 500, leaves=97)]
    outcomes = run_parts(parts, tmp_path, 100, now=lambda: 0.0)
    assert given == [55]
    assert outcomes[1].message == "no time left"


# The session itself


def parts(how: gpu_session.Device | None = None) -> list[Part]:
    return gpu_session.parts(Path("p"), Path("o"), "python", how or gpu_session.Device())


def test_the_most_valuable_part_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "sanitizer", lambda: "/bin/sanitizer")
    names = ["warm-torch", "warm-cupy", "warm-jax", "versions", "smoke", "smoke-plain"]
    names += ["probes", "table", "tests", "memcheck"]
    found = parts()
    assert [part.name for part in found] == names
    assert [part.background for part in found] == [True] * 3 + [False] * 7
    needy = [part.name for part in found if part.needs == ("versions",)]
    assert needy == ["smoke", "smoke-plain", "table", "tests", "memcheck"]
    for part in (found[5], found[9]):
        assert part.command(9)[:2] == ["env", "FUSEDRNN_CUDA_GEMM=plain"]
    assert found[8].leaves == gpu_session.SANITIZER_SECONDS
    monkeypatch.setattr(build, "sanitizer", lambda: None)
    assert [part.name for part in parts()] == names[:-1]
    assert parts()[-1].leaves == 0


@pytest.mark.parametrize("how", [gpu_session.Device(), gpu_session.Rehearsal()], ids=str)
def test_every_command_is_one_that_there_is(how: gpu_session.Device) -> None:
    for part in parts(how):
        command = part.command(100.0)
        scripts = [word for word in command if word.endswith(".py")]
        assert all((ROOT / script).is_file() for script in scripts)
        if "bench/gpu/run.py" in command:
            options = run._parser().parse_args(list(command[2:]))
            assert (options.quick, options.ceilings, options.time_limit) == (True, False, 85)
            assert how.table[0] == "--rehearse" or options.cases == ["short"]
        elif "pytest" in command:
            assert command[3] == how.tests[0]
            assert (ROOT / command[3]).exists()
        elif "bench/gpu/warm.py" in command:
            assert command[2] in warm.USES


def test_the_command_runs_the_parts_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    parser = gpu_session._parser()  # which knows the true parts
    show = "import os; print(*map(os.environ.get, ['PYTHONPATH', 'FUSEDRNN_SITE_PACKAGES']))"
    made = [python("smoke", show), python("tests", "1/0")]
    monkeypatch.setattr(gpu_session, "parts", lambda *a, **k: made)
    words = ["run", "--out", "out", "--package", "b"]
    monkeypatch.setattr(gpu_session, "_parser", lambda: parser)
    assert gpu_session.main([*words, "--parts", "smoke"]) == 0
    shown = f"{tmp_path / 'b'} {':'.join(getsitepackages())}"
    assert (tmp_path / "out" / "summary.txt").read_text().splitlines() == [
        "smoke: ok, 0 s",
        f"  {shown[:180]}",  # Debian's Python has many folders
    ]
    monkeypatch.chdir(tmp_path)  # the session has moved to the root
    assert gpu_session.main(words) == 1
    assert "ZeroDivisionError" in capsys.readouterr().out
    with tarfile.open(tmp_path / "out" / "results.tar.gz") as file:
        assert sorted(file.getnames()) == ["0-smoke.log", "1-tests.log", "session.json"]


def test_summaries_keep_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "sanitizer", lambda: "/bin/sanitizer")
    tests = {part.name: part.summarise for part in parts()}
    log = "....F\nFAILED tests/gpu/x.py::y - assert\nE   assert 1\nskip\n1 failed, 5 passed\n"
    assert tests["tests"](log)[0] == "FAILED tests/gpu/x.py::y - assert"
    assert tests["tests"](log)[-1] == "1 failed, 5 passed"
    log = "noise\n========= Invalid read\n========= ERROR SUMMARY: 1 error\n"
    assert tests["memcheck"](log)[0] == "========= Invalid read"
    log = "case  ms; peer/ours\ntraining/float32/x 1 2\npeer's time over ours: entries\nmean 2\n"
    assert tests["table"](log)[-3:] == [
        "training/float32/x 1 2",
        "peer's time over ours: entries",
        "mean 2",
    ]
    log = "gpu H200, driver 1\na 1 ns\nb 2.5 ns\nTraceback\nc 3 GB/s\nd 4 ns\nError\n"
    assert tests["probes"](log) == [
        "a 1 ns, b 2.5 ns, c 3 GB/s",
        "d 4 ns",
        "gpu H200, driver 1",
        "Traceback",
        "Error",
    ]


# Its parts


def made(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_the_package_is_put_together(tmp_path: Path) -> None:
    names = ("_core.cpython-311.so", "csrc/cuda/libfusedrnn_cuda.so", "csrc/cuda/fusedrnn_probes")
    made(tmp_path / "build", *names)
    package = tmp_path / "package"
    build.assemble(tmp_path / "build", package)
    assert (package / "fusedrnn" / "_core.cpython-311.so").read_text() == names[0]
    assert (package / "fusedrnn" / "libfusedrnn_cuda.so").read_text() == names[1]
    assert (package / "fusedrnn_probes").read_text() == names[2]
    assert (package / "fusedrnn" / "__init__.py").read_bytes() == (
        ROOT / "python" / "fusedrnn" / "__init__.py"
    ).read_bytes()
    assert len([*package.rglob("*.so")]) == 2


def test_a_build_without_archs_has_no_cuda() -> None:
    command = build.configuration(Path("b"), "py", "bind", archs="90a-real")
    assert {"-DFUSEDRNN_CUDA=ON", "-DFUSEDRNN_CUDA_ARCHS=90a-real", "Ninja"} <= {*command}
    command = build.configuration(Path("b"), "py", "bind", archs="", ninja=False)
    assert "-DFUSEDRNN_CUDA=OFF" in command
    assert "-G" not in command


CUDA_TARGETS = ["fusedrnn_cuda", "fusedrnn_probes"]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Builds, of which each leaves a file a target: for which GPUs, and what."""
    calls: list[tuple[str, list[str]]] = []
    files = {"_core": "_core.new.so", "fusedrnn_cuda": "csrc/cuda/libfusedrnn_cuda.so"}

    def compile_targets(
        folder: Path, python: str, archs: str, targets: Sequence[str], jobs: int
    ) -> None:
        calls.append((archs, [*targets]))
        made(folder, *(files.get(name, f"csrc/cuda/{name}") for name in targets))

    monkeypatch.setattr(build, "compile_targets", compile_targets)
    monkeypatch.delenv("FUSEDRNN_CUDA_LIBRARY", raising=False)
    return calls


@pytest.mark.parametrize(
    ("imports", "said", "library", "expected"),
    [
        (True, "CUDA runtime 13.0", True, []),
        (True, "cannot open the CUDA library: GLIBC", True, [("native", CUDA_TARGETS)]),
        (False, "ImportError", True, [("", ["_core"])]),
        (True, "no CUDA library is installed", False, [("native", CUDA_TARGETS)]),
        (False, "ImportError", False, [("native", ["_core", *CUDA_TARGETS])]),
    ],
)
def test_what_a_package_lacks_is_built(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compiled: list[tuple[str, list[str]]],
    imports: bool,
    said: str,
    library: bool,
    expected: list[tuple[str, list[str]]],
) -> None:
    made(tmp_path, "fusedrnn/_core.old.so")
    if library:
        made(tmp_path, "fusedrnn/libfusedrnn_cuda.so")
    monkeypatch.setattr(build, "_imports", lambda package: (imports, said))
    monkeypatch.setattr(sys, "path", [*sys.path])
    build.complete(tmp_path)
    assert compiled == expected
    assert (tmp_path / "fusedrnn" / "_core.old.so").exists() == imports
    assert (tmp_path / "fusedrnn" / "_core.new.so").exists() == (not imports)
    assert (tmp_path / "fusedrnn" / "libfusedrnn_cuda.so").is_file()


def test_a_core_that_cannot_be_imported_is_found_out(tmp_path: Path) -> None:
    made(tmp_path, "fusedrnn/__init__.py", "fusedrnn/_core.py")
    (tmp_path / "fusedrnn" / "__init__.py").write_text("from fusedrnn._core import info")
    (tmp_path / "fusedrnn" / "_core.py").write_text("raise ImportError('of another Python')")
    assert build._imports(tmp_path) == (False, "ImportError: of another Python")
    (tmp_path / "fusedrnn" / "_core.py").write_text("def info(): return {'cuda': 'no driver'}")
    assert build._imports(tmp_path) == (True, "no driver")


def test_a_package_is_prepared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compiled: list[tuple[str, list[str]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(build, "nvcc_version", lambda: "13.0")
    monkeypatch.setattr(build.shutil, "which", lambda *words, **more: None)  # no strip
    words = ["prepare", "--out", str(tmp_path / "p"), "--build", str(tmp_path / "b")]
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    monkeypatch.setattr(build, "python_version", lambda python: f"{version}.0")
    assert gpu_session.main([*words, "--python-version", version]) == 0
    assert compiled == [("90a-real", ["_core", "fusedrnn_cuda", "fusedrnn_probes"])]
    facts = json.loads((tmp_path / "p" / "package.json").read_text())
    assert (facts["nvcc"], facts["archs"]) == ("13.0", "90a-real")
    assert (tmp_path / "p" / "site" / "pybind11" / "__init__.py").is_file()
    assert "MiB in all" in capsys.readouterr().out
    assert gpu_session.main([*words, "--python-version", "2.0"]) == 2
    assert "not prepared: no Python 2.0 with its headers was found" in capsys.readouterr().err


def test_nvcc_is_of_the_other_machines_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvcc"
    monkeypatch.setenv("CUDACXX", str(program))
    for said, got in (("release 13.1, V13.1.1", "release 13.1"), ("", "")):
        program.write_text(f"#!/bin/sh\necho '{said}'\n")
        program.chmod(0o755)
        with pytest.raises(build.BuildError, match=f"nvcc: expected release 13.0, got '{got}'$"):
            build.nvcc_version()
    program.write_text("#!/bin/sh\necho 'release 13.0, V13.0.88'\n")
    assert build.nvcc_version() == "13.0"


def test_a_python_without_headers_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 3.12.1 /nowhere\n")
    program.chmod(0o755)
    with pytest.raises(build.BuildError, match=r"expected a Python with Python.h in /nowhere$"):
        build.python_version(str(program))
    with pytest.raises(build.BuildError, match=r"^/nowhere/python: No such file"):
        build.python_version("/nowhere/python")


def test_the_newest_symbols_are_named(tmp_path: Path) -> None:
    library = tmp_path / "l.so"
    library.write_bytes(b"\0GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.9\0GLIBCXX_3.4.29\0CXXABI_1.3\0")
    assert build.symbol_versions(library) == ["GLIBC 2.34", "GLIBCXX 3.4.29"]


def test_versions_are_found_without_a_gpu() -> None:
    lines = build.versions()
    assert f"python {sys.version.split()[0]}" in lines[0]
    assert f"torch {torch.__version__}" in lines[1]
    assert lines[2].startswith("nvidia-smi: ")


def test_smoke_finds_wrong_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = fusedrnn.info() | {"cuda_devices": ["a GPU"], "cuda": "pretended"}
    monkeypatch.setattr(fusedrnn, "info", lambda: known)
    peer, case = FusedRnn("fusedrnn"), Case("inference", "float32", Shape("gru", 3, 2, 8))
    cpu = smoke.Place("cpu")
    assert smoke.check(peer, case, cpu) == ""
    true, calls = fusedrnn.gru, iter(range(100))

    def other_bits_in_the_third(*arguments: Any) -> Any:
        y, state = true(*arguments)
        return y * (1 + 1e-7 * (next(calls) == 2)), state

    monkeypatch.setattr(fusedrnn, "gru", other_bits_in_the_third)
    assert smoke.check(peer, case, cpu) == "call 3: other bits than call 1 in y"
    monkeypatch.setattr(fusedrnn, "gru", lambda x, *rest: (x * 2, rest[-1]))
    assert "call 1: MismatchError: y: relative error" in smoke.check(peer, case, cpu)
    monkeypatch.setattr(smoke, "check", lambda peer, case, *a: "wrong" * (case == smoke.FEW[0]))
    assert smoke.main(["--few"]) == 1
    said = capsys.readouterr().out
    assert f"{smoke.FEW[0]}: wrong\n" in said
    assert f"\n{len(smoke.FEW) - 1} of {len(smoke.FEW)} right" in said
    monkeypatch.setattr(smoke, "check", lambda *a: "")
    assert smoke.main([]) == 0
    known["cuda_plain_products"] = 2
    assert smoke.main([]) == 1
    assert "2 products by the plain kernel: pretended" in capsys.readouterr().out
    monkeypatch.setenv("FUSEDRNN_CUDA_GEMM", "plain")
    assert smoke.main([]) == 0


def test_smoke_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusedrnn, "info", lambda: {"cuda_devices": [], "cuda": "no driver"})
    assert smoke.main([]) == 3


def test_native_probes_may_be_missing_or_fail(tmp_path: Path) -> None:
    assert probe.native(tmp_path) == ["fusedrnn_probes: not built"]
    program = tmp_path / "fusedrnn_probes"
    program.write_text("#!/bin/sh\necho grid_barrier 1.3 us\necho no cluster >&2\nexit 1\n")
    program.chmod(0o755)
    assert probe.native(tmp_path) == ["grid_barrier 1.3 us", "fusedrnn_probes: no cluster"]
    program.write_text("#!/bin/sh\necho grid_barrier 1.3 us\nexec sleep 30\n")
    assert probe.native(tmp_path, seconds=1) == [
        "grid_barrier 1.3 us",
        "fusedrnn_probes: not done after 1 s",
    ]


def test_the_script_starts() -> None:
    shown = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "gpu_session.py"), "--help"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "prepare" in shown.stdout


def test_warming_uses_what_it_imports(capsys: pytest.CaptureFixture[str]) -> None:
    assert warm.main(["torch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"import torch {torch.__version__}: ")
    assert lines[1].startswith("first use: ")
