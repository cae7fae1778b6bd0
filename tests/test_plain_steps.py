"""Calls and steps of arrays that can be used as they lie: NumPy's and PyTorch's, every dtype."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import fusedrnn as fr
from fusedrnn import bf16

B, INPUT, H, L = 3, 5, 6, 2
CELLS = (fr.LSTM, fr.GRU, fr.RNN, fr.SLSTM)
DTYPES = ("float32", "float64", "bfloat16", "float16")
LIBRARIES = ("numpy", "torch")


def array(library: str, dtype: str, *shape: int, seed: int = 0) -> Any:
    numbers = np.random.default_rng(seed).standard_normal(shape)
    if library == "torch":
        return torch.from_numpy(numbers).to(getattr(torch, dtype))
    return numbers.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def states_of(layer: Any, library: str) -> Any:
    sizes = [H] * len(layer._states)
    parts = [abs(array(library, layer.dtype, L, B, n, seed=i)) for i, n in enumerate(sizes)]
    return parts[0] if len(parts) == 1 else tuple(parts)


def parts(results: Any) -> list[Any]:
    y, state = results
    return [y, *(state if isinstance(state, tuple) else (state,))]


def bits(value: Any) -> bytes:
    return (value.view(torch.uint8).numpy() if isinstance(value, torch.Tensor) else value).tobytes()


def check_same(found: Any, expected: Any, like: Any) -> None:
    assert isinstance(found[1], tuple) == isinstance(expected[1], tuple)
    for a, b in zip(parts(found), parts(expected), strict=True):
        assert type(a) is type(like)
        assert a.dtype == b.dtype == like.dtype
        assert a.shape == b.shape
        assert bits(a) == bits(b)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_they_are_known_and_give_the_usual_bits(cell: Any, dtype: str, library: str) -> None:
    if library == "torch" and not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("this PyTorch has no table")
    layer = cell(INPUT, H, num_layers=L, dtype=dtype, seed=0)
    frozen = layer.freeze()
    x = array(library, dtype, B, INPUT)
    for state in (None, states_of(layer, library)):
        expected = frozen._step(x, state, None, None, None)
        known, of_layer = frozen._fast_step(x, state, None), layer._stack.call(x, state, 3)
        assert known is not None
        for found in (known, of_layer, frozen.step(x, state), layer.step(x, state)):
            check_same(found, expected, x)
        out = copy.deepcopy(expected)
        for part in parts(out):
            part[...] = 0
        assert frozen._fast_step(x, state, out) is out
        check_same(out, expected, x)


def plain_call(frozen: Any, x: Any, state: Any) -> Any:
    """The quick way of a frozen layer's calls, or None."""
    return frozen._plain_call(None, x, state, int(frozen.batch_first), False)


def usual_call(layer: Any, x: Any, state: Any) -> Any:
    """The way of calls that have options."""
    y, state, _, _ = layer._forward(
        x, state, (None,) * 3 + ("zero", None), False, None, None, save=False
    )
    return y, state


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_calls_are_known_and_give_the_usual_bits(cell: Any, dtype: str, library: str) -> None:
    if library == "torch" and not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("this PyTorch has no table")
    for batch_first, bidirectional in ((False, True), (True, False)):
        layer = cell(
            INPUT, H, L, dtype=dtype, seed=0, batch_first=batch_first, bidirectional=bidirectional
        )
        frozen = layer.freeze()
        runs = 2 * L if bidirectional else L
        given = [abs(array(library, dtype, runs, B, H, seed=i)) for i in range(len(layer._states))]
        x = array(library, dtype, *((B, 4) if batch_first else (4, B)), INPUT)
        ones = [part[:, 1] for part in given]
        for of, states in ((x, None), (x, given), (x[:, 1] if not batch_first else x[1], ones)):
            state = states and (tuple(states) if len(states) > 1 else states[0])
            known = layer._stack.call(of, state, int(batch_first))
            packed = plain_call(frozen, of, state)
            expected = usual_call(layer, of, state)
            assert known is not None
            assert packed is not None
            for found in (known, layer(of, state), packed, frozen(of, state)):
                check_same(found, expected, x)
                assert [a.strides if library == "numpy" else a.stride() for a in parts(found)] == [
                    a.strides if library == "numpy" else a.stride() for a in parts(expected)
                ]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("weight_dtype", ["bfloat16", "int8"])
def test_calls_with_smaller_weights_give_the_usual_bits(weight_dtype: Any, library: str) -> None:
    if library == "torch" and not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("this PyTorch has no table")
    for bidirectional in (False, True):
        layer = fr.LSTM(INPUT, H, L, bidirectional=bidirectional, seed=0)
        frozen = layer.freeze(weight_dtype)
        for T in (1, 4):
            x = array(library, "float32", T, B, INPUT)
            packed, expected = plain_call(frozen, x, None), usual_call(frozen._layer, x, None)
            assert packed is not None
            assert bits(packed[0]) != bits(layer(x)[0])
            for found in (packed, frozen(x)):
                check_same(found, expected, x)


def test_calls_without_options_go_past_python(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = fr.GRU(INPUT, H, L, seed=0)
    x, h = array("numpy", "float32", 4, B, INPUT), states_of(layer, "numpy")
    runs = (layer, layer.freeze())

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the usual way")

    monkeypatch.setattr(fr.GRU, "_forward", refuse)
    out = (np.zeros((4, B, H), "float32"), np.zeros_like(h))
    for run in runs:
        check_same(run(x, h), runs[0](x, h), x)
        assert run(x[:1], h)[0].shape == (1, B, H)
        options: Any
        for options in (
            {"lengths": [4, 2, 1]},
            {"mask": np.ones((4, B), bool)},
            {"resets": np.zeros((4, B), bool)},
            {"reset_state": h[:, 0]},
            {"padding": "last"},
            {"padding": np.str_("zero")},
            {"return_cells": True},
            {"return_cells": 0},
            {"out": out},
        ):
            with pytest.raises(AssertionError, match="the usual way"):
                run(x, h, **options)


def test_calls_that_are_left_to_the_usual_way() -> None:
    layer = fr.RNN(INPUT, H, L, seed=0)
    frozen = layer.freeze()
    x, h = array("numpy", "float32", 4, B, INPUT), states_of(layer, "numpy")
    for of, state in (
        (x.astype(">f4"), None),  # in the other order of bytes
        (x[:0], None),
        (x.astype("float64"), None),
        (x, (h,)),
        (x, [h]),
        (x[0, 0], None),
        (torch.from_numpy(x).requires_grad_(), None),
        (x, torch.from_numpy(h).requires_grad_()),
    ):
        assert layer._stack.call(of, state, 0) is None
        assert plain_call(frozen, of, state) is None
    assert frozen._plain_call(None, x, h, 0, True) is None
    run: Any
    for run in (layer, frozen):
        with pytest.raises(TypeError, match="state: expected an array"):
            run(x, (h,))
        with pytest.raises(ValueError, match=r"x: expected shape \(\*, \*, 5\), got \(4, 3, 4\)"):
            run(x[..., 1:])
        with pytest.raises(ValueError, match=r"state: expected shape \(2, 3, 6\), got \(1, 3, 6\)"):
            run(x, h[:1])
        with pytest.raises(TypeError, match="x: expected dtype float32, got float64"):
            run(x.astype("float64"))
        with pytest.raises(ValueError, match="padding: expected"):
            run(x, padding="zeros")
        for of, state in (
            (torch.from_numpy(x).requires_grad_(), None),
            (x, torch.from_numpy(h).requires_grad_()),
        ):
            with pytest.warns(UserWarning, match="requires a gradient"):
                run(of, state)
        assert run(x[:0])[0].shape == (0, B, H)
        wide = np.repeat(x, 2, axis=1)[:, ::2]  # with a stride
        check_same(run(wide, h), layer(x, h), x)


@pytest.mark.parametrize("of", ["h", "c"])
def test_what_runs_as_a_state_is_asked_for_its_gradient(of: str) -> None:
    """Such code may give x other memory, which is what is read then."""
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("this PyTorch has no table")
    layer = fr.LSTM(INPUT, H, L, seed=0)
    old = array("torch", "float32", 4, B, INPUT)
    state = states_of(layer, "torch")
    asked = state["hc".index(of)]

    class Moves(torch.overrides.TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = getattr(getattr(func, "__self__", None), "__name__", "")
            if name == "requires_grad" and args[0] is asked:
                self.x.data = -old
            return func(*args, **(kwargs or {}))

    run: Any
    for run in (layer, layer.freeze()):
        expected = run(-old, state)
        moves = Moves()
        moves.x = old.detach()  # old keeps the memory that this has at first
        with moves:
            found = run(moves.x, state)
        assert bits(moves.x) == bits(-old)
        check_same(found, expected, old)


def test_results_have_no_metadata() -> None:
    layer = fr.LSTM(INPUT, H, L, seed=0)
    frozen = layer.freeze()
    noted = np.dtype("float32", metadata={"unit": "m"})
    for T in (4, 400):  # small results are NumPy's own memory
        x = array("numpy", "float32", T, B, INPUT).astype(noted)
        assert x.dtype.metadata
        run: Any
        for run, of in ((layer, x), (frozen, x), (layer.step, x[0]), (frozen.step, x[0])):
            assert all(part.dtype.metadata is None for part in parts(run(of)))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_resets_are_known_and_give_the_usual_bits(cell: Any, dtype: str, library: str) -> None:
    if library == "torch" and not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("this PyTorch has no table")
    layer = cell(INPUT, H, num_layers=L, dtype=dtype, seed=0)
    frozen = layer.freeze()
    x, state = array(library, dtype, B, INPUT), states_of(layer, library)
    for begins in ((False, True, False), (True, True, True), (False, False, False)):
        for kind in ("bool", "uint8"):
            resets: Any = np.array(begins).astype(kind)
            expected = frozen._step(x, state, resets, None, None)
            wide = np.repeat(resets, 2)[::2]  # with a stride
            for mask in (resets, wide):
                one = torch.from_numpy(mask) if library == "torch" else mask
                known = frozen._fast_step(x, state, None, one)
                assert known is not None
                for found in (known, layer._stack.call(x, state, 3, one)):
                    check_same(found, expected, x)
                check_same(frozen.step(x, None, resets=one), frozen.step(x), x)
                out = copy.deepcopy(expected[0]), copy.deepcopy(state)  # in place
                assert frozen._fast_step(x, out[1], out, one) is out
                check_same(out, expected, x)
        for run in (frozen.step, layer.step):
            check_same(run(x, state, resets=np.array(begins)), expected, x)


def test_a_reset_takes_nothing_of_a_state_along() -> None:
    layer = fr.LSTM(INPUT, H, num_layers=L, seed=0)
    x, (h, c) = array("numpy", "float32", B, INPUT), states_of(layer, "numpy")
    h[:, 1], c[:, 1] = np.nan, np.inf
    resets = np.array([False, True, False])
    for run in (layer.step, layer.freeze().step):
        y, state = run(x, (h, c), resets=resets)
        assert all(np.isfinite(part).all() for part in (y, *state))
        for wrong, message in (
            (resets[:2], r"resets: expected shape"),
            (resets.astype("float32"), "resets: expected dtype bool or uint8"),
        ):
            with pytest.raises((TypeError, ValueError), match=message):
                run(x, (h, c), resets=wrong)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_single_sequence(library: str) -> None:
    layer = fr.LSTM(INPUT, H, num_layers=L, seed=0)
    x, state = array(library, "float32", B, INPUT), states_of(layer, library)
    one = tuple(part[:, 1] for part in state)
    y, (h, c) = layer.step(x, state)
    check_same(layer.step(x[1], one), (y[1], (h[:, 1], c[:, 1])), x)


def test_states_that_are_absent_or_of_another_library() -> None:
    layer = fr.LSTM(INPUT, H, num_layers=L, seed=0)
    frozen = layer.freeze()
    x, (h, c) = array("numpy", "float32", B, INPUT), states_of(layer, "numpy")
    for run in (layer.step, frozen.step):
        check_same(run(x, (h, None)), run(x, (h, np.zeros_like(c))), x)
        mixed = run(x, (torch.from_numpy(h), c))
        check_same(mixed, run(x, (h, c)), x)
        check_same(
            run(torch.from_numpy(x), (h, c)), run(torch.from_numpy(x), (h, c)), torch.ones(1)
        )


def test_weights_are_those_of_the_moment() -> None:
    """Nothing packed is kept, for writes to arrays leave no trace."""
    layer = fr.GRU(INPUT, H, num_layers=L, seed=0)
    x = array("numpy", "float32", B, INPUT)
    before, _ = layer.step(x)
    layer.parameters()["weight_ih_l0"][0, 0] += 1
    after, _ = layer.step(x)
    assert not np.array_equal(before, after)
    check_same(layer.step(x), layer.freeze().step(x), x)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        check_same(copied.step(x), layer.step(x), x)
        copied.parameters()["weight_hh_l1"][...] = 0
        check_same(layer.step(x), layer.freeze().step(x), x)


def test_tensors_that_say_something_else_than_their_memory() -> None:
    layer = fr.GRU(INPUT, H, num_layers=L, seed=0)
    numbers = array("torch", "float32", B, INPUT)
    negated = torch._neg_view(numbers)
    for run in (layer.step, layer.freeze().step):
        check_same(run(negated), run(-numbers), numbers)
        check_same(run(numbers.t().contiguous().t()), run(numbers), numbers)
    watched = numbers.clone().requires_grad_()
    with pytest.warns(UserWarning, match="requires a gradient"):
        layer.step(watched)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer.step(numbers)


def test_the_packages_own_bfloat16_is_not_shown() -> None:
    layer = fr.GRU(INPUT, H, dtype="bfloat16", seed=0)
    x = array("numpy", "bfloat16", B, INPUT)
    check_same(layer.step(x.view(bf16.BITS)), layer.step(x), x)


def test_errors_stay() -> None:
    layer = fr.LSTM(INPUT, H, num_layers=L, seed=0)
    x, (h, c) = array("torch", "float32", B, INPUT), states_of(layer, "torch")
    for run in (layer.step, layer.freeze().step):
        with pytest.raises(ValueError, match=r"x_t: expected shape \(\*, 5\), got \(3, 4\)"):
            run(x[:, 1:])
        with pytest.raises(TypeError, match="x_t: expected dtype float32, got float64"):
            run(x.double())
        with pytest.raises(ValueError, match=r"state\[1\]"):
            run(x, (h, c[:1]))
        with pytest.raises(ValueError, match="expected a pair"):
            run(x, (h, c, c))
    out = (np.zeros((B, H), "float32"), tuple(np.zeros((L, B, H), "float32") for _ in "hc"))
    out[0].setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        layer.freeze().step(x, out=out)
    both = fr.GRU(INPUT, H, bidirectional=True)
    with pytest.raises(ValueError, match="bidirectional"):
        both.step(x)


@pytest.mark.parametrize("library", LIBRARIES)
def test_more_memory_than_there_is(library: str) -> None:
    layer = fr.GRU(INPUT, H, seed=0)
    shape = (2**24, 2**20, INPUT)  # within int64, beyond any address space
    x: Any = np.broadcast_to(np.float32(0), shape)
    if library == "torch":
        x = torch.zeros(1).expand(shape)
    message = r"^out of memory: cannot allocate [0-9]{15} bytes for an array$"
    for run in (layer, layer.freeze()):
        with pytest.raises(MemoryError, match=message):
            run(x)
