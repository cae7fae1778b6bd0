"""The GPU session: parts run in order, fail alone, end in time, and leave what they found."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from site import getsitepackages

import pytest

import fusedrnn
from bench import gpu_session
from bench.gpu import build, probe, run, smoke
from bench.gpu.fusedrnn_peer import FusedRnn
from bench.gpu.scenarios import Case
from bench.gpu.session import MOST_LINES, Outcome, Part, last_lines, run_parts, summary
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


# The session itself


def test_the_most_valuable_part_comes_first() -> None:
    parts = gpu_session.parts(Path("b"), Path("o"), "python")
    assert [part.name for part in parts] == [
        *("build", "smoke", "tests", "probes", "table", "memcheck", "racecheck", "table-rest")
    ]
    for part in parts[1:]:
        assert part.needs == (() if part.name == "probes" else ("build",))
    built = gpu_session.parts(Path("b"), Path("o"), "python", built=True)
    assert [part.name for part in built] == [part.name for part in parts[1:]]
    assert not any(part.needs for part in built)


def test_every_command_is_one_that_there_is() -> None:
    for part in gpu_session.parts(Path("b"), Path("o"), "python"):
        command = part.command(100.0)
        scripts = [word for word in command if word.endswith(".py")]
        assert all((ROOT / script).is_file() for script in scripts)
        if "bench/gpu/run.py" in command:
            options = run._parser().parse_args(list(command[2:]))
            assert (options.resume, options.time_limit) == (True, 80)
        elif "pytest" in command:
            assert command[3:6] == ["tests/gpu", "-m", "gpu"]


def test_the_command_runs_the_parts_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    parser = gpu_session._parser()  # which knows the true parts
    show = "import os; print(*map(os.environ.get, ['PYTHONPATH', 'FUSEDRNN_SITE_PACKAGES']))"
    made = [python("smoke", show), python("tests", "1/0")]
    monkeypatch.setattr(gpu_session, "parts", lambda *a, **k: made)
    words = ["--out", "out", "--build", "b"]
    monkeypatch.setattr(gpu_session, "_parser", lambda: parser)
    assert gpu_session.main([*words, "--parts", "smoke"]) == 0
    shown = f"{tmp_path / 'b' / 'package'}:{ROOT / 'build' / 'site'} {':'.join(getsitepackages())}"
    assert (tmp_path / "out" / "summary.txt").read_text().splitlines() == [
        "smoke: ok, 0 s",
        f"  {shown[:180]}",  # Debian's Python has many folders
    ]
    monkeypatch.chdir(tmp_path)  # the session has moved to the root
    assert gpu_session.main(words) == 1
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert (tmp_path / "out" / "1-tests.log").exists()


def test_summaries_keep_what_matters() -> None:
    tests = {part.name: part.summarise for part in gpu_session.parts(Path("b"), Path("o"), "p")}
    log = "....F\nFAILED tests/gpu/x.py::y - assert\nE   assert 1\nskip\n1 failed, 5 passed\n"
    assert tests["tests"](log)[0] == "FAILED tests/gpu/x.py::y - assert"
    assert tests["tests"](log)[-1] == "1 failed, 5 passed"
    log = "noise\n========= Invalid read\n========= ERROR SUMMARY: 1 error\n"
    assert tests["memcheck"](log)[0] == "========= Invalid read"
    log = "case  ms; peer/ours\ntraining/float32/x 1 2\npeer's time over ours: entries\nmean 2\n"
    assert tests["table"](log)[:2] == ["peer's time over ours: entries", "mean 2"]
    assert "training/float32/x 1 2" in tests["table"](log)


# Its parts


def test_the_package_is_put_together(tmp_path: Path) -> None:
    (tmp_path / "csrc" / "cuda").mkdir(parents=True)
    names = ("_core.cpython-311.so", "csrc/cuda/libfusedrnn_cuda.so")
    for name in names:
        (tmp_path / name).write_text(name)
    package = build.assemble(tmp_path) / "fusedrnn"
    assert (package / "_core.cpython-311.so").read_text() == names[0]
    assert (package / "libfusedrnn_cuda.so").read_text() == names[1]
    assert (package / "__init__.py").read_bytes() == (
        ROOT / "python" / "fusedrnn" / "__init__.py"
    ).read_bytes()
    assert len([*package.glob("*.so")]) == 2


def test_the_build_is_for_this_gpu() -> None:
    command = build.configuration(Path("b"), "py", "bind", ninja=True)
    assert {"-DFUSEDRNN_CUDA=ON", "-DFUSEDRNN_CUDA_ARCHS=native", "Ninja"} <= {*command}
    assert "-G" not in build.configuration(Path("b"), "py", "bind", ninja=False)


def test_smoke_finds_wrong_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = fusedrnn.info() | {"cuda_devices": ["a GPU"], "cuda": "pretended"}
    monkeypatch.setattr(fusedrnn, "info", lambda: known)
    peer, case = FusedRnn("fusedrnn"), Case("inference", "float32", Shape("gru", 3, 2, 8))
    assert smoke.check(peer, case, "cpu") == ""
    monkeypatch.setattr(fusedrnn, "gru", lambda x, *rest: (x * 2, rest[-1]))
    assert "MismatchError: y: relative error" in smoke.check(peer, case, "cpu")
    monkeypatch.setattr(smoke, "check", lambda peer, case: "wrong" * (case == smoke.FEW[0]))
    assert smoke.main(["--few"]) == 1
    assert f"{smoke.FEW[0]}: wrong\n{len(smoke.FEW) - 1} of {len(smoke.FEW)} right" in (
        capsys.readouterr().out
    )
    monkeypatch.setattr(smoke, "check", lambda peer, case: "")
    assert smoke.main([]) == 0


def test_smoke_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusedrnn, "info", lambda: {"cuda_devices": [], "cuda": "no driver"})
    assert smoke.main([]) == 3


def test_native_probes_may_be_missing_or_fail(tmp_path: Path) -> None:
    assert probe.native(tmp_path) == ["fusedrnn_probes: not built"]
    program = tmp_path / "csrc" / "fusedrnn_probes"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho grid_barrier 1.3 us\necho no cluster >&2\nexit 1\n")
    program.chmod(0o755)
    assert probe.native(tmp_path) == ["grid_barrier 1.3 us", "fusedrnn_probes: no cluster"]
    program.write_text("#!/bin/sh\necho grid_barrier 1.3 us\nexec sleep 30\n")
    assert probe.native(tmp_path, 1) == [
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
    assert "--limit" in shown.stdout
