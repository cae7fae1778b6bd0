"""Steps that discard the states of some sequences, as a longer call with resets does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from support import LAYERS
from test_sequences import LETTERS, one_or_pair
from test_unbatched import as_tuple

cells = pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])


def problem(cell: str, steps: int = 6, batch: int = 3) -> tuple[Any, Any, Any, Any]:
    layer = LAYERS[cell](4, 5, 2, seed=0)
    random = np.random.default_rng(0)
    x = random.standard_normal((steps, batch, 4)).astype("float32")
    resets = random.random((steps, batch)) < 0.4
    reset = [random.standard_normal((2, 5)).astype("float32") for _ in LETTERS[cell]]
    return layer, x, resets, one_or_pair(reset)


@cells
@pytest.mark.parametrize("learnt", [False, True])
def test_steps_are_those_of_a_sequence(cell: str, learnt: bool) -> None:
    layer, x, resets, reset = problem(cell)
    fresh = {"reset_state": reset} if learnt else {}
    y, last = layer(x, resets=resets, **fresh)
    for stepped in (layer, layer.freeze()):
        for kind in (np.asarray, lambda mask: mask.astype("uint8")):
            state = None
            for t in range(len(x)):
                y_t, state = stepped.step(x[t], state, resets=kind(resets[t]), **fresh)
                assert np.array_equal(y_t, y[t])
            for ours, theirs in zip(as_tuple(state), as_tuple(last), strict=True):
                assert np.array_equal(ours, theirs)


@cells
def test_one_sequence(cell: str) -> None:
    layer, x, resets, reset = problem(cell)
    y, _ = layer(x[:, 0], resets=resets[:, 0], reset_state=reset)
    for stepped in (layer, layer.freeze()):
        for kind in (bool, np.bool_, np.array):
            state = None
            for t in range(len(x)):
                y_t, state = stepped.step(
                    x[t, 0], state, resets=kind(resets[t, 0]), reset_state=reset
                )
                assert np.array_equal(y_t, y[t])


@cells
def test_given_arrays_are_written(cell: str) -> None:
    layer, x, resets, reset = problem(cell)
    frozen = layer.freeze()
    _, state = frozen.step(x[0])
    kept = [part.copy() for part in as_tuple(state)]
    wanted = frozen.step(x[1], state, resets=resets[1], reset_state=reset)
    for part, before in zip(as_tuple(state), kept, strict=True):
        assert np.array_equal(part, before)
    out = (np.empty_like(wanted[0]), state)  # in place
    got = frozen.step(x[1], state, resets=resets[1], reset_state=reset, out=out)
    assert got[0] is out[0]
    assert np.array_equal(got[0], wanted[0])
    for ours, theirs in zip(as_tuple(state), as_tuple(wanted[1]), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_part_of_a_state() -> None:
    layer, x, resets, (_, c) = problem("lstm")
    frozen = layer.freeze()
    state = (np.ones((2, 3, 5), "float32"), None)
    wanted = layer.step(x[0], state, resets=resets[0], reset_state=(None, c))
    got = frozen.step(x[0], state, resets=resets[0], reset_state=(None, c))
    assert np.array_equal(got[0], wanted[0])
    assert np.array_equal(got[1][1], wanted[1][1])


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_other_types(dtype: str) -> None:
    pytest.importorskip("ml_dtypes")
    layer = fr.LSTM(4, 5, dtype=dtype, seed=0)
    random = np.random.default_rng(0)
    x = random.standard_normal((4, 3, 4)).astype(dtype)
    resets = random.random((4, 3)) < 0.5
    reset = tuple(random.standard_normal((1, 5)).astype(dtype) for _ in range(2))
    frozen = layer.freeze()
    state: Any = None
    other: Any = None
    out = (np.empty((3, 5), dtype), tuple(np.empty((1, 3, 5), dtype) for _ in range(2)))
    for t in range(4):
        wanted, state = layer.step(x[t], state, resets=resets[t], reset_state=reset)
        got, other = frozen.step(x[t], other, resets=resets[t], reset_state=reset)
        assert got.dtype == x.dtype
        assert np.array_equal(got, wanted)
        plain, _ = layer.step(x[t], other)
        assert frozen.step(x[t], other, out=out)[0] is out[0]
        assert np.array_equal(out[0], plain)


def test_other_libraries() -> None:
    torch = pytest.importorskip("torch")
    layer, x, resets, reset = problem("gru")
    for stepped in (layer, layer.freeze()):
        wanted = stepped.step(x[0], resets=resets[0], reset_state=reset)
        got = stepped.step(
            torch.tensor(x[0]), resets=torch.tensor(resets[0]), reset_state=torch.tensor(reset)
        )
        assert isinstance(got[1], torch.Tensor)
        assert np.array_equal(got[0].numpy(), wanted[0])


@cells
def test_wrong_arguments(cell: str) -> None:
    layer, x, resets, _ = problem(cell)
    for stepped in (layer, layer.freeze()):
        with pytest.raises(ValueError, match=r"^resets: expected shape \(3,\), got \(6, 3\)$"):
            stepped.step(x[0], resets=resets)
        with pytest.raises(TypeError, match=r"^resets: expected dtype bool or uint8, got float32$"):
            stepped.step(x[0], resets=np.zeros(3, "float32"))
        wrong = one_or_pair([np.zeros((3, 5), "float32") for _ in LETTERS[cell]])
        message = r"^reset_state(\[0\])?: expected shape \(2, 5\), got \(3, 5\)$"
        with pytest.raises(ValueError, match=message):
            stepped.step(x[0], resets=resets[0], reset_state=wrong)
