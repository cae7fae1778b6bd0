"""IndRNN: a recurrence without a product, and a vector parameter that maps read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle
from reference import relative_error

BOUND = {"float64": 1e-12, "float32": 2e-6}


def problem(T: int, B: int, I: int, H: int, dtype: str) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: E741
    rng = np.random.default_rng(T + B)
    shapes = {"x": (T, B, I), "w_ih": (H, I), "w_hh": (H,), "b_ih": (H,), "h0": (B, H)}
    given: dict[str, Any] = {k: rng.standard_normal(s).astype(dtype) for k, s in shapes.items()}
    given["lengths"] = rng.integers(0, T + 1, B)
    given["resets"] = rng.random((T, B)) < 0.2
    upstream = {
        k: rng.standard_normal(s).astype(dtype)
        for k, s in {"dy": (T, B, H), "dh_n": (B, H)}.items()
    }
    return given, upstream


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", list(BOUND))
def test_against_the_oracle(dtype: str, reverse: bool) -> None:
    given, upstream = problem(5, 3, 4, 5, dtype)
    y, h_n, tape = fr.indrnn_forward(**given, reverse=reverse)
    expected = oracle.forward("indrnn", **given, reverse=reverse)
    assert relative_error(y, expected["y"]) <= BOUND[dtype]
    assert relative_error(h_n, expected["h_n"]) <= BOUND[dtype]
    grads = fr.indrnn_backward(tape, **upstream)
    wanted = oracle.gradients("indrnn", **given, **upstream, reverse=reverse)
    for name, value in wanted.items():
        assert relative_error(grads[name], value) <= BOUND[dtype], name


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_is_an_rnn_with_a_diagonal(dtype: str, threads: int) -> None:
    pytest.importorskip("ml_dtypes")
    given, upstream = problem(40, 9, 11, 37, dtype)
    dense = given | {"w_hh": np.diag(given["w_hh"])}
    fr.set_num_threads(threads)
    y, h_n, tape = fr.indrnn_forward(**given)
    z, k_n, other = fr.rnn_forward(**dense)
    bound = BOUND.get(dtype, 2e-2)
    as_float = lambda a: np.asarray(a, np.float64)  # noqa: E731
    assert relative_error(as_float(y), as_float(z)) <= bound
    assert relative_error(as_float(h_n), as_float(k_n)) <= bound
    grads, wanted = fr.indrnn_backward(tape, **upstream), fr.rnn_backward(other, **upstream)
    for name in ("dx", "dw_ih", "db_ih", "dh0"):
        assert (
            relative_error(as_float(grads[name]), as_float(getattr(wanted, name))) <= 4 * bound
        ), name
    assert relative_error(as_float(grads["dw_hh"]), as_float(np.diag(wanted.dw_hh))) <= 4 * bound


def test_layers() -> None:
    layer = fr.IndRNN(4, 6, 2, bidirectional=True, seed=0, dtype="float64")
    assert [p.shape for p in layer.parameters().values()][:3] == [(6, 4), (6,), (6,)]
    x = np.random.default_rng(0).standard_normal((7, 3, 4))
    y, state, tape = layer.forward(x)
    grads = layer.backward(tape, np.ones_like(y))
    frozen = layer.freeze()
    assert np.array_equal(frozen(x)[0], y)
    w = layer.parameters()["weight_hh_l1"]
    w[2] += 1e-6
    up = layer(x)[0].sum()
    w[2] -= 2e-6
    down = layer(x)[0].sum()
    assert abs((up - down) / 2e-6 - grads["weight_hh_l1"][2]) < 1e-6
