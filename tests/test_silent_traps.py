"""Mistakes that would go unnoticed: lost gradients, stale tapes, words that are almost right."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr

T, B, I, H = 3, 2, 4, 5  # noqa: E741


def arrays(seed: int = 0) -> tuple[Any, Any, Any]:
    draw = np.random.default_rng(seed).standard_normal
    return tuple(draw(shape).astype("f4") for shape in ((T, B, I), (4 * H, I), (4 * H, H)))


# Gradients that PyTorch waits for

LOST = (
    "a tensor requires a gradient, but PyTorch's autograd does not see this call: its results "
    "require none. The modules of fusedrnn.torch train with autograd"
)


@pytest.mark.parametrize("which", range(3), ids=("x", "w_ih", "w_hh"))
def test_a_plain_call_with_a_tensor_that_requires_a_gradient_warns(which: int) -> None:
    torch = pytest.importorskip("torch")
    tensors = list(map(torch.from_numpy, arrays()))
    tensors[which].requires_grad_()
    with pytest.warns(UserWarning, match=LOST) as caught:
        fr.lstm(*tensors)
    assert caught[0].filename == __file__
    with torch.no_grad():
        fr.lstm(*tensors)
    *_, tape = fr.lstm_forward(*tensors)
    assert tape is not None


def test_a_layer_called_with_such_a_tensor_warns() -> None:
    torch = pytest.importorskip("torch")
    layer = fr.LSTM(I, H, seed=0)
    x = torch.from_numpy(arrays()[0]).requires_grad_()
    for call in (lambda: layer(x), lambda: layer.step(x[0])):
        with pytest.warns(UserWarning, match=LOST) as caught:
            call()
        assert caught[0].filename == __file__
    weights = {k: torch.from_numpy(v.copy()) for k, v in layer.parameters().items()}
    weights["weight_hh_l0"].requires_grad_()
    with pytest.warns(UserWarning, match=LOST):
        layer(x.detach(), parameters=weights)
    x = x.detach()
    h = torch.zeros(1, B, H, requires_grad=True)
    begins = torch.ones(T, B, dtype=torch.bool)
    for call in (
        lambda: layer(x, (None, h)),
        lambda: layer.freeze()(x, (h, None)),
        lambda: layer(x, resets=begins, reset_state=(h[:, 0], None)),
        lambda: layer.step(x[0], resets=begins[0], reset_state=(None, h[:, 0])),
        lambda: fr.GRU(I, H, seed=0)(x, h),
    ):
        with pytest.warns(UserWarning, match=LOST):
            call()
    _, w_ih, w_hh = map(torch.from_numpy, arrays())
    with pytest.warns(UserWarning, match=LOST):
        fr.lstm(x, w_ih, w_hh, resets=begins, reset_c=h[0, 0])
    layer(x, (None, h.detach()))
    layer.forward(x, (h, h))


def lost_gradients() -> dict[str, Any]:
    """Calls that give no gradient, by the door they go through; each takes the tensor [T,B,I]."""
    layer = fr.LSTM(I, H, seed=0)
    frozen, gru = layer.freeze(), fr.GRU(I, H, seed=0).freeze()
    h = np.zeros((1, B, H), "f4")
    out = np.zeros((B, H), "f4"), (h.copy(), h.copy())
    linear, classes = fr.nn.Linear(I, 2, seed=0), np.zeros((T, B), "i8")
    attention = fr.nn.MultiHeadAttention(I, I, 2, seed=0)
    memory = np.ones((T, B, I), "f4")

    def state(x: Any) -> Any:  # [1,B,H] that follows from x
        return x.sum().expand(1, B, H).contiguous()

    return {
        "frozen": frozen,
        "frozen of one step": lambda x: frozen(x[:1]),
        "frozen step": lambda x: frozen.step(x[0]),
        "frozen step, h": lambda x: gru.step(x[0].detach(), state(x)),
        "frozen step, c": lambda x: frozen.step(x[0].detach(), (x.new_zeros(1, B, H), state(x))),
        "frozen step, arrays": lambda x: frozen.step(memory[0], (h, state(x))),
        "frozen step, out": lambda x: frozen.step(x[0], out=out),
        "frozen step, reset state": lambda x: gru.step(
            memory[0], resets=np.ones(B, bool), reset_state=state(x)[:, 0]
        ),
        "layer step, c": lambda x: layer.step(x[0].detach(), (x.new_zeros(1, B, H), state(x))),
        "linear": linear,
        "dropout": fr.nn.Dropout(0.5, seed=0),
        "sequential": fr.nn.Sequential(linear, fr.nn.Dropout(0.5, seed=0)),
        "time distributed": fr.nn.TimeDistributed(linear),
        "attention, query": lambda x: attention(x, memory),
        "attention, memory": lambda x: attention(memory, x),
        "attention, values": lambda x: attention(memory, memory, values=x),
        "attention, prepared": lambda x: attention.step(memory[0], attention.prepare(x)),
        "cross entropy": lambda x: fr.nn.cross_entropy(x, classes),
        "mse": lambda x: fr.nn.mse(x, memory),
        "mse, target": lambda x: fr.nn.mse(memory, x),
        "quantile": lambda x: fr.nn.quantile(x, memory[..., 0], [0.2, 0.4, 0.6, 0.8]),
        "ctc": lambda x: fr.nn.ctc(x, np.ones((B, 1), "i8")),
    }


@pytest.mark.parametrize("door", lost_gradients())
def test_every_door_says_that_a_gradient_is_lost(door: str) -> None:
    torch = pytest.importorskip("torch")
    call = lost_gradients()[door]
    x = torch.from_numpy(arrays()[0]).requires_grad_()
    with pytest.warns(UserWarning, match=LOST) as caught:
        call(x)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(x.detach())
        with torch.no_grad():
            call(x)


def test_what_gives_gradients_does_not_warn() -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(arrays()[0]).requires_grad_()
    attention = fr.nn.Attention(I, I, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for module in (fr.nn.Linear(I, 2, seed=0), fr.nn.Dropout(0.5), fr.LSTM(I, H, seed=0)):
            module.forward(x)
        attention.forward_step(x[0], attention.prepare(x))
        fr.nn.cross_entropy_grad(x, np.zeros((T, B), "i8"))
        fr.nn.mse_grad(x, x)
        fr.nn.quantile_grad(x, x[..., 0], [0.2, 0.4, 0.6, 0.8])
        fr.nn.ctc_grad(x, np.ones((B, 1), "i8"))


# Tapes whose arrays were written to


def check_stale(name: str, array: Any, backward: Any) -> None:
    backward()
    before = array.flat[3]
    array.flat[3] += 1
    with pytest.raises(ValueError, match=rf"^{name}: expected the values of the forward call, got"):
        backward()
    array.flat[3] = before
    backward()


@pytest.mark.parametrize("which", range(3), ids=("x", "w_ih", "w_hh"))
def test_a_stale_tape_of_a_function(which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEDRNN_CHECK", "1")
    given = arrays()
    *_, tape = fr.lstm_forward(*given)
    check_stale(("x", "w_ih", "w_hh")[which], given[which], lambda: fr.lstm_backward(tape))


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_stale_tape_of_a_layer(batch_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEDRNN_CHECK", "1")
    layer = fr.GRU(I, H, 2, seed=0, batch_first=batch_first)
    x = arrays()[0]
    *_, tape = layer.forward(x)
    check_stale("x", x, lambda: layer.backward(tape))
    name = "weight_hh_l1"
    check_stale(name, layer.parameters()[name], lambda: layer.backward(tape))


def test_tapes_are_not_checked_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    x, *weights = arrays()
    for value in ("", "0"):
        monkeypatch.setenv("FUSEDRNN_CHECK", value)
        *_, tape = fr.lstm_forward(x, *weights)
        x[0] += 1
        fr.lstm_backward(tape)
    monkeypatch.setenv("FUSEDRNN_CHECK", "yes")
    with pytest.raises(ValueError, match=r"^FUSEDRNN_CHECK: expected 0 or 1, got 'yes'$"):
        fr.lstm_forward(x, *weights)


# Messages that say what to do


def test_one_floating_type_beside_another() -> None:
    x, w_ih, w_hh = arrays()
    message = "w_ih: expected dtype float64 (the dtype of x), got float32; use .astype('float64')"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        fr.lstm(x.astype("f8"), w_ih, w_hh)
    message = "x: expected dtype float32, got float64; use .astype('float32')"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        fr.LSTM(I, H)(x.astype("f8"))
    with pytest.raises(TypeError, match=r"got int32$"):  # no cast that would go without saying
        fr.lstm(x.astype("i4"), w_ih, w_hh)


@pytest.mark.parametrize(
    ("option", "value", "nearest"),
    [
        ("nonlinearity", "thanh", "tanh"),
        ("init", "ortogonal", "orthogonal"),
        ("dtype", "flaot32", "float32"),
        ("compute_dtype", "bfloat_16", "bfloat16"),
    ],
)
def test_an_unknown_word_names_the_nearest(option: str, value: str, nearest: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^{option}: .*, got '{value}'; did you mean '{nearest}'\?"
    ):
        fr.RNN(I, H, **{option: value})
    with pytest.raises(ValueError, match=rf"^{option}: expected .*, got 'other'$"):
        fr.RNN(I, H, **{option: "other"})


# Files


def test_bfloat16_comes_back_from_a_file_of_numpy() -> None:
    pytest.importorskip("ml_dtypes")
    layer = fr.LSTM(I, H, dtype="bfloat16", seed=0)
    file = io.BytesIO()
    np.savez(file, **layer.state_dict())
    file.seek(0)
    with np.load(file) as loaded:
        values = dict(loaded)
    assert {value.dtype.str for value in values.values()} == {"|V2"}
    other = fr.LSTM(I, H, dtype="bfloat16", seed=1)
    other.load_state_dict(values)
    for name, value in layer.parameters().items():
        assert other.parameters()[name].tobytes() == value.tobytes()
    wide = fr.LSTM(I, H, seed=1)
    wide.load_state_dict(values)
    for name, value in layer.parameters().items():
        np.testing.assert_array_equal(wide.parameters()[name], value.astype("f4"))


@pytest.mark.parametrize("dtype", ["V1", "V4", [("a", "u1"), ("b", "u1")], "S2"])
def test_other_bytes_are_no_numbers(dtype: Any) -> None:
    _, w_ih, w_hh = arrays()
    with pytest.raises(
        TypeError, match=r"^x: expected dtype float32, float64, bfloat16 or float16"
    ):
        fr.lstm(np.zeros((T, B, I), dtype), w_ih, w_hh)


# Memory


def test_memory_is_given_back() -> None:
    y, _ = fr.lstm(*arrays())
    big = np.zeros((64, 64, I), "f4")
    fr.lstm(big, *arrays()[1:])  # whose result of 80 KiB is kept for the next
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fr.release_memory() > 0
    assert fr.release_memory() == 0
    np.testing.assert_array_equal(fr.lstm(*arrays())[0], y)
