"""The gates of every step, as a tape keeps them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fusedrnn as fr
from half_support import Precision, half_problem, in_double, precisions
from support import (
    LAYERS,
    Arguments,
    cast,
    check,
    directions,
    dtypes,
    forward,
    outputs,
    place,
    problem_of,
    same_bits,
)
from test_lstm_variants import options_of, problem_with
from test_lstm_variants import variants as lstm_variants

BOUND = {"float32": 4e-6, "float64": 1e-13}


def sigmoid(v: Any) -> Any:
    return 1 / (1 + np.exp(-v))


def product(given: Arguments, weights: str, bias: str, rows: Any) -> Any:
    exact = np.asarray(given[weights], np.float64)
    return np.asarray(rows, np.float64) @ exact.T + np.asarray(given.get(bias, 0.0), np.float64)


def expected_gates(
    cell: str, given: Arguments, h: Any, c: Any, *, reset_after: bool = True, coupled: bool = False
) -> dict[str, Any]:
    """From the states `h` and `c` [T,B,n] that entered each step."""
    a, u = product(given, "w_ih", "b_ih", given["x"]), product(given, "w_hh", "b_hh", h)
    H = a.shape[-1] // (3 if cell == "gru" or coupled else 4)
    part = [slice(k * H, (k + 1) * H) for k in range(4)]
    if cell == "gru":
        r, z = (sigmoid(a[..., s] + u[..., s]) for s in part[:2])
        last = part[2]
        if reset_after:
            n = np.tanh(a[..., last] + r * u[..., last])
        else:
            w, b = np.asarray(given["w_hh"], float), np.asarray(given["b_hh"], float)
            n = np.tanh(a[..., last] + (r * h) @ w[last].T + b[last])
        return {"r": r, "z": z, "n": n}
    names = "igo" if coupled else "ifgo"
    v = {name: a[..., s] + u[..., s] for name, s in zip(names, part, strict=False)}
    seen = given.get("w_peephole")
    p = (
        {}
        if seen is None
        else dict(zip(names.replace("g", ""), np.split(seen, len(seen) // H), strict=True))
    )
    gates = {name: sigmoid(v[name] + p.get(name, 0) * c) for name in names if name in "if"}
    gates["g"] = np.tanh(v["g"])
    f = gates.get("f", 1 - gates["i"])
    gates["o"] = sigmoid(v["o"] + p.get("o", 0) * (f * c + gates["i"] * gates["g"]))
    return gates


def entering(sequence: Any, first: Any, reverse: bool) -> Any:
    """The states that enter each step, from those that leave it."""
    exact = np.asarray(sequence, np.float64)
    start = np.asarray(first, np.float64)[None]
    parts = (exact[1:], start) if reverse else (start, exact[:-1])
    return np.concatenate(parts)


def check_gates(
    cell: str, given: Arguments, tape: Any, got: Arguments, bound: float, **options: Any
) -> None:
    reverse = options.pop("reverse", False)
    h = entering(got["y"], given["h0"], reverse)
    c = entering(got["c"], given["c0"], reverse) if cell == "lstm" else None
    wanted = expected_gates(cell, given, h, c, **options)
    gates = tape.gates()
    assert list(gates) == list(wanted)
    check(in_double(place().read(gates)), in_double(wanted), bound)


@pytest.mark.parametrize(
    ("cell", "options"),
    [("gru", {"reset_after": True}), ("gru", {"reset_after": False}), ("lstm", {})],
)
@dtypes
@directions
def test_cells(cell: str, options: Arguments, dtype: str, reverse: bool) -> None:
    options = {"reverse": reverse, **options}
    shown = {"return_cells": True} if cell == "lstm" else {}
    for H in (1, 9, 33):
        given, _ = problem_of(cell, dtype, steps=5, batch=3, input_size=4, hidden_size=H)
        got, tape = forward(cell, **given, **options, **shown)
        check_gates(cell, given, tape, got, BOUND[dtype], **options)


@lstm_variants
@dtypes
def test_lstm_variants(variant: str, dtype: str) -> None:
    given, _ = problem_with(variant, dtype, steps=5, batch=3, input_size=4, hidden_size=10)
    del given["lengths"], given["resets"]
    got, tape = forward("lstm", **given, **options_of(variant), return_cells=True)
    check_gates("lstm", given, tape, got, BOUND[dtype], **options_of(variant))


@precisions
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_16_bits(precision: Precision, cell: str) -> None:
    given, _ = half_problem(cell, precision, steps=5, batch=3, input_size=4, hidden_size=20)
    shown = {"return_cells": True} if cell == "lstm" else {}
    got, tape = forward(cell, **given, **shown, **precision.options)
    assert {gate.dtype for gate in place().read(tape.gates()).values()} == {given["x"].dtype}
    check_gates(cell, given, tape, got, 4 * precision.unit)


@directions
def test_steps_that_do_not_exist(reverse: bool) -> None:
    given, upstream = problem_of(
        "lstm", "float32", steps=7, batch=4, hidden_size=9, lengths=True, resets=True
    )
    mask = np.random.default_rng(0).random((7, 4)) < 0.6
    _, tape = forward("lstm", **given, mask=mask, reverse=reverse)
    exists = mask & (np.arange(7)[:, None] < given["lengths"])
    for gate in place().read(tape.gates()).values():
        assert not gate[~exists].any()
        assert gate[exists].all()
    before = place().read(tape.gates())
    fr.lstm_backward(tape, **place().give(upstream))
    for name, gate in place().read(tape.gates()).items():
        assert np.array_equal(gate, before[name])


ALL = ("float32", "float64", "float16", "bfloat16")


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize(
    "cell", ["gru", "lstm", "lstm_layer_norm", "gru_layer_norm", "gru_world_model"]
)
def test_returned_by_functions(cell: str, dtype: str) -> None:
    """Of a plain call and of a forward call: what the tape says, the other results as ever."""
    given, _ = problem_of(
        cell, "float64", steps=5, batch=3, hidden_size=9, lengths=True, resets=True
    )
    name = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    given = place().give(cast(given, name))
    for options in ({}, {"reverse": True, "padding": "last"}):
        *wanted, tape = getattr(fr, f"{cell}_forward")(**given, **options)
        gates = place().read(tape.gates())
        for cells in ({}, {"return_cells": True}) if cell.startswith("lstm") else ({},):
            shown = {**options, **cells, "return_gates": True}
            *results, inferred = getattr(fr, cell)(**given, **shown)
            *again, kept, _ = getattr(fr, f"{cell}_forward")(**given, **shown)
            same_bits(place().read(inferred), gates)
            same_bits(place().read(kept), gates)
            for got in (results, again):
                assert len(got) == 2 + len(cells)
                some = place().read(outputs(*got))
                same_bits({n: some[n] for n in outputs(*wanted)}, place().read(outputs(*wanted)))


def test_returned_into_given_arrays() -> None:
    given, _ = problem_of("lstm", "float32", steps=4, batch=2)
    y, state, c, gates = fr.lstm(**given, return_cells=True, return_gates=True)
    out = (np.empty_like(y), tuple(map(np.empty_like, state)), np.empty_like(c))
    got = fr.lstm(**given, return_cells=True, return_gates=True, out=out)
    assert got[0] is out[0]
    assert got[2] is out[2]
    same_bits(got[3], gates)
    same_bits({"y": out[0], "c": out[2]}, {"y": y, "c": c})


@pytest.mark.parametrize("memory", ["default", "lean"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_returned_by_layers(cell: str, memory: str) -> None:
    """A plain call of lean layers too, whose tapes have none."""
    sizes, form = (3, 5, 2), {"bidirectional": True, "batch_first": True, "seed": 0}
    usual, layer = (place().layer(cell, *sizes, **form, memory=m) for m in ("default", memory))
    x = np.random.default_rng(0).standard_normal((2, 6, 3)).astype("float32")
    lengths = np.array([6, 4])
    for rows, its in ((x, lengths), (x[0], 6)):
        given = {"lengths": its}
        y, _, gates, tape = usual.forward(rows, **given, return_gates=True)
        ends = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
        letters = "rzn" if cell == "gru" else "ifgo"
        assert list(gates) == [f"{letter}{end}" for end in ends for letter in letters]
        same_bits(gates, place().read(tape.gates()))
        got = layer(rows, **given, return_gates=True)
        same_bits(got[2], gates)
        same_bits({"y": got[0]}, {"y": y})
    if cell == "lstm":
        got = layer(x, lengths=lengths, return_cells=True, return_gates=True)
        assert got[2].shape == (2, 6, 10)
        wanted = usual.forward(x, lengths=lengths, return_gates=True)
        same_bits(got[3], wanted[2])


def test_refused_to_return() -> None:
    x = np.zeros((4, 2, 3), "float32")
    given, _ = problem_of("lstm", "float32")
    with pytest.raises(TypeError, match=r"^return_gates: expected a bool, got int$"):
        fr.lstm(**given, return_gates=1)  # type: ignore[call-overload]
    kept = (
        "^return_gates: expected False with clip, cell_clip, activations or peepholes beside a "
        "projection, with which no gates are kept, got True$"
    )
    with pytest.raises(ValueError, match=kept):
        fr.lstm(**given, cell_clip=1.0, return_gates=True)
    H = given["w_hh"].shape[1]
    both = {"w_peephole": np.zeros(3 * H, "float32"), "w_hr": np.eye(H, dtype="float32")}
    with pytest.raises(ValueError, match=kept):
        fr.lstm(**given, **both, return_gates=True)
    with pytest.raises(ValueError, match=r"^return_gates: expected False with memory='lean'"):
        fr.lstm_forward(**given, memory="lean", return_gates=True)
    with pytest.raises(ValueError, match=r"^return_gates: expected False \(derivatives along a"):
        fr.lstm_jvp({"x": given["x"]}, **given, return_gates=True)
    for layer in (fr.RNN(3, 5), fr.GRU(3, 5, clip=1.0), fr.SLSTM(3, 5), fr.MinGRU(3, 5)):
        with pytest.raises(
            ValueError, match=r"^return_gates: expected False for .*keeps no gates$"
        ):
            layer(x, return_gates=True)
    lean = fr.LSTM(3, 5, memory="lean")
    message = r"^return_gates: expected False for LSTM\(3, 5, memory='lean'\), whose tapes keep no"
    with pytest.raises(ValueError, match=message):
        lean.forward(x, return_gates=True)
    message = r"^return_gates: expected False for LSTM\(3, 5\).freeze\(\), as frozen layers keep no"
    with pytest.raises(ValueError, match=message):
        fr.LSTM(3, 5).freeze()(x, return_gates=True)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_layers(cell: str) -> None:
    layer = LAYERS[cell](3, 5, 2, bidirectional=True, batch_first=True, seed=0)
    x = np.random.default_rng(0).standard_normal((2, 6, 3)).astype("float32")
    y, _, tape = layer.forward(x)
    gates = tape.gates()
    ends = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
    letters = "rzn" if cell == "gru" else "ifgo"
    assert list(gates) == [f"{letter}{end}" for end in ends for letter in letters]
    weights = layer.parameters()
    names = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}
    for end in ends[:2]:
        own = {short: weights[name + end] for name, short in names.items()}
        _, _, other = getattr(fr, f"{cell}_forward")(
            x.swapaxes(0, 1).copy(), **own, reverse=end.endswith("reverse")
        )
        for letter, gate in other.gates().items():
            assert gates[letter + end].shape == (2, 6, 5)
            assert np.array_equal(gates[letter + end], gate.swapaxes(0, 1))
    assert y.shape == (2, 6, 10)


def test_empty() -> None:
    for steps, batch in ((0, 3), (4, 0)):
        given, _ = problem_of("gru", "float32", steps=steps, batch=batch)
        gates = place().read(forward("gru", **given)[1].gates())
        assert {gate.shape for gate in gates.values()} == {(steps, batch, 3)}


def test_cells_without_gates() -> None:
    given, _ = problem_of("rnn", "float32")
    _, _, tape = fr.rnn_forward(**given)
    message = "^gates: expected the tape of a cell with gates and the usual activations"
    with pytest.raises(ValueError, match=message):
        tape.gates()
    with pytest.raises(ValueError, match=message):
        fr.RNN(2, 3).forward(given["x"])[-1].gates()
    # What these keep for backward are not the gates themselves.
    for cell in ("gru", "lstm"):
        given, _ = problem_of(cell, "float32")
        *_, tape = getattr(fr, f"{cell}_forward")(**given, clip=1.0)
        with pytest.raises(ValueError, match=message):
            tape.gates()


def test_other_libraries() -> None:
    torch = pytest.importorskip("torch")
    given, _ = problem_of("lstm", "float32")
    _, _, tape = fr.lstm_forward(**{name: torch.tensor(v) for name, v in given.items()})
    wanted = fr.lstm_forward(**given)[-1].gates()
    for name, gate in tape.gates().items():
        assert isinstance(gate, torch.Tensor)
        assert np.array_equal(gate.numpy(), wanted[name])
