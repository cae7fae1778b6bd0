"""bench/gpu without a GPU: lists, reference, peers on the CPU, choices, records, the page."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fusedrnn
from bench import report
from bench import scenarios as cpu_scenarios
from bench.gpu import cudnn_api as api
from bench.gpu import cudnn_layout, cudnn_peer, device, plots, run
from bench.gpu import report as gpu_report
from bench.gpu.cudnn_peer import BestCuDnn
from bench.gpu.fusedrnn_peer import FusedRnn
from bench.gpu.harness import Harness, Settings
from bench.gpu.peer import Job, Peer, UnavailableError, Variant
from bench.gpu.peers import COMPARED, PEERS
from bench.gpu.pytorch_peer import Graph, PyTorch
from bench.gpu.records import Row, Run, is_gpu_file, load_runs
from bench.gpu.reference import MismatchError, reference, verify
from bench.gpu.scenarios import (
    ANCHOR,
    CASE_SETS,
    PRECISIONS,
    TABLE,
    Case,
    parse_cases,
    random_problem,
)
from bench.gpu.summary import NOT_MEASURED, case_line, milliseconds, ratio, summaries, summary_lines
from bench.gpu.timing import calls_in
from bench.peers.numpy_peer import reference as numpy_reference
from bench.scenarios import Shape
from fake_cudnn import FakeCuDnn

SMOKE = CASE_SETS["smoke"]
TINY = Case("training", "float32", Shape("lstm", 3, 2, 32))


class FakeClock:
    """Runs each call once; each takes what `cost` of it says."""

    def __init__(self, cost: Callable[[Any], float] = lambda call: 1e-3) -> None:
        self.cost = cost
        self.timed: list[Any] = []
        self.captured: list[Any] = []

    def capture(self, call: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
        self.captured.append(call)
        result = call()

        def replay() -> Any:
            return result

        replay.cost = getattr(call, "cost", 1e-3) / 2  # type: ignore[attr-defined]
        return replay, result

    def seconds(self, calls: Sequence[Callable[[], Any]], count: int) -> list[float]:
        self.timed.append(calls[0])
        return [getattr(calls[0], "cost", 1e-3)] * count


@dataclass
class FakePeer(Peer):
    """Ways that return the reference, spoilt, at a price; or raise."""

    name: str
    ways: dict[str, Any]
    graph: bool = False
    eager_too: bool = False
    group: str = ""
    made: list[str] = field(default_factory=list)

    def version(self) -> str:
        return "1"

    def variants(self, case: Case) -> list[Variant]:
        return [
            Variant(
                label,
                lambda problems, label=label: self._job(label, problems),  # type: ignore[misc]
                graph=self.graph,
                eager_too=self.eager_too,
                group=self.group,
            )
            for label in self.ways
        ]

    def _job(self, label: str, problems: Any) -> Job:
        self.made.append(label)
        way = self.ways[label]
        if isinstance(way, Exception):
            raise way
        result = {name: tensor.clone() for name, tensor in reference(problems[0]).items()}
        if way < 0:
            result["y"] += 1

        def call() -> Any:
            return result

        call.cost = abs(way)  # type: ignore[attr-defined]
        return Job([call], lambda found: found)


def rows_of(*peers: Peer, case: Case = TINY, clock: Any = None, rounds: int = 3) -> list[Row]:
    settings = Settings(rounds=rounds)
    return Harness(peers, settings, clock or FakeClock(), device="cpu").run_case(case)


# Cases


@pytest.mark.parametrize("case", [*SMOKE, *TABLE[:40]], ids=str)
def test_case_round_trip(case: Case) -> None:
    assert Case.parse(str(case)) == case


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training/float32", "expected scenario/precision/shape"),
        ("training/float32/lstm:1,2,3/ragged", "expected scenario/precision/shape"),
        ("step/float32/lstm:1,2,3", "expected inference, training, got 'step'"),
        ("training/int8/lstm:1,2,3", "expected float32, .*, got 'int8'"),
        ("training/float32/lstm:1,2", "expected cell:T,B,H"),
    ],
)
def test_bad_case(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Case.parse(text)


def test_the_table_spans_what_it_should() -> None:
    shapes = {case.shape for case in TABLE}
    assert {s.hidden for s in shapes} >= {64, 128, 256, 512, 768, 1024, 2048}
    assert (min(s.batch for s in shapes), max(s.batch for s in shapes)) == (1, 512)
    assert (min(s.steps for s in shapes), max(s.steps for s in shapes)) == (64, 2048)
    every = {(c.shape.cell, c.precision, c.scenario, c.lengths) for c in TABLE}
    assert len(every) == 3 * 4 * 2 * 2
    first = TABLE[0].shape
    assert (first.steps, first.batch, first.hidden) == ANCHOR
    assert len(set(TABLE)) == len(TABLE)


def test_parse_cases_joins_sets_and_drops_repeats() -> None:
    assert parse_cases(["smoke", str(SMOKE[0]), str(TINY)]) == [*SMOKE, TINY]


def test_lengths_fall_from_all_steps() -> None:
    case = Case("inference", "float32", Shape("gru", 100, 40, 8), lengths=True)
    lengths = case.sequence_lengths()
    assert lengths is not None
    assert lengths == sorted(lengths, reverse=True) == case.sequence_lengths()
    assert (len(lengths), lengths[0]) == (40, 100)
    assert min(lengths) >= 25
    assert len(set(lengths)) > 10
    assert replace(case, lengths=False).sequence_lengths() is None
    everything = cpu_scenarios.flops("inference", case.shape)
    assert case.flops() == pytest.approx(everything * sum(lengths) / 4000)
    assert replace(case, lengths=False).flops() == everything


def test_problem_is_of_its_precision_and_seed() -> None:
    case = replace(TINY, precision="bfloat16", lengths=True)
    one, same, other = (random_problem(case, "cpu", seed) for seed in (0, 0, 1))
    assert {str(t.dtype) for t in one.tensors.values()} == {"torch.bfloat16"}
    assert all(torch.equal(t, same.tensors[name]) for name, t in one.tensors.items())
    assert not torch.equal(one.tensors["w_hh"], other.tensors["w_hh"])
    assert one.tensors["w_ih"].shape == (128, 32)
    assert one.lengths.tolist() == one.host_lengths
    more = one.other_data(5)
    assert torch.equal(more.tensors["w_hh"], one.tensors["w_hh"])
    assert not torch.equal(more.tensors["x"], one.tensors["x"])


# The reference


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_reference_agrees_with_numpy(cell: str) -> None:
    case = Case("training", "float32", Shape(cell, 5, 3, 8))
    problem = random_problem(case, "cpu")
    short = dict(zip(("w_ih", "w_hh", "b_ih", "b_hh"), cpu_scenarios.PARAMETERS, strict=True))
    states = ("h0", "c0", "dh_n", "dc_n", "h_n", "c_n", "dh0", "dc0")

    def as_on_the_cpu(arrays: dict[str, Any]) -> dict[str, Any]:
        """Parameters under the layers' names, states with their axis of layers."""
        named = {}
        for name, array in arrays.items():
            weight = name.removeprefix("d")
            d = name.removesuffix(weight)
            longer = f"{d}{short[weight]}_l0" if weight in short else name
            named[longer] = array.numpy()[None] if name in states else array.numpy()
        return named

    arrays = as_on_the_cpu(problem.tensors)
    expected = numpy_reference("training", cpu_scenarios.Problem(case.shape, arrays))
    actual = as_on_the_cpu(reference(problem))
    assert actual.keys() == expected.keys()
    for name, exact in expected.items():
        np.testing.assert_allclose(actual[name], exact, rtol=1e-10, atol=1e-10)


def test_verify_names_what_is_wrong() -> None:
    expected = {"y": torch.ones(2, 3).double(), "dx": torch.ones(4).double()}
    good = {name: tensor.float() for name, tensor in expected.items()}
    assert verify(good, expected, "float32") == 0
    for name, tensor, message in (
        ("y", torch.full((2, 3), 1.1), "y: relative error 0.1 exceeds 1e-05"),
        ("y", torch.full((2, 3), float("nan")), "y: relative error nan"),
        ("dx", torch.ones(5), r"dx: expected \(4,\), got \(5,\)"),
    ):
        with pytest.raises(MismatchError, match=message):
            verify(good | {name: tensor}, expected, "float32")
    with pytest.raises(MismatchError, match="expected dx, y, got y"):
        verify({"y": good["y"]}, expected, "float32")
    nearly = {"y": torch.full((2, 3), 1.01), "dx": torch.full((4,), 1.05)}
    assert verify(nearly, expected, "bfloat16") == pytest.approx(0.05, rel=1e-3)


# Peers, on the CPU


@pytest.mark.parametrize("case", SMOKE, ids=str)
def test_peers_agree_with_the_reference(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    known = fusedrnn.info() | {"cuda_devices": ["a GPU"], "cuda": "pretended"}
    monkeypatch.setattr(fusedrnn, "info", lambda: known)
    peers = [PyTorch("pytorch"), Graph("pytorch-graph"), FusedRnn("fusedrnn")]
    clock = FakeClock()
    for row in rows_of(*peers, case=case, clock=clock):
        assert (row.status, row.message) == ("ok", "")
        assert row.error is not None
        assert row.median
    assert len(clock.captured) == 2  # both sets of data of pytorch-graph


def test_fusedrnn_without_a_gpu_is_skipped_with_its_own_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = {"cuda_devices": [], "cuda": "no driver"}
    monkeypatch.setattr(fusedrnn, "info", lambda: known)
    with pytest.raises(UnavailableError, match="fusedrnn uses no GPU: no driver"):
        FusedRnn("fusedrnn")


# The choice of the best


def test_the_fastest_right_way_is_kept() -> None:
    peer = FakePeer("cudnn", {"a": 3e-3, "b": 2e-3, "wrong": -1e-3, "none": RuntimeError("no")})
    (row,) = rows_of(peer)
    assert (row.status, row.choice, row.median) == ("ok", "b", 2e-3)
    assert [*row.rejected.values()] == [1, 1]
    assert any(reason.startswith("wrong: y: relative error") for reason in row.rejected)
    assert "RuntimeError: no" in row.rejected
    assert row.calls == 3 * calls_in(0.02, 2e-3)


def test_no_right_way_is_a_row_without_a_time() -> None:
    wrong, failed = rows_of(
        FakePeer("a", {"one": -1.0, "two": RuntimeError("x")}),
        FakePeer("b", {"one": RuntimeError("no\nmore")}),
    )
    assert (wrong.status, wrong.median) == ("wrong", None)
    assert (failed.status, failed.message) == ("failed", "RuntimeError: no")


def test_of_a_group_only_the_fastest_is_captured() -> None:
    clock = FakeClock()
    peer = FakePeer("cudnn", {"a": 3e-3, "b": 2e-3}, graph=True, group="standard")
    (row,) = rows_of(peer, clock=clock)
    assert (row.choice, len(clock.captured)) == ("b", 1)
    assert row.median == 1e-3  # the replay's


def test_what_cannot_be_captured_is_timed_as_it_is_or_fails() -> None:
    class Refuses(FakeClock):
        def capture(self, call: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
            raise RuntimeError("not permitted when stream is capturing")

    (eager,) = rows_of(FakePeer("a", {"one": 2e-3}, graph=True, eager_too=True), clock=Refuses())
    assert (eager.status, eager.median) == ("ok", 2e-3)
    assert eager.choice == "one (not captured: not permitted when stream is capturing)"
    (failed,) = rows_of(FakePeer("a", {"one": 2e-3}, graph=True), clock=Refuses())
    assert failed.status == "failed"


def test_a_wrong_replay_is_wrong() -> None:
    class Spoils(FakeClock):
        def capture(self, call: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
            return call, {name: tensor * 2 for name, tensor in call().items()}

    (row,) = rows_of(FakePeer("a", {"one": 1.0}, graph=True), clock=Spoils())
    assert row.status == "wrong"


def test_peers_take_turns() -> None:
    clock = FakeClock()
    rows_of(FakePeer("a", {"x": 1.0}), FakePeer("b", {"x": 2.0}), clock=clock, rounds=2)
    order = [getattr(call, "cost", 0) for call in clock.timed[2:]]
    assert order == [1, 1, 2, 2, 2, 2, 1, 1]


def test_calls_in() -> None:
    assert [calls_in(0.02, t) for t in (1e-6, 1e-3, 1.0)] == [200, 20, 3]


# Records and summary

OTHER = Case("inference", "bfloat16", Shape("gru", 4, 2, 8), lengths=True)


def sample_run() -> Run:
    def row(case: Case, peer: str, *rounds: float, **more: Any) -> Row:
        return Row(case, peer, "ok", error=1e-6, rounds=rounds, **more)

    return Run(
        created="2026-01-01",
        commands=("python bench/gpu/run.py",),
        machine={"gpu": "Test GPU", "driver": "1", "capability": "9.0", "max_sm_mhz": "1980"},
        settings={"rounds": 2},
        peers={"fusedrnn": "0.1", "cudnn": "9.1"},
        skipped={"pytorch": "not there"},
        ceilings={"copy_gbs": 4000, "gemm_tflops": {"float32": 50.0, "bfloat16": 700.0}},
        clocks={str(TINY): {"sm_mhz": "1900"}, str(OTHER): {"sm_mhz": "1800"}},
        rows=(
            row(TINY, "fusedrnn", 2e-3, 2e-3),
            row(TINY, "fusedrnn-graph", 1e-3, 1e-3),
            row(TINY, "pytorch", 6e-3, 6e-3),
            row(TINY, "cudnn", 5e-4, 5e-4, choice="persist static, fma, float32"),
            row(OTHER, "fusedrnn", 1e-3, 1.5e-3),
            Row(OTHER, "pytorch", "wrong", "y: relative error 1 exceeds 0.02"),
        ),
    )


def test_run_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    path.write_text(sample_run().to_json())
    assert load_runs([path]) == [sample_run()]
    assert is_gpu_file(path)
    assert json.loads(path.read_text())["rows"][0]["median"] == 2e-3
    path.write_text('{"schema": 2}')
    assert not is_gpu_file(path)
    with pytest.raises(ValueError, match="not a result file of a GPU"):
        load_runs([path])


def test_merging_replaces_whole_cases() -> None:
    later = replace(sample_run(), rows=(Row(TINY, "cudnn", "ok", rounds=(1.0,)),), clocks={})
    merged = sample_run().merged(later)
    assert [row.peer for row in merged.rows if row.case == TINY] == ["cudnn"]
    assert merged.row(OTHER, "fusedrnn") is not None
    assert str(OTHER) in merged.clocks
    with pytest.raises(ValueError, match="gpu: expected Test GPU, got Other"):
        sample_run().merged(replace(later, machine={"gpu": "Other"}))


def test_ratios_compare_like_with_like() -> None:
    made = sample_run()
    assert ratio(made, TINY, "pytorch") == pytest.approx(3)
    assert ratio(made, TINY, "cudnn") == pytest.approx(0.5)
    assert ratio(made, TINY, "pytorch-graph") is None
    assert ratio(made, OTHER, "pytorch") is None
    assert [(s.peer, s.entries, s.where) for s in summaries(made)] == [
        ("pytorch", 1, TINY),
        ("cudnn", 1, TINY),
    ]
    assert set(COMPARED) | set(COMPARED.values()) == set(PEERS)
    assert milliseconds(made.row(OTHER, "fusedrnn")) == "1.25~"
    assert milliseconds(made.row(OTHER, "pytorch")) == "wrong"
    assert milliseconds(None) == "-"
    assert "pytorch 3.00, pytorch-graph -, cudnn 0.500" in case_line(made, TINY)
    assert any("wrong: y: relative" in line for line in summary_lines(made))


# The page


def test_without_a_run_the_page_says_so() -> None:
    page = gpu_report.section({})
    assert page.count(NOT_MEASURED) == 16
    assert f"| training, bfloat16 | 36 | {NOT_MEASURED} |" in page


def test_the_page_of_a_run(tmp_path: Path) -> None:
    source, out = tmp_path / "test-gpu.json", tmp_path / "page.md"
    source.write_text(sample_run().to_json())
    assert report.main([str(source), "--out", str(out)]) == 0
    page = out.read_text()
    line = next(text for text in page.splitlines() if text.startswith("| LSTM 3, 2, 32"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:6] == ["LSTM 3, 2, 32", "2.00", "1.00", "6.00", "-", "0.500"]
    assert cells[6:10] == ["persist static, fma, float32", "3.00", "-", "0.500"]
    assert "1800 to 1900 MHz after the cases, at most 1980" in page
    assert "Skipped pytorch: not there" in page
    assert "GRU 4, 2, 8, pytorch: wrong: y: relative error 1 exceeds 0.02" in page
    assert "Not yet measured: LSTM 1024, 16, 768" in page
    assert "![test-gpu-training](plots/test-gpu-training.svg)" in page
    assert (tmp_path / "plots" / "test-gpu-training.svg").exists()


def test_plots_are_the_same_for_the_same_run(tmp_path: Path) -> None:
    one, two = (plots.draw(sample_run(), tmp_path / name, "x") for name in "ab")
    assert [path.name for path in one] == ["x-training.svg"]
    assert one[0].read_bytes() == two[0].read_bytes()


# The command


def test_without_a_gpu_the_command_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run.main(["--cases", "smoke"]) == 3
    assert "not measured: PyTorch sees no CUDA device" in capsys.readouterr().err


def test_list_needs_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--list"]) == 0
    assert "training/bfloat16/lstm:1024,16,768" in capsys.readouterr().out


def test_measure_saves_each_case_and_stops_in_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, seconds = tmp_path / "r.json", iter(range(0, 1000, 10))
    held: list[int] = []

    def run_case(case: Case) -> list[Row]:
        held.append(len(load_runs([out])[0].rows) if out.exists() else 0)
        return [Row(case, "fusedrnn", "ok", rounds=(1.0,))]

    made = replace(sample_run(), rows=(), clocks={})
    saved = run.measure(run_case, made, SMOKE, out, time_limit=25, now=lambda: float(next(seconds)))
    assert held == [0, 1]
    assert [row.case for row in saved.rows] == [*SMOKE[:2]]
    assert f"time is up: 2 of {len(SMOKE)} cases" in capsys.readouterr().out
    assert load_runs([out]) == [saved]


def test_a_resumed_run_measures_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, missing = tmp_path / "r.json", SMOKE[0]
    out.write_text(sample_run().to_json())
    measured: list[Case] = []

    class Recorder:
        def __init__(self, *_: Any, device: str) -> None:
            assert device == "cuda"

        def settings_record(self) -> dict[str, Any]:
            return sample_run().settings

        def run_case(self, case: Case) -> list[Row]:
            measured.append(case)
            return [Row(case, "fusedrnn", "ok", rounds=(1.0,))]

    monkeypatch.setattr(run, "_no_gpu", lambda: "")
    monkeypatch.setattr(run, "CudaClock", FakeClock)
    monkeypatch.setattr(run, "Harness", Recorder)
    monkeypatch.setattr(device, "facts", lambda: sample_run().machine)
    command = ["--peers", "cudnn", "--resume", "--no-ceilings", "--out", str(out), "--cases"]
    run.main([*command, str(TINY), str(missing), str(OTHER)])
    assert measured == [missing]
    whole = load_runs([out])[0]
    assert whole.cases == [TINY, OTHER, missing]
    run.main([*command, str(TINY)])
    assert measured == [missing]
    assert load_runs([out]) == [whole]
    assert capsys.readouterr().out.count("peer's time over ours") == 2


def test_the_driver_is_asked_once_and_may_be_silent() -> None:
    asked = []

    def answer(arguments: list[str]) -> str:
        asked.append(arguments)
        return "1980, 3201, 300.5, 41, 0x0000000000000000\nsecond GPU\n"

    assert device.clocks(answer)["sm_mhz"] == "1980"
    assert asked[0][0].startswith("--query-gpu=clocks.sm,")
    assert device.clocks(lambda arguments: "") == {}


# cuDNN, through a fake of its library


@pytest.mark.parametrize(("cell", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_weights_survive_any_layout(cell: str, gates: int) -> None:
    """Linear layers in a random order, matrices once transposed, gaps between them."""
    hidden, rng = 6, np.random.default_rng(0)
    tensors = random_problem(Case("training", "float32", Shape(cell, 1, 1, hidden)), "cpu").tensors
    blocks = cudnn_layout.blocks(cell)
    assert [(b.layer, b.matrix, b.gate) for b in blocks] == [
        (n, "w_ih" if n < gates else "w_hh", n % gates) for n in range(2 * gates)
    ]
    places, offset = {}, 3
    keys = [(b.layer, kind) for b in blocks for kind in ("matrix", "bias")]
    for number in rng.permutation(len(keys)):
        layer, kind = keys[number]
        shape = (1, hidden, hidden if kind == "matrix" else 1)
        strides = (hidden**2, shape[2], 1) if layer % 2 else (hidden**2, 1, hidden)
        places[layer, kind] = cudnn_layout.Place(offset, shape, strides)
        offset += hidden * shape[2] + 1
    space = torch.full((offset,), float("nan"))
    cudnn_layout.write(space, places, cell, tensors)
    assert int(space.isnan().sum()) == 3 + len(keys)  # the gaps
    found = cudnn_layout.read(space, places, cell, tensors)
    for name in cudnn_layout.WEIGHTS:
        assert torch.equal(found[name], tensors[name])
    first = places[0, "matrix"].view(space)
    assert torch.equal(first, tensors["w_ih"][:hidden])


@pytest.fixture
def no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = types.SimpleNamespace(cuda_stream=0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)


FLOAT32 = [case for case in SMOKE if case.precision == "float32"]


@pytest.mark.usefixtures("no_stream")
@pytest.mark.parametrize("case", FLOAT32, ids=str)
def test_cudnn_is_called_as_its_prototypes_say(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = [cudnn_peer.Choice(algorithm, "fma", "float32") for algorithm in api.ALGORITHMS]
    monkeypatch.setattr(cudnn_peer, "choices", lambda case, quick: ways)
    library = FakeCuDnn()
    (row,) = rows_of(BestCuDnn("cudnn", library), case=case, rounds=1)  # type: ignore[arg-type]
    assert (row.status, row.message, row.rejected) == ("ok", "", {})
    assert row.choice in map(str, ways)
    assert library.calls.count("cudnnSetRNNDescriptor_v8") == len(ways)
    assert library.calls.count("cudnnBuildRNNDynamic") == 1
    assert library.live == []  # every descriptor was destroyed


@pytest.mark.usefixtures("no_stream")
def test_what_cudnn_refuses_is_said_and_left_out() -> None:
    library = FakeCuDnn(refuse="cudnnBuildRNNDynamic")
    peer = BestCuDnn("cudnn", library)  # type: ignore[arg-type]
    (row,) = rows_of(peer, case=FLOAT32[0], rounds=1)
    assert row.status == "ok"
    assert row.rejected == {"CuDnnError: cudnnBuildRNNDynamic: not supported": 4}
    assert peer.version() == "9.28.0"


def test_cudnn_is_tried_in_every_way() -> None:
    found = {
        precision: cudnn_peer.choices(replace(TINY, precision=precision))
        for precision in ("float32", "tfloat32", "bfloat16", "float16")
    }
    assert [len(choices) for choices in found.values()] == [16, 16, 16, 20]
    for choices in found.values():
        assert len(set(choices)) == len(choices)
        assert {choice.algorithm for choice in choices} == set(api.ALGORITHMS)
        assert {choice.math_type for choice in choices} == set(api.MATH_TYPES)
    half = [choice for choice in found["float16"] if choice.math_precision == "float16"]
    assert {choice.algorithm for choice in half} == {"standard"}


def test_a_first_contact_has_time_for_few_of_them() -> None:
    ways = {
        precision: [
            (choice.algorithm, choice.math_type)
            for choice in cudnn_peer.choices(replace(TINY, precision=precision), quick=True)
        ]
        for precision in PRECISIONS
    }
    algorithms = ("standard", "persist static", "persist static small H")
    maths = {"float32": "fma", "tfloat32": "tensor op, conversion"}
    for precision, found in ways.items():
        assert found == [(name, maths.get(precision, "tensor op")) for name in algorithms]
    assert [str(case) for case in CASE_SETS["short"]] == [
        f"{scenario}/{precision}/lstm:{size}"
        for precision, size in (
            ("bfloat16", "1024,16,768"),
            ("float16", "1024,16,768"),
            ("bfloat16", "256,16,256"),
        )
        for scenario in ("inference", "training")
    ]
    assert set(CASE_SETS["short"]) <= set(TABLE)


def test_without_cudnn_the_peer_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match="cuDNN 9 is not installed"):
        api.load("/nowhere/libcudnn.so.9")
