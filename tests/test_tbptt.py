"""Truncated backpropagation through time."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from support import LAYERS, same_bits

cells = pytest.mark.parametrize("cell", list(LAYERS))
T, B, I, H = 24, 3, 4, 5  # noqa: E741


def layer_of(cell: str, **options: Any) -> Any:
    return LAYERS[cell](I, H, 2, dtype="float64", seed=0, **options)


def sequence(seed: int = 0) -> tuple[Any, Any]:
    """x, and the gradient of a loss with respect to y."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((T, B, I)), rng.standard_normal((T, B, H))


def state_of(cell: str, seed: int = 5) -> Any:
    rng = np.random.default_rng(seed)
    h, c = rng.standard_normal((2, 2, B, H))
    return (h, c) if cell == "lstm" else h


def arrays(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


@cells
@pytest.mark.parametrize("masked", [False, True])
def test_one_chunk_is_full_backpropagation(cell: str, masked: bool) -> None:
    layer, (x, dy), state = layer_of(cell), sequence(), state_of(cell)
    rng = np.random.default_rng(1)
    masks = {"lengths": [T, 0, 7], "resets": rng.random((T, B)) < 0.2} if masked else {}
    (chunk,) = fr.tbptt(layer, x, k1=T, k2=T, state=state, **masks)
    y, last, tape = layer.forward(x, state, **masks)
    assert (chunk.start, chunk.stop) == (0, T)
    assert np.array_equal(chunk.y, y)
    assert all(map(np.array_equal, arrays(chunk.state), arrays(last)))
    same_bits(chunk.backward(dy), layer.backward(tape, dy))


@cells
@pytest.mark.parametrize(("k1", "k2"), [(4, 4), (4, 8), (5, 7), (3, 24), (1, 6), (7, 7), (24, 24)])
@pytest.mark.parametrize("masked", [False, True])
def test_windows(cell: str, k1: int, k2: int, masked: bool) -> None:
    """Each chunk's gradients are those of its loss over its window, from a constant state."""
    layer, (x, dy), state = layer_of(cell), sequence(), state_of(cell)
    lengths = np.array([T, 0, 13]) if masked else None
    resets = np.random.default_rng(2).random((T, B)) < 0.2 if masked else None
    whole, last = layer(x, state, lengths, resets)
    stop = 0
    for chunk in fr.tbptt(layer, x, None, k1, k2, state=state, lengths=lengths, resets=resets):
        assert chunk.start == stop
        stop = min(stop + k1, T)
        assert chunk.stop == stop
        np.testing.assert_allclose(chunk.y, whole[chunk.start : stop], rtol=1e-12, atol=1e-14)
        begin = max(0, stop - k2)
        window = [
            None if lengths is None else np.clip(lengths - begin, 0, stop - begin),
            None if resets is None else resets[begin:stop],
        ]
        entering = state
        if begin > 0:
            before = [
                None if lengths is None else np.clip(lengths, 0, begin),
                None if resets is None else resets[:begin],
            ]
            _, entering = layer(x[:begin], state, *before)
        _, _, tape = layer.forward(x[begin:stop], entering, *window)
        above = np.concatenate([np.zeros_like(dy[begin : chunk.start]), dy[chunk.start : stop]])
        wanted = layer.backward(tape, above)
        grads = chunk.backward(dy[chunk.start : stop])
        assert ("h0" in grads) == (begin == 0)
        assert np.array_equal(grads["x"].shape, x[chunk.start : stop].shape)
        wanted["x"] = wanted["x"][chunk.start - begin :]
        for name, value in grads.items():
            np.testing.assert_allclose(value, wanted[name], rtol=1e-9, atol=1e-12, err_msg=name)
    assert stop == T
    assert all(np.allclose(a, b, 1e-12, 1e-14) for a, b in zip(arrays(chunk.state), arrays(last)))  # noqa: B905


@cells
def test_where_resets_cut_nothing_is_lost(cell: str) -> None:
    """Chunks that begin with a reset: their gradients add up to those of the whole."""
    layer, (x, dy) = layer_of(cell), sequence()
    resets = np.zeros((T, B), bool)
    resets[::6] = True
    _, _, tape = layer.forward(x, resets=resets)
    full = layer.backward(tape, dy)
    sums = dict.fromkeys(layer.parameters(), 0.0)
    for chunk in fr.tbptt(layer, x, k1=6, resets=resets):
        grads = chunk.backward(dy[chunk.start : chunk.stop])
        for name in sums:
            sums[name] = sums[name] + grads[name]
    for name, value in sums.items():
        np.testing.assert_allclose(value, full[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [bool, np.uint8])
def test_masks_and_reset_states(kind: Any) -> None:
    """Chunks that resets part, so that nothing of the whole sequence's gradients is lost."""
    layer, (x, dy) = layer_of("lstm"), sequence()
    random = np.random.default_rng(4)
    mask = random.random((T, B)) < 0.7
    mask[::6] = True
    resets = np.zeros((T, B), bool)
    resets[::6] = True
    runs, size = layer.num_layers, layer.hidden_size
    reset_state = tuple(random.standard_normal((runs, size)).astype(x.dtype) for _ in range(2))
    masks = {"mask": mask.astype(kind), "resets": resets.astype(kind), "reset_state": reset_state}
    y, _, tape = layer.forward(x, **masks)
    wanted = layer.backward(tape, dy)
    total: dict[str, Any] = {}
    for chunk in fr.tbptt(layer, x, k1=6, **masks):
        assert np.array_equal(chunk.y, y[chunk.start : chunk.stop])
        grads = chunk.backward(dy[chunk.start : chunk.stop])
        for name in grads.keys() - {"x", "h0", "c0"}:
            total[name] = total.get(name, 0) + grads[name]
    assert total.keys() == wanted.keys() - {"x", "h0", "c0"}
    for name, value in total.items():
        assert np.allclose(value, wanted[name], rtol=1e-4, atol=1e-5), name
    # A window reaches back over its chunk, and sums what each part of it has.
    for chunk in fr.tbptt(layer, x, k1=6, k2=12, **masks):
        grads = chunk.backward(dy[chunk.start : chunk.stop])
        assert grads["reset_h"].shape == (runs, size)
        assert grads["reset_c"].any()


def test_a_loss() -> None:
    layer, (x, target) = layer_of("gru"), sequence()

    def squared(y: Any, start: int, stop: int) -> tuple[float, Any]:
        error = y - target[start:stop]
        return float((error**2).sum()), 2 * error

    for chunk in fr.tbptt(layer, x, squared, 6, 12):
        value, dy = squared(chunk.y, chunk.start, chunk.stop)
        assert chunk.loss == value
        assert chunk.grads is not None
        same_bits(chunk.grads, chunk.backward(dy))


def test_training_between_chunks() -> None:
    """Parameters may change: a window is computed with those of its time."""
    layer, (x, target) = layer_of("lstm"), sequence()
    losses = []
    for _ in range(30):
        total = 0.0
        for chunk in fr.tbptt(layer, x, k1=6, k2=12):
            error = chunk.y - 0.3 * target[chunk.start : chunk.stop]
            total += float((error**2).sum())
            grads = chunk.backward(2 * error)
            fr.clip_grad_norm(grads, 1.0)
            for name, parameter in layer.parameters().items():
                parameter[...] -= 0.05 * grads[name]
        losses.append(total)
    assert losses[-1] < 0.95 * losses[0]


def test_batch_first_and_dstate() -> None:
    x, dy = sequence()
    first, layer = layer_of("lstm", batch_first=True), layer_of("lstm")
    above = state_of("lstm", 8)
    resets = np.random.default_rng(2).random((T, B)) < 0.2
    chunks = zip(
        fr.tbptt(first, x.swapaxes(0, 1), k1=10, resets=resets.T),
        fr.tbptt(layer, x, k1=10, resets=resets),
        strict=True,
    )
    for turned, chunk in chunks:
        assert np.array_equal(turned.y.swapaxes(0, 1), chunk.y)
        dy_part = dy[chunk.start : chunk.stop]
        grads = chunk.backward(dy_part, above)
        other = turned.backward(dy_part.swapaxes(0, 1), above)
        assert all(np.array_equal(other[name], grads[name]) for name in layer.parameters())
        assert not np.array_equal(chunk.backward(dy_part)["weight_hh_l0"], grads["weight_hh_l0"])


def test_memory_of_the_window_alone() -> None:
    """What an earlier chunk held is gone, whatever T is, at once: no collector has to find it."""
    layer = fr.LSTM(I, H, seed=0)
    x = np.zeros((600, 2, I), "float32")
    alive: list[Any] = []
    most = 0
    for chunk in fr.tbptt(layer, x, k1=5, k2=20):
        alive.append(weakref.ref(chunk.state[0]))
        most = max(most, sum(ref() is not None for ref in alive))
    assert most <= 6


def test_tensors_of_torch() -> None:
    torch = pytest.importorskip("torch")
    layer, (x, dy) = layer_of("lstm"), sequence()
    for mine, chunk in zip(
        fr.tbptt(layer, x, k1=5, k2=10),
        fr.tbptt(layer, torch.tensor(x), k1=5, k2=10),
        strict=True,
    ):
        assert isinstance(chunk.y, torch.Tensor)
        grads = chunk.backward(torch.tensor(dy[chunk.start : chunk.stop]))
        wanted = mine.backward(dy[chunk.start : chunk.stop])
        same_bits({name: value.numpy() for name, value in grads.items()}, wanted)


def test_errors() -> None:
    layer, (x, _) = layer_of("rnn"), sequence()
    for message, arguments in {
        r"^k1: expected at least 1, got 0$": {"k1": 0},
        r"^k2: expected at least k1 = 4, got 3$": {"k1": 4, "k2": 3},
        r"^lengths: expected values from 0 to T = 24, got 25 at index 1$": {
            "k1": 4,
            "lengths": [1, 25, 3],
        },
        r"^lengths: expected shape \(3,\), got \(2,\)$": {"k1": 4, "lengths": [1, 2]},
        r"^resets: expected shape \(24, 3\), got \(3, 24\)$": {
            "k1": 4,
            "resets": np.zeros((3, 24), bool),
        },
        r"^mask: expected shape \(24, 3\), got \(24,\)$": {"k1": 4, "mask": np.ones(24, bool)},
    }.items():
        with pytest.raises(ValueError, match=message):
            fr.tbptt(layer, x, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^tbptt: expected a layer of one direction"):
        fr.tbptt(layer_of("rnn", bidirectional=True), x, k1=4)
    with pytest.raises(ValueError, match=r"^x: expected a 3-dimensional array"):
        fr.tbptt(layer, x[0, 0], k1=4)
    with pytest.raises(TypeError, match=r"^layer: expected a layer, got int$"):
        fr.tbptt(3, x, k1=4)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^loss: expected a function, got int$"):
        fr.tbptt(layer, x, 4)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^k1: expected an int, got float$"):
        fr.tbptt(layer, x, k1=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^lengths: expected an integer dtype, got float64$"):
        fr.tbptt(layer, x, k1=4, lengths=np.ones(3))
    with pytest.raises(TypeError, match=r"^lengths\[1\]: expected an int, got float$"):
        fr.tbptt(layer, x, k1=4, lengths=[1, 2.0, 3])
    assert len(list(fr.tbptt(layer, x[:, :0], k1=4, lengths=[]))) == 6
    with pytest.raises(TypeError, match=r"^k2: expected an int, got bool$"):
        fr.tbptt(layer, x, k1=4, k2=False)
    assert next(fr.tbptt(layer, x, k1=4, k2=np.int64(0))).stop == 4
    with pytest.raises(TypeError, match=r"^loss: expected a pair \(loss, dy\), got float$"):
        next(fr.tbptt(layer, x, lambda y, *_: float(y.sum()), k1=4))  # type: ignore[arg-type,return-value]
    assert list(fr.tbptt(layer, x[:0], k1=4)) == []
    with pytest.raises(TypeError, match=r"^k2: expected an int, got ndarray$"):
        fr.tbptt(layer, x, k1=4, k2=np.array("a"))  # type: ignore[arg-type]
    # Where no chunk would say so.
    with pytest.raises(ValueError, match=r"^state: expected shape "):
        fr.tbptt(layer, x[:0], k1=4, state=np.zeros((1, 2, 3), x.dtype))
    with pytest.raises(TypeError, match=r"^mask: expected dtype bool or uint8, got float64$"):
        fr.tbptt(layer, x[:0], k1=4, mask=np.zeros((0, 3)))
    with pytest.raises(TypeError, match=r"^x: expected dtype "):
        fr.tbptt(layer, x[:0].astype(int), k1=4)


# --- dropout ---


@cells
@pytest.mark.parametrize("masked", [False, True])
def test_dropout_in_one_chunk(cell: str, masked: bool) -> None:
    layer, (x, dy), state = layer_of(cell, dropout=0.4), sequence(), state_of(cell)
    masks = {"lengths": [T, 0, 7]} if masked else {}
    before = layer.dropout_state
    (chunk,) = fr.tbptt(layer, x, k1=T, k2=T, state=state, **masks)
    assert layer.dropout_state == (before[0], 1)
    layer.dropout_state = before
    y, _, tape = layer.forward(x, state, **masks)
    assert not np.array_equal(y, layer(x, state, **masks)[0])
    assert np.array_equal(chunk.y, y)
    same_bits(chunk.backward(dy), layer.backward(tape, dy))


@cells
@pytest.mark.parametrize(("k1", "k2"), [(4, 4), (4, 8), (5, 7), (3, 24), (1, 6)])
def test_dropout_of_a_step_is_the_same_in_all_windows(cell: str, k1: int, k2: int) -> None:
    """So y and the states are those of one call, although steps are computed again."""
    layer, (x, dy), state = layer_of(cell, dropout=0.4), sequence(), state_of(cell)
    before = layer.dropout_state
    y, last, _ = layer.forward(x, state)
    layer.dropout_state = before
    plain = layer_of(cell)
    for chunk in fr.tbptt(layer, x, k1=k1, k2=k2, state=state):
        assert np.array_equal(chunk.y, y[chunk.start : chunk.stop])
        # Each chunk's gradient goes back through the masks that it was computed with: backward of
        # its tapes one by one.
        grads = chunk.backward(dy[chunk.start : chunk.stop])
        assert {tape.core.dropout[1] for tape in chunk._tapes} == {before[0]}
        steps = [tape.core.dropout[2] for tape in chunk._tapes]
        assert steps[-1] == chunk.start
        assert steps[0] == max(0, chunk.stop - k2)
        assert grads.keys() >= plain.parameters().keys()
    assert all(map(np.array_equal, arrays(chunk.state), arrays(last)))
    assert layer.dropout_state == (before[0], 1)


def test_dropout_gradients_over_a_window() -> None:
    """By differences of a weight, through the masks of a window of several chunks."""
    (x, dy), state = sequence(), state_of("gru")
    k1, k2, name = 4, 12, "weight_ih_l0"

    def last_window(shift: float) -> Any:
        """The last chunk, from a state that is constant whatever the weight."""
        layer = layer_of("gru", dropout=0.4)
        for chunk in fr.tbptt(layer, x, k1=k1, k2=k2, state=state):
            if chunk.stop == T - k1:  # the state that the window begins with is there already
                layer.parameters()[name][3, 1] += shift
        return chunk

    chunk = last_window(0.0)
    part = dy[chunk.start : chunk.stop]
    expected = chunk.backward(part)[name][3, 1]
    above, below = (np.sum(part * last_window(shift).y) for shift in (1e-6, -1e-6))
    assert np.isclose((above - below) / 2e-6, expected, rtol=1e-6)


def test_a_layer_in_eval_mode_drops_nothing() -> None:
    layer, (x, _) = layer_of("gru", dropout=0.4), sequence()
    layer.eval()
    chunks = fr.tbptt(layer, x, k1=4, k2=8)
    assert np.array_equal(np.concatenate([chunk.y for chunk in chunks]), layer(x)[0])
    assert layer.dropout_state[1] == 0
