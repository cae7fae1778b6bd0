"""Frozen layers: the bits of the layer they were made from, in calls and step by step."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from support import LAYERS, Arguments, dtypes, outputs, same_bits, variants

cells = pytest.mark.parametrize("cell", list(LAYERS))
I, H, L = 5, 19, 2  # noqa: E741


def normal(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def layer_of(cell: str, dtype: str = "float32", num_layers: int = L, **options: Any) -> Any:
    return LAYERS[cell](I, H, num_layers, dtype=dtype, seed=0, **options)


def state_of(cell: str, batch: int, dtype: str = "float32", rows: int = L) -> Any:
    h, c = (normal((rows, batch, H), dtype, seed) for seed in (1, 2))
    return (h, c) if cell == "lstm" else h


def out_of(cell: str, batch: int, dtype: str = "float32", fill: float = np.nan) -> Any:
    """Arrays to be written, whose content nobody may miss."""
    state = tuple(np.full((L, batch, H), fill, dtype) for _ in range(2))
    return np.full((batch, H), fill, dtype), state if cell == "lstm" else state[0]


def same_step(got: Any, expected: Any) -> None:
    same_bits(outputs(*got), outputs(*expected))


@variants
@dtypes
@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "both"])
@pytest.mark.parametrize("bias", [False, True], ids=["bare", "bias"])
def test_calls_give_the_bits_of_the_layer(
    cell: str, options: Arguments, dtype: str, bidirectional: bool, bias: bool
) -> None:
    rows = L * (1 + bidirectional)
    for batch_first in (False, True):
        layer = layer_of(
            cell, dtype, bias=bias, bidirectional=bidirectional, batch_first=batch_first, **options
        )
        frozen = layer.freeze()
        x, state = normal((7, 7, I), dtype), state_of(cell, 7, dtype, rows)
        masks = {"lengths": [7, 0, 3, 1, 7, 6, 2], "resets": normal((7, 7)) > 1}
        for given in ({}, {"state": state}, masks, {"state": state, **masks}):
            same_step(frozen(x, **given), layer(x, **given))


@variants
@dtypes
@pytest.mark.parametrize("batch", range(1, 10))
def test_steps_give_the_bits_of_a_run(
    cell: str, options: Arguments, dtype: str, batch: int
) -> None:
    layer = layer_of(cell, dtype, **options)
    frozen = layer.freeze()
    x = normal((4, batch, I), dtype)
    for initial in (None, state_of(cell, batch, dtype)):
        y, last = layer(x, initial)
        state, in_place = initial, (np.empty((batch, H), dtype), copy.deepcopy(initial))
        for t in range(4):
            y_t, state = frozen.step(x[t], state)
            same_bits({"y": y_t}, {"y": y[t]})
            if initial is not None:
                got = frozen.step(x[t], in_place[1], out=in_place)
                assert got is in_place
                same_step(got, (y_t, state))
        same_step((y, state), (y, last))


@variants
@pytest.mark.parametrize("threads", [1, 2])
def test_large_steps(cell: str, options: Arguments, threads: int) -> None:
    """Weights of more than a few megabytes: on a team of threads, where there are several."""
    layer = LAYERS[cell](600, 1100, 2, seed=0, **options)
    frozen = layer.freeze()
    x = normal((2, 3, 600))
    before = fr.get_num_threads()
    fr.set_num_threads(threads)
    try:
        y, last = layer(x)
        _, state = frozen.step(x[0])
        got = frozen.step(x[1], state)
        out = (np.empty((3, 1100), "float32"), copy.deepcopy(state))
        in_place = frozen.step(x[1], out[1], out=out)
    finally:
        fr.set_num_threads(before)
    same_step(got, (y[1], last))
    same_step(in_place, got)


@variants
@pytest.mark.parametrize("weight_dtype", [None, "bfloat16", "int8"])
@pytest.mark.parametrize(("batch", "size"), [(1, 600), (3, 260)])
def test_steps_on_a_team_give_the_bits_of_one_thread(
    cell: str, options: Arguments, weight_dtype: str | None, batch: int, size: int
) -> None:
    """Of many steps some are timed alone and some as a team's, and decide of the rest."""
    frozen = LAYERS[cell](size, size, 2, seed=0, **options).freeze(weight_dtype)
    x = normal((100, batch, size))
    results = []
    before = fr.get_num_threads()
    try:
        for threads in (1, 2):
            fr.set_num_threads(threads)
            out = frozen.step(x[0])
            results.append([copy.deepcopy(out)])
            for x_t in x[1:]:
                results[-1].append(copy.deepcopy(frozen.step(x_t, out[1], out=out)))
    finally:
        fr.set_num_threads(before)
    for alone, together in zip(*results, strict=True):
        same_step(alone, together)


def test_steps_follow_the_number_of_threads() -> None:
    frozen = fr.LSTM(600, 600, seed=0).freeze()
    x = normal((1, 600))
    expected = frozen.step(x)
    before = fr.get_num_threads()
    try:
        for threads in (2, 1, 3, 2):
            fr.set_num_threads(threads)
            for _ in range(60):
                same_step(frozen.step(x), expected)
    finally:
        fr.set_num_threads(before)


@variants
@pytest.mark.parametrize("batch", [1, 2, 9])
def test_a_sequence_of_one_step_keeps_to_its_masks(
    cell: str, options: Arguments, batch: int
) -> None:
    layer = layer_of(cell, **options)
    frozen = layer.freeze()
    x, state = normal((1, batch, I)), state_of(cell, batch)
    resets, lengths = np.arange(batch)[None] % 2 == 0, np.arange(batch) % 2
    for masks in ({"resets": resets}, {"lengths": lengths}, {"resets": resets, "lengths": lengths}):
        same_step(frozen(x, state, **masks), layer(x, state, **masks))
    cut, _ = frozen(x, state, resets=resets)
    same_bits({"y": cut[:, ::2]}, {"y": frozen(x)[0][:, ::2]})


@cells
def test_more_sequences_than_in_the_step_before(cell: str) -> None:
    """What a step works in is kept for the next one, which may need more."""
    layer = layer_of(cell)
    frozen = layer.freeze()
    for batch in (1, 70, 3, 600):
        x, state = normal((batch, I)), state_of(cell, batch)
        y, last = layer(x[None], state)
        same_step(frozen.step(x, state), (y[0], last))


def test_the_new_state_of_threads_may_lie_over_x() -> None:
    """Units that one thread has finished are not what another still reads."""
    frozen = fr.LSTM(1024, 1024, seed=0).freeze()
    x, h, c = (normal((4, 1024), seed=seed) for seed in range(3))
    state = (h[None], c[None])
    before = fr.get_num_threads()
    fr.set_num_threads(2)
    try:
        expected = frozen.step(x, state)
        for _ in range(60):
            memory = x[None].copy()
            out = (np.empty_like(x), (memory, np.empty_like(memory)))
            same_step(frozen.step(memory[0], state, out=out), expected)
    finally:
        fr.set_num_threads(before)


@cells
def test_out_is_written_and_returned(cell: str) -> None:
    frozen = layer_of(cell).freeze()
    x, state = normal((3, I)), state_of(cell, 3)
    expected = frozen.step(x, state)
    for given in (state, list(state) if cell == "lstm" else state):
        out = out_of(cell, 3)
        assert frozen.step(x, given, out=out) is out
        same_step(out, expected)
        again = frozen.step(x, given, out=list(out))
        assert again[0] is out[0]
        assert again[1] is out[1]


def test_half_a_pair_is_zero_in_the_other_half() -> None:
    frozen = layer_of("lstm").freeze()
    x, (h, c) = normal((3, I)), state_of("lstm", 3)
    zeros = np.zeros_like(h)
    for half, full in (((h, None), (h, zeros)), ((None, c), (zeros, c)), (None, (zeros, zeros))):
        expected = frozen.step(x, full)
        same_step(frozen.step(x, half), expected)
        same_step(frozen.step(x, half and list(half)), expected)
        same_step(frozen.step(x, half, out=out_of("lstm", 3)), expected)


def strided(array: Any) -> list[Any]:
    """The same values in arrays that are not dense, not aligned, or not quite NumPy's."""

    class Subclass(np.ndarray):
        pass

    wide = np.repeat(array, 2, -1)[..., ::2]
    backwards = np.ascontiguousarray(array[::-1])[::-1]
    rows = np.zeros((*array.shape[:-1], array.shape[-1] + 3), array.dtype)[..., :-3]
    rows[...] = array
    fortran = np.asfortranarray(array)
    raw = np.zeros(array.nbytes + 1, "uint8")[1:].view(array.dtype).reshape(array.shape)
    raw[...] = array
    read_only = array.copy()
    read_only.flags.writeable = False
    unpickled = pickle.loads(pickle.dumps(array))
    return [wide, backwards, rows, fortran, raw, read_only, unpickled, array.view(Subclass)]


@cells
def test_any_layout_of_the_inputs(cell: str) -> None:
    frozen = layer_of(cell).freeze()
    x, state = normal((3, I)), state_of(cell, 3)
    expected = frozen.step(x, state)
    for other in strided(x):
        same_step(frozen.step(other, state), expected)
        same_step(frozen.step(other, state, out=out_of(cell, 3)), expected)
    for others in zip(*map(strided, state), strict=True) if cell == "lstm" else strided(state):
        same_step(frozen.step(x, others), expected)
        same_step(frozen.step(x, others, out=out_of(cell, 3)), expected)


@cells
def test_outputs_with_gaps_between_their_rows(cell: str) -> None:
    """As in the slices of a larger state: rows must be dense, nothing else."""
    frozen = layer_of(cell).freeze()
    x, state = normal((3, I)), state_of(cell, 3)
    whole = np.full((3 * L, 7, H + 2), np.nan, "float32")
    y = np.full((3, 2 * H), np.nan, "float32")
    h, c = whole[:L, ::-2][:, :3, :H], whole[L : 3 * L : 2, 1:4, 2:]
    out = (y[:, H:], (h, c) if cell == "lstm" else h)
    assert frozen.step(x, state, out=out) is out
    same_step(out, frozen.step(x, state))
    assert np.isnan(y[:, :H]).all()
    written = H * 3 * L * (2 if cell == "lstm" else 1)
    assert (~np.isnan(whole)).sum() == written


@cells
def test_outputs_may_overlap_what_was_read(cell: str) -> None:
    layer = LAYERS[cell](H, H, L, seed=0)
    frozen = layer.freeze()
    x, state = normal((3, H)), state_of(cell, 3)
    expected = frozen.step(x, state)
    # y over x.
    buffer, out = x.copy(), out_of(cell, 3)
    same_step(frozen.step(buffer, state, out=(buffer, out[1])), expected)
    # The new states a row of memory further than the old ones.
    memory = np.zeros((L * 3 + 1) * H, "float32")
    old, new = memory[:-H].reshape(L, 3, H), memory[H:].reshape(L, 3, H)
    first = state[0] if cell == "lstm" else state
    old[...] = first
    if cell == "lstm":
        out = (np.empty_like(x), (new, np.empty_like(first)))
        same_step(frozen.step(x, (old, state[1]), out=out), expected)
        # h and c exchanged.
        h, c = (part.copy() for part in state)
        got = frozen.step(x, (h, c), out=(np.empty_like(x), (c, h)))
    else:
        got = frozen.step(x, old, out=(np.empty_like(x), new))
    same_step(got, expected)
    # The new state over x.
    memory = np.zeros((L, 3, H), "float32")
    memory[0] = x
    out = out_of(cell, 3)
    target = (memory, out[1][1]) if cell == "lstm" else memory
    same_step(frozen.step(memory[0], state, out=(out[0], target)), expected)


@cells
def test_no_sequences(cell: str) -> None:
    frozen = layer_of(cell).freeze()
    x = np.empty((0, I), "float32")
    for out in (None, out_of(cell, 0)):
        y, state = frozen.step(x, out=out)
        assert y.shape == (0, H)
        h = state[0] if cell == "lstm" else state
        assert h.shape == (L, 0, H)
    assert frozen(np.empty((0, 2, I), "float32"))[0].shape == (0, 2, H)
    assert frozen(np.empty((2, 0, I), "float32"))[0].shape == (2, 0, H)


@cells
@dtypes
def test_not_a_number_stays_in_its_sequence(cell: str, dtype: str) -> None:
    frozen = layer_of(cell, dtype).freeze()
    x, state = normal((4, I), dtype), state_of(cell, 4, dtype)
    clean = outputs(*frozen.step(x, state))
    x[2, 1] = np.nan
    got = outputs(*frozen.step(x, state))
    for name, value in got.items():
        assert np.isnan(value[..., 2, :]).all(), name
        others = [0, 1, 3]
        same_bits({name: value[..., others, :]}, {name: clean[name][..., others, :]})


@cells
def test_later_changes_of_the_layer_have_no_effect(cell: str) -> None:
    layer = layer_of(cell)
    frozen = layer.freeze()
    x, state = normal((3, I)), state_of(cell, 3)
    before = [frozen(x[None], state), frozen.step(x, state)]
    for value in layer.parameters().values():
        value[...] = np.nan
    layer.load_state_dict(layer_of(cell).state_dict() | {})
    for got, expected in zip([frozen(x[None], state), frozen.step(x, state)], before, strict=True):
        same_step(got, expected)
    del layer
    gc.collect()
    same_step(frozen.step(x, state), before[1])


def test_results_are_new_arrays() -> None:
    frozen = layer_of("lstm").freeze()
    x, state = normal((3, I)), state_of("lstm", 3)
    y, (h, c) = frozen.step(x, state)
    arrays = [y, h, c, x, *state]
    for i, a in enumerate(arrays):
        assert not any(np.shares_memory(a, b) for b in arrays[:i])
    kept = [a.copy() for a in arrays]
    frozen.step(x, (h, c))
    for a, b in zip(arrays, kept, strict=True):
        same_bits({"a": a}, {"a": b})


@cells
def test_torch_tensors(cell: str) -> None:
    torch = pytest.importorskip("torch")
    frozen = layer_of(cell).freeze()
    x, state = normal((3, I)), state_of(cell, 3)
    expected = frozen.step(x, state)

    def tensors(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(tensors(part) for part in value)
        return torch.from_numpy(value.copy())

    y, new = frozen.step(tensors(x), tensors(state))
    for part in (y, *(new if cell == "lstm" else (new,))):
        assert isinstance(part, torch.Tensor)
    same_step((y, new), expected)
    same_step(frozen(tensors(x[None]), tensors(state)), frozen(x[None], state))
    # Written where they lie, also in place.
    out = tensors(out_of(cell, 3))
    assert frozen.step(tensors(x), tensors(state), out=out) is not None
    same_step(out, expected)
    old = tensors(state)
    assert frozen.step(x, old, out=(out[0], old))[1] is old
    same_step((out[0], old), expected)


@cells
def test_jax_arrays(cell: str) -> None:
    jax = pytest.importorskip("jax")
    frozen = layer_of(cell).freeze()
    x, state = normal((3, I)), state_of(cell, 3)
    expected = frozen.step(x, state)
    given = tuple(map(jax.numpy.asarray, state)) if cell == "lstm" else jax.numpy.asarray(state)
    got = frozen.step(jax.numpy.asarray(x), given)
    assert isinstance(got[0], jax.Array)
    same_step(got, expected)
    same_step(frozen.step(x, given, out=out_of(cell, 3)), expected)
    message = r"^out\[0\]: expected an array to write to, got a read-only one$"
    with pytest.raises(ValueError, match=message):
        frozen.step(x, state, out=(jax.numpy.zeros((3, H)), out_of(cell, 3)[1]))


@cells
def test_steps_with_out_allocate_nothing(cell: str) -> None:
    frozen = layer_of(cell).freeze()
    x, state = normal((3, I)), state_of(cell, 3)
    out = (np.empty((3, H), "float32"), state)

    def run(steps: int) -> None:
        for _ in range(steps):
            frozen.step(x, state, out=out)

    run(10)
    gc.collect()
    tracemalloc.start()
    try:
        run(10)  # the loop's own objects
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        run(1000)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after <= before + 64  # an int that the loop left
    assert peak - before < 1024  # frames and tuples of a single call


@cells
def test_many_threads_may_step_at_once(cell: str) -> None:
    """With sizes that keep the GIL and sizes that release it, side by side."""
    small, large = layer_of(cell).freeze(), LAYERS[cell](I, 200, 1, seed=1).freeze()
    work = []
    for seed in range(4):
        for frozen, batch in ((small, 1 + seed), (large, 8)):
            x = normal((30, batch, I), seed=seed)
            work.append((frozen, x, frozen(x)))
    failures: list[BaseException] = []

    def run(frozen: Any, x: Any, expected: Any) -> None:
        try:
            for _ in range(10):
                state = None
                for t in range(len(x)):
                    y, state = frozen.step(x[t], state)
                    same_bits({"y": y}, {"y": expected[0][t]})
                same_step((expected[0], state), expected)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=job) for job in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


def test_attributes_and_repr() -> None:
    layer = fr.LSTM(5, 7, 2, batch_first=True)
    frozen = layer.freeze()
    assert isinstance(frozen, fr.Frozen)
    assert repr(frozen) == "LSTM(5, 7, num_layers=2, batch_first=True).freeze()"
    assert (frozen.input_size, frozen.hidden_size, frozen.num_layers) == (5, 7, 2)
    assert (frozen.batch_first, frozen.bidirectional) == (True, False)
    assert (frozen.dtype, frozen.weight_dtype) == ("float32", "float32")
    assert fr.GRU(5, 7, dtype="float64").freeze().weight_dtype == "float64"
    quantised = fr.GRU(5, 7).freeze(weight_dtype="bfloat16")
    assert repr(quantised) == "GRU(5, 7).freeze(weight_dtype='bfloat16')"
    assert (quantised.dtype, quantised.weight_dtype) == ("float32", "bfloat16")


@cells
def test_a_copy_is_the_same_object_and_a_pickle_is_refused(cell: str) -> None:
    frozen = layer_of(cell).freeze()
    assert copy.copy(frozen) is frozen
    assert copy.deepcopy([frozen])[0] is frozen
    with pytest.raises(TypeError, match=r"freeze\(\): packed weights .* cannot be pickled"):
        pickle.dumps(frozen)


@cells
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits(cell: str, dtype: str) -> None:
    """A step rounds c where it ends, as the layer's own step does."""
    torch = pytest.importorskip("torch")
    layer = layer_of(cell, dtype)
    frozen = layer.freeze()
    x = torch.from_numpy(normal((4, 3, I))).to(getattr(torch, dtype))
    got, state, expected = None, None, None
    same_bits(as_floats(frozen(x)), as_floats(layer(x)))
    for t in range(4):
        got, expected = frozen.step(x[t], state), layer.step(x[t], state)
        same_bits(as_floats(got), as_floats(expected))
        assert got[0].dtype == x.dtype
        state = got[1]
    out = tuple(torch.empty_like(part) for part in (got[0], *as_tuple(state)))
    out = (out[0], out[1:] if cell == "lstm" else out[1])
    same_bits(as_floats(frozen.step(x[0], state, out=out)), as_floats(layer.step(x[0], state)))


@cells
def test_a_layer_of_mixed_precision_keeps_its_bits(cell: str) -> None:
    layer = layer_of(cell, compute_dtype="bfloat16")
    frozen = layer.freeze()
    assert frozen.weight_dtype == "bfloat16"
    x, state = normal((4, 3, I)), state_of(cell, 3)
    same_step(frozen(x, state), layer(x, state))
    same_step(frozen.step(x[0], state), layer.step(x[0], state))
    same_step(frozen(x, state), layer_of(cell).freeze("bfloat16")(x, state))


def as_tuple(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


def as_floats(result: Any) -> Arguments:
    y, state = result
    parts = {"y": y, **{str(i): part for i, part in enumerate(as_tuple(state))}}
    return {name: part.float().numpy() for name, part in parts.items()}


def test_states_that_change_places() -> None:
    """The new h where c was, and the other way round: nothing is read after it was written."""
    frozen = fr.LSTM(4, 5, 2, seed=0).freeze()
    x = np.random.default_rng(3).standard_normal((3, 4)).astype("float32")
    _, (h, c) = frozen.step(x)
    y, expected = frozen.step(x, (h.copy(), c.copy()))
    y_out = np.empty_like(y)
    _, got = frozen.step(x, (h, c), out=(y_out, (c, h)))
    assert got[0] is c
    assert np.array_equal(y_out, y)
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))
