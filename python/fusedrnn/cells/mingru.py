"""minGRU: a gated recurrent unit whose gates see the input alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, get_args, overload

from fusedrnn import options
from fusedrnn.forward_mode import double_backward, jvp
from fusedrnn.functional import Tape, frozen_record, gradients, run
from fusedrnn.interop import A
from fusedrnn.layers.base import Layer
from fusedrnn.options import Init, Memory, Padding

Candidate = Literal["linear", "positive"]
CANDIDATES: tuple[Candidate, ...] = get_args(Candidate)


def cell_of(family: str, candidate: object) -> str:
    return f"{family}_{options.choice('candidate', candidate, CANDIDATES)}"


def mingru(
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
    """Run a minGRU, a GRU whose gate and candidate see the input alone.

    With ``a = W_ih x_t + b_ih``, cut into blocks z and h, and s the logistic sigmoid::

        z = s(a_z)
        h_t = (1 - z) * h_{t-1} + z * g(a_h)

    There is no product in a step: a walk over time costs little beside the product with x.


    Parameters
    ----------
    x : array [T, B, I], or [T, I]
    w_ih : array [2H, I]
        Blocks in the order z, h.
    b_ih : array [2H], optional
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
    L. Feng et al., "Were RNNs all we needed?" (2024), arXiv:2410.01201, section 3.1 and appendix B.
    """
    y, (h_n,), _, _ = run(
        cell_of("mingru", candidate),
        x,
        (w_ih, b_ih),
        (h0,),
        (lengths, mask, resets, padding, (reset_h,)),
        reverse,
        compute_dtype,
        out,
    )
    return y, h_n


def mingru_forward(
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
    """Run `mingru` and save what its gradients need: ``y, h_n, tape``.

    Takes the arguments of `mingru`, and `memory` as `rnn_forward`, and computes the same bits.
    """
    y, (h_n,), _, tape = run(
        cell_of("mingru", candidate),
        x,
        (w_ih, b_ih),
        (h0,),
        (lengths, mask, resets, padding, (reset_h,)),
        reverse,
        compute_dtype,
        out,
        "mingru_forward",
        memory=memory,
    )
    return y, h_n, tape


@overload
def mingru_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[False] = False,
) -> MinGRUGradients[A]: ...


@overload
def mingru_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[True],
) -> tuple[MinGRUGradients[A], dict[str, Any]]: ...


def mingru_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: bool = False,
) -> MinGRUGradients[A] | tuple[MinGRUGradients[A], dict[str, Any]]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n)``.

    Arguments as `rnn_backward`; the result has no `dw_hh` and no `db_hh`.
    """
    grads, flow = gradients(
        "mingru_forward", tape, dy, (dh_n,), ("h",), out, (), clip_dh, return_flow
    )
    record = frozen_record(MinGRUGradients, grads)
    return (record, flow) if return_flow else record


def mingru_jvp(tangents: Mapping[str, Any], *args: Any, **keywords: Any) -> tuple[Any, Any]:
    """Run `mingru` and its derivative along a direction, as `rnn_jvp`: ``results, tangents``."""
    return jvp(mingru, tangents, args, keywords)


def mingru_double_backward(
    tape: Tape[A],
    directions: Mapping[str, Any],
    dy: Any = None,
    dh_n: Any = None,
) -> dict[str, A]:
    """Differentiate `mingru_backward`, as `rnn_double_backward` does `rnn_backward`."""
    upstream = {"dy": dy, "dh_n": dh_n}
    return double_backward("mingru_forward", tape, directions, upstream, ("h",))


@dataclass(frozen=True, eq=False)
class MinGRUGradients(Generic[A]):
    """As `RNNGradients`; there are no recurrent weights, and no `dw_hh` and `db_hh`."""

    dx: A
    dw_ih: A
    db_ih: A
    dh0: A
    dreset_h: Any = field(default=None, kw_only=True)


class MinLayer(Layer):
    """What `MinGRU` and `MinLSTM` share: all but the cell."""

    _family: ClassVar[str]
    _usual = Layer._usual | {"candidate": "linear"}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        candidate: Candidate = "linear",
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
        cell = cell_of(self._family, candidate)
        self.candidate = candidate
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


class MinGRU(MinLayer):
    """Layers of minGRU (Feng et al. 2024); see `fusedrnn.mingru`.

    Parameters
    ----------
    candidate : {"linear", "positive"}
    others
        As of `RNN`. A weight_ih is [2H, ...], of z, h; there is no weight_hh and no bias_hh, and
        where `bias` is False no bias_ih. With `init` "orthogonal" weights are Glorot's and biases
        zero.
    """

    _family = "mingru"
