"""What flows back through time: norms of states' gradients at each step, and their limit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle
from reference import NEWER_VARIANTS, NORMED_VARIANTS, VARIANTS
from support import (
    BOUND,
    Arguments,
    backward,
    by_name,
    check,
    directions,
    dtypes,
    forward,
    place,
    problem_of,
    same_bits,
    stack_of,
)

LETTERS = {"lstm": ("h", "c"), "lstm_layer_norm": ("h", "c"), "slstm": ("h", "c", "n", "m")}
all_variants = pytest.mark.parametrize(
    ("cell", "options"),
    [*VARIANTS, *NEWER_VARIANTS, *NORMED_VARIANTS],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
limits = pytest.mark.parametrize("clip_dh", [None, 0.3], ids=["free", "clipped"])


def with_flow(cell: str, tape: Any, **arguments: Any) -> tuple[Arguments, Arguments]:
    """Gradients by name, and norms by the state's letter."""
    given = place().give(arguments)
    grads, flow = getattr(fr, f"{cell}_backward")(tape, **given, return_flow=True)
    return place().read(by_name(grads)), place().read(flow)


def masked(cell: str, dtype: str, **shape: Any) -> tuple[Arguments, Arguments]:
    given, upstream = problem_of(cell, dtype, **shape, lengths=True, resets=True)
    given["mask"] = np.random.default_rng(5).random(given["x"].shape[:2]) < 0.7
    return given, upstream


@all_variants
@dtypes
@directions
@limits
def test_oracle(
    cell: str, options: Arguments, dtype: str, reverse: bool, clip_dh: float | None
) -> None:
    given, upstream = masked(cell, dtype, steps=7, batch=4, input_size=2, hidden_size=3)
    _, tape = forward(cell, **given, **options, reverse=reverse)
    grads, flow = with_flow(cell, tape, **upstream, clip_dh=clip_dh)
    limit = {} if clip_dh is None else {"clip_dh": clip_dh}
    expected, norms = oracle.flow(cell, **given, **options, **upstream, reverse=reverse, **limit)
    assert list(flow) == list(LETTERS.get(cell, ("h",)))
    assert {value.dtype.name for value in flow.values()} == {"float64"}
    exact = {name: np.array(value) for name, value in (expected | norms).items()}
    known = {name: exact[name] for name in grads}
    check(grads, known, BOUND[dtype])
    check(flow, {name: exact[name] for name in flow}, BOUND[dtype])
    if clip_dh is not None:  # it was met
        free = backward(cell, tape, **upstream)
        assert any(not np.array_equal(free[name], grads[name]) for name in free)


def test_a_projection_and_its_c() -> None:
    """h and c have different sizes, and are made by different stages."""
    rng = np.random.default_rng(1)
    T, B, H, P = 6, 3, 5, 3
    given = {
        name: rng.standard_normal(shape)
        for name, shape in {
            "x": (T, B, 2),
            "w_ih": (4 * H, 2),
            "w_hh": (4 * H, P),
            "w_hr": (P, H),
            "w_peephole": (3 * H,),
        }.items()
    }
    upstream = {"dy": rng.standard_normal((T, B, P)), "dc": rng.standard_normal((T, B, H))}
    _, tape = forward("lstm", **given)
    _, flow = with_flow("lstm", tape, **upstream)
    _, norms = oracle.flow("lstm", **given, **upstream)
    check(flow, {name: np.array(value) for name, value in norms.items()}, 1e-12)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "mixed"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_narrow_formats(cell: str, dtype: str) -> None:
    """As exact as their numbers; 1 and 33 units are no whole vectors."""
    for hidden_size in (1, 33):
        given, upstream = masked(
            cell, "float32", steps=9, batch=5, input_size=4, hidden_size=hidden_size
        )
        _, tape = forward(cell, **given)
        _, expected = with_flow(cell, tape, **upstream, clip_dh=0.7)
        options = {"compute_dtype": "bfloat16"} if dtype == "mixed" else {}
        if dtype != "mixed":
            ml_dtypes = pytest.importorskip("ml_dtypes")
            narrow = np.dtype(getattr(ml_dtypes, dtype, dtype))

            def store(arguments: Arguments, narrow: Any = narrow) -> Arguments:
                return {
                    name: value.astype(narrow) if value.dtype.kind == "f" else value
                    for name, value in arguments.items()
                }

            given, upstream = store(given), store(upstream)
        _, tape = forward(cell, **given, **options)
        _, flow = with_flow(cell, tape, **upstream, clip_dh=0.7)
        check(flow, expected, 0.04)


def test_layers() -> None:
    """Each row is that of the layer and direction by itself."""
    T, B, H = 8, 3, 5
    problem, upstream = stack_of(
        "lstm",
        "float64",
        steps=T,
        batch=B,
        input_size=4,
        hidden_size=H,
        num_layers=2,
        bidirectional=True,
    )
    layer = fr.LSTM(4, H, 2, bidirectional=True, dtype="float64")
    layer.load_state_dict(problem["parameters"])
    y, _, tape = layer.forward(problem["x"])
    grads, flow = layer.backward(tape, upstream["dy"], clip_dh=0.5, return_flow=True)
    assert {name: norms.shape for name, norms in flow.items()} == {"h": (4, T), "c": (4, T)}

    w = problem["parameters"]
    suffixes = ["l0", "l0_reverse", "l1", "l1_reverse"]
    weights = {s: [w[f"{n}_{s}"] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
               for s in suffixes}  # fmt: skip

    def run(x: Any, index: int) -> tuple[Any, Any]:
        y, *_, tape = fr.lstm_forward(x, *weights[suffixes[index]], reverse=index % 2 == 1)
        return y, tape

    first = [run(problem["x"], index) for index in (0, 1)]
    second = [run(np.concatenate([y for y, _ in first], 2), index) for index in (2, 3)]
    above = np.split(upstream["dy"], 2, 2)
    dx: Any = 0.0
    for index in (2, 3):
        got, norms = fr.lstm_backward(
            second[index - 2][1], above[index - 2], clip_dh=0.5, return_flow=True
        )
        dx = dx + got.dx
        for letter in "hc":
            np.testing.assert_allclose(flow[letter][index], norms[letter], rtol=1e-12)
    for index, dy in enumerate(np.split(dx, 2, 2)):
        got, norms = fr.lstm_backward(first[index][1], dy, clip_dh=0.5, return_flow=True)
        np.testing.assert_allclose(
            grads[f"weight_hh_{suffixes[index]}"], got.dw_hh, rtol=1e-9, atol=1e-12
        )
        for letter in "hc":
            np.testing.assert_allclose(flow[letter][index], norms[letter], rtol=1e-12)
    assert y.shape == (T, B, 2 * H)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_nothing_else_changes(cell: str) -> None:
    given, upstream = masked(cell, "float32", steps=6, batch=5, input_size=4, hidden_size=40)
    _, tape = forward(cell, **given)
    expected = backward(cell, tape, **upstream)
    grads, _ = with_flow(cell, tape, **upstream)
    same_bits(grads, expected)
    grads, _ = with_flow(cell, tape, **upstream, clip_dh=1e30)
    same_bits(grads, expected)


def test_any_number_of_threads() -> None:
    given, upstream = problem_of(
        "gru", "float32", steps=16, batch=9, input_size=32, hidden_size=160
    )
    *_, tape = fr.gru_forward(**given)
    before = fr.get_num_threads()
    norms = []
    try:
        for threads in (1, 2):
            fr.set_num_threads(threads)
            _, flow = fr.gru_backward(tape, **upstream, clip_dh=1.0, return_flow=True)
            norms.append(flow)
    finally:
        fr.set_num_threads(before)
    same_bits(*norms)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cell", ["rnn", "indrnn"])
def test_many_steps(cell: str, batch: int) -> None:
    """More of them than wait for their norms at a time, with threads that meet at steps or not."""
    rng = np.random.default_rng(0)
    T, H = 83, 72
    given = {
        "x": rng.standard_normal((T, batch, 2)).astype("float32"),
        "w_ih": rng.standard_normal((H, 2)).astype("float32"),
        "w_hh": np.zeros((H, H) if cell == "rnn" else H, "float32"),  # a step's gradient is its dy
    }
    dy = rng.standard_normal((T, batch, H)).astype("float32")
    expected = np.linalg.norm(dy.reshape(T, -1).astype("float64"), axis=1)
    _, tape = forward(cell, **given)
    before = fr.get_num_threads()
    try:
        for threads in (1, 2):
            fr.set_num_threads(threads)
            _, flow = with_flow(cell, tape, dy=dy)
            np.testing.assert_allclose(flow["h"], expected, rtol=1e-14)
    finally:
        fr.set_num_threads(before)


@pytest.mark.parametrize("scale", [1e-200, 1e-306, 1e200, 1e306])
def test_norms_whose_squares_leave_the_range(scale: float) -> None:
    given, upstream = problem_of("rnn", "float64", steps=4, batch=3, input_size=2, hidden_size=9)
    given["w_hh"] *= 0  # each step's gradient is its dy
    upstream = {"dy": np.sign(upstream["dy"])}  # not near the least number
    _, tape = forward("rnn", **given)
    _, expected = with_flow("rnn", tape, **upstream)
    _, flow = with_flow("rnn", tape, dy=upstream["dy"] * scale)
    check({"h": flow["h"] / scale}, expected, 1e-14)


def test_numbers_that_are_not_finite() -> None:
    """A NaN shows, in the norm too, and no limit hides it."""
    given, upstream = problem_of("gru", "float32", steps=4, batch=2, input_size=2, hidden_size=3)
    upstream["dy"][2, 0, 1] = np.nan
    _, tape = forward("gru", **given)
    grads, flow = with_flow("gru", tape, dy=upstream["dy"], clip_dh=1.0)
    assert np.isnan(flow["h"]).tolist() == [True, True, True, False]
    assert np.isnan(grads["dx"][:3, 0]).all()
    assert not np.isnan(grads["dx"][:, 1]).any()


def test_empty() -> None:
    w = np.ones((1, 1), "float32")
    for T, B in ((0, 2), (3, 0)):
        y, *_, tape = fr.rnn_forward(np.zeros((T, B, 1), "float32"), w, w)
        _, flow = fr.rnn_backward(tape, y, return_flow=True)
        assert flow["h"].tolist() == [0.0] * T


def test_a_sequence_without_a_batch() -> None:
    layer = fr.GRU(2, 3, 2, seed=0)
    x = np.random.default_rng(0).standard_normal((5, 2)).astype("float32")
    y, _, tape = layer.forward(x)
    _, flow = layer.backward(tape, y, return_flow=True)
    y, _, tape = layer.forward(x[:, None])
    _, expected = layer.backward(tape, y, return_flow=True)
    same_bits(flow, expected)


def test_errors() -> None:
    w = np.ones((1, 1), "float32")
    y, _, tape = fr.rnn_forward(np.zeros((2, 1, 1), "float32"), w, w)
    for wrong in (0.0, -1.0, 1e-31, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"^clip_dh: expected a finite number of at least"):
            fr.rnn_backward(tape, y, clip_dh=wrong)
    wrong_type: Any = "1"
    with pytest.raises(TypeError, match=r"^clip_dh: expected a number, got str$"):
        fr.rnn_backward(tape, y, clip_dh=wrong_type)
    wrong_type = 1
    with pytest.raises(TypeError, match=r"^return_flow: expected a bool, got int$"):
        fr.rnn_backward(tape, y, return_flow=wrong_type)
    record = fr.rnn_backward(tape, y)
    assert "flow" not in {field.name for field in dataclasses.fields(record)}


@pytest.mark.parametrize("hidden_size", [8, 40, 64, 72, 128])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@directions
def test_a_single_sequence(cell: str, hidden_size: int, reverse: bool) -> None:
    """Whose squares may be summed where they are computed: beside the same sequence twice."""
    given, upstream = masked(
        cell, "float32", steps=37, batch=1, input_size=3, hidden_size=hidden_size
    )  # no number of steps whose norms are taken together
    given["w_hh"] = (given["w_hh"] / np.sqrt(hidden_size)).astype(np.float32)
    flows = []
    for batch in (1, 2):
        axes = dict.fromkeys(("x", "mask", "resets", "dy"), 1)
        axes |= dict.fromkeys(("lengths", "h0", "c0", "dh_n", "dc_n"), 0)
        arguments, gradients = (
            {k: np.repeat(v, batch, axes[k]) if k in axes else v for k, v in values.items()}
            for values in (given, upstream)
        )
        _, tape = forward(cell, **arguments, reverse=reverse)
        _, flow = with_flow(cell, tape, **gradients, clip_dh=0.5 if reverse else None)
        flows.append(flow)
    for name, norms in flows[0].items():
        np.testing.assert_allclose(np.sqrt(2) * norms, flows[1][name], rtol=1e-14)
