"""Mistakes in the use of a layer: each message names the argument."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from support import LAYERS

CELLS = list(LAYERS)
cells = pytest.mark.parametrize("cell", CELLS)
X = np.zeros((4, 2, 3), "float32")


@cells
@pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers"])
def test_sizes(cell: str, name: str) -> None:
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"^{name}: expected at least 1, got {value}$"):
            LAYERS[cell](**{"input_size": 3, "hidden_size": 4} | {name: value})
    for bad in (True, 2.0, "2", None, np.True_, np.array("a"), np.array(2.0), np.array([2, 3])):
        message = f"^{name}: expected an int, got {type(bad).__name__}$"
        with pytest.raises(TypeError, match=message):
            LAYERS[cell](**{"input_size": 3, "hidden_size": 4} | {name: bad})
    most = 2**19 if name == "num_layers" else 2**63 - 1
    for value in (2**63, 2**70, most + 1):  # without a list of them all
        with pytest.raises(ValueError, match=f"^{name}: expected at most {most}, got {value}$"):
            LAYERS[cell](**{"input_size": 3, "hidden_size": 4} | {name: value})


@cells
@pytest.mark.parametrize("name", ["bias", "batch_first", "bidirectional"])
def test_flags(cell: str, name: str) -> None:
    for bad in (0, 1, None, "no"):
        message = f"^{name}: expected a bool, got {type(bad).__name__}$"
        with pytest.raises(TypeError, match=message):
            LAYERS[cell](3, 4, **{name: bad})


def test_options_of_one_cell() -> None:
    with pytest.raises(ValueError, match=r"^nonlinearity: expected 'sigmoid', .*, got 'mish'$"):
        fr.RNN(3, 4, nonlinearity="mish")
    with pytest.raises(TypeError, match=r"^reset_after: expected a bool, got int$"):
        fr.GRU(3, 4, reset_after=0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument 'reset_after'"):
        fr.LSTM(3, 4, reset_after=True)  # type: ignore[call-arg]


@cells
@pytest.mark.parametrize(
    "dtype", ["float8", "int16", "int64", "nonsense", None, 3, ">f4", ">f2", "V2"]
)
def test_dtypes(cell: str, dtype: Any) -> None:
    message = "^dtype: expected 'float32', 'float64', 'bfloat16' or 'float16', got "
    with pytest.raises(ValueError, match=message):
        LAYERS[cell](3, 4, dtype=dtype)


@cells
def test_devices_and_seeds(cell: str) -> None:
    for device in ("gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cudax"):
        wanted = "^device: expected 'cpu', 'cuda' or 'cuda:N', got "
        with pytest.raises(ValueError, match=f"{wanted}'{device}'$"):
            LAYERS[cell](3, 4, device=device)
    with pytest.raises(RuntimeError, match=r"^device: cuda:63 cannot be used: "):
        LAYERS[cell](3, 4, device="cuda:63")
    message = r"^array_type: expected None for a layer on the CPU, got a type$"
    with pytest.raises(ValueError, match=message):
        LAYERS[cell](3, 4, array_type=np.ndarray)
    with pytest.raises(TypeError, match=r"^device: expected a str, got int$"):
        LAYERS[cell](3, 4, device=0)
    with pytest.raises(ValueError, match=r"^seed: expected at least 0, got -1$"):
        LAYERS[cell](3, 4, seed=-1)
    for bad in (1.5, True, "1"):
        with pytest.raises(TypeError, match=r"^seed: expected an int or None, got "):
            LAYERS[cell](3, 4, seed=bad)


@cells
@pytest.mark.parametrize("option", ["drop_out", "projection_size", "peepholes"])
def test_unknown_options(cell: str, option: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{option}'"):
        LAYERS[cell](3, 4, **{option: 0})


@cells
@pytest.mark.parametrize("batch_first", [False, True])
def test_x(cell: str, batch_first: bool) -> None:
    layer = LAYERS[cell](3, 4, batch_first=batch_first)
    for call in (layer, layer.forward):
        with pytest.raises(ValueError, match=r"^x: expected shape \(\*, \*, 3\), got \(3,\)$"):
            call(X[0, 0])
        with pytest.raises(ValueError, match=r"^x: expected shape \(\*, 3\), got \(2, 2\)$"):
            call(X[0, :, :2])
        with pytest.raises(ValueError, match=r"^x: expected .*3\b.*, got .*\(4, 2, 2\)"):
            call(X[:, :, :2])
        with pytest.raises(TypeError, match=r"^x: expected dtype float32.*, got float64"):
            call(X.astype("float64"))
        with pytest.raises(TypeError, match=r"^x: expected dtype float32.*, got int"):
            call(X.astype("int32"))
    double = LAYERS[cell](3, 4, dtype="float64")
    with pytest.raises(TypeError, match=r"^x: expected dtype float64.*, got float32"):
        double(X)


@cells
@pytest.mark.parametrize("bad", [1.0, [[[1.0]]], "x", None, object()])
def test_x_is_an_array(cell: str, bad: Any) -> None:
    for call in (LAYERS[cell](3, 4), LAYERS[cell](3, 4).forward):
        with pytest.raises((TypeError, ValueError), match=r"^x: expected an array"):
            call(bad)


@cells
@pytest.mark.parametrize("batch_first", [False, True])
def test_states(cell: str, batch_first: bool) -> None:
    layer = LAYERS[cell](3, 4, 2, bidirectional=True, batch_first=batch_first)
    x = X.swapaxes(0, 1) if batch_first else X
    good = np.zeros((4, 2, 4), "float32")
    y, _, tape = layer.forward(x)
    calls: dict[str, Any] = {
        "state": lambda s: layer(x, s),
        "dstate": lambda s: layer.backward(tape, y, s),
    }
    for name, call in calls.items():
        label = rf"{name}\[1\]" if cell == "lstm" else name

        def given(bad: Any) -> Any:
            return (good, bad) if cell == "lstm" else bad

        for shape in ((3, 2, 4), (4, 3, 4), (4, 2, 3), (2, 4), (1, 4, 2, 4)):
            expected = r"expected shape \(4, 2, 4\), got \(" + ", ".join(map(str, shape))
            with pytest.raises(ValueError, match=rf"^{label}: {expected}\)"):
                call(given(np.zeros(shape, "float32")))
        with pytest.raises(TypeError, match=f"^{label}: expected dtype float32.*, got float64"):
            call(given(np.zeros((4, 2, 4))))
        with pytest.raises(TypeError, match=f"^{label}: expected "):
            call(given("zeros"))
        if cell == "lstm":
            with pytest.raises(TypeError, match=rf"^{name}: expected a pair \(h, c\), got ndarray"):
                call(good)
            with pytest.raises(ValueError, match=rf"^{name}: expected a pair \(h, c\), got 3 "):
                call((good, good, good))
        else:
            with pytest.raises(TypeError, match=f"^{name}: expected .*tuple"):
                call((good, good))


@cells
@pytest.mark.parametrize("batch_first", [False, True])
def test_lengths_and_resets(cell: str, batch_first: bool) -> None:
    layer = LAYERS[cell](3, 4, 2, batch_first=batch_first)
    x = X.swapaxes(0, 1) if batch_first else X
    with pytest.raises(ValueError, match=r"^lengths: expected .* T = 4, got 5 at index 1"):
        layer(x, lengths=[4, 5])
    with pytest.raises(ValueError, match=r"^lengths: expected shape \(2,?\), got \(3,?\)"):
        layer(x, lengths=np.array([1, 2, 3]))
    wrong, right = ((4, 2), (2, 4)) if batch_first else ((2, 4), (4, 2))
    message = rf"^resets: expected shape \({right[0]}, {right[1]}\), got \({wrong[0]}, {wrong[1]}\)"
    with pytest.raises(ValueError, match=message):
        layer(x, resets=np.zeros(wrong, np.bool_))
    with pytest.raises(TypeError, match=r"^resets: expected .*bool.*, got float32"):
        layer(x, resets=np.zeros(right, "float32"))


@cells
def test_dy(cell: str) -> None:
    layer = LAYERS[cell](3, 4, bidirectional=True)
    y, _, tape = layer.forward(X)
    with pytest.raises(ValueError, match=r"^dy: expected shape \(4, 2, 8\), got \(4, 2, 4\)"):
        layer.backward(tape, y[:, :, :4])
    with pytest.raises(TypeError, match=r"^dy: expected dtype float32.*, got float64"):
        layer.backward(tape, y.astype("float64"))
    layer = LAYERS[cell](3, 4, batch_first=True)
    y, _, tape = layer.forward(X)
    with pytest.raises(ValueError, match=r"^dy: expected shape \(4, 2, 4\), got \(2, 4, 4\)"):
        layer.backward(tape, y.swapaxes(0, 1))


def zeros(*shape: int) -> Any:
    return np.zeros(shape, "float32")


BATCHES = {"[T,B]": False, "[B,T]": True}


@pytest.mark.parametrize("batch_first", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("frozen", [False, True])
def test_out(batch_first: bool, frozen: bool) -> None:
    """In the words of who gave it, not in those of the runs that the arrays are cut for."""
    layer: Any = fr.LSTM(3, 4, 2, bidirectional=True, batch_first=batch_first)
    batch = 4 if batch_first else 2
    state = zeros(4, batch, 4), zeros(4, batch, 4)
    wrong = {
        "out[0]: expected shape (4, 2, 8), got (4, 2, 7)": ("y", zeros(4, 2, 7)),
        "out[1][0]: expected shape (4, B, 4), got (4, B, 5)": ("h", zeros(4, batch, 5)),
        "out[1][1]: expected shape (4, B, 4), got (3, B, 4)": ("c", zeros(3, batch, 4)),
        "out[2]: expected shape (4, 2, 8), got (2, 4, 8)": ("cells", zeros(2, 4, 8)),
        "out[1][0]: expected memory apart from state[1], got overlapping memory": ("h", state[1]),
    }
    for message, (which, array) in wrong.items():
        out = {"y": zeros(4, 2, 8), "h": zeros(4, batch, 4), "c": zeros(4, batch, 4)}
        out["cells"] = zeros(4, 2, 8)
        out[which] = array
        given = out["y"], (out["h"], out["c"]), out["cells"]
        with pytest.raises(ValueError, match=f"^{re.escape(message.replace('B', str(batch)))}$"):
            (layer.freeze() if frozen else layer)(X, state, return_cells=True, out=given)
    parameters = {name: np.array(value) for name, value in layer.parameters().items()}
    whole = zeros(64)
    parameters["weight_hh_l1"] = whole.reshape(16, 4)
    out = {"y": whole.reshape(4, 2, 8), "h": zeros(4, batch, 4), "c": zeros(4, batch, 4)}
    message = "out[0]: expected memory apart from weight_hh_l1, got overlapping memory"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        layer(X, parameters=parameters, out=(out["y"], (out["h"], out["c"])))


@pytest.mark.parametrize("batch_first", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("layers", [1, 2])
def test_out_of_backward(batch_first: bool, layers: int) -> None:
    layer = fr.GRU(3, 4, layers, batch_first=batch_first)
    _, _, tape = layer.forward(X, resets=np.zeros((4, 2), bool), reset_state=zeros(layers, 4))
    batch = 4 if batch_first else 2
    last, same = f"weight_hh_l{layers - 1}", zeros(12, 4)
    wrong: dict[str, dict[str, Any]] = {
        f"out['{last}']: expected shape (12, 4), got (12, 5)": {last: zeros(12, 5)},
        "out['x']: expected shape (4, 2, 3), got (4, 2, 4)": {"x": zeros(4, 2, 4)},
        f"out['h0']: expected shape ({layers}, {batch}, 4), got (5, 5)": {"h0": zeros(5, 5)},
        f"out['reset_h']: expected shape ({layers}, 4), got (4,)": {"reset_h": zeros(4)},
        f"out['{last}']: expected memory apart from out['x'], got overlapping memory": {
            last: same,
            "x": same[:6].reshape(4, 2, 3),
        },
        f"out['{last}']: expected memory apart from {last}, got overlapping memory": {
            last: layer.parameters()[last]
        },
    }
    for message, out in wrong.items():
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            layer.backward(tape, out=out)
    with pytest.raises(TypeError, match=r"^out\['h0'\]: expected dtype float32, got float64"):
        layer.backward(tape, out={"h0": np.zeros((layers, batch, 4))})


@pytest.mark.parametrize("batch_first", BATCHES.values(), ids=BATCHES)
def test_directions_of_states_that_were_not_given(batch_first: bool) -> None:
    layer = fr.LSTM(3, 4, 2, batch_first=batch_first)
    _, _, tape = layer.forward(X)
    batch = 4 if batch_first else 2
    for name, shape in {"h0": (2, batch, 4), "c0": (2, batch, 4), "reset_h": (2, 4)}.items():
        message = rf"\['{name}'\]: expected shape {re.escape(str(shape))}, got \(3, 4\)$"
        with pytest.raises(ValueError, match="^tangents" + message):
            layer.jvp({name: zeros(3, 4)}, X)
        with pytest.raises(ValueError, match="^directions" + message):
            layer.double_backward(tape, {name: zeros(3, 4)})


@cells
def test_step(cell: str) -> None:
    layer = LAYERS[cell](3, 4)
    with pytest.raises(ValueError, match=r"^x_t: expected .*, got .*\(4, 2, 3\)"):
        layer.step(X)
    with pytest.raises(ValueError, match=r"^x_t: expected .*3\b.*, got .*\(2, 2\)"):
        layer.step(X[0, :, :2])
    with pytest.raises(TypeError, match=r"^x_t: expected dtype float32.*, got float64"):
        layer.step(X[0].astype("float64"))
    both = LAYERS[cell](3, 4, bidirectional=True)
    with pytest.raises(ValueError, match=r"^step: expected a layer of one direction, got "):
        both.step(X[0])


@cells
def test_tapes(cell: str) -> None:
    layer = LAYERS[cell](3, 4)
    *_, tape = LAYERS[cell](3, 4).forward(X)
    with pytest.raises(ValueError, match=r"^tape: expected one of this layer, .*, got one"):
        layer.backward(tape)
    for bad in (None, "tape", X):
        message = f"^tape: expected one of this layer's forward, got {type(bad).__name__}$"
        with pytest.raises(TypeError, match=message):
            layer.backward(bad)


@cells
def test_state_dicts(cell: str) -> None:
    """Whatever is wrong, and however late, nothing has been changed."""
    layer = LAYERS[cell](3, 4, 2, seed=0)
    before, other = layer.state_dict(), LAYERS[cell](3, 4, 2, seed=1).state_dict()
    last = "bias_hh_l1"
    rows = other[last].shape[0]
    short = {name: value for name, value in other.items() if name != last}
    bad: list[tuple[type[Exception], str, Any]] = [
        (TypeError, "^state_dict: expected a mapping, got list$", [1]),
        (ValueError, f"^state_dict: .*got one with {last} missing and none unexpected$", short),
        (ValueError, "none missing and extra unexpected$", other | {"extra": other[last]}),
        (ValueError, rf"^{last}: expected shape \({rows},?\)", other | {last: other[last][1:]}),
        (TypeError, f"^{last}: expected .*float.*", other | {last: np.zeros(rows, "int64")}),
        (TypeError, f"^{last}: expected ", other | {last: [0.0] * rows}),
    ]
    for error, message, state_dict in bad:
        with pytest.raises(error, match=message):
            layer.load_state_dict(state_dict)
        for name, value in layer.parameters().items():
            assert np.array_equal(value, before[name])


@cells
def test_parameters(cell: str) -> None:
    """Whatever is wrong, nothing has been changed."""
    layer = LAYERS[cell](3, 4, 2, seed=0)
    p, before, name = layer.parameters(), layer.state_dict(), "bias_hh_l1"
    rows = p[name].shape[0]
    good = np.zeros(rows, "float32")
    bad: list[tuple[type[Exception], str, Any]] = [
        (ValueError, rf"^{name}: expected shape \({rows},?\), got", good[1:]),
        (TypeError, f"^{name}: expected .*float.*, got int64$", good.astype("int64")),
        (TypeError, f"^{name}: expected ", 0.0),
        (TypeError, f"^{name}: expected ", [0.0] * rows),
        (ValueError, f"^{name}: expected an array, got none$", None),
    ]
    for error, message, value in bad:
        for change in (p.__setitem__, lambda n, v: p.update({"bias_ih_l0": good, n: v})):
            with pytest.raises(error, match=message):
                change(name, value)
    own = r"^bias_hh_l0: expected values of its own, got the array of bias_ih_l0; give a copy$"
    with pytest.raises(ValueError, match=own):
        p["bias_ih_l0"], p["bias_hh_l0"] = good, p["bias_ih_l0"]
    p["bias_ih_l0"] = before["bias_ih_l0"]
    unknown = r"weight_l0: expected a parameter of .*, one of \['weight_ih_l0'"
    for change in (p.__setitem__, p.setdefault, lambda n, v: p.update({name: good, n: v})):
        with pytest.raises(KeyError, match=unknown):
            change("weight_l0", good)
    for removal in (p.clear, p.popitem, lambda: p.pop(name), lambda: p.__delitem__(name)):
        with pytest.raises(
            TypeError, match=r"^\w+: the parameters of .* can be changed, not removed"
        ):
            removal()
    assert list(p) == list(before)
    for known, value in layer.parameters().items():
        assert np.array_equal(value, before[known])
