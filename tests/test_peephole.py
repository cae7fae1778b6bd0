"""LSTM with peepholes: gates that see the cell state, each through a weight a unit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle
import reference
from support import (
    BOUND,
    HARD,
    Arguments,
    backward,
    check,
    check_by_differences,
    directions,
    dtypes,
    forward,
    infer,
    place,
    problem_of,
    same_bits,
)


def with_peepholes(dtype: str, **shape: Any) -> tuple[Arguments, Arguments]:
    problem, upstream = problem_of("lstm", dtype, **shape, **HARD)
    hidden_size = problem["w_hh"].shape[1]
    weights = np.random.default_rng(9).uniform(-1, 1, 3 * hidden_size)
    return problem | {"w_peephole": weights.astype(dtype)}, upstream


def with_torch(
    problem: Arguments, upstream: Arguments, reverse: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Outputs and gradients in float64, by PyTorch's autograd over the equations."""
    torch = pytest.importorskip("torch")
    masks = ("lengths", "resets")
    v = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in problem.items()
        if name not in masks
    }
    lengths = torch.tensor(problem["lengths"])
    resets = torch.tensor(problem["resets"])
    T, H = v["x"].shape[0], v["w_hh"].shape[1]
    h, c = v["h0"], v["c0"]
    p_i, p_f, p_o = v["w_peephole"].split(H)
    a = v["x"] @ v["w_ih"].T + v["b_ih"]
    ys: list[Any] = [None] * T
    for t in reversed(range(T)) if reverse else range(T):
        valid = (t < lengths)[:, None]
        first = t + 1 if reverse else t
        cut = torch.zeros_like(valid)
        if first < T:
            cut = (resets[first] & (first < lengths))[:, None]
        h_in, c_in = torch.where(cut, 0.0, h), torch.where(cut, 0.0, c)
        i, f, g, o = (a[t] + h_in @ v["w_hh"].T + v["b_hh"]).split(H, 1)
        i, f = torch.sigmoid(i + p_i * c_in), torch.sigmoid(f + p_f * c_in)
        c_out = f * c_in + i * torch.tanh(g)
        h_out = torch.sigmoid(o + p_o * c_out) * torch.tanh(c_out)
        h, c = torch.where(valid, h_out, h), torch.where(valid, c_out, c)
        ys[t] = torch.where(valid, h_out, 0.0)
    out = {"y": torch.stack(ys), "h_n": h, "c_n": c}
    loss = sum((out[name[1:]] * torch.tensor(grad)).sum() for name, grad in upstream.items())
    grads = torch.autograd.grad(loss, list(v.values()))
    named = {f"d{name}": grad.numpy() for name, grad in zip(v, grads, strict=True)}
    return {name: value.detach().numpy() for name, value in out.items()}, named


@dtypes
@directions
def test_oracle(dtype: str, reverse: bool) -> None:
    given, upstream = with_peepholes(dtype, steps=5, batch=3, input_size=4, hidden_size=5)
    got, tape = forward("lstm", **given, reverse=reverse)
    check(got, oracle.forward("lstm", **given, reverse=reverse), BOUND[dtype])
    same_bits(infer("lstm", **given, reverse=reverse), got)
    wanted = oracle.gradients("lstm", **given, **upstream, reverse=reverse)
    check(backward("lstm", tape, **upstream), wanted, BOUND[dtype])


@dtypes
@directions
@pytest.mark.parametrize(
    ("steps", "batch", "input_size", "hidden_size"),
    [(1, 1, 1, 1), (3, 2, 7, 15), (40, 9, 11, 37), (7, 33, 20, 64), (30, 2, 3, 130)],
)
def test_autograd(
    dtype: str, reverse: bool, steps: int, batch: int, input_size: int, hidden_size: int
) -> None:
    given, upstream = with_peepholes(
        dtype, steps=steps, batch=batch, input_size=input_size, hidden_size=hidden_size
    )
    got, tape = forward("lstm", **given, reverse=reverse)
    expected, wanted = with_torch(given, upstream, reverse)
    check(got, expected, BOUND[dtype])
    check(backward("lstm", tape, **upstream), wanted, BOUND[dtype])


@dtypes
def test_zeros_are_none(dtype: str) -> None:
    given, upstream = with_peepholes(dtype, steps=7, batch=5, input_size=6, hidden_size=33)
    given["w_peephole"][:] = 0
    plain = {name: value for name, value in given.items() if name != "w_peephole"}
    got, tape = forward("lstm", **given)
    expected, other = forward("lstm", **plain)
    check(got, expected, 0)
    grads = backward("lstm", tape, **upstream)
    assert grads.pop("dw_peephole").any()
    check(grads, backward("lstm", other, **upstream), 0)


@pytest.mark.parametrize(
    ("dtype", "compute_dtype", "bound"),
    [("bfloat16", None, 2e-2), ("float16", None, 3e-3), ("float32", "bfloat16", 1e-2)],
)
def test_sixteen_bits(dtype: str, compute_dtype: str | None, bound: float) -> None:
    """Near the values of the same numbers in float64."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    given, upstream = with_peepholes("float64", steps=12, batch=5, input_size=24, hidden_size=40)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    narrow = {
        name: value.astype(kind) if value.dtype.kind == "f" else value
        for name, value in (given | upstream).items()
    }
    exact = {
        name: value if name in ("lengths", "resets") else value.astype("float64")
        for name, value in narrow.items()
    }
    above = {name: narrow.pop(name) for name in upstream}
    _, state, tape = fr.lstm_forward(**narrow, compute_dtype=compute_dtype)
    grads = fr.lstm_backward(tape, **above)
    exact_above = {name: exact.pop(name) for name in upstream}
    _, wanted_state, other = fr.lstm_forward(**exact)
    wanted = fr.lstm_backward(other, **exact_above)
    for got, value in zip(state, wanted_state, strict=True):
        assert reference.relative_error(got.astype("float64"), value) <= bound
    for name in ("dx", "dw_ih", "dw_hh", "dw_peephole", "db_ih", "dh0", "dc0"):
        got = getattr(grads, name).astype("float64")
        assert reference.relative_error(got, getattr(wanted, name)) <= 3 * bound, name


@dtypes
def test_a_sequence_alone_or_in_a_batch(dtype: str) -> None:
    given, _ = with_peepholes(dtype, steps=7, batch=13, input_size=21, hidden_size=33)
    together = infer("lstm", **given)
    for b in range(13):
        one = {name: value[:, b : b + 1] for name, value in given.items() if value.ndim == 3}
        one |= {"resets": given["resets"][:, b : b + 1], "lengths": given["lengths"][b : b + 1]}
        one |= {name: given[name][b : b + 1] for name in ("h0", "c0")}
        alone = infer("lstm", **(given | one))
        rows = {name: together[name][b : b + 1] for name in ("h_n", "c_n")}
        place().check_alike(alone, {"y": together["y"][:, b : b + 1], **rows})


def test_threads_do_not_change_a_bit() -> None:
    given, upstream = with_peepholes("float32", steps=20, batch=6, input_size=64, hidden_size=200)
    results = []
    for threads in (1, 2, 3):
        fr.set_num_threads(threads)
        got, tape = forward("lstm", **given)
        results.append(got | backward("lstm", tape, **upstream))
    fr.set_num_threads(2)
    same_bits(results[1], results[0])
    same_bits(results[2], results[0])


def test_results_into_given_arrays() -> None:
    given, upstream = with_peepholes("float32", steps=4, batch=3, input_size=5, hidden_size=6)
    _, _, tape = fr.lstm_forward(**given)
    dp = np.empty(18, "float32")
    grads = fr.lstm_backward(tape, **upstream, out={"dw_peephole": dp})
    assert grads.dw_peephole is dp
    assert np.array_equal(dp, fr.lstm_backward(tape, **upstream).dw_peephole)


def test_wrong_peepholes() -> None:
    given, _ = with_peepholes("float32", steps=3, batch=2, input_size=4, hidden_size=5)
    wrong = given | {"w_peephole": np.zeros(20, "float32")}
    with pytest.raises(ValueError, match=r"^w_peephole: expected shape \(15,\), got \(20,\)$"):
        fr.lstm(**wrong)
    with pytest.raises(TypeError, match=r"^peephole: expected a bool, got int$"):
        fr.LSTM(4, 5, peephole=1)  # type: ignore[arg-type]
    plain = {name: value for name, value in given.items() if name != "w_peephole"}
    _, _, tape = fr.lstm_forward(**plain)
    assert fr.lstm_backward(tape).dw_peephole is None
    with pytest.raises(ValueError, match=r"^out: expected names among .*, got 'dw_peephole'$"):
        fr.lstm_backward(tape, out={"dw_peephole": np.zeros(15, "float32")})


def test_layers() -> None:
    layer = fr.LSTM(4, 6, 2, peephole=True, bidirectional=True, seed=0, dtype="float64")
    assert "peephole=True" in repr(layer)
    assert layer.parameters()["weight_peephole_l1_reverse"].shape == (18,)
    x = np.random.default_rng(0).standard_normal((7, 3, 4))
    y, _, tape = layer.forward(x)
    grads = layer.backward(tape, np.ones_like(y))
    assert np.array_equal(layer.freeze()(x)[0], y)
    check_by_differences(layer, x, grads)
    other = fr.LSTM(4, 6, 2, peephole=True, bidirectional=True, dtype="float64")
    other.load_state_dict(layer.state_dict())
    assert np.array_equal(other(x)[0], layer(x)[0])


@pytest.mark.parametrize("weight_dtype", [None, "bfloat16", "int8"])
def test_frozen_steps(weight_dtype: str | None) -> None:
    layer = fr.LSTM(24, 40, 2, peephole=True, seed=3)
    frozen = layer.freeze(weight_dtype)
    x = np.random.default_rng(1).standard_normal((9, 3, 24)).astype("float32")
    y, last = frozen(x)
    state: Any = None
    for t in range(9):
        y_t, state = frozen.step(x[t], state)
        assert np.array_equal(y_t, y[t])
    assert all(np.array_equal(got, value) for got, value in zip(state, last, strict=True))
    bound = {None: 0.0, "bfloat16": 1e-2, "int8": 3e-2}[weight_dtype]
    assert reference.relative_error(y, layer(x)[0]) <= bound
