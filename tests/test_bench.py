"""bench/: the harness verifies before it times, and its figures and files are what they claim.

No test looks at a real duration: the clock is a fake that the fake peers move.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference
from bench import limits, machine, plots, probes, report, run, scenarios, timing, worker
from bench.harness import (
    HOPELESS,
    SLOW_ROUNDS,
    STEP_CALLS,
    Harness,
    MismatchError,
    Settings,
    percentile,
    results,
    verify,
)
from bench.limits import Ceilings
from bench.peers import OURS, PEERS, Job, Peer, UnavailableError, applies, load_peer, make_peer
from bench.peers.numpy_peer import reference as bench_reference
from bench.records import Row, Run, load_runs
from bench.scenarios import (
    CLASSES,
    CORE,
    STEP_INPUTS,
    TABLE,
    Array,
    Problem,
    Shape,
    flops,
    parse_shapes,
    random_problem,
    scenario_shapes,
)
from bench.summary import class_summaries, digits, geometric_mean, milliseconds, tables

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
        super().__init__(name)
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
            if scenario == "step":
                step = (self.calls - 1) % STEP_INPUTS
                result["y"] = result["y"][step : step + 1]
            self.spoil(result)
            return result

        return Job(call, lambda result: result)


def run_fakes(*peers: FakePeer, scenario: str = "training", **settings: Any) -> list[Row]:
    harness = Harness(peers, Settings(**settings), clock=peers[0].clock, sleep=lambda s: None)
    return harness.run_case(scenario, TINY, 2, "float32")


def made_here() -> list[Peer]:
    """The peers that can be had."""
    peers = []
    for name in PEERS:
        try:
            peers.append(load_peer(name))
        except UnavailableError:
            continue
    return peers


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
    assert set(CORE) <= set(TABLE)
    for cell in ("rnn", "gru", "lstm"):
        sizes = [shape for shape in TABLE if shape.cell == cell]
        assert len(sizes) >= 12
        assert any(shape.hidden % 16 for shape in sizes)


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


@pytest.fixture(scope="module")
def peers() -> Iterator[list[Peer]]:
    made = made_here()
    yield made
    for peer in made:
        peer.close()


def verified(peer: Peer, scenario: str, shape: Shape, dtype: str) -> str:
    """Verify a peer on a case, twice where it may be repeated; `ok` or why it has no such case."""
    problem = random_problem(shape, dtype=dtype)
    peer.set_threads(1)
    try:
        job = peer.prepare(scenario, problem)
    except UnavailableError as why:
        return str(why)
    tolerance = max(Settings().tolerances[dtype], peer.tolerance)
    gradients = Settings().gradient_tolerances.get(dtype, tolerance)
    exact = bench_reference(scenario, problem)
    for _ in range(1 if scenario == "step" else 2):
        got = results(job, STEP_INPUTS if scenario == "step" else 1)
        assert (
            verify(got, exact, dtype="float32", tolerance=tolerance, gradient_tolerance=gradients)
            > 0
        )
    return "ok"


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_every_peer_passes_its_verification(cell: str, name: str, peers: list[Peer]) -> None:
    scenario, dtype = CLASSES[name]
    shape = Shape(cell, STEP_INPUTS, 1, 20) if scenario == "step" else Shape(cell, 7, 3, 20)
    if cell == "lstm" and scenario == "training":  # what compiles within the limit
        assert verified_or_absent(peers, "pytorch-compile", "training", Shape("lstm", 1, 3, 20))
    said = {
        peer.name: verified(peer, scenario, shape, dtype)
        for peer in peers
        if applies(peer.name, scenario, cell, dtype)
    }
    if dtype == "float32":
        assert said[OURS] == "ok"
        assert said.get("pytorch", "ok") == "ok"
    for peer, word in said.items():
        assert word == "ok" or " no " in word or "do not compile" in word, (peer, word)


def verified_or_absent(peers: list[Peer], name: str, scenario: str, shape: Shape) -> bool:
    found = [peer for peer in peers if peer.name == name]
    return not found or verified(found[0], scenario, shape, "float32") == "ok"


def test_peers_tell_version_and_details(peers: list[Peer]) -> None:
    assert OURS in {peer.name for peer in peers}
    for peer in peers:
        assert peer.version()
        json.dumps(peer.details())


@pytest.mark.parametrize(
    ("peer", "package"),
    [
        ("numpy", "threadpoolctl"),
        ("pytorch", "torch"),
        ("onnxruntime", "onnx"),
        ("openvino", "openvino"),
        ("jax", "jax"),
    ],
)
def test_missing_package_is_a_word(
    peer: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnavailableError, match=f"{package} is not installed"):
        make_peer(peer)


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UnavailableError, match=r"no C\+\+ compiler"):
        make_peer("pytorch-compile")


def test_bfloat16_problems_are_bfloat16() -> None:
    problem = random_problem(Shape("lstm", 5, 3, 4), dtype="bfloat16")
    full = random_problem(Shape("lstm", 5, 3, 4))
    for name, array in problem.arrays.items():
        assert array.dtype == np.float32
        assert not (array.view(np.uint32) & 0xFFFF).any()
        assert np.abs(array / full.arrays[name] - 1).max() <= 2**-8
    assert problem.dtype == "bfloat16"


def test_rounding_to_bfloat16_is_to_nearest_even() -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(1).standard_normal(10_000).astype("float32")
    values[:2] = [1 + 2**-8, 1 + 3 * 2**-8]  # halfway: down to even, up to even
    expected = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    assert np.array_equal(scenarios._rounded(values, "bfloat16"), expected)


# A peer in its own process


def test_worker_gives_the_same_results_and_words() -> None:
    peer = worker.WorkerPeer("numpy")
    here = make_peer("numpy")
    try:
        assert (peer.version(), peer.settle_s) == (here.version(), here.settle_s)
        assert peer.max_rounds == here.max_rounds
        assert peer.details() == {"own_process": True, **here.details()}
        peer.set_threads(1)
        problem = random_problem(TINY, seed=5)
        job = peer.prepare("training", problem)
        got = job.collect(job.run())
        expected = here.prepare("training", problem)
        for name, array in expected.collect(expected.run()).items():
            assert np.array_equal(got[name], array)
        assert job.sample is not None
        assert len(job.sample(3)) == 3
        with pytest.raises(UnavailableError, match="has no bfloat16"):
            peer.prepare("training", random_problem(TINY, dtype="bfloat16"))
        with pytest.raises(RuntimeError, match="KeyError"):
            peer._request("prepare", "training", replace(TINY, cell="mlp"), "float32", 0)
    finally:
        peer.close()


def test_worker_that_dies_costs_one_case() -> None:
    clock = FakeClock()
    peer = worker.WorkerPeer("numpy")
    harness = Harness([peer, FakePeer("right", clock, [0.01])], Settings(rounds=1))
    try:
        peer.set_threads(1)
        real_prepare = peer.prepare

        def prepare(scenario: str, problem: Problem) -> Job:
            job = real_prepare(scenario, problem)
            process = peer._processes[1]._process
            process.kill()
            process.join()
            return job

        peer.prepare = prepare  # type: ignore[method-assign]
        rows = harness.run_case("inference", TINY, 1, "float32")
        assert [row.status for row in rows] == ["failed", "ok"]
        assert "its process ended with code -9" in rows[0].message
        peer.prepare = real_prepare  # type: ignore[method-assign]
        rows = harness.run_case("inference", TINY, 1, "float32")
        assert [row.status for row in rows] == ["ok", "ok"]
    finally:
        peer.close()


def test_worker_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = worker.WorkerPeer("numpy")
    try:
        job = peer.prepare("inference", random_problem(Shape("lstm", 2000, 1, 8)))
        assert job.sample is not None
        monkeypatch.setattr(worker, "TIME_LIMIT_S", 0.01)
        with pytest.raises(RuntimeError, match="sample took longer than"):
            job.sample(1000)
        monkeypatch.undo()
        assert peer.version()
        peer.set_threads(1)  # a new process
    finally:
        peer.close()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity here")
def test_worker_runs_on_as_many_cpus_as_threads() -> None:
    peer = worker.WorkerPeer("numpy")
    try:
        (process,) = peer._processes.values()
        assert len(os.sched_getaffinity(process._process.pid or 0)) == 1
    finally:
        peer.close()


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


def test_gradients_may_have_a_tolerance_of_their_own() -> None:
    exact = {"y": np.ones(4), "dx": np.ones(4)}
    off = {name: (1.01 * array).astype("float32") for name, array in exact.items()}
    with pytest.raises(MismatchError, match=r"^y: relative error 0\.01 exceeds 0\.001"):
        verify(off, exact, dtype="float32", tolerance=1e-3, gradient_tolerance=0.1)
    with pytest.raises(MismatchError, match=r"^dx: relative error 0\.01 exceeds 0\.001"):
        verify(off, exact, dtype="float32", tolerance=0.1, gradient_tolerance=1e-3)
    assert verify(off, exact, dtype="float32", tolerance=0.1, gradient_tolerance=0.1) < 0.011


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
    slow, fast = FakePeer("slow", clock, [1.0]), FakePeer("fast", clock, [0.3])
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


def test_a_hopeless_peer_gets_one_round() -> None:
    clock = FakeClock()
    times = {"fast": 1 / 64, "slow": 1 / 16, "hopeless": 1.1 * HOPELESS / 64, OURS: 1.0}
    peers = [FakePeer(name, clock, [seconds]) for name, seconds in times.items()]
    rows = run_fakes(*peers, rounds=3)
    assert [len(row.rounds) for row in rows] == [3, 3, 1, 3]
    assert peers[2].calls > 3


def test_a_hopeless_peer_with_slow_calls_is_called_twice() -> None:
    clock = FakeClock()
    fast, hopeless = FakePeer("fast", clock, [0.1]), FakePeer("hopeless", clock, [1.0])
    rows = run_fakes(fast, hopeless, rounds=3)
    assert hopeless.calls == 2
    assert rows[1].rounds == (pytest.approx(1.0),)
    assert rows[1].calls == 1


def test_a_failure_while_timed_ends_one_row_alone() -> None:
    clock = FakeClock()
    late, right = FakePeer("late", clock, [0.01]), FakePeer("right", clock, [0.01])

    def fail(result: dict[str, Array]) -> None:
        if late.calls > 5:
            raise OSError("gone")

    late.spoil = fail
    rows = run_fakes(late, right)
    assert [row.status for row in rows] == ["failed", "ok"]
    assert rows[0].message == "OSError: gone"
    assert rows[0].median is None


def test_steps_have_percentiles() -> None:
    clock = FakeClock()
    times = [1.0] * (STEP_INPUTS + 1) + [0.01] * 95 + [0.05] * 5
    peer = FakePeer("peer", clock, times)
    (row,) = run_fakes(peer, scenario="step", rounds=1)
    assert row.calls == STEP_CALLS
    assert row.p50 == pytest.approx(0.01)
    assert row.p99 is not None
    assert row.p99 > 0.04
    (row,) = run_fakes(FakePeer("peer", clock, [0.01]), rounds=1)
    assert (row.p50, row.p99) == (None, None)


def test_percentile() -> None:
    ordered = [float(n) for n in range(1, 101)]
    assert percentile(ordered, 0.5) == 50
    assert percentile(ordered, 0.99) == 99
    assert percentile([7.0], 0.99) == 7


def test_a_variant_runs_only_what_it_is_about() -> None:
    assert applies("fusedrnn-int8-weights", "step", "gru", "float32")
    assert not applies("fusedrnn-int8-weights", "inference", "gru", "float32")
    assert not applies("pytorch-native", "inference", "gru", "float32")
    assert not applies("pytorch-autocast", "training", "lstm", "float32")
    clock = FakeClock()
    peers = [FakePeer(name, clock, [0.01]) for name in (OURS, "pytorch-autocast")]
    assert [row.peer for row in run_fakes(*peers)] == [OURS]


def test_timer_overhead_is_small_and_positive() -> None:
    assert 0 < timing.timer_overhead() < 1e-3


def test_turns_rotate() -> None:
    clock, order = FakeClock(), []
    peers = [FakePeer(name, clock, [1.0], lambda r, n=name: order.append(n)) for name in "abc"]  # type: ignore[misc]
    run_fakes(*peers, rounds=3)
    assert "".join(order) == "aabbcc" + "abc" + "bca" + "cab"


def test_gemm_rate_is_the_best_product_of_any_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    fast, slow, none = (FakePeer(name, clock, [1.0]) for name in ("fast", "slow", "none"))

    def takes(seconds: float) -> Callable[[Array, Array, str], list[Callable[[], None]]]:
        def advance() -> None:
            clock.now += seconds

        return lambda a, b, dtype: [advance]

    monkeypatch.setattr(fast, "matmuls", takes(0.5))
    monkeypatch.setattr(slow, "matmuls", takes(2.0))
    harness = Harness([slow, none, fast], Settings(), clock=clock, sleep=lambda s: None)
    assert harness.gemm_gflops(2, "bfloat16", size=10) == pytest.approx(2 * 10**3 / 0.5 / 1e9)
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
        commands=("python bench/run.py",),
        machine=machine.describe() | {"load_before": 0.1, "timer_overhead_s": 5e-8},
        settings={"tolerances": {"float32": 1e-5}, "rounds": 5},
        peers={"fusedrnn": {"version": "0.1", "isa": "avx2"}, "pytorch": {"version": "2"}},
        skipped={"numpy": "threadpoolctl is not installed"},
        gemm_gflops={1: 100.0},
        probes={1: {"fma_gflops": 90.0, "l1_gbs": 300.0}},
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


def test_the_first_schema_is_still_read(tmp_path: Path) -> None:
    data = json.loads(sample_run().to_json()) | {"schema": 1, "command": "python bench/run.py"}
    data["settings"] = {"tolerance": 1e-5, "rounds": 5}
    del data["commands"], data["probes"]
    for row in data["rows"]:
        del row["p50"], row["p99"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(data))
    (old,) = load_runs([path])
    assert old == replace(sample_run(), probes={})
    assert "training-f32 | 1 | 4.00" in report.report({"old": old})


def test_committed_results_can_be_read() -> None:
    paths = sorted(run.RESULTS.glob("*.json"))
    assert paths
    runs = dict(zip((path.stem for path in paths), load_runs(paths), strict=True))
    text = report.report(runs)
    assert all(f"## {name}\n" in text for name in runs)


def test_merge_replaces_whole_cases() -> None:
    before = sample_run()
    again = [replace(row, peer="numpy") for row in before.rows[:1]]
    fresh = Row("step", Shape("rnn", 1, 1, 4), "float32", 1, OURS, "ok", "", 1e-7, (1e-6,), 1e-6, 9)
    later = replace(
        before,
        commands=("python bench/run.py --merge",),
        machine=before.machine | {"load_before": 0.5},
        peers={"numpy": {"version": "3"}},
        skipped={"jax": "jax is not installed"},
        gemm_gflops={1: 90.0, 2: 180.0},
        probes={1: {"l1_gbs": 310.0}},
        rows=(*again, fresh),
    )
    merged = before.merged(later)
    assert merged.rows == (*before.rows[2:], *again, fresh)
    assert merged.commands == (*before.commands, *later.commands)
    assert merged.skipped == {"jax": "jax is not installed"}  # numpy has come
    assert set(merged.peers) == {"fusedrnn", "pytorch", "numpy"}
    assert merged.gemm_gflops == {1: 100.0, 2: 180.0}
    assert merged.probes == {1: {"fma_gflops": 90.0, "l1_gbs": 310.0}}
    assert merged.machine["load_before"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"machine": {"cpu": "another", "cores": 2}}, "machine: expected"),
        ({"settings": {"tolerances": {"float32": 1e-5}, "rounds": 3}}, "settings: expected"),
    ],
)
def test_merge_refuses_what_cannot_be_compared(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_run().merged(replace(sample_run(), **change))


def test_ratios_leave_out_what_was_not_timed() -> None:
    (table,) = tables(sample_run().rows)
    assert table.title == "training, float32, 1 thread"
    assert table.ratios("pytorch") == {TINY: pytest.approx(4)}
    assert table.best_ratios() == {TINY: pytest.approx(4)}


def class_rows() -> list[Row]:
    """Step times in ms of four peers: two shapes on one thread, one of them on two."""
    times = {
        (TINY, 1): {OURS: 2.0, "fusedrnn-int8-weights": 0.1, "pytorch": 8.0, "openvino": 4.0},
        (TINY, 2): {OURS: 2.0, "fusedrnn-int8-weights": 0.1, "pytorch": 1.0, "openvino": 9.0},
        (Shape("gru", 1, 1, 8), 1): {OURS: 1.0, "pytorch": 4.0, "openvino": 5.0},
    }
    return [
        Row("step", shape, "float32", threads, peer, "ok", "", 1e-7, (ms / 1e3,), ms / 1e3, 1)
        for (shape, threads), peers in times.items()
        for peer, ms in peers.items()
    ]


def test_the_best_peer_of_each_entry_counts_and_variants_do_not() -> None:
    one, two = tables(class_rows())
    assert one.others == ["pytorch", "openvino"]
    assert one.extras == ["fusedrnn-int8-weights"]
    best = one.best(TINY)
    assert best is not None
    assert best.peer == "openvino"
    (found,) = class_summaries([one, two])
    assert found.name == "step"
    assert found.entries == 3
    assert found.mean == pytest.approx((2 * 0.5 * 4) ** (1 / 3))
    assert found.lowest == pytest.approx(0.5)
    assert found.where == "LSTM 2, 2, 3, 2 threads"
    assert found.peer == "pytorch"
    assert class_summaries([]) == []


def test_the_fastest_of_our_ways_counts() -> None:
    times = {OURS: 2.0, "fusedrnn-functions": 1.0, "openvino": 4.0}
    rows = [
        Row("inference", TINY, "float32", 1, peer, "ok", "", 1e-7, (ms / 1e3,), ms / 1e3, 1)
        for peer, ms in times.items()
    ]
    (table,) = tables(rows)
    assert table.ways == [OURS, "fusedrnn-functions"]
    assert table.others == ["openvino"]
    assert table.best_ratios() == {TINY: pytest.approx(4)}
    ours = table.ours(TINY)
    assert ours is not None
    assert ours.peer == "fusedrnn-functions"


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "machine.json"
    path.write_text(sample_run().to_json())
    assert report.main([str(path)]) == 0
    text = capsys.readouterr().out
    assert "python bench/report.py --out docs/benchmarks.md bench/results/*.json" in text
    assert "## machine\n" in text
    assert "| training-f32 | 1 | 4.00 | 4.00 (LSTM 2, 2, 3, 1 thread, pytorch) |" in text
    assert "| training, float32, 1 thread | pytorch | 4.00 | 4.00 (LSTM 2, 2, 3) |" in text
    assert "| LSTM 2, 2, 3 | 2.00 | 8.00 | pytorch | 4.00 |" in text
    assert "| GRU 4, 1, 8 | 4.00 | wrong | - | - |" in text
    assert "- GRU 4, 1, 8, pytorch: wrong: dx: off" in text
    assert "fusedrnn 0.1, pytorch 2" in text
    assert "Skipped numpy: threadpoolctl is not installed" in text
    assert "the\n  clock's own 50 ns included" in text
    assert "| 1 | 90.0 | 300 |" in text
    assert str(tmp_path) not in text


def test_report_shows_percentiles_and_variants() -> None:
    rows = [replace(row, p50=2e-6, p99=3e-6) for row in class_rows()]
    text = report.report({"a": replace(sample_run(), rows=tuple(rows))})
    assert "ours p50 / p99 µs | best peer p50 / p99 µs" in text
    assert "| 2.00 / 3.00 | 2.00 / 3.00 |" in text
    assert "fusedrnn-int8-weights ms | share of ceiling" in text


def test_report_writes_page_and_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "machine.json"
    rows = (*sample_run().rows, *class_rows())
    path.write_text(replace(sample_run(), rows=rows).to_json())
    page = tmp_path / "docs" / "benchmarks.md"
    page.parent.mkdir()
    assert report.main(["--out", str(page), str(path)]) == 0
    text = page.read_text()
    drawn = sorted(file.name for file in (page.parent / "plots").iterdir())
    assert drawn == [
        "machine-roofline-float32.svg",
        "machine-step.svg",
        "machine-training-f32.svg",
    ]
    assert all(f"](plots/{name})" in text for name in drawn)
    first = {name: (page.parent / "plots" / name).read_bytes() for name in drawn}
    assert report.main(["--out", str(page), str(path)]) == 0
    assert all((page.parent / "plots" / name).read_bytes() == first[name] for name in drawn)
    assert all(len(content) < 100_000 for content in first.values())


def test_no_matplotlib_is_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UnavailableError, match="matplotlib is not installed"):
        plots.draw(sample_run(), tmp_path, "a")
    path = tmp_path / "machine.json"
    path.write_text(sample_run().to_json())
    assert report.main(["--out", str(tmp_path / "page.md"), str(path)]) == 0
    assert "no plots: matplotlib is not installed" in capsys.readouterr().err
    assert "## machine" in (tmp_path / "page.md").read_text()


# Probes and ceilings


def test_probes_measure_or_say_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MIN_TIME", 1e-4)
    monkeypatch.setattr(probes, "REPEATS", 1)
    if any(map(shutil.which, ("cc", "gcc", "clang"))):
        sizes = {"L1d": 32 << 10, "L2": 256 << 10, "L3": 1 << 20}
        rates = probes.Probes().measure(2, sizes)
        names = {"fma_gflops", "l1_gbs", "l2_gbs", "l2_small_pages_gbs", "memory_gbs"}
        assert names <= rates.keys()
        assert all(rate > 0 for rate in rates.values())
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(probes.ProbeError, match="no C compiler"):
        probes.Probes()
    monkeypatch.setenv("CC", "false")
    with pytest.raises(probes.ProbeError, match="false failed"):
        probes.Probes()


def ceilings_of(threads: int) -> Ceilings:
    rates = {
        "fma_gflops": 100.0 * threads,
        "bf16_gflops": 200.0 * threads,
        "gemm_bf16_gflops": 400.0 * threads,
        "l1_gbs": 300.0 * threads,
        "l2_gbs": 150.0 * threads,
        "l2_small_pages_gbs": 50.0 * threads,
        "l3_gbs": 40.0 * threads,
        "memory_gbs": 20.0,
    }
    sizes = {"L1d": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}
    return Ceilings.of(threads, 120.0 * threads, rates, sizes)


def test_ceilings_are_the_best_rates_seen() -> None:
    found = ceilings_of(1)
    assert found.gflops == {"float32": 120.0, "bfloat16": 400.0}
    assert Ceilings.of(1, 120.0, {}, {}).gflops == {"float32": 120.0, "bfloat16": 120.0}
    assert set(found.gbs) == {"l1", "l2", "l3", "memory"}


@pytest.mark.parametrize(
    ("share", "threads", "rate"),
    [
        (32 << 10, 1, 300.0),
        ((32 << 10) + 1, 1, 150.0),
        (1 << 20, 2, 300.0),
        ((1 << 20) + 1, 1, 40.0),
        (32 << 20, 1, 40.0),
        (32 << 20, 2, 20.0),  # the last level is shared
    ],
)
def test_bandwidth_is_of_the_nearest_level_that_holds_the_share(
    share: int, threads: int, rate: float
) -> None:
    assert ceilings_of(threads).bandwidth(share) == rate


def test_a_large_batch_is_bounded_by_operations() -> None:
    shape = Shape("lstm", 64, 64, 512)
    found = limits.bound("training", shape, "float32", ceilings_of(2))
    assert found is not None
    assert found.limit == "operations"
    assert found.seconds == pytest.approx(flops("training", shape) / 240e9)


def test_a_small_batch_is_bounded_by_bytes() -> None:
    shape = Shape("lstm", 64, 1, 512)  # 4 MB of recurrent weights in float32, 2 in bfloat16
    matrix = 4 * 512 * 512 * 4
    found = limits.bound("inference", shape, "float32", ceilings_of(1))
    assert found is not None
    assert found.limit == "bytes"
    assert found.seconds == pytest.approx(65 * matrix / 40e9)  # 64 steps and W_ih once
    trained = limits.bound("training", shape, "float32", ceilings_of(1))
    assert trained is not None
    assert trained.seconds == pytest.approx(2 * found.seconds)
    halved = limits.bound("inference", shape, "bfloat16", ceilings_of(1))
    assert halved is not None
    assert halved.seconds == pytest.approx(found.seconds / 2)


def test_a_step_reads_both_matrices_as_they_are_stored() -> None:
    shape = Shape("gru", 1, 1, 512)
    matrix = 3 * 512 * 512
    stored = {4: 40.0, 1: 40.0}  # both matrices together: 6 MB and 1.5 MB, beyond L2
    for size, rate in stored.items():
        found = limits.bound("step", shape, "float32", ceilings_of(1), size)
        assert found is not None
        assert found.seconds == pytest.approx(2 * matrix * size / rate / 1e9)


def test_no_probe_no_ceiling() -> None:
    assert limits.bound("step", TINY, "float32", Ceilings(1, {}, {}, {})) is None


def test_cache_sizes() -> None:
    facts = {"caches": {"L1d": "48K", "L2": "2M", "L3": "1G", "L4": "512"}}
    sizes = {"L1d": 48 << 10, "L2": 2 << 20, "L3": 1 << 30, "L4": 512}
    assert machine.cache_bytes(facts) == sizes
    assert machine.cache_bytes({}) == {}


def test_machine_description() -> None:
    facts = machine.describe()
    assert facts["cores"] >= 1
    assert facts["cpu"]
    json.dumps(facts)


# The command line


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
    assert cases == set(CLASSES.values())
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
    assert run._slug({"cpu": "AMD EPYC 9B45 (tm)", "cores": 2}) == "amd-epyc-9b45-tm-2-cores"


@pytest.mark.parametrize(
    "words",
    [
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
