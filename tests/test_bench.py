"""bench/: the harness verifies before it times, and its figures and files are what they claim.

No test looks at a real duration: the clock is a fake that the fake peers move.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference
from bench import machine, report, run
from bench.harness import SLOW_ROUNDS, Harness, MismatchError, Settings, verify
from bench.peers import PEERS, Job, Peer, UnavailableError, load_peer
from bench.peers.numpy_peer import reference as bench_reference
from bench.records import Row, Run, load_runs
from bench.scenarios import (
    SCENARIOS,
    TABLE,
    Array,
    Problem,
    Shape,
    flops,
    parse_shapes,
    random_problem,
    scenario_shapes,
)
from bench.summary import digits, geometric_mean, milliseconds, tables

TINY = Shape("lstm", 2, 2, 3)


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakePeer(Peer):
    """Returns the reference in float32, spoilt by `spoil`; each call takes the next of `times`."""

    def __init__(
        self,
        name: str,
        clock: FakeClock,
        times: list[float],
        spoil: Callable[[dict[str, Array]], Any] = lambda result: None,
    ) -> None:
        self.name = name  # type: ignore[misc]
        self.clock, self.times, self.spoil = clock, times, spoil
        self.calls = 0
        self.threads: list[int] = []

    def version(self) -> str:
        return "1.0"

    def set_threads(self, threads: int) -> None:
        self.threads.append(threads)

    def prepare(self, scenario: str, problem: Problem) -> Job:
        exact = bench_reference(scenario, problem)

        def call() -> dict[str, Array]:
            self.clock.now += self.times[self.calls % len(self.times)]
            self.calls += 1
            result = {name: array.astype("float32") for name, array in exact.items()}
            self.spoil(result)
            return result

        return Job(call, lambda result: result)


def run_fakes(*peers: FakePeer, scenario: str = "training", **settings: Any) -> list[Row]:
    harness = Harness(peers, Settings(**settings), clock=peers[0].clock, sleep=lambda s: None)
    return harness.run_case(scenario, TINY, threads=2)


def available() -> list[str]:
    names = []
    for name in PEERS:
        try:
            load_peer(name)
        except UnavailableError:
            continue
        names.append(name)
    return names


# Shapes, problems, formulas


def test_shape_round_trip() -> None:
    shape = Shape.parse(" GRU:64,16,512 ")
    assert shape == Shape("gru", 64, 16, 512)
    assert Shape.parse(str(shape)) == shape
    assert shape.label == "GRU 64, 16, 512"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lstm", "expected cell:T,B,H"),
        ("lstm:1,2", "expected cell:T,B,H"),
        ("lstm:1,2,3,4", "expected cell:T,B,H"),
        ("lstm:1,-2,3", "expected cell:T,B,H"),
        ("mlp:1,2,3", "expected a cell of rnn, gru, lstm, got 'mlp'"),
        ("lstm:1,0,3", "at least 1"),
        ("lstm:1,2,000", "at least 1"),
    ],
)
def test_bad_shape(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shape.parse(text)


def test_parse_shapes_joins_sets_and_drops_repeats() -> None:
    shapes = parse_shapes(["table", "rnn:1,2,3", "lstm:1,1,128"])
    assert shapes == [*TABLE, Shape("rnn", 1, 2, 3)]
    assert len(TABLE) == 11


def test_step_keeps_cell_and_hidden_size() -> None:
    shapes = parse_shapes(["lstm:9,4,8", "lstm:5,1,8", "gru:9,4,8"])
    assert scenario_shapes("step", shapes) == [Shape("lstm", 1, 1, 8), Shape("gru", 1, 1, 8)]
    assert scenario_shapes("training", shapes) == shapes


def test_flops_count_the_products() -> None:
    shape = Shape("gru", 5, 2, 4)
    # Per step and sequence: two products of a [12, 4] matrix and a vector.
    assert flops("inference", shape) == 5 * 2 * 2 * (2 * 12 * 4)
    assert flops("training", shape) == 3 * flops("inference", shape)


@pytest.mark.parametrize("shape", TABLE[:2] + TABLE[4:6] + TABLE[-2:], ids=str)
def test_problem_is_random_and_normal(shape: Shape) -> None:
    problem = random_problem(shape, seed=3)
    assert set(problem.states) == ({"h", "c"} if shape.cell == "lstm" else {"h"})
    for array in problem.arrays.values():
        assert array.dtype == np.float32
        assert np.abs(array).min() >= np.finfo(np.float32).tiny
        assert array.std() > 0
    again = random_problem(shape, seed=3)
    assert all(np.array_equal(v, again.arrays[k]) for k, v in problem.arrays.items())


# The reference and the peers


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_reference_agrees_with_the_tests_reference(cell: str) -> None:
    problem = random_problem(Shape(cell, 6, 3, 5), dtype="float64")
    forward = {k: v for k, v in problem.arrays.items() if not k.startswith("d")}
    upstream = {k: v for k, v in problem.arrays.items() if k.startswith("d")}
    expected = reference.forward(cell, **forward)
    assert verify(bench_reference("inference", problem), expected, dtype="float64", tolerance=1e-13)
    expected |= reference.gradients(cell, **forward, **upstream)
    got = bench_reference("training", problem)
    assert verify(got, expected, dtype="float64", tolerance=1e-13)


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_every_peer_passes_its_verification(cell: str, scenario: str) -> None:
    shape = Shape(cell, 1, 1, 20) if scenario == "step" else Shape(cell, 7, 3, 20)
    problem = random_problem(shape)
    exact = bench_reference(scenario, problem)
    assert "fusedrnn" in available()
    for name in available():
        peer = load_peer(name)
        peer.set_threads(1)
        job = peer.prepare(scenario, problem)
        for _ in range(2):
            error = verify(job.collect(job.run()), exact, dtype="float32", tolerance=1e-5)
            assert 0 < error < 1e-5
        assert peer.version()
        json.dumps(peer.details())


def test_missing_package_is_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(UnavailableError, match="threadpoolctl is not installed"):
        load_peer("numpy")


# Verification


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: r["dw_hh"].__imul__(1.0001), "dw_hh: relative error"),
        (lambda r: r["y"].__setitem__((0, 0, 0), np.nan), "y: relative error nan"),
        (lambda r: r.update(dx=np.zeros((2, 2, 4), "float32")), r"dx: expected \(2, 2, 3\)"),
        (lambda r: r.update(y=r["y"].astype("float64")), "y: expected .* of float32, got .*64"),
        (lambda r: r.pop("dc0"), "expected c_n, db_hh, .*, got"),
        (lambda r: r.update(more=r["y"]), "got .*more"),
    ],
)
def test_wrong_result_is_caught_and_not_timed(spoil: Any, message: str) -> None:
    clock = FakeClock()
    right = FakePeer("right", clock, [0.01])
    wrong = FakePeer("wrong", clock, [0.01], spoil)
    rows = run_fakes(right, wrong)
    assert [row.status for row in rows] == ["ok", "wrong"]
    assert wrong.calls == 1
    assert rows[1].median is None
    assert rows[1].gflops is None
    with pytest.raises(MismatchError, match=message):
        raise MismatchError(rows[1].message)


def test_an_exception_and_a_missing_scenario_end_one_row_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    peers = [FakePeer(name, clock, [0.01]) for name in ("fails", "lacks", "right")]

    def fail(scenario: str, problem: Problem) -> Job:
        raise IndexError("a bug")

    def lack(scenario: str, problem: Problem) -> Job:
        raise UnavailableError("no such scenario")

    monkeypatch.setattr(peers[0], "prepare", fail)
    monkeypatch.setattr(peers[1], "prepare", lack)
    rows = run_fakes(*peers)
    assert [row.status for row in rows] == ["failed", "unsupported", "ok"]
    assert rows[0].message == "IndexError: a bug"
    assert rows[1].message == "no such scenario"


# Timing, on the fake clock


def test_median_of_rounds_and_counts() -> None:
    clock = FakeClock()
    call = 1 / 128  # a power of two, so that the fake clock adds up without rounding
    peer = FakePeer("peer", clock, [call])
    (row,) = run_fakes(peer, rounds=4, min_time=16 * call)
    assert row.rounds == (call,) * 4
    assert row.median == row.least == call
    assert row.noise == 0
    assert row.calls == 4 * 16
    # One call is verified, one gives the first estimate, each round warms up for a tenth of it.
    assert peer.calls == 2 + 4 * (2 + 16)
    assert peer.threads == [2]


def test_long_calls_get_few_rounds_and_no_warm_up() -> None:
    clock = FakeClock()
    slow, fast = FakePeer("slow", clock, [2.0]), FakePeer("fast", clock, [0.001])
    rows = run_fakes(slow, fast, rounds=7)
    assert rows[0].calls == SLOW_ROUNDS
    assert slow.calls == SLOW_ROUNDS + 2
    assert len(rows[1].rounds) == 7


def test_max_rounds_of_a_peer() -> None:
    clock = FakeClock()
    peer = FakePeer("peer", clock, [0.01])
    peer.max_rounds = 2  # type: ignore[misc]
    (row,) = run_fakes(peer, rounds=5)
    assert len(row.rounds) == 2


def test_turns_rotate() -> None:
    clock, order = FakeClock(), []
    peers = [FakePeer(name, clock, [1.0], lambda r, n=name: order.append(n)) for name in "abc"]  # type: ignore[misc]
    run_fakes(*peers, rounds=3)
    assert "".join(order) == "aabbcc" + "abc" + "bca" + "cab"


def test_gemm_rate_is_the_best_product_of_any_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    fast, slow, none = (FakePeer(name, clock, [1.0]) for name in ("fast", "slow", "none"))

    def takes(seconds: float) -> Callable[[Array, Array], list[Callable[[], None]]]:
        def advance() -> None:
            clock.now += seconds

        return lambda a, b: [advance]

    monkeypatch.setattr(fast, "matmuls", takes(0.5))
    monkeypatch.setattr(slow, "matmuls", takes(2.0))
    harness = Harness([slow, none, fast], Settings(), clock=clock, sleep=lambda s: None)
    assert harness.gemm_gflops(2, size=10) == pytest.approx(2 * 10**3 / 0.5 / 1e9)
    assert fast.threads == slow.threads == [2]


def test_row_statistics() -> None:
    rounds = (0.004, 0.001, 0.002)
    row = Row("inference", TINY, "float32", 1, "p", "ok", rounds=rounds, least=0.001)
    assert row.median == 0.002
    assert row.noise == pytest.approx(1.5)
    assert replace(row, rounds=(0.002,) * 3).noise == pytest.approx(1)  # slow alike
    assert row.gflops == pytest.approx(flops("inference", TINY) / 0.002 / 1e9)
    assert milliseconds(row) == "2.00~"
    assert milliseconds(replace(row, rounds=(0.002,), least=0.0019)) == "2.00"
    assert milliseconds(replace(row, rounds=(), least=None, status="wrong")) == "wrong"
    assert milliseconds(None) == "-"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (1234.5, "1234"), (12.345, "12.3"), (0.00123456, "0.00123")],
)
def test_digits(value: float | None, text: str) -> None:
    assert digits(value) == text


def test_geometric_mean() -> None:
    assert geometric_mean([1, 4, 16]) == pytest.approx(4)
    assert geometric_mean([]) is None


# Records and the report


def sample_run() -> Run:
    other = Shape("gru", 4, 1, 8)
    rows = (
        Row("training", TINY, "float32", 1, "fusedrnn", "ok", "", 3e-7, (0.002,), 0.002, 5),
        Row("training", TINY, "float32", 1, "pytorch", "ok", "", 4e-7, (0.008,), 0.007, 5),
        Row("training", other, "float32", 1, "fusedrnn", "ok", "", 3e-7, (0.004,), 0.004, 5),
        Row("training", other, "float32", 1, "pytorch", "wrong", "dx: off"),
    )
    return Run(
        created="2026-11-21T00:00:00+00:00",
        command="python bench/run.py",
        machine=machine.describe() | {"load_before": 0.1},
        settings={"tolerance": 1e-5, "rounds": 5},
        peers={"fusedrnn": {"version": "0.1", "isa": "avx2"}, "pytorch": {"version": "2"}},
        skipped={"numpy": "threadpoolctl is not installed"},
        gemm_gflops={1: 100.0},
        rows=rows,
    )


def test_json_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(sample_run().to_json())
    assert load_runs([path]) == [sample_run()]
    first = json.loads(path.read_text())["rows"][0]
    assert first["median"] == 0.002
    assert first["gflops"] == pytest.approx(flops("training", TINY) / 0.002 / 1e9)


def test_foreign_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "foreign.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"foreign\.json: not a result file: .*schema"):
        load_runs([path])
    assert report.main([str(path)]) == 2
    assert "foreign.json" in capsys.readouterr().err


def test_ratios_leave_out_what_was_not_timed() -> None:
    (table,) = tables(sample_run().rows)
    assert table.title == "training, float32, 1 thread"
    assert table.ratios("pytorch") == {TINY: pytest.approx(4)}


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "machine.json"
    path.write_text(sample_run().to_json())
    assert report.main([str(path)]) == 0
    text = capsys.readouterr().out
    assert "python bench/report.py bench/results/*.json > docs/benchmarks.md" in text
    assert "## machine\n" in text
    assert "| training, float32, 1 thread | pytorch | 4.00 | 4.00 (LSTM 2, 2, 3) |" in text
    assert "| LSTM 2, 2, 3 | 2.00 | 8.00 | 4.00 |" in text
    assert "| GRU 4, 1, 8 | 4.00 | wrong | - |" in text
    assert "- GRU 4, 1, 8, pytorch: wrong: dx: off" in text
    assert "fusedrnn 0.1, pytorch 2" in text
    assert "Skipped numpy: threadpoolctl is not installed" in text
    assert "bar [4.00]" in text
    assert str(tmp_path) not in text


def test_machine_description() -> None:
    facts = machine.describe()
    assert facts["cores"] >= 1
    assert facts["cpu"]
    json.dumps(facts)


# The command line


def test_run_writes_what_report_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "tiny.json"
    words = "--threads 1 --rounds 2 --min-time 1e-4 --shapes rnn:3,2,4 gru:3,2,4 --peers fusedrnn"
    assert run.main([*words.split(), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "training: forward and backward" in text
    assert "RNN 3, 2, 4" in text
    (result,) = load_runs([out])
    assert {(row.scenario, row.status) for row in result.rows} == {(s, "ok") for s in SCENARIOS}
    assert result.command.startswith("python bench/run.py --peers fusedrnn ")
    assert report.main([str(out)]) == 0
    assert "### Step, float32, 1 thread" in capsys.readouterr().out


def test_a_busy_machine_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--threads 1 --rounds 1 --min-time 1e-6 --shapes rnn:1,1,2 --scenarios step"
    for load, said in ((100.0, True), (0.0, False), (None, False)):
        monkeypatch.setattr(machine, "load_average", lambda load=load: load)
        assert run.main([*words.split(), "--peers", "fusedrnn"]) == 0
        assert ("machine is busy" in capsys.readouterr().err) == said


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--list"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in [*PEERS, *SCENARIOS, "gru:64,64,1024"])


@pytest.mark.parametrize(
    "words",
    [
        "--peers keras",
        "--scenarios sleeping",
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
