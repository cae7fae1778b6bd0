"""IndRNN: a recurrence without a product, and a vector of weights that the step itself reads."""

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

nonlinearities = pytest.mark.parametrize("nonlinearity", ["relu", "tanh"])


def problem_of(
    dtype: str, *, steps: int, batch: int, input_size: int, hidden_size: int, seed: int = 0
) -> tuple[Arguments, Arguments]:
    """All that may be given, lengths and resets too, and gradients from above."""
    rng = np.random.default_rng(seed)
    T, B, I, H = steps, batch, input_size, hidden_size  # noqa: E741
    shapes = {"x": (T, B, I), "w_ih": (H, I), "w_hh": (H,), "b_ih": (H,), "h0": (B, H)}
    given: Arguments = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    given["w_ih"] /= np.sqrt(I)
    given["w_hh"] = rng.uniform(-1, 1, H)
    given["lengths"] = rng.integers(0, T + 1, B)
    given["resets"] = rng.random((T, B)) < 0.2
    upstream = {"dy": rng.standard_normal((T, B, H)), "dh_n": rng.standard_normal((B, H))}
    return cast(given, dtype), cast(upstream, dtype)


def as_rnn(problem: Arguments) -> Arguments:
    """The RNN that it is: with a diagonal matrix."""
    return problem | {"w_hh": np.diag(problem["w_hh"])}


@dtypes
@directions
@nonlinearities
def test_oracle(dtype: str, reverse: bool, nonlinearity: str) -> None:
    given, upstream = problem_of(dtype, steps=5, batch=3, input_size=4, hidden_size=5)
    options = {"reverse": reverse, "nonlinearity": nonlinearity}
    got, tape = forward("indrnn", **given, **options)
    check(got, oracle.forward("indrnn", **given, **options), BOUND[dtype])
    same_bits(infer("indrnn", **given, **options), got)
    wanted = oracle.gradients("indrnn", **given, **upstream, **options)
    check(backward("indrnn", tape, **upstream), wanted, BOUND[dtype])


@dtypes
@directions
@nonlinearities
@pytest.mark.parametrize(
    ("steps", "batch", "input_size", "hidden_size"),
    [(1, 1, 1, 1), (3, 2, 7, 15), (40, 9, 11, 37), (7, 33, 20, 64), (300, 2, 3, 130)],
)
def test_is_an_rnn_with_a_diagonal_matrix(
    dtype: str,
    reverse: bool,
    nonlinearity: str,
    steps: int,
    batch: int,
    input_size: int,
    hidden_size: int,
) -> None:
    given, upstream = problem_of(
        dtype, steps=steps, batch=batch, input_size=input_size, hidden_size=hidden_size
    )
    options = {"reverse": reverse, "nonlinearity": nonlinearity}
    got, tape = forward("indrnn", **given, **options)
    check(got, reference.forward("rnn", **as_rnn(given), **options), BOUND[dtype])
    wanted = reference.gradients("rnn", **as_rnn(given), **upstream, **options)
    wanted["dw_hh"] = np.diag(wanted["dw_hh"])
    check(
        backward("indrnn", tape, **upstream),
        {name: value for name, value in wanted.items() if name != "db_hh"},
        BOUND[dtype],
    )


@nonlinearities
@pytest.mark.parametrize(
    ("dtype", "compute_dtype", "bound"),
    [("bfloat16", None, 2e-2), ("float16", None, 3e-3), ("float32", "bfloat16", 2e-2)],
)
def test_sixteen_bits(
    dtype: str, compute_dtype: str | None, bound: float, nonlinearity: str
) -> None:
    """Near the values of the same numbers in float64."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    given, upstream = problem_of("float64", steps=20, batch=5, input_size=24, hidden_size=40)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    narrow = {
        name: value.astype(kind) if value.dtype.kind == "f" else value
        for name, value in (given | upstream).items()
    }
    exact = {
        name: value if name in ("lengths", "resets") else value.astype("float64")
        for name, value in narrow.items()
    }
    dy, dh_n = narrow.pop("dy"), narrow.pop("dh_n")
    options = {"nonlinearity": nonlinearity}
    y, h_n, tape = fr.indrnn_forward(**narrow, **options, compute_dtype=compute_dtype)
    grads = fr.indrnn_backward(tape, dy, dh_n)
    above = {name: exact.pop(name) for name in ("dy", "dh_n")}
    z, k_n, other = fr.indrnn_forward(**exact, **options)
    wanted = fr.indrnn_backward(other, **above)
    assert reference.relative_error(y.astype("float64"), z) <= bound
    assert reference.relative_error(h_n.astype("float64"), k_n) <= bound
    for name in ("dx", "dw_ih", "dw_hh", "db_ih", "dh0"):
        got = getattr(grads, name).astype("float64")
        assert reference.relative_error(got, getattr(wanted, name)) <= 2 * bound, name


@dtypes
def test_a_sequence_alone_or_in_a_batch(dtype: str) -> None:
    given, _ = problem_of(dtype, steps=7, batch=13, input_size=21, hidden_size=33)
    together = infer("indrnn", **given)
    for b in range(13):
        one = {name: value[:, b : b + 1] for name, value in given.items() if value.ndim == 3}
        one |= {"resets": given["resets"][:, b : b + 1], "lengths": given["lengths"][b : b + 1]}
        one |= {"h0": given["h0"][b : b + 1]}
        alone = infer("indrnn", **(given | one))
        rows = {"y": together["y"][:, b : b + 1], "h_n": together["h_n"][b : b + 1]}
        place().check_alike(alone, rows)


@nonlinearities
def test_the_state_that_a_reset_puts_in_place(nonlinearity: str) -> None:
    problem, upstream = problem_of("float64", steps=40, batch=4, input_size=3, hidden_size=5)
    problem |= {"reset_h": np.linspace(-1, 1, 5), "nonlinearity": nonlinearity}
    y, _, tape = fr.indrnn_forward(**problem)
    rnn_y, _, rnn_tape = fr.rnn_forward(**as_rnn(problem))
    got = {"y": y, "dreset_h": fr.indrnn_backward(tape, **upstream).dreset_h}
    wanted = {"y": rnn_y, "dreset_h": fr.rnn_backward(rnn_tape, **upstream).dreset_h}
    check(got, wanted, BOUND["float64"])
    assert got["dreset_h"].any()


def test_threads_do_not_change_a_bit() -> None:
    given, upstream = problem_of("float32", steps=60, batch=6, input_size=64, hidden_size=256)
    results = []
    for threads in (1, 2, 3):
        fr.set_num_threads(threads)
        got, tape = forward("indrnn", **given)
        results.append(got | backward("indrnn", tape, **upstream))
    fr.set_num_threads(2)
    same_bits(results[1], results[0])
    same_bits(results[2], results[0])


def test_wrong_weights() -> None:
    given, _ = problem_of("float32", steps=3, batch=2, input_size=4, hidden_size=5)
    with pytest.raises(ValueError, match=r"^w_hh: expected shape \(5,\), got \(5, 5\)$"):
        fr.indrnn(**as_rnn(given))
    with pytest.raises(ValueError, match=r"^nonlinearity: expected 'relu' or 'tanh', got 'gelu'$"):
        fr.indrnn(**given, nonlinearity="gelu")
    _, _, tape = fr.indrnn_forward(**given)
    with pytest.raises(ValueError, match=r"^tape: expected the tape of rnn_forward"):
        fr.rnn_backward(tape)


@pytest.mark.parametrize("bias", [True, False])
def test_layers(bias: bool) -> None:
    layer = fr.IndRNN(4, 6, 2, bidirectional=True, bias=bias, seed=0, dtype="float64")
    shapes = {"weight_ih": (6, 4), "weight_hh": (6,)} | ({"bias_ih": (6,)} if bias else {})
    first = {name: p.shape for name, p in layer.parameters().items() if name.endswith("_l0")}
    assert first == {f"{name}_l0": shape for name, shape in shapes.items()}
    x = np.random.default_rng(0).standard_normal((7, 3, 4))
    y, _, tape = layer.forward(x)
    grads = layer.backward(tape, np.ones_like(y))
    assert np.array_equal(layer.freeze()(x)[0], y)
    check_by_differences(layer, x, grads)


@pytest.mark.parametrize("weight_dtype", [None, "bfloat16", "int8"])
def test_frozen_steps(weight_dtype: str | None) -> None:
    layer = fr.IndRNN(24, 40, 2, nonlinearity="tanh", seed=3)
    frozen = layer.freeze(weight_dtype)
    x = np.random.default_rng(1).standard_normal((9, 3, 24)).astype("float32")
    y, last = frozen(x)
    state: Any = None
    for t in range(9):
        y_t, state = frozen.step(x[t], state)
        assert np.array_equal(y_t, y[t])
    assert np.array_equal(state, last)
    bound = {None: 0.0, "bfloat16": 1e-2, "int8": 3e-2}[weight_dtype]
    assert reference.relative_error(y, layer(x)[0]) <= bound
