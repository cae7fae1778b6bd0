"""bench/: the harness verifies before it times. The clock is a fake that the fake peers move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from bench import timing
from bench.harness import (
    HOPELESS,
    SLOW_ROUNDS,
    STEP_CALLS,
    Harness,
    MismatchError,
    Settings,
    percentile,
    verify,
)
from bench.peers import OURS, Job, UnavailableError, applies
from bench.records import Row
from bench.scenarios import (
    STEP_INPUTS,
    Array,
    Problem,
    flops,
)
from bench.summary import digits, geometric_mean, milliseconds
from bench_support import TINY, FakeClock, FakePeer, run_fakes


def test_settling_waits_for_the_slowest_to_sleep() -> None:
    slept: list[float] = []
    clock = FakeClock()
    peers = [FakePeer(name, clock, [0.01]) for name in ("one", "two")]
    peers[0].settle_s = 0.5
    Harness(peers, Settings(), clock=clock, sleep=slept.append).settle()
    assert slept == [0.5]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: r["dweight_hh_l0"].__imul__(1.0001), "dweight_hh_l0: relative error"),
        (lambda r: r["y"].__setitem__((0, 0, 0), np.nan), "y: relative error nan"),
        (lambda r: r.update(dx=np.zeros((2, 2, 4), "float32")), r"dx: expected \(2, 2, 3\)"),
        (lambda r: r.update(y=r["y"].astype("float64")), "y: expected .* of float32, got .*64"),
        (lambda r: r.pop("dc0"), "expected c_n, dbias_hh_l0, .*, got"),
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


def test_memory_is_verified_and_not_timed() -> None:
    class Alone(FakePeer):
        def peak(self, problem: Problem) -> tuple[int, dict[str, Any]]:
            job = self.prepare("memory", problem)
            return 1000, job.collect(job.run())

        def close(self) -> None:
            closed.append(self.name)

    def spoil(result: dict[str, Any]) -> None:
        result["dx"] *= 2

    clock, closed = FakeClock(), list[str]()
    peers = [FakePeer(name, clock, [0.01]) for name in ("right", "wrong")]
    made = {"right": Alone("right", clock, [0.01]), "wrong": Alone("wrong", clock, [0.01], spoil)}
    harness = Harness(
        peers, Settings(), clock=clock, sleep=lambda s: None, isolated=cast("Any", made.get)
    )
    right, wrong = harness.run_case("memory", TINY, 2, "float32")
    assert (right.status, right.peak, right.cost, right.median) == ("ok", 1000, 1000, None)
    assert (wrong.status, wrong.peak) == ("wrong", None)
    assert "dx: relative error" in wrong.message
    assert [peer.calls for peer in peers] == [0, 0]
    assert [peer.threads for peer in made.values()] == [[2], [2]]
    assert closed == ["right", "wrong"]
    assert right.version == "1.0"
    assert right.date


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
