"""Layers with options, masks and states drawn together, by the oracle and by what changes no bit.

Other tests take the options one or two at a time.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle
from support import BOUND, Arguments, check, same_bits

LAYERS: dict[str, Any] = {
    "rnn": fr.RNN,
    "gru": fr.GRU,
    "lstm": fr.LSTM,
    "lstm_layer_norm": fr.LSTM,
    "gru_layer_norm": fr.GRU,
    "gru_world_model": fr.WorldModelGRU,
    "indrnn": fr.IndRNN,
    "mingru": fr.MinGRU,
    "minlstm": fr.MinLSTM,
    "slstm": fr.SLSTM,
}
ACTIVATIONS = ("sigmoid", "tanh", "softsign", ("leaky_relu", 0.3), ("scaled_tanh", 1.3, 0.6))


def one_of(random: Any, *values: Any) -> Any:
    return values[int(random.integers(len(values)))]


def drawn_options(random: Any, cell: str, hidden_size: int) -> tuple[Arguments, Arguments]:
    """Options of the cell that the oracle takes as well, and those that it sees in the weights."""
    own: Arguments = {}
    made: Arguments = {}
    if cell == "rnn":
        own["nonlinearity"] = one_of(random, *ACTIVATIONS, "relu", "identity")
    elif cell == "gru":
        own["reset_after"] = bool(random.random() < 0.5)
        own["activations"] = (one_of(random, *ACTIVATIONS), one_of(random, *ACTIVATIONS))
    elif cell == "lstm":
        made["peephole"] = bool(random.random() < 0.5)
        if random.random() < 0.4:
            made["proj_size"] = int(random.integers(1, hidden_size + 2))
        else:
            own["coupled"] = bool(random.random() < 0.5)
        if random.random() < 0.5:
            own["cell_clip"] = 0.9
    elif cell.endswith("layer_norm"):
        made["layer_norm"] = True
    elif cell == "slstm":
        own["forget"] = one_of(random, "sigmoid", "exp")
    elif cell.startswith("min"):
        own["candidate"] = one_of(random, "linear", "positive")
    if cell in ("rnn", "gru", "lstm") and random.random() < 0.5:
        own["clip"] = 1.1
    if cell not in ("indrnn", "mingru", "minlstm") and "proj_size" not in made:
        divisors = [d for d in range(1, hidden_size + 1) if hidden_size % d == 0]
        own["heads"] = one_of(random, *divisors)
    return own, made


def layouts(random: Any, value: Any) -> Any:
    """The same numbers, elsewhere in memory."""
    if isinstance(value, tuple):
        return tuple(layouts(random, part) for part in value)
    if not isinstance(value, np.ndarray):
        return value
    wide = np.ones((*value.shape[:-1], value.shape[-1] + 2), value.dtype)
    wide[..., 1:-1] = value
    copy = one_of(random, np.asfortranarray(value), value[::-1].copy()[::-1], wide[..., 1:-1])
    copy.flags.writeable = False
    return copy


def results_of(layer: Any, call: Arguments, upstream: Arguments) -> Arguments:
    y, state, tape = layer.forward(**call)
    parts = state if isinstance(state, tuple) else (state,)
    ends = {f"{letter}_n": part for letter, part in zip("hcnm", parts, strict=False)}
    return {"y": y, **ends, **layer.backward(tape, **upstream)}


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("seed", range(6))
def test_layers(cell: str, seed: int) -> None:
    random = np.random.default_rng([seed, list(LAYERS).index(cell)])
    T, B, I, H = (int(random.integers(1, most)) for most in (6, 4, 5, 10))  # noqa: E741
    H += (
        3 if "norm" in cell or cell == "gru_world_model" else 0
    )  # of few units a norm has no spread
    L, D = int(random.integers(1, 4)), int(random.integers(1, 3))
    own, made = drawn_options(random, cell, H)
    noise: Arguments = {}
    if cell in ("rnn", "gru", "lstm") and random.random() < 0.6:
        noise = {"weight_dropout": 0.3, "zoneout": 0.4, "recurrent_dropout": 0.2}
    options = {"bidirectional": D == 2, "dtype": "float64", "seed": seed, **own, **made, **noise}
    layer = LAYERS[cell](I, H, L, **options)
    for parameter in layer.parameters().values():
        np.add(parameter, 0.3 * random.standard_normal(parameter.shape), out=parameter)

    letters = oracle.CELLS[cell].states
    sizes = [made.get("proj_size", H) if letter == "h" else H for letter in letters]

    def state(*axes: int) -> Any:
        parts = tuple(random.standard_normal((*axes, n)) for n in sizes)
        if cell == "slstm":  # n is what a walk leaves
            parts = (*parts[:2], 1.0 + np.abs(parts[2]), parts[3])
        return parts if len(parts) > 1 else parts[0]

    exists = np.ones((T, B), bool)
    call: Arguments = {"x": random.standard_normal((T, B, I)), "state": state(L * D, B)}
    if random.random() < 0.5:
        call["lengths"] = random.integers(0, T + 1, B)
        exists &= np.arange(T)[:, None] < call["lengths"]
    if random.random() < 0.5:
        call["mask"] = random.random((T, B)) < 0.7
        exists &= call["mask"]
    if random.random() < 0.7:
        call["resets"] = random.random((T, B)) < 0.4
        call["reset_state"] = state(L * D)
    call["padding"] = one_of(random, "zero", "last")
    upstream = {"dy": random.standard_normal((T, B, D * sizes[0])), "dstate": state(L * D, B)}

    def named(value: Any, form: str) -> Arguments:
        parts = value if isinstance(value, tuple) else (value,)
        return {form.format(s): part for s, part in zip(letters, parts, strict=True)}

    arguments = {
        **{name: call[name] for name in ("lengths", "mask", "resets", "padding") if name in call},
        **named(call["state"], "{}0"),
        **(named(call["reset_state"], "reset_{}") if "reset_state" in call else {}),
        **own,
        "noise": oracle.Noise(seed=layer.dropout_state[0], **noise),
    }
    given = (cell, call["x"], layer.state_dict())
    ends = named(upstream["dstate"], "d{}_n")
    expected = oracle.stack(*given, **arguments)
    expected |= oracle.stack_gradients(*given, **arguments, dy=upstream["dy"], **ends)

    call["x"][~exists] = np.nan  # read by no one
    start, threads = layer.dropout_state, fr.get_num_threads()
    results = results_of(layer, call, upstream)
    check(results, {name: np.asarray(value) for name, value in expected.items()}, BOUND["float64"])

    lean = LAYERS[cell](I, H, L, memory="lean", **options)
    lean.load_state_dict(layer.state_dict())
    layer.dropout_state = start
    try:
        for other, count in ((lean, 2), (pickle.loads(pickle.dumps(layer)), 1)):
            fr.set_num_threads(count)
            moved = {name: layouts(random, value) for name, value in call.items()}
            above = {name: layouts(random, value) for name, value in upstream.items()}
            same_bits(results_of(other, moved, above), results)
    finally:
        fr.set_num_threads(threads)
    layer.eval()
    y, final = layer(**call)
    frozen = layer.freeze()(**call)
    parts = zip(named(final, "{}").items(), named(frozen[1], "{}").values(), strict=True)
    same_bits({"y": y}, {"y": frozen[0]})
    for (letter, part), other in parts:
        same_bits({letter: part}, {letter: other})
