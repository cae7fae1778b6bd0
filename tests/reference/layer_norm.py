"""The steps of cells with layer normalisation, as those of `cells` (docs/math.md, section 5).

`a` is W_ih x alone: gains and biases follow the normalisation. They come as a mapping by name, in
the place of b_hh, and a backward returns their gradients in the place of that of u. What is saved
is never rounded.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .rounding import Array, Rounding

Vectors = Mapping[str, Array]
States = tuple[Array, ...]
Step = tuple[States, tuple[Array, ...]]
Backward = tuple[Array, dict[str, Array], Array, States]

EPSILON, EPSILON_OF_WORLD_MODELS = 1e-5, 1e-3


def sigmoid(v: Array) -> Array:
    e = np.exp(-np.abs(v))  # never overflows
    return np.asarray(np.where(v >= 0, 1.0, e) / (1.0 + e))


def normalise(v: Array, epsilon: float = EPSILON) -> tuple[Array, Array]:
    """Each row without its mean and over its deviation, and the factor: one over the latter."""
    centred = v - v.mean(axis=1, keepdims=True)
    factor = 1.0 / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + epsilon)
    return centred * factor, factor


def normalise_backward(d: Array, normed: Array, factor: Array) -> Array:
    """From the gradient of a normalised row to that of the row."""
    along = (d * normed).mean(axis=1, keepdims=True)
    return np.asarray(factor * (d - d.mean(axis=1, keepdims=True) - normed * along))


def summed(rows: Vectors, rounding: Rounding) -> dict[str, Array]:
    return {name: rounding.delta(value).sum(axis=0) for name, value in rows.items()}


def apart(v: Array) -> tuple[Array, Array]:
    """A GRU's r and z, which are normalised together, and n."""
    size = v.shape[1] // 3
    return v[:, : 2 * size], v[:, 2 * size :]


def normalise_apart(v: Array) -> tuple[Array, Array]:
    parts = [normalise(part) for part in apart(v)]
    factors = [np.broadcast_to(factor, normed.shape) for normed, factor in parts]
    return np.concatenate([normed for normed, _ in parts], axis=1), np.concatenate(factors, axis=1)


def normalise_apart_backward(d: Array, normed: Array, factors: Array) -> Array:
    parts = zip(apart(d), apart(normed), apart(factors), strict=True)
    return np.concatenate([normalise_backward(*part) for part in parts], axis=1)


def lstm_step(a: Array, states: States, w_hh: Array, b: Vectors, rounding: Rounding) -> Step:
    h_prev, c_prev = states
    x_a, s_a = normalise(a)
    x_u, s_u = normalise(rounding.operand(h_prev) @ w_hh.T)
    v = b["g_ih"] * x_a + b["b_ih"] + b["g_hh"] * x_u + b["b_hh"]
    v_i, v_f, v_g, v_o = np.split(v, 4, axis=1)
    i, f, g, o = sigmoid(v_i), sigmoid(v_f), np.tanh(v_g), sigmoid(v_o)
    c = f * c_prev + i * g
    x_c, s_c = normalise(c)
    saved = (h_prev, c_prev, s_a, s_u, s_c, i, f, g, o, x_a, x_u, x_c)
    return (o * np.tanh(b["g_c"] * x_c + b["b_c"]), c), saved


def lstm_backward(
    dstates: States, saved: tuple[Array, ...], w_hh: Array, b: Vectors, rounding: Rounding
) -> Backward:
    dh, dc_next = dstates
    h_prev, c_prev, s_a, s_u, s_c, i, f, g, o, x_a, x_u, x_c = saved
    t = np.tanh(b["g_c"] * x_c + b["b_c"])
    db_c = dh * o * (1.0 - t * t)
    dc = dc_next + normalise_backward(db_c * b["g_c"], x_c, s_c)
    gates = [
        dc * g * i * (1.0 - i),
        dc * c_prev * f * (1.0 - f),
        dc * i * (1.0 - g * g),
        dh * t * o * (1.0 - o),
    ]
    dv = np.concatenate(gates, axis=1)
    da = rounding.delta(normalise_backward(dv * b["g_ih"], x_a, s_a))
    du = rounding.delta(normalise_backward(dv * b["g_hh"], x_u, s_u))
    rows = {"g_ih": dv * x_a, "b_ih": dv, "g_hh": dv * x_u, "b_hh": dv}
    rows |= {"g_c": db_c * x_c, "b_c": db_c}
    return da, summed(rows, rounding), du.T @ rounding.operand(h_prev), (du @ w_hh, dc * f)


def gru_step(a: Array, states: States, w_hh: Array, b: Vectors, rounding: Rounding) -> Step:
    (h_prev,) = states
    x_a, s_a = normalise_apart(a)
    x_u, s_u = normalise_apart(rounding.operand(h_prev) @ w_hh.T)
    a_r, a_z, a_n = np.split(b["g_ih"] * x_a + b["b_ih"], 3, axis=1)
    u_r, u_z, u_n = np.split(b["g_hh"] * x_u + b["b_hh"], 3, axis=1)
    r, z = sigmoid(a_r + u_r), sigmoid(a_z + u_z)
    n = np.tanh(a_n + r * u_n)
    return ((1.0 - z) * n + z * h_prev,), (h_prev, s_a, s_u, r, z, n, u_n, x_a, x_u)


def gru_backward(
    dstates: States, saved: tuple[Array, ...], w_hh: Array, b: Vectors, rounding: Rounding
) -> Backward:
    (dh,) = dstates
    h_prev, s_a, s_u, r, z, n, u_n, x_a, x_u = saved
    dn = dh * (1.0 - z) * (1.0 - n * n)
    dr, dz = dn * u_n * r * (1.0 - r), dh * (h_prev - n) * z * (1.0 - z)
    of_a = np.concatenate([dr, dz, dn], axis=1)
    of_u = np.concatenate([dr, dz, dn * r], axis=1)
    da = rounding.delta(normalise_apart_backward(of_a * b["g_ih"], x_a, s_a))
    du = rounding.delta(normalise_apart_backward(of_u * b["g_hh"], x_u, s_u))
    rows = {"g_ih": of_a * x_a, "b_ih": of_a, "g_hh": of_u * x_u, "b_hh": of_u}
    return da, summed(rows, rounding), du.T @ rounding.operand(h_prev), (dh * z + du @ w_hh,)


def world_model_step(a: Array, states: States, w_hh: Array, b: Vectors, rounding: Rounding) -> Step:
    (h_prev,) = states
    x, s = normalise(a + rounding.operand(h_prev) @ w_hh.T, EPSILON_OF_WORLD_MODELS)
    v_r, v_n, v_z = np.split(b["g"] * x + b["b"], 3, axis=1)
    r, z = sigmoid(v_r), sigmoid(v_z)
    n = np.tanh(r * v_n)
    return (z * n + (1.0 - z) * h_prev,), (h_prev, s, r, n, z, v_n, x)


def world_model_backward(
    dstates: States, saved: tuple[Array, ...], w_hh: Array, b: Vectors, rounding: Rounding
) -> Backward:
    (dh,) = dstates
    h_prev, s, r, n, z, v_n, x = saved
    d = dh * z * (1.0 - n * n)
    gates = [d * v_n * r * (1.0 - r), d * r, dh * (n - h_prev) * z * (1.0 - z)]
    dv = np.concatenate(gates, axis=1)
    da = rounding.delta(normalise_backward(dv * b["g"], x, s))
    return (
        da,
        summed({"g": dv * x, "b": dv}, rounding),
        da.T @ rounding.operand(h_prev),
        (dh * (1.0 - z) + da @ w_hh,),
    )
