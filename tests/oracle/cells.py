"""The cells: one function each, one time step of one sequence, the equations and nothing else.

A cell takes `x_t`, its state and its weights by their names, and returns the new state, whose
first member is the output. To add a cell, write its function and give it a line in `CELLS`;
gradients follow. To add a weight to a cell, add a keyword.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .activations import Activation, clipped, function_of
from .autodiff import Scalar, exp, inverse_sqrt, log, reciprocal, sigmoid, tanh, value_of
from .vector import Vector, affine

Row = Sequence[Scalar]
Matrix = Sequence[Row]
State = tuple[Vector, ...]


NO_LIMIT = math.inf


def _gate(activation: Activation, clip: float) -> Callable[[Scalar], Scalar]:
    """ONNX: what an activation is given is first limited to [-clip, clip]."""
    act = function_of(activation)
    return lambda a: act(clipped(a, clip))


def _masked(v: Vector, mask: Vector | None) -> Vector:
    return v if mask is None else v * mask


def rnn(
    x: Vector,
    state: State,
    *,
    w_ih: Matrix,
    w_hh: Matrix,
    b_ih: Row | None = None,
    b_hh: Row | None = None,
    nonlinearity: Activation = "tanh",
    clip: float = NO_LIMIT,
    operand_mask: Vector | None = None,
) -> State:
    """Elman (1990): h = act(W_ih x + b_ih + W_hh h_prev + b_hh)."""
    (h,) = state
    a = affine(w_ih, x, b_ih)
    u = affine(w_hh, _masked(h, operand_mask), b_hh)
    return ((a + u).map(_gate(nonlinearity, clip)),)


def gru(
    x: Vector,
    state: State,
    *,
    w_ih: Matrix,
    w_hh: Matrix,
    b_ih: Row | None = None,
    b_hh: Row | None = None,
    reset_after: bool = True,
    clip: float = NO_LIMIT,
    activations: Sequence[Activation] = ("sigmoid", "tanh"),
    candidate_mask: Vector | None = None,
    operand_mask: Vector | None = None,
) -> State:
    """Cho et al. (2014), arXiv:1406.1078; `reset_after` as in cuDNN, PyTorch and Keras."""
    (h,) = state
    f, g = (_gate(activation, clip) for activation in activations)
    a_r, a_z, a_n = affine(w_ih, x, b_ih).blocks(3)
    u_r, u_z, u_n = affine(w_hh, _masked(h, operand_mask), b_hh).blocks(3)
    r = (a_r + u_r).map(f)
    z = (a_z + u_z).map(f)
    if reset_after:
        n = (a_n + r * u_n).map(g)
    else:
        last = slice(2 * len(h), 3 * len(h))
        u_n = affine(w_hh[last], _masked(r * h, operand_mask), None if b_hh is None else b_hh[last])
        n = (a_n + u_n).map(g)
    return ((1.0 - z) * _masked(n, candidate_mask) + z * h,)


def lstm(
    x: Vector,
    state: State,
    *,
    w_ih: Matrix,
    w_hh: Matrix,
    b_ih: Row | None = None,
    b_hh: Row | None = None,
    w_peephole: Row | None = None,
    w_hr: Matrix | None = None,
    coupled: bool = False,
    clip: float = NO_LIMIT,
    cell_clip: float = NO_LIMIT,
    cell_clip_nan: str = "propagate",
    activations: Sequence[Activation] = ("sigmoid", "tanh", "tanh"),
    candidate_mask: Vector | None = None,
    operand_mask: Vector | None = None,
) -> State:
    """Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000).

    Peepholes after Gers and Schmidhuber (2000), a projection after Sak et al. (2014), coupled gates
    after Greff et al. (2017). `cell_clip` as in cuDNN: c is limited where it is made.
    """
    f_act, g_act = (_gate(activation, clip) for activation in activations[:2])
    h_act = function_of(activations[2])
    h, c = state
    names = "igo" if coupled else "ifgo"
    seen = "io" if coupled else "ifo"
    a = affine(w_ih, x, b_ih).blocks(len(names))
    u = affine(w_hh, _masked(h, operand_mask), b_hh).blocks(len(names))
    v = {name: a_k + u_k for name, a_k, u_k in zip(names, a, u, strict=True)}
    peepholes = [] if w_peephole is None else Vector(w_peephole).blocks(len(seen))
    p = dict(zip(seen, peepholes, strict=False))

    def gate(name: str, c: Vector) -> Vector:
        return (v[name] + p[name] * c if name in p else v[name]).map(f_act)

    i = gate("i", c)
    f = 1.0 - i if coupled else gate("f", c)
    c_new = f * c + i * _masked(v["g"].map(g_act), candidate_mask)
    c_new = c_new.map(lambda a: clipped(a, cell_clip, cell_clip_nan == "limit"))
    h = gate("o", c_new) * c_new.map(h_act)
    return (h if w_hr is None else affine(w_hr, h, None), c_new)


def indrnn(
    x: Vector,
    state: State,
    *,
    w_ih: Matrix,
    w_hh: Row,
    b_ih: Row | None = None,
    nonlinearity: Activation = "relu",
) -> State:
    """Li et al. (2018), arXiv:1803.04831: h = act(W_ih x + b_ih + w_hh * h_prev)."""
    (h,) = state
    a = affine(w_ih, x, b_ih)
    return ((a + Vector(w_hh) * h).map(function_of(nonlinearity)),)


def positive(a: Scalar) -> Scalar:
    """The paper's g, so that h~ has a logarithm."""
    return a + 0.5 if value_of(a) >= 0.0 else sigmoid(a)


CANDIDATES = {"linear": function_of("identity"), "positive": positive}


def mingru(
    x: Vector,
    state: State,
    *,
    w_ih: Matrix,
    b_ih: Row | None = None,
    candidate: str = "linear",
) -> State:
    """Feng et al. (2024), arXiv:2410.01201, section 3.1, gates z and h; `candidate` as in B.1."""
    (h,) = state
    a_z, a_h = affine(w_ih, x, b_ih).blocks(2)
    z = a_z.map(sigmoid)
    return ((1.0 - z) * h + z * a_h.map(CANDIDATES[candidate]),)


def minlstm(
    x: Vector,
    state: State,
    *,
    w_ih: Matrix,
    b_ih: Row | None = None,
    candidate: str = "linear",
) -> State:
    """Feng et al. (2024), arXiv:2410.01201, section 3.2, gates f, i and h, normalised."""
    (h,) = state
    a_f, a_i, a_h = affine(w_ih, x, b_ih).blocks(3)
    f, i = a_f.map(sigmoid), a_i.map(sigmoid)
    share = (f + i).map(reciprocal)
    return (f * share * h + i * share * a_h.map(CANDIDATES[candidate]),)


def slstm(
    x: Vector,
    state: State,
    *,
    w_ih: Matrix,
    w_hh: Matrix,
    b_ih: Row | None = None,
    forget: str = "sigmoid",
) -> State:
    """Beck et al. (2024), arXiv:2405.04517, equations 8 to 18; gates i, f, z, o.

    Where n is 0 there is no past to scale, and m is that of the input alone.
    """
    h, c, n, m = state
    v = affine(w_ih, x, b_ih) + affine(w_hh, h, None)
    v_i, v_f, v_z, v_o = v.blocks(4)
    log_f = v_f if forget == "exp" else v_f.map(sigmoid).map(log)
    kept = log_f + m
    m_new = Vector(map(_stabiliser, v_i, kept, n))
    i, f = (v_i - m_new).map(exp), (kept - m_new).map(exp)
    c, n = f * c + i * v_z.map(tanh), f * n + i
    return (v_o.map(sigmoid) * c * n.map(reciprocal), c, n, m_new)


def _stabiliser(v_i: Scalar, kept: Scalar, n: Scalar) -> Scalar:
    return v_i if value_of(n) == 0.0 or value_of(v_i) >= value_of(kept) else kept


def normalised(v: Vector, gain: Row, bias: Row | None, epsilon: float) -> Vector:
    """Ba, Kiros and Hinton (2016), arXiv:1607.06450, equation 4: over all of v."""
    mean = sum(v, 0.0) * (1.0 / len(v))
    centred = Vector(a - mean for a in v)
    variance = sum(centred * centred, 0.0) * (1.0 / len(v))
    scale = inverse_sqrt(variance + epsilon)
    scaled = Vector(a * scale for a in centred) * Vector(gain)
    return scaled if bias is None else scaled + Vector(bias)


def lstm_layer_norm(
    x: Vector,
    state: State,
    *,
    w_ih: Matrix,
    w_hh: Matrix,
    g_ih: Row,
    b_ih: Row,
    g_hh: Row,
    b_hh: Row,
    g_c: Row,
    b_c: Row,
    epsilon: float = 1e-5,
    operand_mask: Vector | None = None,
) -> State:
    """Ba et al. (2016), the LSTM of the supplement: each product over all of its gates, and c."""
    h, c = state
    a = normalised(affine(w_ih, x, None), g_ih, b_ih, epsilon)
    u = normalised(affine(w_hh, _masked(h, operand_mask), None), g_hh, b_hh, epsilon)
    i, f, g, o = (a + u).blocks(4)
    c = f.map(sigmoid) * c + i.map(sigmoid) * g.map(tanh)
    return (o.map(sigmoid) * normalised(c, g_c, b_c, epsilon).map(tanh), c)


def gru_layer_norm(
    x: Vector,
    state: State,
    *,
    w_ih: Matrix,
    w_hh: Matrix,
    g_ih: Row,
    b_ih: Row,
    g_hh: Row,
    b_hh: Row,
    epsilon: float = 1e-5,
    operand_mask: Vector | None = None,
) -> State:
    """Ba et al. (2016), the GRU of the supplement, z and 1 - z exchanged: n by itself."""
    (h,) = state
    size = len(h)

    def apart(product: Vector, gain: Row, bias: Row) -> list[Vector]:
        both, n = Vector(product.items[: 2 * size]), Vector(product.items[2 * size :])
        r, z = normalised(both, gain[: 2 * size], bias[: 2 * size], epsilon).blocks(2)
        return [r, z, normalised(n, gain[2 * size :], bias[2 * size :], epsilon)]

    a_r, a_z, a_n = apart(affine(w_ih, x, None), g_ih, b_ih)
    u_r, u_z, u_n = apart(affine(w_hh, _masked(h, operand_mask), None), g_hh, b_hh)
    r, z = (a_r + u_r).map(sigmoid), (a_z + u_z).map(sigmoid)
    n = (a_n + r * u_n).map(tanh)
    return ((1.0 - z) * n + z * h,)


def gru_world_model(
    x: Vector,
    state: State,
    *,
    w_ih: Matrix,
    w_hh: Matrix,
    g: Row,
    b: Row,
    epsilon: float = 1e-3,
    operand_mask: Vector | None = None,
) -> State:
    """Hafner et al. (2020), arXiv:2010.02193: one norm over all gates of W [x, h].

    Gates r, n, z; z is the share of n, and r scales all of n's pre-activation. What the authors add
    to that of z is part of b.
    """
    (h,) = state
    v = normalised(
        affine(w_ih, x, None) + affine(w_hh, _masked(h, operand_mask), None), g, b, epsilon
    )
    v_r, v_n, v_z = v.blocks(3)
    z, n = v_z.map(sigmoid), (v_r.map(sigmoid) * v_n).map(tanh)
    return (z * n + (1.0 - z) * h,)


class Cell(NamedTuple):
    """A cell's step, its number of gate blocks (without options), and the letters of its states."""

    step: Callable[..., State]
    gates: int
    states: tuple[str, ...]


CELLS = {
    "rnn": Cell(rnn, gates=1, states=("h",)),
    "gru": Cell(gru, gates=3, states=("h",)),
    "indrnn": Cell(indrnn, gates=1, states=("h",)),
    "lstm": Cell(lstm, gates=4, states=("h", "c")),
    "mingru": Cell(mingru, gates=2, states=("h",)),
    "minlstm": Cell(minlstm, gates=3, states=("h",)),
    "slstm": Cell(slstm, gates=4, states=("h", "c", "n", "m")),
    "lstm_layer_norm": Cell(lstm_layer_norm, gates=4, states=("h", "c")),
    "gru_layer_norm": Cell(gru_layer_norm, gates=3, states=("h",)),
    "gru_world_model": Cell(gru_world_model, gates=3, states=("h",)),
}
