"""The cells: one function each, one time step of one sequence, the equations and nothing else.

A cell takes `x_t`, its state and its weights by their names, and returns the new state, whose
first member is the output. To add a cell, write its function and give it a line in `CELLS`;
gradients follow. To add a weight to a cell, add a keyword.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .autodiff import Scalar, relu, sigmoid, tanh
from .vector import Vector, affine

Row = Sequence[Scalar]
Matrix = Sequence[Row]
State = tuple[Vector, ...]


def identity(a: Scalar) -> Scalar:
    return a


ACTIVATIONS = {"tanh": tanh, "relu": relu, "sigmoid": sigmoid, "identity": identity}


def rnn(
    x: Vector,
    state: State,
    *,
    w_ih: Matrix,
    w_hh: Matrix,
    b_ih: Row | None = None,
    b_hh: Row | None = None,
    nonlinearity: str = "tanh",
) -> State:
    """Elman (1990): h = act(W_ih x + b_ih + W_hh h_prev + b_hh)."""
    (h,) = state
    a = affine(w_ih, x, b_ih)
    u = affine(w_hh, h, b_hh)
    return ((a + u).map(ACTIVATIONS[nonlinearity]),)


def gru(
    x: Vector,
    state: State,
    *,
    w_ih: Matrix,
    w_hh: Matrix,
    b_ih: Row | None = None,
    b_hh: Row | None = None,
    reset_after: bool = True,
) -> State:
    """Cho et al. (2014), arXiv:1406.1078; `reset_after` as in cuDNN, PyTorch and Keras."""
    (h,) = state
    a_r, a_z, a_n = affine(w_ih, x, b_ih).blocks(3)
    u_r, u_z, u_n = affine(w_hh, h, b_hh).blocks(3)
    r = (a_r + u_r).map(sigmoid)
    z = (a_z + u_z).map(sigmoid)
    if reset_after:
        n = (a_n + r * u_n).map(tanh)
    else:
        last = slice(2 * len(h), 3 * len(h))
        u_n = affine(w_hh[last], r * h, None if b_hh is None else b_hh[last])
        n = (a_n + u_n).map(tanh)
    return ((1.0 - z) * n + z * h,)


def lstm(
    x: Vector,
    state: State,
    *,
    w_ih: Matrix,
    w_hh: Matrix,
    b_ih: Row | None = None,
    b_hh: Row | None = None,
    w_peephole: Row | None = None,
) -> State:
    """Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000).

    Peepholes after Gers and Schmidhuber (2000).
    """
    h, c = state
    a_i, a_f, a_g, a_o = affine(w_ih, x, b_ih).blocks(4)
    u_i, u_f, u_g, u_o = affine(w_hh, h, b_hh).blocks(4)
    p_i, p_f, p_o = (None,) * 3 if w_peephole is None else Vector(w_peephole).blocks(3)

    def gate(v: Vector, p: Vector | None, c: Vector) -> Vector:
        return (v if p is None else v + p * c).map(sigmoid)

    i = gate(a_i + u_i, p_i, c)
    f = gate(a_f + u_f, p_f, c)
    g = (a_g + u_g).map(tanh)
    c = f * c + i * g
    o = gate(a_o + u_o, p_o, c)
    h = o * c.map(tanh)
    return (h, c)


def indrnn(
    x: Vector,
    state: State,
    *,
    w_ih: Matrix,
    w_hh: Row,
    b_ih: Row | None = None,
    nonlinearity: str = "relu",
) -> State:
    """Li et al. (2018), arXiv:1803.04831: h = act(W_ih x + b_ih + w_hh * h_prev)."""
    (h,) = state
    a = affine(w_ih, x, b_ih)
    return ((a + Vector(w_hh) * h).map(ACTIVATIONS[nonlinearity]),)


class Cell(NamedTuple):
    """A cell's step, its number of gate blocks, and the letters of its states."""

    step: Callable[..., State]
    gates: int
    states: tuple[str, ...]


CELLS = {
    "rnn": Cell(rnn, gates=1, states=("h",)),
    "gru": Cell(gru, gates=3, states=("h",)),
    "indrnn": Cell(indrnn, gates=1, states=("h",)),
    "lstm": Cell(lstm, gates=4, states=("h", "c")),
}
