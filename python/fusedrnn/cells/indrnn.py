"""The independently recurrent network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, get_args, overload

from fusedrnn import options
from fusedrnn.forward_mode import double_backward, jvp
from fusedrnn.functional import Tape, frozen_record, gradients, run
from fusedrnn.interop import A
from fusedrnn.layers.base import Layer
from fusedrnn.options import Init, Memory, Padding

Nonlinearity = Literal["relu", "tanh"]
NONLINEARITIES: tuple[Nonlinearity, ...] = get_args(Nonlinearity)


def _cell(nonlinearity: object) -> str:
    return f"indrnn_{options.choice('nonlinearity', nonlinearity, NONLINEARITIES)}"


def indrnn(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    h0: Any = None,
    *,
    nonlinearity: Nonlinearity = "relu",
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    padding: Padding = "zero",
    reset_h: Any = None,
    reverse: bool = False,
    compute_dtype: Any = None,
    out: Any = None,
) -> tuple[A, A]:
    """Run an independently recurrent network: ``h_t = act(W_ih x_t + b_ih + w_hh * h_{t-1})``.

    Each unit sees its own last value alone, so `w_hh` has one weight a unit, and there is no
    product in a step. The gradient that reaches a unit n steps back has the factor ``w_hh ** n``:
    after the paper, weights of at most ``2 ** (1 / T)`` keep it from exploding over T steps.

    Parameters
    ----------
    x : array [T, B, I], or [T, I]
    w_ih : array [H, I]
    w_hh : array [H]
    b_ih : array [H], optional
    h0 : array [B, H], optional
    nonlinearity : {"relu", "tanh"}
    lengths, mask, resets, padding, reset_h, reverse, out
        As in `rnn`.
    compute_dtype : {"bfloat16", "tfloat32"}, optional
        As in `rnn`; it rounds the operands of ``W_ih x_t``, not `w_hh`.

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
    S. Li et al., "Independently recurrent neural network (IndRNN)" (2018), arXiv:1803.04831, eq. 2.
    """
    cell, weights = _cell(nonlinearity), (w_ih, w_hh, b_ih)
    y, (h_n,), _, _ = run(
        cell,
        x,
        weights,
        (h0,),
        (lengths, mask, resets, padding, (reset_h,)),
        reverse,
        compute_dtype,
        out,
    )
    return y, h_n


def indrnn_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    h0: Any = None,
    *,
    nonlinearity: Nonlinearity = "relu",
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
    """Run `indrnn` and save what its gradients need: ``y, h_n, tape``.

    Takes the arguments of `indrnn`, and `memory` as `rnn_forward`, and computes the same bits.
    """
    cell, weights = _cell(nonlinearity), (w_ih, w_hh, b_ih)
    y, (h_n,), _, tape = run(
        cell,
        x,
        weights,
        (h0,),
        (lengths, mask, resets, padding, (reset_h,)),
        reverse,
        compute_dtype,
        out,
        "indrnn_forward",
        memory=memory,
    )
    return y, h_n, tape


@overload
def indrnn_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[False] = False,
) -> IndRNNGradients[A]: ...


@overload
def indrnn_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[True],
) -> tuple[IndRNNGradients[A], dict[str, Any]]: ...


def indrnn_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: bool = False,
) -> IndRNNGradients[A] | tuple[IndRNNGradients[A], dict[str, Any]]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n)``.

    Arguments as `rnn_backward`; the result has no `db_hh`, and its `dw_hh` is [H].
    """
    grads, flow = gradients(
        "indrnn_forward", tape, dy, (dh_n,), ("h",), out, (), clip_dh, return_flow
    )
    record = frozen_record(IndRNNGradients, grads)
    return (record, flow) if return_flow else record


def indrnn_jvp(tangents: Mapping[str, Any], *args: Any, **keywords: Any) -> tuple[Any, Any]:
    """Run `indrnn` and its derivative along a direction, as `rnn_jvp`: ``results, tangents``."""
    return jvp(indrnn, tangents, args, keywords)


def indrnn_double_backward(
    tape: Tape[A],
    directions: Mapping[str, Any],
    dy: Any = None,
    dh_n: Any = None,
) -> dict[str, A]:
    """Differentiate `indrnn_backward`, as `rnn_double_backward` does `rnn_backward`."""
    upstream = {"dy": dy, "dh_n": dh_n}
    return double_backward("indrnn_forward", tape, directions, upstream, ("h",))


@dataclass(frozen=True, eq=False)
class IndRNNGradients(Generic[A]):
    """As `RNNGradients`; `dw_hh` is [H], and there is no `db_hh`."""

    dx: A
    dw_ih: A
    dw_hh: A
    db_ih: A
    dh0: A
    dreset_h: Any = field(default=None, kw_only=True)


class IndRNN(Layer):
    """Layers of independently recurrent networks (Li et al. 2018); see `fusedrnn.indrnn`.

    Parameters
    ----------
    nonlinearity : {"relu", "tanh"}
    others
        As of `RNN`. A weight_hh is [H], there is no bias_hh, and where `bias` is False no bias_ih;
        `init` is "uniform", for what is orthogonal is a matrix.
    """

    _usual = Layer._usual | {"nonlinearity": "relu"}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: Nonlinearity = "relu",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = "float32",
        compute_dtype: Any = None,
        memory: Memory = "default",
        device: str = "cpu",
        array_type: type | None = None,
        seed: int | None = None,
        init: Init = "uniform",
    ) -> None:
        cell = _cell(nonlinearity)
        self.nonlinearity = nonlinearity
        super().__init__(
            cell,
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            dtype=dtype,
            compute_dtype=compute_dtype,
            memory=memory,
            device=device,
            array_type=array_type,
            seed=seed,
            init=init,
        )
