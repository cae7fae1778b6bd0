"""What the tests of bench/ share: peers that move a fake clock, and a made-up run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench import machine
from bench.harness import (
    Harness,
    Settings,
)
from bench.peers import PEERS, Job, Peer, UnavailableError
from bench.peers.numpy_peer import reference as bench_reference
from bench.records import Row, Run
from bench.scenarios import (
    STEP_INPUTS,
    Array,
    Problem,
    Shape,
)
from bench.worker import load_peer

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
