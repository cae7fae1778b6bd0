"""Layers with layer normalisation, and those of the GRU of world models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle
import reference
from fusedrnn.convert import to_torch
from reference import random_stack
from support import BOUND, Arguments, check, check_by_differences, same_bits
from test_layer_norm import STATES, cells

LAYERS: dict[str, tuple[Any, Arguments]] = {
    "lstm_layer_norm": (fr.LSTM, {"layer_norm": True}),
    "gru_layer_norm": (fr.GRU, {"layer_norm": True}),
    "gru_world_model": (fr.WorldModelGRU, {}),
}
NORMS = {
    "lstm_layer_norm": {
        **{f"{kind}_{of}": 4 for of in ("ih", "hh") for kind in ("gain", "bias")},
        "gain_cell": 1,
        "bias_cell": 1,
    },
    "gru_layer_norm": {f"{kind}_{of}": 3 for of in ("ih", "hh") for kind in ("gain", "bias")},
    "gru_world_model": {"gain": 3, "bias": 3},
}


def layer_of(cell: str, *sizes: int, **options: Any) -> Any:
    kind, own = LAYERS[cell]
    return kind(*sizes, **own | options)


def named(cell: str, state: Any, form: str) -> Arguments:
    parts = state if isinstance(state, tuple) else (state,)
    return {form.format(s): part for s, part in zip(STATES.get(cell, "h"), parts, strict=True)}


def packed(parts: list[Any]) -> Any:
    return tuple(parts) if len(parts) > 1 else parts[0]


@cells
def test_parameters(cell: str) -> None:
    for init in ("uniform", "orthogonal"):
        layer = layer_of(cell, 4, 6, 2, bidirectional=True, init=init, seed=0)
        parameters = dict(layer.parameters())
        blocks = 4 if cell == "lstm_layer_norm" else 3
        for end, width in (("_l0", 4), ("_l0_reverse", 4), ("_l1", 12), ("_l1_reverse", 12)):
            own = {"weight_ih": (blocks * 6, width), "weight_hh": (blocks * 6, 6)}
            own |= {name: (count * 6,) for name, count in NORMS[cell].items()}
            names = [f"{name}{end}" for name in own]
            assert {name: parameters.pop(name).shape for name in names} == {
                f"{name}{end}": shape for name, shape in own.items()
            }
        assert not parameters
        for name, value in layer.parameters().items():
            if name.startswith("gain"):
                assert (value == 1).all(), name
            elif cell == "gru_world_model" and name.startswith("bias"):
                assert np.array_equal(value, np.repeat([0.0, 0.0, -1.0], 6)), name
            elif name.startswith("bias"):
                assert (value == 0).all(), name
            else:
                assert value.any(), name


def test_what_biases_begin_with() -> None:
    layer = fr.LSTM(4, 6, layer_norm=True, forget_bias=2.5, seed=0)
    wanted = {"bias_ih_l0": np.repeat([0, 2.5, 0, 0], 6), "bias_hh_l0": np.zeros(24)}
    for name, value in (wanted | {"bias_cell_l0": np.zeros(6)}).items():
        assert np.array_equal(layer.parameters()[name], value), name
    layer = fr.WorldModelGRU(4, 6, update_bias=0.5)
    assert np.array_equal(layer.parameters()["bias_l0"], np.repeat([0, 0, 0.5], 6))


def test_repr() -> None:
    assert repr(fr.LSTM(4, 6, layer_norm=True)) == "LSTM(4, 6, layer_norm=True)"
    assert repr(fr.GRU(4, 6, layer_norm=True)) == "GRU(4, 6, layer_norm=True)"
    assert repr(fr.GRU(4, 6)) == "GRU(4, 6)"
    assert repr(fr.WorldModelGRU(4, 6, 2, zoneout=0.5)) == (
        "WorldModelGRU(4, 6, num_layers=2, zoneout=0.5)"
    )


@cells
def test_stacks(cell: str) -> None:
    problem, upstream = random_stack(
        cell, num_layers=2, input_size=3, hidden_size=5, lengths=True, resets=True
    )
    layer = layer_of(cell, 3, 5, 2, bidirectional=True, dtype="float64")
    layer.load_state_dict(problem["parameters"])
    state = packed([problem[f"{s}0"] for s in STATES.get(cell, "h")])
    masks = {name: problem[name] for name in ("lengths", "resets")}
    y, last, tape = layer.forward(problem["x"], state, **masks)
    got = {"y": y} | named(cell, last, "{}_n")
    check(got, oracle.stack(cell, **problem), BOUND["float64"])
    assert np.array_equal(layer.freeze()(problem["x"], state, **masks)[0], y)
    dstate = packed([upstream[f"d{s}_n"] for s in STATES.get(cell, "h")])
    grads = layer.backward(tape, upstream["dy"], dstate)
    check(grads, oracle.stack_gradients(cell, **problem, **upstream), BOUND["float64"])

    rng = np.random.default_rng(3)
    along = {name: rng.standard_normal(p.shape) for name, p in layer.parameters().items()}
    along["x"] = rng.standard_normal(problem["x"].shape)
    outputs, second = oracle.stack_directional(cell, **problem, **upstream, along=along)
    (_, _), (ty, tstate) = layer.jvp(along, problem["x"], state, **masks)
    check({"y": ty} | named(cell, tstate, "{}_n"), {n: outputs[n] for n in got}, 1e-11)
    found = layer.double_backward(tape, along, upstream["dy"], dstate)
    check({name: found[name] for name in grads}, {name: second[name] for name in grads}, 1e-11)


@cells
def test_by_differences(cell: str) -> None:
    layer = layer_of(cell, 4, 6, 2, bidirectional=True, seed=1, dtype="float64")
    x = np.random.default_rng(0).standard_normal((5, 3, 4))
    y, _, tape = layer.forward(x)
    check_by_differences(layer, x, layer.backward(tape, np.ones_like(y)))


def test_noise_of_world_models() -> None:
    """Of the others that of `test_noise`."""
    rates = {"weight_dropout": 0.3, "zoneout": 0.4, "recurrent_dropout": 0.2}
    layer = fr.WorldModelGRU(3, 5, 2, bidirectional=True, dtype="float64", seed=3, **rates)
    seed, calls = layer.dropout_state
    noise = oracle.Noise(seed=(seed + calls) % 2**64, **rates)
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((6, 2, 3)), rng.standard_normal((6, 2, 10))
    y, last, tape = layer.forward(x)
    parameters = dict(layer.parameters())
    wanted = oracle.stack("gru_world_model", x, parameters, noise=noise)
    check({"y": y, "h_n": last}, wanted, BOUND["float64"])
    grads = oracle.stack_gradients("gru_world_model", x, parameters, noise=noise, dy=dy)
    check(layer.backward(tape, dy), grads, BOUND["float64"])


@cells
@pytest.mark.parametrize("weight_dtype", [None, "bfloat16", "int8"])
def test_steps(cell: str, weight_dtype: str | None) -> None:
    layer = layer_of(cell, 24, 40, 2, seed=3)
    frozen = layer.freeze(weight_dtype)
    x = np.random.default_rng(1).standard_normal((9, 3, 24)).astype("float32")
    y, last = frozen(x)
    state: Any = None
    states = STATES.get(cell, "h")
    in_place = packed([np.zeros((2, 3, 40), "float32") for _ in states])
    y_out = np.empty((3, 40), "float32")
    for t in range(9):
        y_t, state = frozen.step(x[t], state)
        assert np.array_equal(y_t, y[t])
        frozen.step(x[t], in_place, out=(y_out, in_place))
        assert np.array_equal(y_out, y[t])
    same_bits(named(cell, state, "{}"), named(cell, last, "{}"))
    bound = {None: 0.0, "bfloat16": 2e-2, "int8": 6e-2}[weight_dtype]
    assert reference.relative_error(y, layer(x)[0]) <= bound
    state = None
    for t in range(9 if weight_dtype is None else 0):
        y_t, state = layer.step(x[t], state)
        assert np.array_equal(y_t, y[t])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (fr.LSTM, {"proj_size": 3}, "proj_size: expected 0 with layer_norm=True, got 3"),
        (fr.LSTM, {"peephole": True}, "peephole: expected False with layer_norm=True, got True"),
        (fr.LSTM, {"coupled": True}, "coupled: expected False with layer_norm=True, got True"),
        (fr.LSTM, {"clip": 1}, "clip: expected None with layer_norm=True, got 1.0"),
        (fr.LSTM, {"cell_clip": 2.5}, "cell_clip: expected None with layer_norm=True, got 2.5"),
        (
            fr.LSTM,
            {"activations": ("sigmoid", "relu", "tanh")},
            r"activations: expected None with layer_norm=True, got \('sigmoid', 'relu', 'tanh'\)",
        ),
        (fr.LSTM, {"bias": False}, "bias: expected True with layer_norm=True, got False"),
        (fr.GRU, {"bias": False}, "bias: expected True with layer_norm=True, got False"),
        (fr.GRU, {"clip": 1}, "clip: expected None with layer_norm=True, got 1.0"),
        (
            fr.GRU,
            {"reset_after": False},
            "reset_after: expected True with layer_norm=True, got False",
        ),
        *(
            (
                kind,
                {"recurrent_dropout": 0.5, "recurrent_dropout_mode": "candidate"},
                "recurrent_dropout_mode: expected 'state' with layer_norm=True, got 'candidate'",
            )
            for kind in (fr.LSTM, fr.GRU)
        ),
    ],
)
def test_what_it_does_not_go_with(kind: Any, options: Arguments, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        kind(4, 6, layer_norm=True, **options)


def test_wrong_values() -> None:
    for kind in (fr.LSTM, fr.GRU):
        with pytest.raises(TypeError, match=r"^layer_norm: expected a bool, got int$"):
            kind(4, 6, layer_norm=1)
    with pytest.raises(TypeError, match=r"^update_bias: expected a number, got str$"):
        fr.WorldModelGRU(4, 6, update_bias="1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^update_bias: expected a finite number, got nan$"):
        fr.WorldModelGRU(4, 6, update_bias=float("nan"))
    with pytest.raises(ValueError, match=r"^recurrent_dropout_mode: expected 'state', got"):
        fr.WorldModelGRU(4, 6, recurrent_dropout_mode="candidate")  # type: ignore[arg-type]


@cells
def test_no_conversion(cell: str) -> None:
    pytest.importorskip("torch")
    layer = layer_of(cell, 4, 6)
    wanted = (
        "RNN, GRU or LSTM, which PyTorch has"
        if cell == "gru_world_model"
        else ("no layer normalisation, which PyTorch has not")
    )
    with pytest.raises(ValueError, match=f"^layer: expected {wanted}, got "):
        to_torch(layer)
