"""sLSTM: a long short-term memory with exponential gates, and a state that keeps them in range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, get_args, overload

from fusedrnn import options
from fusedrnn.forward_mode import double_backward, jvp
from fusedrnn.functional import Tape, frozen_record, gradients, run
from fusedrnn.interop import A
from fusedrnn.layers.base import Layer
from fusedrnn.layers.initial import Initial
from fusedrnn.options import ForwardOptions, Init, Memory, Padding, RunOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

Forget = Literal["sigmoid", "exp"]
FORGETS: tuple[Forget, ...] = get_args(Forget)


def _cell(forget: object) -> str:
    return "slstm" if options.choice("forget", forget, FORGETS) == "sigmoid" else "slstm_exp"


class _Options(RunOptions, total=False):
    forget: Forget
    reset_c: Any
    reset_n: Any
    reset_m: Any


class _ForwardOptions(_Options, ForwardOptions, total=False):
    pass


@overload
def slstm(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    h0: Any = None,
    c0: Any = None,
    n0: Any = None,
    m0: Any = None,
    *,
    return_cells: Literal[False] = False,
    **options: Unpack[_Options],
) -> tuple[A, tuple[A, A, A, A]]: ...
@overload
def slstm(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    h0: Any = None,
    c0: Any = None,
    n0: Any = None,
    m0: Any = None,
    *,
    return_cells: Literal[True],
    **options: Unpack[_Options],
) -> tuple[A, tuple[A, A, A, A], A, A, A]: ...
def slstm(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    h0: Any = None,
    c0: Any = None,
    n0: Any = None,
    m0: Any = None,
    *,
    forget: Forget = "sigmoid",
    heads: int = 1,
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    padding: Padding = "zero",
    reset_h: Any = None,
    reset_c: Any = None,
    reset_n: Any = None,
    reset_m: Any = None,
    return_cells: bool = False,
    reverse: bool = False,
    compute_dtype: Any = None,
    out: Any = None,
) -> Any:
    """Run an sLSTM; gates in the order i, f, z, o, s the logistic sigmoid.

    With ``v = W_ih x_t + b_ih + W_hh h_{t-1}``, cut into gate blocks::

        log_f = log(s(v_f))                 # or v_f, with forget="exp"
        m_t = max(log_f + m_{t-1}, v_i)     # where n_{t-1} = 0: v_i
        i = exp(v_i - m_t)
        f = exp(log_f + m_{t-1} - m_t)
        c_t = f * c_{t-1} + i * tanh(v_z)
        n_t = f * n_{t-1} + i
        h_t = s(v_o) * c_t / n_t

    Input gates are exponentials, and h is a weighted mean of what came in. c and n are kept divided
    by ``exp(m)``, so that they stay in range; h does not depend on m.

    Parameters
    ----------
    x : array [T, B, I], or [T, I]
    w_ih, w_hh : arrays [4H, I] and [4H, H]
    b_ih : array [4H], optional
    h0, c0, n0, m0 : arrays [B, H], optional
        The state before the first step; each is zero where absent. Where n0 is 0, as it is then,
        nothing has come in yet, and the first step takes the scale of its own input (as the
        authors' implementation does); so does a step behind a reset. n0 of a state that went
        through steps is at least 1; it should not be negative.
    forget : {"sigmoid", "exp"}
        The forget gate; the paper has both, the authors' implementation the sigmoid. With
        exponentials m may grow with every step, and what is as large has few digits left of v_i.
    heads, lengths, mask, resets, padding, reverse, compute_dtype
        As in `rnn`; lengths and resets for all states alike.
    reset_h, reset_c, reset_n, reset_m : arrays [H], optional
        As `reset_h` of `rnn`, each of its state.
    return_cells : bool
        Whether c, n and m of every step are returned, too.
    out : (y, (h_n, c_n, n_n, m_n)), or with ``return_cells=True`` c, n and m behind them, optional
        As in `rnn`.

    Returns
    -------
    y : array [T, B, H]
        h after every step.
    (h_n, c_n, n_n, m_n) : arrays [B, H]
        The state after the last valid step; `h0`, `c0`, `n0`, `m0` where the length is 0.
    c, n, m : arrays [T, B, H]
        With ``return_cells=True``: those states after every step; where a step does not exist, as
        `padding` says of `y`.

    Raises
    ------
    ValueError, TypeError
        As `rnn`.

    References
    ----------
    M. Beck et al., "xLSTM: extended long short-term memory" (2024), arXiv:2405.04517, equations 8
    to 18.
    """
    y, state, cells, _ = run(
        _cell(forget),
        x,
        (w_ih, w_hh, b_ih),
        (h0, c0, n0, m0),
        (lengths, mask, resets, padding, (reset_h, reset_c, reset_n, reset_m)),
        reverse,
        compute_dtype,
        out,
        return_cells=return_cells,
        heads=heads,
    )
    return y, state, *cells


@overload
def slstm_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    h0: Any = None,
    c0: Any = None,
    n0: Any = None,
    m0: Any = None,
    *,
    return_cells: Literal[False] = False,
    **options: Unpack[_ForwardOptions],
) -> tuple[A, tuple[A, A, A, A], Tape[A]]: ...
@overload
def slstm_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    h0: Any = None,
    c0: Any = None,
    n0: Any = None,
    m0: Any = None,
    *,
    return_cells: Literal[True],
    **options: Unpack[_ForwardOptions],
) -> tuple[A, tuple[A, A, A, A], A, A, A, Tape[A]]: ...
def slstm_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    h0: Any = None,
    c0: Any = None,
    n0: Any = None,
    m0: Any = None,
    *,
    forget: Forget = "sigmoid",
    heads: int = 1,
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    padding: Padding = "zero",
    reset_h: Any = None,
    reset_c: Any = None,
    reset_n: Any = None,
    reset_m: Any = None,
    return_cells: bool = False,
    reverse: bool = False,
    compute_dtype: Any = None,
    memory: Memory = "default",
    out: Any = None,
) -> Any:
    """Run `slstm` and save what its gradients need: ``y, (h_n, c_n, n_n, m_n), tape``.

    Takes the arguments of `slstm`, and `memory` as `rnn_forward`, and computes the same bits; with
    ``return_cells=True`` returns ``y, (h_n, c_n, n_n, m_n), c, n, m, tape``.
    """
    y, state, cells, tape = run(
        _cell(forget),
        x,
        (w_ih, w_hh, b_ih),
        (h0, c0, n0, m0),
        (lengths, mask, resets, padding, (reset_h, reset_c, reset_n, reset_m)),
        reverse,
        compute_dtype,
        out,
        "slstm_forward",
        return_cells=return_cells,
        memory=memory,
        heads=heads,
    )
    return y, state, *cells, tape


@overload
def slstm_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    dc_n: Any = None,
    dn_n: Any = None,
    dm_n: Any = None,
    *,
    dc: Any = None,
    dn: Any = None,
    dm: Any = None,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[False] = False,
) -> SLSTMGradients[A]: ...


@overload
def slstm_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    dc_n: Any = None,
    dn_n: Any = None,
    dm_n: Any = None,
    *,
    dc: Any = None,
    dn: Any = None,
    dm: Any = None,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[True],
) -> tuple[SLSTMGradients[A], dict[str, Any]]: ...


def slstm_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    dc_n: Any = None,
    dn_n: Any = None,
    dm_n: Any = None,
    *,
    dc: Any = None,
    dn: Any = None,
    dm: Any = None,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: bool = False,
) -> SLSTMGradients[A] | tuple[SLSTMGradients[A], dict[str, Any]]:
    """Return the gradients of ``sum(dy * y)`` and the same of all that `slstm_forward` returns.

    Arguments as `rnn_backward`; `dc_n`, `dn_n` and `dm_n` [B, H] are zero where absent, and so are
    `dc`, `dn` and `dm` [T, B, H], the upstream gradients of these states of every step, whether or
    not the forward call returned them. The maximum that m is takes its gradient to the greater of
    the two, to v_i where they are equal.
    """
    grads, flow = gradients(
        "slstm_forward",
        tape,
        dy,
        (dh_n, dc_n, dn_n, dm_n),
        ("h", "c", "n", "m"),
        out,
        (dc, dn, dm),
        clip_dh,
        return_flow,
    )
    record = frozen_record(SLSTMGradients, grads)
    return (record, flow) if return_flow else record


def slstm_jvp(tangents: Mapping[str, Any], *args: Any, **keywords: Any) -> tuple[Any, Any]:
    """Run `slstm` and its derivative along a direction, as `rnn_jvp`: ``results, tangents``."""
    return jvp(slstm, tangents, args, keywords)


def slstm_double_backward(
    tape: Tape[A],
    directions: Mapping[str, Any],
    dy: Any = None,
    dh_n: Any = None,
    dc_n: Any = None,
    dn_n: Any = None,
    dm_n: Any = None,
    *,
    dc: Any = None,
    dn: Any = None,
    dm: Any = None,
) -> dict[str, A]:
    """Differentiate `slstm_backward`, as `rnn_double_backward` does `rnn_backward`."""
    upstream = {"dy": dy, "dh_n": dh_n, "dc_n": dc_n, "dn_n": dn_n, "dm_n": dm_n}
    upstream |= {"dc": dc, "dn": dn, "dm": dm}
    return double_backward("slstm_forward", tape, directions, upstream, ("h", "c", "n", "m"))


@dataclass(frozen=True, eq=False)
class SLSTMGradients(Generic[A]):
    """As `RNNGradients`, with those of four initial states; there is no `db_hh`."""

    dx: A
    dw_ih: A
    dw_hh: A
    db_ih: A
    dh0: A
    dc0: A
    dn0: A
    dm0: A
    dreset_h: Any = field(default=None, kw_only=True)
    dreset_c: Any = field(default=None, kw_only=True)
    dreset_n: Any = field(default=None, kw_only=True)
    dreset_m: Any = field(default=None, kw_only=True)


class SLSTM(Layer):
    """Layers of sLSTM (Beck et al. 2024).

    The equations stand at `fusedrnn.slstm`; a state is a tuple (h, c, n, m).

    Parameters
    ----------
    forget : {"sigmoid", "exp"}
    heads : int
        Heads that do not mix: blocks along the diagonal of weight_hh, [4H, H/heads].
    forget_bias : float, optional
        What the bias of each forget gate is at first; as `init` says where absent.
    others
        As of `RNN`, without `nonlinearity`. There is one bias a gate, bias_ih, and no bias_hh.
    """

    _states = ("h", "c", "n", "m")
    _usual = Layer._usual | {"forget": "sigmoid"}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        forget: Forget = "sigmoid",
        heads: int = 1,
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
        forget_bias: float | None = None,
    ) -> None:
        cell = _cell(forget)
        self.forget = forget
        self._forget_bias = options.forget_bias(forget_bias, options.flag("bias", bias))
        super().__init__(
            cell,
            input_size,
            hidden_size,
            num_layers,
            heads=heads,
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

    def _initial(self, init: str, seed: int | None) -> Initial:
        initial, value = super()._initial(init, seed), self._forget_bias
        return initial if value is None else replace(initial, bias=(1, value))
