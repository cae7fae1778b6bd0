"""bench/: the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import machine, report, run
from bench.harness import (
    Harness,
)
from bench.peers import PEERS, Peer, UnavailableError
from bench.records import Cores, Row, Run, load_runs
from bench.scenarios import (
    CLASSES,
    SHAPE_SETS,
    Shape,
)
from bench_support import FakeClock, FakePeer

# Quick, and without processes of their own.
QUICK = "--threads 1 --rounds 2 --min-time 1e-4 --peers fusedrnn --no-probes"


def test_run_writes_what_report_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "tiny.json"
    words = f"{QUICK} --shapes rnn:3,2,4 gru:3,2,4 --cells rnn --out {out}".split()
    assert run.main(words) == 0
    text = capsys.readouterr().out
    assert "training-f32: forward and backward" in text
    assert "RNN 3, 2, 4" in text
    assert "GRU 3, 2, 4" not in text
    (result,) = load_runs([out])
    cases = {(row.scenario, row.dtype) for row in result.rows}
    assert cases == {found.case for found in CLASSES.values()}
    assert {row.status for row in result.rows if row.dtype == "float32"} == {"ok"}
    assert result.commands[0].startswith("python bench/run.py --peers fusedrnn --cells rnn ")
    assert not list(out.parent.glob("*.partial"))
    assert report.main([str(out)]) == 0
    assert "### Step, float32, 1 thread" in capsys.readouterr().out


def test_runs_in_parts_make_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "parts.json"
    words = f"{QUICK} --out {out} --shapes rnn:2,1,4 --merge".split()
    assert run.main([*words, "--classes", "inference-f32"]) == 0
    assert run.main([*words, "--classes", "step"]) == 0
    assert run.main([*words, "--classes", "step"]) == 0
    (result,) = load_runs([out])
    assert [row.scenario for row in result.rows] == ["inference", "step"]
    assert len(result.commands) == 2
    assert run.main([*words, "--rounds", "3"]) == 2
    assert "settings: expected" in capsys.readouterr().err
    out.write_text("{}")
    assert run.main(words) == 2
    assert "not a result file" in capsys.readouterr().err


def test_a_run_ends_in_time_and_goes_on_with_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "parts.json"
    words = f"{QUICK} --out {out} --shapes rnn:2,1,4 gru:2,1,4 --classes step,inference-f32"
    assert run.main([*words.split(), "--cells", "gru"]) == 0
    (first,) = load_runs([out])
    assert run.main([*words.split(), "--merge", "--missing", "--time-limit", "1e-9"]) == 0
    assert "the time limit is over: rnn:1,1,4 and what follows" in capsys.readouterr().out
    assert load_runs([out])[0].rows == first.rows
    assert run.main([*words.split(), "--merge", "--missing"]) == 0
    rows = load_runs([out])[0].rows
    assert rows[:2] == first.rows
    assert [row.shape.cell for row in rows] == ["gru", "gru", "rnn", "rnn"]


def test_an_interrupted_run_keeps_its_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "part.json"
    real = Harness.run_case

    def stop_at_gru(self: Harness, scenario: str, shape: Shape, *rest: Any) -> list[Row]:
        if shape.cell == "gru":
            raise KeyboardInterrupt
        return real(self, scenario, shape, *rest)

    monkeypatch.setattr(Harness, "run_case", stop_at_gru)
    with pytest.raises(KeyboardInterrupt):
        run.main(f"{QUICK} --shapes rnn:2,1,4 gru:2,1,4 --out {out}".split())
    (result,) = load_runs([out])
    assert [row.shape for row in result.rows] == [Shape("rnn", 2, 1, 4)]


def test_skip_reasons_are_printed_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    out = tmp_path / "skip.json"
    words = "--threads 1 --rounds 1 --min-time 1e-6 --shapes rnn:1,1,2 --classes step --no-probes"
    assert run.main([*words.split(), "--peers", "fusedrnn,numpy", "--out", str(out)]) == 0
    assert "skipped numpy: threadpoolctl is not installed" in capsys.readouterr().out
    assert "threadpoolctl is not installed" in load_runs([out])[0].skipped["numpy"]
    assert run.main([*words.split(), "--peers", "numpy", "--out", str(out)]) == 1


def test_a_busy_machine_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"{QUICK} --shapes rnn:1,1,2 --classes step --out {tmp_path / 'a.json'}"
    for load, said in ((100.0, True), (0.0, False), (None, False)):
        monkeypatch.setattr(machine, "load_average", lambda load=load: load)
        assert run.main(words.split()) == 0
        assert ("machine is busy" in capsys.readouterr().err) == said


def test_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def load(name: str) -> Peer:
        if name == "openvino":
            raise UnavailableError("openvino is not installed")
        return FakePeer(name, FakeClock(), [])

    monkeypatch.setattr(run, "load_peer", load)
    assert run.main(["--list"]) == 0
    text = capsys.readouterr().out
    assert "openvino is not installed" in text
    assert all(word in text for word in [*PEERS, *CLASSES, "gru:64,64,1024"])


def test_default_file_is_named_after_the_machine() -> None:
    assert run._slug({"cpu": "AMD EPYC 9B45 (tm)", "cores": 1}) == "epyc-9b45-1-core"
    assert run._slug({"cpu": "Intel(R) Xeon(R) Processor", "cores": 2}) == "xeon-2-cores"


@pytest.mark.parametrize(
    ("family", "model", "cpu", "expected"),
    [
        ("25", "1", "AMD EPYC", "AMD EPYC Milan"),
        ("25", "17", "AMD EPYC", "AMD EPYC Genoa"),
        ("26", "2", "AMD EPYC", "AMD EPYC Turin"),
        ("26", "68", "AMD Ryzen 9", "AMD Ryzen 9"),
        ("99", "2", "AMD EPYC", "AMD EPYC"),
    ],
)
def test_generations_of_one_name_are_told_apart(
    family: str, model: str, cpu: str, expected: str
) -> None:
    facts = {"vendor_id": "AuthenticAMD", "cpu family": family, "model": model}
    assert machine.name({"cpu": cpu, "family": facts}) == expected
    assert machine.name({"cpu": cpu}) == cpu


def test_classes_have_shapes_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Shape, int]] = []

    def record(self: Harness, scenario: str, shape: Shape, threads: int, dtype: str) -> list[Row]:
        seen.append((scenario, shape, threads))
        return [Row(scenario, shape, dtype, threads, "fusedrnn", "failed", "not run")]

    monkeypatch.setattr(Harness, "run_case", record)
    words = f"{QUICK} --cells lstm --out {tmp_path / 'a.json'}".replace(
        "1 --rounds", "1,1 --rounds"
    )
    assert run.main([*words.split(), "--classes", "inference-bf16,memory"]) == 1
    of = {name: [s for s in SHAPE_SETS[name] if s.cell == "lstm"] for name in SHAPE_SETS}
    expected = [s for name in ("table", "networks", "lengths") for s in of[name]]
    assert [s for scenario, s, _ in seen if scenario == "inference"] == [
        s for s in expected for _ in range(2)
    ]
    # Of memory one number of threads.
    assert [s for scenario, s, _ in seen if scenario == "memory"] == of["memory"]


class FakeCores:
    """Probes with the next of these cores at every look; it stands for the clock as well."""

    def __init__(self, *found: Cores) -> None:
        self.found = list(found)
        self.now = 0.0
        self.asked: list[object] = []

    def __call__(self) -> FakeCores:
        return self

    def measure(self, threads: int, cache_bytes: dict[str, int]) -> dict[str, float]:
        return {}

    def cores(self, threads: int) -> float:
        self.asked.append(threads)
        return self.found[0].number

    def core_latency_ns(self) -> float:
        return self.found.pop(0).latency_ns

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


NEAR, SHARED, DISTANT = Cores(1.98, 65.0), Cores(1.02, 42.0), Cores(1.97, 290.0)


@pytest.fixture
def run_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Run, FakeCores]]:
    """Runs a step on two threads, with more words, while the machine has these cores."""
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(Harness, "gemm_gflops", lambda *_: 1.0)
    monkeypatch.setattr(
        Harness,
        "run_case",
        lambda self, scenario, shape, threads, dtype: [
            Row(scenario, shape, dtype, threads, "fusedrnn", "ok", "", 0.0, (1e-3,), 1e-3, 1)
        ],
    )

    def main(words: str, *found: Cores) -> tuple[Run, FakeCores]:
        fake, out = FakeCores(*found), tmp_path / "a.json"
        monkeypatch.setattr(run, "Probes", fake)
        monkeypatch.setattr(run, "time", fake)
        monkeypatch.setattr(Harness, "settle", lambda _: fake.asked.append("settle"))
        always = "--peers fusedrnn --classes step --threads 2 --shapes rnn:1,1,4"
        assert run.main(f"{always} --out {out} {words}".split()) == 0
        assert not fake.found
        return load_runs([out])[0], fake

    return main


def test_a_case_waits_for_its_cores_and_keeps_the_worse_of_before_and_after(
    run_on: Callable[..., tuple[Run, FakeCores]], capsys: pytest.CaptureFixture[str]
) -> None:
    found, fake = run_on("", SHARED, SHARED, NEAR, Cores(1.9, 80.0))
    assert [(row.cores, row.core_latency_ns) for row in found.rows] == [(1.9, 80.0)]
    assert fake.now == 2 * run.POLL_S
    assert fake.asked == [2, 2, 2, "settle", 2]
    text = capsys.readouterr().out
    assert text.count("waiting: 1.02 cores, 42 ns apart\n") == 1
    assert "RNN 1, 1, 4   " in text
    # What is far is told by the nearest so far: of another case, or of a look while it waits.
    words = "--shapes rnn:1,1,4 gru:1,1,4"
    found, fake = run_on(words, DISTANT, DISTANT, NEAR, NEAR)
    assert [row.core_latency_ns for row in found.rows] == [290.0, 65.0]
    found, fake = run_on(words, NEAR, NEAR, DISTANT, NEAR, NEAR)
    assert fake.now == run.POLL_S
    found, fake = run_on("", Cores(1.0, 65.0), DISTANT, NEAR, NEAR)
    assert fake.now == 2 * run.POLL_S


def test_misplaced_cases_are_marked_and_can_be_run_again(
    run_on: Callable[..., tuple[Run, FakeCores]], capsys: pytest.CaptureFixture[str]
) -> None:
    found, fake = run_on("--wait-for-cores 2.5", *[SHARED] * 4, NEAR)
    assert [(row.cores, row.core_latency_ns) for row in found.rows] == [(1.02, 65.0)]
    assert fake.now == 3 * run.POLL_S
    assert "--wait-for-cores 2.5" in found.commands[0]
    assert "RNN 1, 1, 4 †" in capsys.readouterr().out
    assert "RNN 1, 1, 4 †" in report.report({"a": found})
    found, fake = run_on("--wait-for-cores 0", NEAR, SHARED)
    assert [row.cores for row in found.rows] == [1.02]
    assert run_on("--merge --missing")[0].rows == found.rows
    found, fake = run_on("--merge --missing --again-misplaced", NEAR, NEAR)
    assert [row.cores for row in found.rows] == [1.98]
    assert "†" not in report.report({"a": found}).partition("## a\n")[2]
    assert found.commands[-1].endswith("--merge --missing --again-misplaced")
    assert run_on("--merge --missing --again-misplaced")[0].rows == found.rows


def test_one_thread_and_memory_need_no_cores(
    run_on: Callable[..., tuple[Run, FakeCores]],
) -> None:
    for words in ("--threads 1", "--classes memory", "--no-probes"):
        found, fake = run_on(words)
        assert [(row.cores, row.core_latency_ns) for row in found.rows] == [(None, None)]
        assert not fake.asked


@pytest.mark.parametrize(
    "words",
    [
        "--missing --shapes core",
        "--again-misplaced --merge",
        "--wait-for-cores -1",
        "--wait-for-cores inf",
        "--peers keras",
        "--classes sleeping",
        "--cells mlp",
        "--shapes lstm:1,2",
        "--threads 0",
        "--threads 9999",
        "--threads two",
        "--rounds 0",
        "--min-time nan",
    ],
)
def test_bad_options_end_with_2(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run.main(words.split())
    assert stop.value.code == 2
    assert f"argument {words.partition(' ')[0]}" in capsys.readouterr().err
