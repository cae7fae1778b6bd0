"""bench/: probes and the ceilings they make."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import pytest

from bench import limits, machine, probes
from bench.limits import Ceilings
from bench.scenarios import (
    Shape,
    flops,
)
from bench_support import TINY


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


def test_cores_are_what_all_threads_do_of_ones_work(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {1: iter([3.0, 2.0, 4.0]), 2: iter([6.0, 5.0, 4.0])}
    monkeypatch.setattr(probes, "REPEATS", 3)
    monkeypatch.setattr(probes, "_together", lambda run, rounds, threads: next(seconds[threads]))
    made = object.__new__(probes.Probes)  # without a compiler
    made._library = SimpleNamespace(probe_fma=None)  # type: ignore[assignment]
    assert made.cores(2) == 1.0
    seconds = {1: iter([3.0] * 3), 4: iter([4.0] * 3)}
    assert made.cores(4) == 3.0


def test_cores_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "FMA_ROUNDS", 100)
    if any(map(shutil.which, ("cc", "gcc", "clang"))):
        assert probes.Probes().cores(2) > 0


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system ties no thread")
def test_each_thread_has_a_cpu_of_its_own() -> None:
    mine, taken = os.sched_getaffinity(0), []
    probes._together(lambda rounds: taken.append(os.sched_getaffinity(0)), 5, len(mine))
    assert sorted(map(sorted, taken)) == sorted([cpu] for cpu in mine for _ in range(2))
    assert os.sched_getaffinity(0) == mine


def test_threads_meet_in_nanoseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "TRIPS", 160)
    if any(map(shutil.which, ("cc", "gcc", "clang"))):
        assert 1 < probes.Probes().core_latency_ns() < 1e9
