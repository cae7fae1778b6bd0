"""bench/: scenarios, and peers whose results are those of the reference."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import reference
from bench import scenarios, worker
from bench.harness import (
    Harness,
    Settings,
    results,
    verify,
)
from bench.peers import OURS, Job, Peer, UnavailableError, applies, make_peer
from bench.peers.numpy_peer import reference as bench_reference
from bench.scenarios import (
    CLASSES,
    CORE,
    LENGTHS,
    SHAPE_SETS,
    STEP_INPUTS,
    TABLE,
    Problem,
    Shape,
    flops,
    parse_shapes,
    random_problem,
    scenario_shapes,
)
from bench_support import TINY, FakeClock, FakePeer, made_here


def test_shape_round_trip() -> None:
    shape = Shape.parse(" GRU:64,16,512 ")
    assert shape == Shape("gru", 64, 16, 512)
    assert Shape.parse(str(shape)) == shape
    assert shape.label == "GRU 64, 16, 512"
    network = Shape("gru", 64, 16, 512, layers=2, directions=2, lengths="random")
    text = "gru:64,16,512,layers=2,bidirectional,lengths=random"
    assert (str(network), Shape.parse(text)) == (text, network)
    assert network.label == "GRU 64, 16, 512, 2 layers, bidirectional, lengths random"
    assert all(Shape.parse(str(s)) == s for shapes in SHAPE_SETS.values() for s in shapes)


def test_kinds_of_shapes() -> None:
    for name, kind in (("networks", "networks"), ("lengths", "lengths"), ("long", "long")):
        assert {shape.kind for shape in SHAPE_SETS[name]} == {kind}
    assert {shape.kind for shape in TABLE} == {""}


def test_lengths_are_of_every_batch() -> None:
    assert Shape("gru", 240, 16, 8).sequence_lengths is None
    for name in LENGTHS:
        shape = Shape("gru", 240, 16, 8, lengths=name)
        lengths = shape.sequence_lengths
        assert lengths is not None
        assert lengths.shape == (16,)
        assert lengths.min() >= 1
        assert lengths.max() <= 240
        assert shape.live == lengths.sum() < 240 * 16
    assert sorted(LENGTHS["one-long"](240, 4)) == [30, 30, 30, 240]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lstm", "expected cell:T,B,H"),
        ("lstm:1,2", "expected cell:T,B,H"),
        ("lstm:1,2,3,4", "behind cell:T,B,H, got '4'"),
        ("lstm:1,-2,3", "expected cell:T,B,H"),
        ("mlp:1,2,3", "expected a cell of rnn, gru, lstm, got 'mlp'"),
        ("lstm:1,0,3", "at least 1"),
        ("lstm:1,2,000", "at least 1"),
        ("lstm:1,2,3,layers=0", "at least 1"),
        ("lstm:1,2,3,layers=two", "got 'layers=two'"),
        ("lstm:1,2,3,lengths=odd", "lengths=random|one-long behind .* got 'lengths=odd'"),
        ("lstm:1,2,3,twice", "expected layers=N, bidirectional or lengths="),
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
    # Two layers, the second of which reads two directions.
    network = replace(shape, layers=2, directions=2)
    assert flops("inference", network) == 5 * 2 * 2 * 2 * 12 * ((4 + 4) + (8 + 4))
    ragged = replace(shape, steps=80, lengths="one-long")
    assert flops("inference", ragged) * 160 == flops("inference", replace(shape, steps=80)) * 90


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


NETWORKS = (
    "",
    ",layers=2,bidirectional",
    ",bidirectional,lengths=random",
    ",layers=2,lengths=one-long",
)


@pytest.mark.parametrize("more", NETWORKS)
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_reference_agrees_with_the_tests_reference(cell: str, more: str) -> None:
    problem = random_problem(Shape.parse(f"{cell}:9,4,5{more}"), dtype="float64")
    x = problem.arrays["x"]
    parameters = {k: problem.arrays[k] for k in problem.parameters}
    forward = {f"{s}0": problem.arrays[f"{s}0"] for s in problem.states}
    forward["lengths"] = problem.shape.sequence_lengths
    upstream = {k: v for k, v in problem.arrays.items() if k.startswith("d")}
    expected = reference.stack(cell, x, parameters, **forward)
    assert verify(bench_reference("inference", problem), expected, dtype="float64", tolerance=1e-13)
    found = reference.stack_gradients(cell, x, parameters, **forward, **upstream)
    expected |= {f"d{name}": grad for name, grad in found.items()}
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


# A step is of one cell, and what the memory class runs is a training step.
VERIFIED = [
    (name, more)
    for name in CLASSES
    for more in (NETWORKS[0], NETWORKS[1], NETWORKS[3])
    if not more or name not in ("step", "memory")
]


@pytest.mark.parametrize(("name", "more"), VERIFIED)
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_every_peer_passes_its_verification(
    cell: str, name: str, more: str, peers: list[Peer]
) -> None:
    scenario, dtype = CLASSES[name].case
    shape = Shape.parse(f"{cell}:9,4,20{more}")
    if scenario == "step":
        shape = Shape(cell, STEP_INPUTS, 1, 20)
    if cell == "lstm" and scenario == "training" and not more:  # what compiles within the limit
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
        assert word == "ok" or LACKS.search(word), (peer, word)


# The last is of a machine that has other work.
LACKS = re.compile(
    "has no |has one layer|is pytorch itself|do not compile|compilation takes longer"
)


def test_lengths_and_networks_are_in_every_library(peers: list[Peer]) -> None:
    for peer in peers:
        if peer.name in (OURS, "pytorch", "onnxruntime", "openvino", "jax", "numpy"):
            for more in NETWORKS:
                shape = Shape.parse(f"lstm:6,5,8{more}")
                assert verified(peer, "inference", shape, "float32") == "ok", (peer.name, more)


def test_memory_is_that_of_a_step_in_a_process_of_its_own() -> None:
    peer = worker.WorkerPeer(OURS)
    try:
        peer.set_threads(1)
        problem = random_problem(Shape("lstm", 600, 8, 64))
        held, found = peer.peak(problem)
        assert verify(found, bench_reference("memory", problem), dtype="float32", tolerance=1e-5)
        # y, dx, and of 600 * 8 rows what an LSTM keeps: at least four gates.
        row = 600 * 8 * 64 * 4
        assert 6 * row < held < 20 * row
        again, _ = peer.peak(problem)
        assert again < 1.2 * held
    finally:
        peer.close()


def verified_or_absent(peers: list[Peer], name: str, scenario: str, shape: Shape) -> bool:
    found = [peer for peer in peers if peer.name == name]
    return not found or verified(found[0], scenario, shape, "float32") == "ok"


def test_a_compiler_that_wraps_what_stopped_it_is_late() -> None:
    limit = pytest.importorskip("bench.peers.pytorch_compile_peer")._time_limit

    def compile_for(seconds: float) -> None:
        try:
            time.sleep(seconds)
        except UnavailableError as stopped:
            raise RuntimeError("InductorError") from stopped
        raise RuntimeError("another")

    with pytest.raises(UnavailableError, match="compilation takes longer than 1 s"), limit(1):
        compile_for(30)
    with pytest.raises(RuntimeError, match="another"), limit(30):
        compile_for(0)


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
        details, expected_details = peer.details(), {"own_process": True, **here.details()}
        # Other tests have loaded libraries into this process that the worker's has not.
        there, loaded = details.pop("blas"), expected_details.pop("blas")
        assert there
        assert all(library in loaded for library in there)
        assert details == expected_details
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
