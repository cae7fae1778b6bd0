"""minLSTM: a long short-term memory whose gates see the input alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, overload

from fusedrnn.cells.mingru import Candidate, MinGRUGradients, MinLayer, cell_of
from fusedrnn.forward_mode import double_backward, jvp
from fusedrnn.functional import Tape, frozen_record, gradients, run
from fusedrnn.interop import A
from fusedrnn.options import Memory, Padding


def minlstm(
    x: A,
    w_ih: Any,
    b_ih: Any = None,
    h0: Any = None,
    *,
    candidate: Candidate = "linear",
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    padding: Padding = "zero",
    reset_h: Any = None,
    reverse: bool = False,
    compute_dtype: Any = None,
    out: Any = None,
) -> tuple[A, A]:
    """Run a minLSTM, an LSTM whose gates see the input alone and are normalised.

    With ``a = W_ih x_t + b_ih``, cut into blocks f, i and h, and s the logistic sigmoid::

        f, i = s(a_f), s(a_i)
        h_t = (f * h_{t-1} + i * g(a_h)) / (f + i)

    There is no product in a step: a walk over time costs little beside the product with x.


    Parameters
    ----------
    x : array [T, B, I], or [T, I]
    w_ih : array [3H, I]
        Blocks in the order f, i, h.
    b_ih : array [3H], optional
    h0 : array [B, H], optional
        The state before the first step, as it is; zero where absent.
    candidate : {"linear", "positive"}
        g: the identity, or the paper's positive function, ``x + 0.5`` for x >= 0 and s(x) below.
        The paper needs the latter where it computes in logarithms; a walk step by step needs none,
        and the identity also takes h below zero.
    lengths, mask, resets, padding, reset_h, reverse, compute_dtype, out
        As in `rnn`.

    Returns
    -------
    y, h_n : arrays [T, B, H] and [B, H]
        As of `rnn`.

    Raises
    ------
    ValueError, TypeError
        As `rnn`.

    References
    ----------
    L. Feng et al., "Were RNNs all we needed?" (2024), arXiv:2410.01201, section 3.2 and appendix B.
    """
    y, (h_n,), _, _ = run(
        cell_of("minlstm", candidate),
        x,
        (w_ih, b_ih),
        (h0,),
        (lengths, mask, resets, padding, (reset_h,)),
        reverse,
        compute_dtype,
        out,
    )
    return y, h_n


def minlstm_forward(
    x: A,
    w_ih: Any,
    b_ih: Any = None,
    h0: Any = None,
    *,
    candidate: Candidate = "linear",
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    padding: Padding = "zero",
    reset_h: Any = None,
    reverse: bool = False,
    compute_dtype: Any = None,
    memory: Memory = "default",
    out: Any = None,
) -> tuple[A, A, Tape[A]]:
    """Run `minlstm` and save what its gradients need: ``y, h_n, tape``.

    Takes the arguments of `minlstm`, and `memory` as `rnn_forward`, and computes the same bits.
    """
    y, (h_n,), _, tape = run(
        cell_of("minlstm", candidate),
        x,
        (w_ih, b_ih),
        (h0,),
        (lengths, mask, resets, padding, (reset_h,)),
        reverse,
        compute_dtype,
        out,
        "minlstm_forward",
        memory=memory,
    )
    return y, h_n, tape


@overload
def minlstm_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[False] = False,
) -> MinLSTMGradients[A]: ...


@overload
def minlstm_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[True],
) -> tuple[MinLSTMGradients[A], dict[str, Any]]: ...


def minlstm_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: bool = False,
) -> MinLSTMGradients[A] | tuple[MinLSTMGradients[A], dict[str, Any]]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n)``.

    Arguments as `rnn_backward`; the result has no `dw_hh` and no `db_hh`.
    """
    grads, flow = gradients(
        "minlstm_forward", tape, dy, (dh_n,), ("h",), out, (), clip_dh, return_flow
    )
    record = frozen_record(MinLSTMGradients, grads)
    return (record, flow) if return_flow else record


def minlstm_jvp(tangents: Mapping[str, Any], *args: Any, **keywords: Any) -> tuple[Any, Any]:
    """Run `minlstm` and its derivative along a direction, as `rnn_jvp`: ``results, tangents``."""
    return jvp(minlstm, tangents, args, keywords)


def minlstm_double_backward(
    tape: Tape[A],
    directions: Mapping[str, Any],
    dy: Any = None,
    dh_n: Any = None,
) -> dict[str, A]:
    """Differentiate `minlstm_backward`, as `rnn_double_backward` does `rnn_backward`."""
    upstream = {"dy": dy, "dh_n": dh_n}
    return double_backward("minlstm_forward", tape, directions, upstream, ("h",))


@dataclass(frozen=True, eq=False)
class MinLSTMGradients(MinGRUGradients[A]):
    """As `MinGRUGradients`."""


class MinLSTM(MinLayer):
    """Layers of minLSTM (Feng et al. 2024); see `fusedrnn.minlstm`.

    Parameters
    ----------
    candidate : {"linear", "positive"}
    others
        As of `RNN`. A weight_ih is [3H, ...], of f, i, h; there is no weight_hh and no bias_hh, and
        where `bias` is False no bias_ih. With `init` "orthogonal" weights are Glorot's and biases
        zero.
    """

    _family = "minlstm"
