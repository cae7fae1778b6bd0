"""Block-diagonal recurrence: `heads` of every cell with a matrix w_hh."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle
import reference
from fusedrnn import _core
from fusedrnn.runs import Run
from half_support import Precision, check_rounded, precisions
from reference import NORMED_VARIANTS, VARIANTS
from reference.problems import ids_of
from support import (
    BOUND,
    Arguments,
    backward,
    check,
    directions,
    dtypes,
    forward,
    infer,
    problem_of,
    same_bits,
    with_zero_biases,
)

WITH_HEADS = [
    *(variant for variant in VARIANTS if variant[0] != "rnn"),
    ("rnn", {"nonlinearity": "tanh"}),
    ("slstm", {"forget": "sigmoid"}),
    *NORMED_VARIANTS,
]
all_variants = pytest.mark.parametrize(("cell", "options"), WITH_HEADS, ids=ids_of(WITH_HEADS))

# Layers by the name of their cell.
LAYERS: dict[str, Any] = {
    "rnn": fr.RNN,
    "gru": fr.GRU,
    "lstm": fr.LSTM,
    "slstm": fr.SLSTM,
    "lstm_layer_norm": lambda *sizes, **options: fr.LSTM(*sizes, layer_norm=True, **options),
    "gru_layer_norm": lambda *sizes, **options: fr.GRU(*sizes, layer_norm=True, **options),
    "gru_world_model": fr.WorldModelGRU,
}


def bound_of(cell: str, dtype: str) -> float:
    """A norm magnifies the rounding of float32: decision 0013."""
    normed = cell in dict(NORMED_VARIANTS) and dtype == "float32"
    return 5e-6 if normed else BOUND[dtype]


def headed(cell: str, dtype: str, heads: int, **shape: Any) -> tuple[Arguments, Arguments]:
    """A hard problem whose w_hh holds blocks, with lengths and resets to a state."""
    given, upstream = problem_of(cell, dtype, lengths=True, resets=True, **shape)
    units = given["w_hh"].shape[1]
    given["w_hh"] = np.ascontiguousarray(given["w_hh"][:, : units // heads])
    given["reset_h"] = np.linspace(-1, 1, units).astype(dtype)
    return given | {"heads": heads}, upstream


def check_against(against: Any, cell: str, given: Arguments, upstream: Arguments) -> None:
    bound = bound_of(cell, given["x"].dtype.name)
    got, tape = forward(cell, **given)
    check(got, against.forward(cell, **given), bound)
    same_bits(infer(cell, **given), got)
    spelled_out = with_zero_biases(given) if cell in ("rnn", "gru", "lstm") else given
    wanted = against.gradients(cell, **spelled_out, **upstream)
    check(backward(cell, tape, **upstream), wanted, bound)


@all_variants
@dtypes
@directions
def test_oracle(cell: str, options: Arguments, dtype: str, reverse: bool) -> None:
    for heads, hidden_size in ((2, 8), (3, 9), (6, 6) if cell == "rnn" else (5, 15)):
        shape = {"steps": 6, "batch": 3, "input_size": 4, "hidden_size": hidden_size}
        given, upstream = headed(cell, dtype, heads, **shape)
        check_against(oracle, cell, {**given, **options, "reverse": reverse}, upstream)


@all_variants
@dtypes
@directions
@pytest.mark.parametrize(
    ("steps", "batch", "hidden_size", "heads"),
    [(4, 1, 64, 2), (3, 9, 128, 4), (5, 33, 96, 3), (3, 2, 130, 2), (2, 5, 192, 6), (1, 3, 80, 4)],
)
def test_reference(
    cell: str,
    options: Arguments,
    dtype: str,
    reverse: bool,
    steps: int,
    batch: int,
    hidden_size: int,
    heads: int,
) -> None:
    """Heads that fill vectors of all sets, of some of them, and of none."""
    shape = {"steps": steps, "batch": batch, "input_size": 11, "hidden_size": hidden_size}
    given, upstream = headed(cell, dtype, heads, **shape)
    check_against(reference, cell, {**given, **options, "reverse": reverse}, upstream)


@precisions
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize(("hidden_size", "heads"), [(128, 2), (36, 4)])
def test_rounding(
    cell: str, reset_after: bool, precision: Precision, hidden_size: int, heads: int
) -> None:
    if cell != "gru" and not reset_after:
        return
    options = {"reset_after": reset_after} if cell == "gru" else {}
    given, upstream = problem_of(
        cell, precision.dtype, 0.5, steps=3, batch=4, input_size=5, hidden_size=hidden_size
    )
    given["w_hh"] = np.ascontiguousarray(given["w_hh"][:, : hidden_size // heads])
    check_rounded(cell, given, upstream, precision, together=True, heads=heads, **options)


def with_dense_weights(layer: Any, dense: Any) -> Any:
    """`dense` with the parameters of a layer of heads, zeros between their blocks."""
    state = layer.state_dict()
    for name, value in state.items():
        if name.startswith("weight_hh"):
            state[name] = np.array(oracle.sequence.block_diagonal(value.tolist(), layer.heads))
    dense.load_state_dict(state)
    return dense


def blocks_of(gradient: Any, heads: int) -> Any:
    rows, units = gradient.shape
    size = units // heads
    first = np.arange(rows) // size % heads * size
    return np.take_along_axis(gradient, first[:, None] + np.arange(size), axis=1)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("memory", ["default", "lean"])
@pytest.mark.parametrize(("hidden_size", "heads"), [(128, 4), (30, 3)])
def test_layers(cell: str, memory: str, hidden_size: int, heads: int) -> None:
    """A stack in both directions, with what is dropped, against the same with dense weights."""
    options = {"bidirectional": True, "dtype": "float64", "memory": memory, "seed": 3}
    if cell != "slstm":
        options |= {"dropout": 0.25, "zoneout": 0.2, "recurrent_dropout": 0.3}
    sizes = (7, hidden_size, 2)
    layer = LAYERS[cell](*sizes, heads=heads, **options)
    dense = with_dense_weights(layer, LAYERS[cell](*sizes, **options))
    assert layer.parameters()["weight_hh_l1"].shape[1] == hidden_size // heads
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((5, 3, 7)), rng.standard_normal((5, 3, 2 * hidden_size))
    results = []
    for each in (layer, dense):
        y, state, tape = each.forward(x, lengths=[5, 0, 3])
        grads = each.backward(tape, dy)
        states = state if isinstance(state, tuple) else (state,)
        results.append({"y": y, **{f"state {i}": s for i, s in enumerate(states)}, **grads})
    got, wanted = results
    for name in wanted:
        if name.startswith("weight_hh"):
            wanted[name] = blocks_of(wanted[name], heads)
    check(got, wanted, 1e-12)
    check({"y": layer(x)[0]}, {"y": dense(x)[0]}, 1e-12)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("weight_dtype", [None, "bfloat16", "int8"])
@pytest.mark.parametrize(("hidden_size", "heads"), [(128, 2), (128, 4), (28, 7)])
def test_frozen(cell: str, weight_dtype: Any, hidden_size: int, heads: int) -> None:
    layer = LAYERS[cell](9, hidden_size, 2, heads=heads, seed=1)
    dense = with_dense_weights(layer, LAYERS[cell](9, hidden_size, 2))
    frozen, wanted = layer.freeze(weight_dtype), dense.freeze(weight_dtype)
    x = np.random.default_rng(0).standard_normal((4, 3, 9)).astype("float32")
    y, state = frozen(x)
    bound = 1e-5 if cell in dict(NORMED_VARIANTS) else BOUND["float32"]
    # A sum in another order may round a state to the next number of fewer bits.
    bound = bound if weight_dtype is None else 4e-3
    check({"y": y}, {"y": wanted(x)[0]}, bound)
    state = None
    for t in range(4):
        y_t, state = frozen.step(x[t], state)
        same_bits({"y": y_t}, {"y": y[t]})


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("hidden_size", [128, 36])
def test_threads_give_the_same_bits(cell: str, hidden_size: int) -> None:
    threads = fr.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            fr.set_num_threads(count)
            layer = LAYERS[cell](5, hidden_size, heads=2, seed=0)
            x = np.random.default_rng(0).standard_normal((40, 6, 5)).astype("float32")
            y, _, tape = layer.forward(x)
            results.append({"y": y, **layer.backward(tape, y)})
        for other in results[1:]:
            same_bits(other, results[0])
    finally:
        fr.set_num_threads(threads)


@all_variants
def test_lean_memory_gives_the_same_bits(cell: str, options: Arguments) -> None:
    given, upstream = headed(cell, "float32", 2, steps=700, batch=2, hidden_size=64)
    kept, lean = (
        backward(cell, forward(cell, **given, **options, memory=memory)[1], **upstream)
        for memory in ("default", "lean")
    )
    same_bits(lean, kept)


def test_weight_dropout() -> None:
    """One draw for each element that there is."""
    layer = fr.GRU(3, 6, heads=3, weight_dropout=0.4, dtype="float64", seed=5)
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((4, 2, 3)), rng.standard_normal((4, 2, 6))
    seed = sum(layer.dropout_state)
    y, _, tape = layer.forward(x)
    arguments = {"heads": 3, "noise": oracle.Noise(seed=seed, weight_dropout=0.4)}
    parameters = layer.state_dict()
    wanted = oracle.stack("gru", x, parameters, **arguments)
    check({"y": y}, {"y": wanted["y"]}, 1e-12)
    wanted = oracle.stack_gradients("gru", x, parameters, **arguments, dy=dy)
    grads = layer.backward(tape, dy)
    check({"dw": grads["weight_hh_l0"]}, {"dw": wanted["weight_hh_l0"]}, 1e-12)


@pytest.mark.parametrize("cell", LAYERS)
def test_second_derivatives(cell: str) -> None:
    layer = LAYERS[cell](3, 12, heads=4, dtype="float64", seed=2)
    dense = with_dense_weights(layer, LAYERS[cell](3, 12, dtype="float64"))
    rng = np.random.default_rng(0)
    x, v, dy = (rng.standard_normal((4, 2, n)) for n in (3, 3, 12))
    (got_y, got), (_, wanted) = (each.jvp({"x": v}, x)[:2] for each in (layer, dense))
    del got_y
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-11, atol=1e-12)
    second = [each.double_backward(each.forward(x)[-1], {"x": v}, dy=dy) for each in (layer, dense)]
    second[1]["weight_hh_l0"] = blocks_of(second[1]["weight_hh_l0"], 4)
    check(second[0], second[1], 1e-11)


def test_what_is_not_finite_stays_in_its_head() -> None:
    rng = np.random.default_rng(0)
    w_ih, w_hh = rng.standard_normal((128, 3)), rng.standard_normal((128, 64))
    h0 = rng.standard_normal((2, 128))
    h0[1, 5] = np.nan
    for dtype in ("float32", "float64", "float16"):
        x, *arrays = (a.astype(dtype) for a in (rng.standard_normal((4, 2, 3)), w_ih, w_hh))
        y = fr.rnn(x, *arrays, h0=h0.astype(dtype), heads=2)[0]
        assert np.isnan(y[:, 1, :64]).all()
        assert np.isfinite(y[:, 1, 64:]).all()
        assert np.isfinite(y[:, 0]).all()


def test_orthogonal_blocks() -> None:
    w = fr.GRU(3, 12, heads=3, init="orthogonal", seed=0).state_dict()["weight_hh_l0"]
    for block in w.reshape(-1, 4, 4):
        np.testing.assert_allclose(block @ block.T, np.eye(4), atol=1e-6)


def test_a_reserve_belongs_to_its_heads() -> None:
    x = np.zeros((2, 1, 3), "float32")
    one, two = (
        _core.Network(Run("rnn_tanh", False, 0, 1, 0, 0, 3, 4, 0, heads).record(), "float32")
        for heads in (1, 2)
    )
    weights = [tuple(np.ones(s, "float32") for s in ((4, 3), (4, n))) for n in (4, 2)]
    *_, tape = one.forward(x, (*weights[0], None, None), save=True)
    assert tape is not None
    assert tape.reserve is not None
    with pytest.raises(ValueError, match=r"^reserve: expected what a forward call of this network"):
        _core.Tape(two, x, (*weights[1], None, None), None, tape.reserve).backward(
            None, None, None, False
        )


def test_errors() -> None:
    x, w_ih = np.zeros((2, 1, 3), "float32"), np.zeros((24, 3), "float32")
    w_hh = np.zeros((24, 3), "float32")
    with pytest.raises(ValueError, match=r"^heads: expected a divisor of hidden_size = 8, got 3"):
        fr.GRU(3, 8, heads=3)
    with pytest.raises(ValueError, match=r"^heads: expected at least 1, got 0"):
        fr.GRU(3, 8, heads=0)
    with pytest.raises(TypeError, match=r"^heads: expected an int, got float"):
        fr.gru(x, w_ih, w_hh, heads=2.0)
    with pytest.raises(TypeError, match=r"^heads: expected an int, got ndarray$"):
        fr.gru(x, w_ih, w_hh, heads=np.array(2.0))
    with pytest.raises(ValueError, match=r"^heads: expected a divisor of hidden_size = 8, got 3"):
        fr.gru(x, w_ih, w_hh, heads=3)
    with pytest.raises(ValueError, match=r"w_hh: expected shape \(24, 4\), got \(24, 3\)"):
        fr.gru(x, w_ih, w_hh, heads=2)
    with pytest.raises(ValueError, match=r"w_hh: expected shape \(24, 8\), got \(24, 4\)"):
        fr.gru(x, w_ih, np.zeros((24, 4), "float32"))
    with pytest.raises(ValueError, match=r"^heads: expected 1 with a projection, got 2"):
        fr.LSTM(3, 8, heads=2, proj_size=4)
    weights = [np.zeros(s, "float32") for s in ((32, 3), (32, 4))]
    with pytest.raises(ValueError, match=r"^heads: expected 0 or 1 \(lstm_projection has"):
        fr.lstm(x, *weights, w_hr=np.zeros((4, 8), "float32"), heads=2)
    with pytest.raises(TypeError, match="heads"):
        fr.IndRNN(3, 8, heads=2)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="none of the options heads"):
        fr.convert.to_torch(fr.GRU(3, 8, heads=2))
    assert repr(fr.GRU(3, 8, heads=2)) == "GRU(3, 8, heads=2)"
