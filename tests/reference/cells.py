"""One time step of a whole batch, forward and hand-derived backward (docs/math.md).

`a` is W_ih x + b_ih, already computed for every step. A step returns the new states and what its
backward needs; a backward takes the gradients of the new states and returns those of `a`, of
`u` = W_hh h + b_hh, of w_hh and of the old states. What products read, and what is saved, passes
through `rounding`; w_hh has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import layer_norm
from .rounding import Array, Rounding

States = tuple[Array, ...]
Saved = tuple[Array, ...]
Backward = tuple[Array, Array, Array, States]


def sigmoid(a: Array) -> Array:
    e = np.exp(-np.abs(a))  # never overflows
    return np.asarray(np.where(a >= 0, 1.0, e) / (1.0 + e))


# Each with its gradient, of the result and the result's gradient. That of relu selects.
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]] = {
    "tanh": (np.tanh, lambda h, dh: dh * (1.0 - h * h)),
    "relu": (lambda a: np.maximum(a, 0.0), lambda h, dh: np.where(h <= 0.0, 0.0, dh)),
    "sigmoid": (sigmoid, lambda h, dh: dh * h * (1.0 - h)),
    "identity": (lambda a: a, lambda _, dh: dh),
}


def rnn_step(
    a: Array,
    states: States,
    w_hh: Array,
    b_hh: Array,
    rounding: Rounding,
    nonlinearity: str = "tanh",
) -> tuple[States, Saved]:
    (h_prev,) = states
    h = ACTIVATIONS[nonlinearity][0](a + rounding.operand(h_prev) @ w_hh.T + b_hh)
    return (h,), (h_prev, rounding.gates(h))


def rnn_backward(
    dstates: States,
    saved: Saved,
    w_hh: Array,
    rounding: Rounding,
    nonlinearity: str = "tanh",
) -> Backward:
    (dh,) = dstates
    h_prev, h = saved
    du = rounding.delta(ACTIVATIONS[nonlinearity][1](h, dh))
    return du, du, du.T @ rounding.operand(h_prev), (du @ w_hh,)


def gru_step(
    a: Array,
    states: States,
    w_hh: Array,
    b_hh: Array,
    rounding: Rounding,
    reset_after: bool = True,
) -> tuple[States, Saved]:
    (h_prev,) = states
    h_read = rounding.operand(h_prev)
    size = h_prev.shape[1]
    if reset_after:
        u = h_read @ w_hh.T + b_hh
        u_rz, u_n = u[:, : 2 * size], u[:, 2 * size :]
        r, z = np.split(sigmoid(a[:, : 2 * size] + u_rz), 2, axis=1)
        n = np.tanh(a[:, 2 * size :] + r * u_n)
        saved = tuple(map(rounding.gates, (r, z, n, u_n)))
    else:
        u_rz = h_read @ w_hh[: 2 * size].T + b_hh[: 2 * size]
        r, z = np.split(sigmoid(a[:, : 2 * size] + u_rz), 2, axis=1)
        u_n = rounding.operand(r * h_prev) @ w_hh[2 * size :].T + b_hh[2 * size :]
        n = np.tanh(a[:, 2 * size :] + u_n)
        saved = (r, z, n, u_n)  # r and z are needed again within the step, and are kept as they are
    return ((1.0 - z) * n + z * h_prev,), (h_prev, *saved)


def gru_backward(
    dstates: States, saved: Saved, w_hh: Array, rounding: Rounding, reset_after: bool = True
) -> Backward:
    (dh,) = dstates
    h_prev, r, z, n, u_n = saved
    h_read = rounding.operand(h_prev)
    size = h_prev.shape[1]
    da_n = dh * (1.0 - z) * (1.0 - n * n)
    da_z = dh * (h_prev - n) * z * (1.0 - z)
    if reset_after:
        da_r = da_n * u_n * r * (1.0 - r)
        du = rounding.delta(np.concatenate([da_r, da_z, da_n * r], axis=1))
        dw_hh = du.T @ h_read
        dh_prev = dh * z + du @ w_hh
    else:
        da_n = rounding.delta(da_n)
        drh = da_n @ w_hh[2 * size :]  # gradient of r * h_prev
        da_r = drh * h_prev * r * (1.0 - r)
        du = rounding.delta(np.concatenate([da_r, da_z, da_n], axis=1))
        du_rz = du[:, : 2 * size]
        dw_hh = np.concatenate([du_rz.T @ h_read, da_n.T @ rounding.operand(r * h_prev)])
        dh_prev = dh * z + du_rz @ w_hh[: 2 * size] + drh * r
    da = rounding.delta(np.concatenate([da_r, da_z, da_n], axis=1))
    return da, du, dw_hh, (dh_prev,)


def lstm_step(
    a: Array, states: States, w_hh: Array, b_hh: Array, rounding: Rounding
) -> tuple[States, Saved]:
    h_prev, c_prev = states
    v_i, v_f, v_g, v_o = np.split(a + rounding.operand(h_prev) @ w_hh.T + b_hh, 4, axis=1)
    i, f, g, o = sigmoid(v_i), sigmoid(v_f), np.tanh(v_g), sigmoid(v_o)
    c = f * c_prev + i * g
    return (o * np.tanh(c), c), (h_prev, c_prev, *map(rounding.gates, (i, f, g, o)))


def lstm_backward(dstates: States, saved: Saved, w_hh: Array, rounding: Rounding) -> Backward:
    dh, dc_next = dstates
    h_prev, c_prev, i, f, g, o = saved
    tanh_c = np.tanh(f * c_prev + i * g)
    dc = dc_next + dh * o * (1.0 - tanh_c * tanh_c)
    gates = [
        dc * g * i * (1.0 - i),
        dc * c_prev * f * (1.0 - f),
        dc * i * (1.0 - g * g),
        dh * tanh_c * o * (1.0 - o),
    ]
    du = rounding.delta(np.concatenate(gates, axis=1))
    return du, du, du.T @ rounding.operand(h_prev), (du @ w_hh, dc * f)


# Each with its derivative, of the argument.
CANDIDATES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "linear": (lambda a: a, np.ones_like),
    "positive": (
        lambda a: np.where(a >= 0.0, a + 0.5, sigmoid(a)),
        lambda a: np.where(a >= 0.0, 1.0, sigmoid(a) * sigmoid(-a)),
    ),
}


def softplus(a: Array) -> Array:
    return np.asarray(np.logaddexp(0.0, a))


def mingru_step(
    a: Array, states: States, _w: Array, _b: Array, rounding: Rounding, candidate: str = "linear"
) -> tuple[States, Saved]:
    (h_prev,) = states
    a_z, a_h = np.split(a, 2, axis=1)
    z = sigmoid(a_z)
    h = (1.0 - z) * h_prev + z * CANDIDATES[candidate][0](a_h)
    return (h,), (h_prev, rounding.gates(z), rounding.gates(a_h))


def mingru_backward(
    dstates: States, saved: Saved, w: Array, rounding: Rounding, candidate: str = "linear"
) -> Backward:
    (dh,) = dstates
    h_prev, z, a_h = saved
    value, slope = CANDIDATES[candidate]
    da_z = dh * (value(a_h) - h_prev) * z * (1.0 - z)
    da = rounding.delta(np.concatenate([da_z, dh * z * slope(a_h)], axis=1))
    return da, np.zeros_like(da), np.zeros_like(w), (dh * (1.0 - z),)


def minlstm_step(
    a: Array, states: States, _w: Array, _b: Array, rounding: Rounding, candidate: str = "linear"
) -> tuple[States, Saved]:
    (h_prev,) = states
    a_f, a_i, a_h = np.split(a, 3, axis=1)
    i = sigmoid(softplus(-a_f) - softplus(-a_i))
    h = (1.0 - i) * h_prev + i * CANDIDATES[candidate][0](a_h)
    return (h,), (h_prev, *map(rounding.gates, (a_f, a_i, a_h)))


def minlstm_backward(
    dstates: States, saved: Saved, w: Array, rounding: Rounding, candidate: str = "linear"
) -> Backward:
    (dh,) = dstates
    h_prev, a_f, a_i, a_h = saved
    value, slope = CANDIDATES[candidate]
    i = sigmoid(softplus(-a_f) - softplus(-a_i))
    di = dh * (value(a_h) - h_prev) * i * (1.0 - i)
    gates = [-di * sigmoid(-a_f), di * sigmoid(-a_i), dh * i * slope(a_h)]
    da = rounding.delta(np.concatenate(gates, axis=1))
    return da, np.zeros_like(da), np.zeros_like(w), (dh * (1.0 - i),)


def slstm_weights(lead: Array, n_prev: Array) -> tuple[NDArray[np.bool_], Array, Array]:
    """Whether m is that of the input, and exp(v_i - m), exp(log f + m_prev - m).

    The latter is kept finite where n_prev is 0, and it multiplies zeros.
    """
    by_input = (n_prev == 0.0) | (lead >= 0.0)
    return (
        by_input,
        np.exp(np.where(by_input, 0.0, lead)),
        np.exp(np.where(by_input, np.minimum(-lead, 80.0), 0.0)),
    )


def slstm_step(
    a: Array,
    states: States,
    w_hh: Array,
    _b: Array,
    rounding: Rounding,
    forget: str = "sigmoid",
) -> tuple[States, Saved]:
    h_prev, c_prev, n_prev, m_prev = states
    v_i, v_f, v_z, v_o = np.split(a + rounding.operand(h_prev) @ w_hh.T, 4, axis=1)
    z, o = np.tanh(v_z), sigmoid(v_o)
    kept = m_prev + (v_f if forget == "exp" else -softplus(-v_f))
    by_input, i, f = slstm_weights(v_i - kept, n_prev)
    m = np.where(by_input, v_i, kept)
    c, n = f * c_prev + i * z, f * n_prev + i
    saved = (h_prev, c_prev, n_prev, *map(rounding.gates, (v_i - kept, v_f, z, o)))
    return (o * c / n, c, n, m), saved


def slstm_backward(
    dstates: States, saved: Saved, w_hh: Array, rounding: Rounding, forget: str = "sigmoid"
) -> Backward:
    dh, dc, dn, dm = dstates
    h_prev, c_prev, n_prev, lead, v_f, z, o = saved
    by_input, i, f = slstm_weights(lead, n_prev)
    c, n = f * c_prev + i * z, f * n_prev + i
    dc = dc + dh * o / n
    dn = dn - dh * o * c / (n * n)
    di, df = (dc * z + dn) * i, (dc * c_prev + dn * n_prev) * f
    dm = dm - di - df  # of m itself, which takes its gradient to the greater of the two
    dkept = df + np.where(by_input, 0.0, dm)
    gates = [
        di + np.where(by_input, dm, 0.0),
        dkept * (1.0 if forget == "exp" else sigmoid(-v_f)),
        dc * i * (1.0 - z * z),
        dh * c / n * o * (1.0 - o),
    ]
    du = rounding.delta(np.concatenate(gates, axis=1))
    return du, du, du.T @ rounding.operand(h_prev), (du @ w_hh, dc * f, dn * f, dkept)


class Cell(NamedTuple):
    """A cell's step and its backward, its number of gate blocks, the letters of its states.

    And what it has beside w_ih and b_ih; or, of a normalised cell (`layer_norm`), what gains and
    biases it has, by the blocks of H in each.
    """

    step: Callable[..., tuple[States, Saved]]
    backward: Callable[..., Any]
    gates: int
    states: tuple[str, ...]
    weights: tuple[str, ...] = ("w_hh", "b_hh")
    vectors: Mapping[str, int] = MappingProxyType({})


CELLS: dict[str, Cell] = {
    "rnn": Cell(rnn_step, rnn_backward, 1, ("h",)),
    "gru": Cell(gru_step, gru_backward, 3, ("h",)),
    "lstm": Cell(lstm_step, lstm_backward, 4, ("h", "c")),
    "mingru": Cell(mingru_step, mingru_backward, 2, ("h",), ()),
    "minlstm": Cell(minlstm_step, minlstm_backward, 3, ("h",), ()),
    "slstm": Cell(slstm_step, slstm_backward, 4, ("h", "c", "n", "m"), ("w_hh",)),
    "lstm_layer_norm": Cell(
        layer_norm.lstm_step,
        layer_norm.lstm_backward,
        4,
        ("h", "c"),
        ("w_hh",),
        {"g_ih": 4, "b_ih": 4, "g_hh": 4, "b_hh": 4, "g_c": 1, "b_c": 1},
    ),
    "gru_layer_norm": Cell(
        layer_norm.gru_step,
        layer_norm.gru_backward,
        3,
        ("h",),
        ("w_hh",),
        {"g_ih": 3, "b_ih": 3, "g_hh": 3, "b_hh": 3},
    ),
    "gru_world_model": Cell(
        layer_norm.world_model_step,
        layer_norm.world_model_backward,
        3,
        ("h",),
        ("w_hh",),
        {"g": 3, "b": 3},
    ),
}

# What a layer calls the weights of the functions.
LAYER_NAMES = {
    "w_ih": "weight_ih",
    "w_hh": "weight_hh",
    "g_ih": "gain_ih",
    "b_ih": "bias_ih",
    "g_hh": "gain_hh",
    "b_hh": "bias_hh",
    "g_c": "gain_cell",
    "b_c": "bias_cell",
    "g": "gain",
    "b": "bias",
}
