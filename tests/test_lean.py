"""memory="lean": tapes of few states, and the bits that every other tape gives."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import ml_dtypes  # noqa: F401  # NumPy knows the name "bfloat16" from here on
import numpy as np
import pytest

import fusedrnn as fr
from support import Arguments, by_name, directions, problem_of, same_bits

RELU = {"activations": ("relu", "tanh", "tanh"), "clip": 2.0, "cell_clip": 3.0}
CELLS: dict[str, tuple[Any, Arguments]] = {
    "rnn": (fr.RNN, {}),
    "rnn clipped": (fr.RNN, {"nonlinearity": "softsign", "clip": 1.0}),
    "indrnn": (fr.IndRNN, {}),
    "gru": (fr.GRU, {}),
    "gru before": (fr.GRU, {"reset_after": False}),
    "gru clipped": (fr.GRU, {"reset_after": False, "clip": 1.0}),
    "lstm": (fr.LSTM, {}),
    "lstm peephole": (fr.LSTM, {"peephole": True}),
    "lstm coupled": (fr.LSTM, {"coupled": True, "peephole": True}),
    "lstm projection": (fr.LSTM, {"proj_size": 5}),
    "lstm all": (fr.LSTM, {"proj_size": 5, "peephole": True, **RELU}),
    "mingru": (fr.MinGRU, {}),
    "minlstm": (fr.MinLSTM, {"candidate": "positive"}),
    "slstm": (fr.SLSTM, {}),
    "lstm heads": (fr.LSTM, {"heads": 3}),
    "lstm layer norm": (fr.LSTM, {"layer_norm": True}),
    "gru layer norm": (fr.GRU, {"layer_norm": True}),
    "gru world model": (fr.WorldModelGRU, {}),
}
NORMED = list(CELLS)[-3:]
# Several chunks of steps each, the last of them of fewer; blocks of several steps, of one, and
# several of a step.
SHAPES = [(2300, 1), (700, 3), (30, 120), (13, 301)]

cells = pytest.mark.parametrize("cell", list(CELLS))
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
DTYPES = ("float32", "float64", "bfloat16", "float16", "mixed")


pytestmark = pytest.mark.usefixtures("keeps_threads")


def layer_of(cell: str, memory: str, **options: Any) -> Any:
    kind, own = CELLS[cell]
    return kind(4, options.pop("hidden_size", 9), seed=0, memory=memory, **own | options)


def precision_of(dtype: str) -> Arguments:
    return {"compute_dtype": "bfloat16"} if dtype == "mixed" else {"dtype": dtype}


class Run:
    """A training call with all that may be given, from numbers that depend on shapes alone."""

    def __init__(self, layer: Any, T: int, B: int, *, masked: bool = True) -> None:
        self.layer, self.random = layer, np.random.default_rng(0)
        self.dtype = np.dtype(layer.dtype)
        given: Arguments = {}
        if masked:
            given["lengths"] = self.random.integers(0, T + 1, B)
            given["lengths"][0] = T
            given["resets"] = self.random.random((T, B)) < 0.05
            given["mask"] = self.random.random((T, B)) < 0.9
        states = self.states(layer, B)
        given["reset_state"] = self.states(layer) if masked else None
        self.x = self.normal(T, B, 4)
        self.y, self.state_n, *self.cells, self.tape = layer.forward(
            self.x, states, **given, return_cells=len(layer._states) > 1
        )

    def normal(self, *shape: int) -> Any:
        return self.random.standard_normal(shape).astype(self.dtype)

    def states(self, layer: Any, *batch: int) -> Any:
        """Above 1, as the n of an sLSTM has to be."""
        sizes = layer._stack.network.state_sizes
        parts = [
            (1 + abs(self.normal(layer._stack.num_runs, *batch, size))).astype(self.dtype)
            for size in sizes
        ]
        return parts[0] if len(parts) == 1 else tuple(parts)

    def results(self) -> Arguments:
        """Outputs and all gradients, with a limit of those of h, and their norms."""
        state = self.state_n if isinstance(self.state_n, tuple) else (self.state_n,)
        found = {"y": self.y, **{f"state {i}": s for i, s in enumerate(state)}}
        T, B, width = self.y.shape
        dcells = tuple(self.normal(T, B, cell.shape[-1]) for cell in self.cells)
        grads, flow = self.layer.backward(
            self.tape,
            self.normal(T, B, width),
            self.states(self.layer, B),
            **({"dcells": dcells[0] if len(dcells) == 1 else dcells} if dcells else {}),
            clip_dh=3.0,
            return_flow=True,
        )
        found |= {f"cells {i}": c for i, c in enumerate(self.cells)}
        return found | grads | {f"flow {name}": norms for name, norms in flow.items()}


def check_same(cell: str, shape: tuple[int, int], *, masked: bool = True, **options: Any) -> None:
    runs = [
        Run(layer_of(cell, memory, **options), *shape, masked=masked)
        for memory in ("lean", "default")
    ]
    results = [run.results() for run in runs]
    same_bits(*results)
    assert all(np.isfinite(np.asarray(value, np.float64)).all() for value in results[0].values())
    # Backward left the tape as it was.
    runs[0].random, runs[1].random = np.random.default_rng(1), np.random.default_rng(1)
    same_bits(runs[0].results(), runs[1].results())


@cells
@shapes
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "whole"])
def test_cells(cell: str, shape: tuple[int, int], masked: bool) -> None:
    check_same(cell, shape, masked=masked, bidirectional=True)


@cells
@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_dtypes(cell: str, dtype: str) -> None:
    precision = precision_of(dtype)
    check_same(cell, (700, 3), bidirectional=True, **precision)
    check_same(cell, (13, 301), masked=False, bidirectional=True, **precision)


@cells
def test_stacks(cell: str) -> None:
    check_same(cell, (700, 3), num_layers=2, bidirectional=True, dropout=0.4)
    check_same(cell, (700, 3), num_layers=3, **({} if cell in NORMED else {"bias": False}))


@cells
def test_threads(cell: str) -> None:
    wanted = Run(layer_of(cell, "default", bidirectional=True), 300, 9).results()
    for threads in (1, 2, 3, 7):
        fr.set_num_threads(threads)
        same_bits(Run(layer_of(cell, "lean", bidirectional=True), 300, 9).results(), wanted)


@pytest.mark.parametrize("cell", ["gru before", "lstm projection", "lstm layer norm"])
def test_threads_of_the_two_passes(cell: str) -> None:
    """With many threads a chunk goes from one checkpoint to a later one, whoever left them."""
    runs = []
    for memory in ("lean", "default"):
        fr.set_num_threads(1)
        runs.append(Run(layer_of(cell, memory, bidirectional=True, hidden_size=64), 12, 400))
    for threads in (1, 40):
        fr.set_num_threads(threads)
        for run in runs:
            run.random = np.random.default_rng(1)
        same_bits(*(run.results() for run in runs))


@pytest.mark.parametrize("cell", ["gru before", "lstm projection", *NORMED])
def test_second_derivatives(cell: str) -> None:
    """A tape's word holds for the walk over dual numbers, too."""
    x = np.random.default_rng(0).standard_normal((700, 3, 4))
    results = []
    for memory in ("lean", "default"):
        layer = layer_of(cell, memory, bidirectional=True, dtype="float64")
        y, _, tape = layer.forward(x)
        along = {"x": np.ones_like(x), "weight_hh_l0": layer.parameters()["weight_hh_l0"]}
        second = layer.double_backward(tape, along, y)
        results.append({name: value for name, value in second.items() if value is not None})
    parts = [{n: p for n, p in found.items() if not isinstance(p, tuple)} for found in results]
    assert len(parts[0]) > 5
    same_bits(*parts)
    given, upstream = problem_of("gru", "float64", steps=600, batch=3)
    results = []
    for memory in ("lean", "default"):
        tape = fr.gru_forward(**given, memory=memory)[-1]
        results.append(fr.gru_double_backward(tape, {"w_hh": given["w_hh"]}, upstream["dy"]))
    same_bits(*results)


NOISES: dict[str, Arguments] = {
    "candidate": {"recurrent_dropout": 0.35, "recurrent_dropout_mode": "candidate"},
    "state": {"recurrent_dropout": 0.35},
}


@pytest.mark.parametrize("dtype", ["float32", "mixed"])
@pytest.mark.parametrize("noise", list(NOISES))
@pytest.mark.parametrize("cell", ["gru", "gru before", "lstm peephole", "lstm projection"])
def test_noise(cell: str, noise: str, dtype: str) -> None:
    """Masks of each step's own in every chunk, whose rows are of several steps."""
    layers = [
        layer_of(cell, memory, zoneout=0.2, **NOISES[noise], **precision_of(dtype))
        for memory in ("lean", "default")
    ]
    # The last call draws other masks than the first.
    for shape, training in (((700, 3), True), ((700, 3), False), ((13, 301), True)):
        fr.set_num_threads(1 + shape[0] % 2)
        runs = [Run(layer.train(training), *shape) for layer in layers]
        same_bits(*(run.results() for run in runs))


def test_wide() -> None:
    """More columns than a block of the weights' gradients has, and units of many panels."""
    layers = [
        fr.LSTM(530, 70, seed=0, bidirectional=True, memory=memory)
        for memory in ("lean", "default")
    ]
    x = np.random.default_rng(0).standard_normal((60, 40, 530)).astype("float32")
    results = []
    for layer in layers:
        y, _, tape = layer.forward(x.transpose(1, 0, 2).copy().transpose(1, 0, 2))
        results.append(layer.backward(tape, y) | {"y": y})
    same_bits(*results)


@directions
def test_functions(reverse: bool) -> None:
    # With resets alone all sequences live to the end, and their flags lie as the caller has them.
    for cell, lengths in itertools.product(("rnn", "gru", "lstm", "slstm"), (True, False)):
        given, upstream = problem_of(
            cell, "float32", steps=600, batch=3, lengths=lengths, resets=True
        )
        if cell == "slstm":
            upstream.pop("dc", None)
        results = []
        for memory in ("lean", "default"):
            *_, tape = getattr(fr, f"{cell}_forward")(**given, reverse=reverse, memory=memory)
            results.append(by_name(getattr(fr, f"{cell}_backward")(tape, **upstream)))
        same_bits(*results)
    rng = np.random.default_rng(0)
    x, b = rng.standard_normal((1500, 1, 4)), rng.standard_normal(15)
    for cell, weights in {
        "indrnn": (rng.standard_normal((5, 4)), rng.uniform(-1, 1, 5), b[:5]),
        "mingru": (rng.standard_normal((10, 4)), b[:10]),
        "minlstm": (rng.standard_normal((15, 4)), b),
    }.items():
        results = []
        for memory in ("lean", "default"):
            y, _, tape = getattr(fr, f"{cell}_forward")(x, *weights, reverse=reverse, memory=memory)
            results.append(by_name(getattr(fr, f"{cell}_backward")(tape, y)))
        same_bits(*results)


@cells
def test_empty(cell: str) -> None:
    for shape in ((0, 3), (4, 0), (1, 1)):
        runs = [
            Run(layer_of(cell, memory, bidirectional=True), *shape, masked=False)
            for memory in ("lean", "default")
        ]
        same_bits(*(run.results() for run in runs))


@pytest.mark.parametrize("cell", ["gru", "lstm projection", "slstm", "lstm layer norm"])
def test_chunks_of_the_other_kind(cell: str) -> None:
    """Wide and long enough that its deltas do not exist all at a time either."""
    check_same(cell, (150, 30), hidden_size=128)


def bytes_of_step(layer: Any, x: Any) -> int:
    """Of a training step: what the tape holds, and what backward works in."""
    fr.set_num_threads(1)
    y, _, tape = layer.forward(x)
    fr.release_memory()
    grads = layer.backward(tape, y)
    scratch = fr.release_memory()
    assert grads["x"].shape == x.shape
    return int(tape.reserve.nbytes + scratch)


@pytest.mark.parametrize("kind", [fr.RNN, fr.GRU, fr.LSTM, fr.SLSTM])
@pytest.mark.parametrize("shape", [(40000, 1), (400, 100)], ids=str)
def test_memory(kind: Any, shape: tuple[int, int]) -> None:
    x = np.zeros((*shape, 32), "float32")
    lean, default = (bytes_of_step(kind(32, 128, memory=m), x) for m in ("lean", "default"))
    assert default > 2 * 4 * len(kind._states) * 128 * shape[0] * shape[1]
    assert lean <= 0.11 * default


def test_backward_works_in_memory_of_a_chunk() -> None:
    """Deltas of all steps would take 87 MB."""
    fr.set_num_threads(1)
    layer, x = fr.LSTM(32, 128), np.zeros((400, 100, 32), "float32")
    y, _, tape = layer.forward(x)
    fr.release_memory()
    grads = layer.backward(tape, y)
    assert fr.release_memory() < 10e6
    assert grads["x"].shape == x.shape


def test_a_tape_of_200_000_steps() -> None:
    """It leaves room for x, y and dx in 0.7 GB, which take 0.61."""
    network = fr.LSTM(256, 256, memory="lean")._stack.network
    assert network.reserve_bytes(200_000, 1) < 1e6


def test_reserves_of_the_other_kind() -> None:
    """Each tape says which it is."""
    x = np.zeros((3, 2, 4), "float32")
    layers = [layer_of("lstm", memory) for memory in ("lean", "default")]
    tapes = [layer.forward(x)[-1] for layer in layers]
    assert [tape.core.network.lean for tape in tapes] == [True, False]
    assert tapes[0].reserve.nbytes < tapes[1].reserve.nbytes
    network = layers[0]._stack.network
    weights = layers[0]._stack.ordered(layers[0].parameters())
    again = type(tapes[0].core)(network, x, weights, None, tapes[0].reserve)
    dy = np.ones((3, 2, 9), "float32")
    assert np.array_equal(
        again.backward(dy, None, None, False)[0],
        tapes[1].core.backward(dy, None, None, False)[0],
    )
    with pytest.raises(ValueError, match=r"^reserve: expected [0-9]+ bytes, for this network"):
        type(tapes[0].core)(network, x, weights, None, tapes[1].reserve).backward(
            dy, None, None, False
        )


def test_gates() -> None:
    x = np.zeros((3, 2, 4), "float32")
    message = "^gates: expected a tape with memory='default', got one with 'lean'$"
    with pytest.raises(ValueError, match=message):
        layer_of("lstm", "lean").forward(x)[-1].gates()
    given, _ = problem_of("gru", "float32")
    with pytest.raises(ValueError, match=message):
        fr.gru_forward(**given, memory="lean")[-1].gates()


def test_arguments() -> None:
    given, _ = problem_of("gru", "float32")
    with pytest.raises(ValueError, match=r"^memory: expected 'default' or 'lean', got 'leen'"):
        fr.gru_forward(**given, memory="leen")
    with pytest.raises(ValueError, match=r"^memory: expected 'default' or 'lean', got 'full'"):
        fr.GRU(2, 3, memory="full")
    with pytest.raises(TypeError, match=r"^memory: expected a str, got bool"):
        fr.GRU(2, 3, memory=True)


def test_layers_keep_the_word() -> None:
    layer = fr.GRU(4, 9, memory="lean", seed=0)
    assert layer.memory == "lean"
    assert repr(layer) == "GRU(4, 9, memory='lean')"
    assert fr.GRU(4, 9).memory == "default"
    x = np.ones((5, 2, 4), "float32")
    copy = pickle.loads(pickle.dumps(layer))
    assert copy.memory == "lean"
    assert copy.forward(x)[-1].core.network.lean
    # Inference and frozen layers keep nothing either way.
    assert np.array_equal(layer.freeze()(x)[0], fr.GRU(4, 9, seed=0)(x)[0])
