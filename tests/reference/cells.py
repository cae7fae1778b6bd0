"""One time step of a whole batch, forward and hand-derived backward (docs/math.md).

`a` is W_ih x + b_ih, already computed for every step. A step returns the new states and what its
backward needs; a backward takes the gradients of the new states and returns those of `a`, of
`u` = W_hh h + b_hh, of w_hh and of the old states. What products read, and what is saved, passes
through `rounding`; w_hh has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

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


class Cell(NamedTuple):
    """A cell's step and its backward, its number of gate blocks, the letters of its states."""

    step: Callable[..., tuple[States, Saved]]
    backward: Callable[..., Backward]
    gates: int
    states: tuple[str, ...]


CELLS: dict[str, Cell] = {
    "rnn": Cell(rnn_step, rnn_backward, 1, ("h",)),
    "gru": Cell(gru_step, gru_backward, 3, ("h",)),
    "lstm": Cell(lstm_step, lstm_backward, 4, ("h", "c")),
}

# What a layer calls the weights of the functions.
LAYER_NAMES = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}
