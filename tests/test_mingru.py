"""minGRU and minLSTM: gates of the input alone, no product in a step, no recurrent weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle
import reference
from support import (
    BOUND,
    Arguments,
    backward,
    cast,
    check,
    check_by_differences,
    directions,
    dtypes,
    forward,
    infer,
    place,
    same_bits,
)

GATES = {"mingru": 2, "minlstm": 3}
LAYERS: dict[str, Any] = {"mingru": fr.MinGRU, "minlstm": fr.MinLSTM}

cells = pytest.mark.parametrize("cell", list(GATES))
candidates = pytest.mark.parametrize("candidate", ["linear", "positive"])


def problem_of(
    cell: str,
    dtype: str,
    *,
    steps: int,
    batch: int,
    input_size: int,
    hidden_size: int,
    bias: bool = True,
) -> tuple[Arguments, Arguments]:
    """All that may be given, lengths, mask and resets too, and gradients from above."""
    rng = np.random.default_rng(0)
    T, B, I, H = steps, batch, input_size, hidden_size  # noqa: E741
    rows = GATES[cell] * H
    shapes = {"x": (T, B, I), "w_ih": (rows, I), "b_ih": (rows,), "h0": (B, H)}
    given: Arguments = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    given["w_ih"] *= 2 / np.sqrt(I)
    given["lengths"] = rng.integers(0, T + 1, B)
    given["resets"] = rng.random((T, B)) < 0.2
    given["mask"] = rng.random((T, B)) < 0.9
    if not bias:
        del given["b_ih"]
    upstream = {"dy": rng.standard_normal((T, B, H)), "dh_n": rng.standard_normal((B, H))}
    return cast(given, dtype), cast(upstream, dtype)


@dtypes
@directions
@cells
@candidates
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
def test_oracle(dtype: str, reverse: bool, cell: str, candidate: str, bias: bool) -> None:
    given, upstream = problem_of(
        cell, dtype, steps=6, batch=3, input_size=4, hidden_size=5, bias=bias
    )
    options = {"reverse": reverse, "candidate": candidate}
    got, tape = forward(cell, **given, **options)
    check(got, oracle.forward(cell, **given, **options), BOUND[dtype])
    same_bits(infer(cell, **given, **options), got)
    wanted = oracle.gradients(cell, **given, **upstream, **options)
    grads = backward(cell, tape, **upstream)
    if not bias:
        assert grads.pop("db_ih").shape == (GATES[cell] * 5,)
    check(grads, wanted, BOUND[dtype])


@dtypes
@directions
@cells
@candidates
@pytest.mark.parametrize(
    ("steps", "batch", "input_size", "hidden_size"),
    [(1, 1, 1, 1), (3, 2, 7, 15), (40, 9, 11, 37), (7, 33, 20, 64), (300, 1, 3, 130)],
)
def test_reference(
    dtype: str,
    reverse: bool,
    cell: str,
    candidate: str,
    steps: int,
    batch: int,
    input_size: int,
    hidden_size: int,
) -> None:
    given, upstream = problem_of(
        cell, dtype, steps=steps, batch=batch, input_size=input_size, hidden_size=hidden_size
    )
    options = {"reverse": reverse, "candidate": candidate, "padding": "last"}
    got, tape = forward(cell, **given, **options)
    check(got, reference.forward(cell, **given, **options), BOUND[dtype])
    wanted = reference.gradients(cell, **given, **upstream, **options)
    check(backward(cell, tape, **upstream), wanted, BOUND[dtype])


@cells
@candidates
@pytest.mark.parametrize(
    ("dtype", "compute_dtype", "bound"),
    [("bfloat16", None, 2e-2), ("float16", None, 3e-3), ("float32", "bfloat16", 2e-2)],
)
def test_sixteen_bits(
    dtype: str, compute_dtype: str | None, bound: float, cell: str, candidate: str
) -> None:
    """Near the values of the same numbers in float64."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    given, upstream = problem_of(cell, "float64", steps=20, batch=5, input_size=24, hidden_size=40)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    narrow = {
        name: value.astype(kind) if value.dtype.kind == "f" else value
        for name, value in (given | upstream).items()
    }
    exact = {
        name: value.astype("float64") if name in given.keys() | upstream.keys() else value
        for name, value in narrow.items()
        if name not in ("lengths", "resets", "mask")
    }
    masks = {name: given[name] for name in ("lengths", "resets", "mask")}
    above = {name: narrow.pop(name) for name in upstream}
    wide = {name: exact.pop(name) for name in upstream}
    options = {"candidate": candidate}
    got, tape = forward(cell, **narrow, **options, compute_dtype=compute_dtype)
    check(floats(got), reference.forward(cell, **exact, **masks, **options), bound)
    wanted = reference.gradients(cell, **exact, **masks, **wide, **options)
    check(floats(backward(cell, tape, **above)), wanted, 2 * bound)


def floats(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: value.astype("float64") for name, value in arrays.items()}


@cells
def test_logarithms(cell: str) -> None:
    """The paper's form: h_t = exp(a*_t + logcumsumexp(log(b) - a*)), of the same numbers."""
    given, _ = problem_of(cell, "float64", steps=30, batch=2, input_size=4, hidden_size=6)
    given = {name: given[name] for name in ("x", "w_ih", "b_ih")}
    h0 = np.full((2, 6), 0.25)
    y, _ = getattr(fr, cell)(**given, h0=h0, candidate="positive")
    blocks = np.split(given["x"] @ given["w_ih"].T + given["b_ih"], GATES[cell], axis=-1)
    if cell == "mingru":
        log_keep, log_take = -softplus(blocks[0]), -softplus(-blocks[0])
    else:
        difference = softplus(-blocks[0]) - softplus(-blocks[1])
        log_keep, log_take = -softplus(difference), -softplus(-difference)
    h = blocks[-1]
    log_g = np.where(h >= 0, np.log(np.maximum(h, 0) + 0.5), -softplus(-h))
    kept = np.cumsum(np.concatenate([np.zeros((1, 2, 6)), log_keep]), axis=0)
    came = np.concatenate([np.log(h0)[None], log_take + log_g]) - kept
    logarithm = kept + np.logaddexp.accumulate(came, axis=0)
    assert reference.relative_error(y, np.exp(logarithm)[1:]) <= 1e-12


def softplus(x: Any) -> Any:
    return np.logaddexp(0, x)


@dtypes
@pytest.mark.parametrize("sign", [-1, 1])
def test_saturated_gates(dtype: str, sign: int) -> None:
    """Both gates of a minLSTM far out: their ratio is what counts, and there is no 0 / 0."""
    far = np.array([sign * 3000.0, sign * 3001.0, 7.0], dtype)
    w_ih, x = np.zeros((3, 1), dtype), np.zeros((2, 1, 1), dtype)
    h0 = np.array([[1.0]], dtype)
    for swap in (False, True):
        b_ih = far[[1, 0, 2]] if swap else far
        y, h_n, tape = fr.minlstm_forward(x, w_ih, b_ih, h0)
        keep = 0.5 if sign > 0 else 1 / (1 + np.exp(1.0 if swap else -1.0))
        wanted = keep * (keep + (1 - keep) * 7) + (1 - keep) * 7
        np.testing.assert_allclose(h_n, wanted, rtol=1e-3)
        grads = fr.minlstm_backward(tape, np.ones_like(y))
        for name in ("dx", "dw_ih", "db_ih", "dh0"):
            assert np.isfinite(getattr(grads, name)).all(), name


@cells
def test_nan_stays_in_its_unit(cell: str) -> None:
    given, _ = problem_of(cell, "float32", steps=4, batch=1, input_size=2, hidden_size=19)
    given = {name: given[name] for name in ("x", "w_ih", "b_ih")}
    for candidate in ("linear", "positive"):
        for gate in range(GATES[cell]):
            b_ih = given["b_ih"].copy()
            b_ih[gate * 19 + 3] = np.nan
            y = getattr(fr, cell)(**(given | {"b_ih": b_ih}), candidate=candidate)[0]
            assert np.isnan(y[:, :, 3]).all()
            assert np.isnan(y).sum() == 4


@dtypes
@cells
def test_a_sequence_alone_or_in_a_batch(dtype: str, cell: str) -> None:
    given, _ = problem_of(cell, dtype, steps=7, batch=13, input_size=21, hidden_size=33)
    together = infer(cell, **given)
    for b in range(13):
        one = {name: given[name][:, b : b + 1] for name in ("x", "resets", "mask")}
        one |= {name: given[name][b : b + 1] for name in ("lengths", "h0")}
        alone = infer(cell, **(given | one))
        rows = {"y": together["y"][:, b : b + 1], "h_n": together["h_n"][b : b + 1]}
        place().check_alike(alone, rows)


@cells
def test_threads_do_not_change_a_bit(cell: str) -> None:
    given, upstream = problem_of(cell, "float32", steps=60, batch=6, input_size=64, hidden_size=256)
    results = []
    for threads in (1, 2, 3):
        fr.set_num_threads(threads)
        got, tape = forward(cell, **given)
        results.append(got | backward(cell, tape, **upstream))
    fr.set_num_threads(2)
    same_bits(results[1], results[0])
    same_bits(results[2], results[0])


@cells
def test_wrong_arguments(cell: str) -> None:
    given, _ = problem_of(cell, "float32", steps=3, batch=2, input_size=4, hidden_size=6)
    function, rows = getattr(fr, cell), GATES[cell] * 6
    for bad in ("gelu", None):
        with pytest.raises((ValueError, TypeError), match=r"^candidate: expected "):
            function(**given, candidate=bad)
    with pytest.raises(ValueError, match=rf"^b_ih: expected shape \({rows},\), got \(5,\)$"):
        function(**(given | {"b_ih": np.zeros(5, "float32")}))
    with pytest.raises(ValueError, match=r"^w_ih: "):
        function(**(given | {"w_ih": np.zeros((7, 4), "float32")}))
    with pytest.raises(ValueError, match=r"^h0: expected shape \(2, 6\), got \(2, 5\)$"):
        function(**(given | {"h0": np.zeros((2, 5), "float32")}))
    _, _, tape = getattr(fr, f"{cell}_forward")(**given)
    with pytest.raises(ValueError, match=r"^tape: expected the tape of gru_forward"):
        fr.gru_backward(tape)


@cells
@candidates
@pytest.mark.parametrize("bias", [True, False])
def test_layers(cell: str, candidate: str, bias: bool) -> None:
    layer = LAYERS[cell](
        4, 6, 2, candidate=candidate, bidirectional=True, bias=bias, seed=0, dtype="float64"
    )
    rows = GATES[cell] * 6
    shapes = {"weight_ih": (rows, 4)} | ({"bias_ih": (rows,)} if bias else {})
    first = {name: p.shape for name, p in layer.parameters().items() if name.endswith("_l0")}
    assert first == {f"{name}_l0": shape for name, shape in shapes.items()}
    assert repr(layer).endswith("candidate='positive')") == (candidate == "positive")
    rng = np.random.default_rng(0)
    x, state = rng.standard_normal((7, 3, 4)), rng.standard_normal((4, 3, 6))
    y, last, tape = layer.forward(x, state)
    assert np.array_equal(layer.freeze()(x, state)[0], y)
    wanted = oracle.stack(cell, x, layer.parameters(), h0=state, candidate=candidate)
    check({"y": y, "h_n": last}, wanted, BOUND["float64"])
    dy = rng.standard_normal(y.shape)
    wanted = oracle.stack_gradients(
        cell, x, layer.parameters(), h0=state, candidate=candidate, dy=dy, dh_n=last
    )
    check(layer.backward(tape, dy, last), wanted, BOUND["float64"])
    y, _, tape = layer.forward(x)
    check_by_differences(layer, x, layer.backward(tape, np.ones_like(y)))


@cells
@candidates
@pytest.mark.parametrize("weight_dtype", [None, "bfloat16", "int8"])
def test_steps(cell: str, candidate: str, weight_dtype: str | None) -> None:
    layer = LAYERS[cell](24, 40, 2, candidate=candidate, seed=3)
    frozen = layer.freeze(weight_dtype)
    x = np.random.default_rng(1).standard_normal((9, 3, 24)).astype("float32")
    y, last = frozen(x)
    state: Any = None
    of_layer: Any = None
    for t in range(9):
        y_t, state = frozen.step(x[t], state)
        assert np.array_equal(y_t, y[t])
        if weight_dtype is None:
            y_t, of_layer = layer.step(x[t], of_layer)
            assert np.array_equal(y_t, y[t])
    assert np.array_equal(state, last)
    bound = {None: 0.0, "bfloat16": 1e-2, "int8": 3e-2}[weight_dtype]
    assert reference.relative_error(y, layer(x)[0]) <= bound


def test_initial_values_of_orthogonal_layers() -> None:
    layer = fr.MinGRU(5, 7, seed=0, init="orthogonal")
    p = layer.parameters()
    assert np.abs(p["weight_ih_l0"]).max() <= np.sqrt(6 / (14 + 5))
    assert not p["bias_ih_l0"].any()
