"""The long short-term memory with layer normalisation: the functions; the layer is `LSTM`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, overload

from fusedrnn.forward_mode import double_backward, jvp
from fusedrnn.functional import Tape, frozen_record, gradients, run
from fusedrnn.interop import A
from fusedrnn.options import ForwardOptions, Memory, Padding, RunOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack


class _Options(RunOptions, total=False):
    reset_c: Any


class _ForwardOptions(_Options, ForwardOptions, total=False):
    pass


@overload
def lstm_layer_norm(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g_ih: Any,
    b_ih: Any,
    g_hh: Any,
    b_hh: Any,
    g_c: Any,
    b_c: Any,
    h0: Any = None,
    c0: Any = None,
    *,
    return_cells: Literal[False] = False,
    return_gates: Literal[False] = False,
    **options: Unpack[_Options],
) -> tuple[A, tuple[A, A]]: ...
@overload
def lstm_layer_norm(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g_ih: Any,
    b_ih: Any,
    g_hh: Any,
    b_hh: Any,
    g_c: Any,
    b_c: Any,
    h0: Any = None,
    c0: Any = None,
    *,
    return_cells: Literal[True],
    return_gates: Literal[False] = False,
    **options: Unpack[_Options],
) -> tuple[A, tuple[A, A], A]: ...
@overload
def lstm_layer_norm(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g_ih: Any,
    b_ih: Any,
    g_hh: Any,
    b_hh: Any,
    g_c: Any,
    b_c: Any,
    h0: Any = None,
    c0: Any = None,
    *,
    return_cells: bool = False,
    return_gates: Literal[True],
    **options: Unpack[_Options],
) -> tuple[Any, ...]: ...
def lstm_layer_norm(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g_ih: Any,
    b_ih: Any,
    g_hh: Any,
    b_hh: Any,
    g_c: Any,
    b_c: Any,
    h0: Any = None,
    c0: Any = None,
    *,
    heads: int = 1,
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    padding: Padding = "zero",
    reset_h: Any = None,
    reset_c: Any = None,
    return_cells: bool = False,
    return_gates: bool = False,
    reverse: bool = False,
    compute_dtype: Any = None,
    out: Any = None,
) -> Any:
    """Run an LSTM with layer normalisation; gates in the order i, f, g, o, s the logistic sigmoid.

    ``LN(v; g, b) = g * (v - mean) / sqrt(variance + 1e-5) + b``, over all elements of v, the
    variance divided by their number. With::

        v = LN(W_ih x_t; g_ih, b_ih) + LN(W_hh h_{t-1}; g_hh, b_hh)

    cut into gate blocks::

        i, f, o = s(v_i), s(v_f), s(v_o)
        c_t = f * c_{t-1} + i * tanh(v_g)
        h_t = o * tanh(LN(c_t; g_c, b_c))

    Each product is normalised over its 4H elements together, and c over its H. The state c itself
    is not normalised.

    Parameters
    ----------
    x : array [T, B, I], or [T, I]
    w_ih, w_hh : arrays [4H, I] and [4H, H]
    g_ih, b_ih, g_hh, b_hh : arrays [4H]
        Gain and bias of the two products' normalisation; ones and zeros at first, usually.
    g_c, b_c : arrays [H]
        Those of c.
    h0, c0 : arrays [B, H], optional
    heads, lengths, mask, resets, padding, reset_h, reset_c, reverse
        As in `lstm`.
    return_cells, return_gates, compute_dtype, out
        As in `lstm`.

    Returns
    -------
    y : array [T, B, H]
        h after every step.
    (h_n, c_n) : arrays [B, H]
    c : array [T, B, H]
        With ``return_cells=True``: c after every step, as of `lstm`.
    gates : dict of arrays [T, B, H]
        With ``return_gates=True``, behind the others, as `Tape.gates` has them: by the letters
        "i", "f", "g", "o"; zero where a step does not exist.

    Raises
    ------
    ValueError, TypeError
        As `rnn`.

    References
    ----------
    J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization" (2016), arXiv:1607.06450, equation 4
    and the LSTM of its supplementary material; 1e-5 is that of the authors' code.
    """
    y, state, cells, _ = run(
        "lstm_layer_norm",
        x,
        (w_ih, w_hh, g_ih, b_ih, g_hh, b_hh, g_c, b_c),
        (h0, c0),
        (lengths, mask, resets, padding, (reset_h, reset_c)),
        reverse,
        compute_dtype,
        out,
        return_cells=return_cells,
        return_gates=return_gates,
        heads=heads,
    )
    return y, state, *cells


@overload
def lstm_layer_norm_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g_ih: Any,
    b_ih: Any,
    g_hh: Any,
    b_hh: Any,
    g_c: Any,
    b_c: Any,
    h0: Any = None,
    c0: Any = None,
    *,
    return_cells: Literal[False] = False,
    return_gates: Literal[False] = False,
    **options: Unpack[_ForwardOptions],
) -> tuple[A, tuple[A, A], Tape[A]]: ...
@overload
def lstm_layer_norm_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g_ih: Any,
    b_ih: Any,
    g_hh: Any,
    b_hh: Any,
    g_c: Any,
    b_c: Any,
    h0: Any = None,
    c0: Any = None,
    *,
    return_cells: Literal[True],
    return_gates: Literal[False] = False,
    **options: Unpack[_ForwardOptions],
) -> tuple[A, tuple[A, A], A, Tape[A]]: ...
@overload
def lstm_layer_norm_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g_ih: Any,
    b_ih: Any,
    g_hh: Any,
    b_hh: Any,
    g_c: Any,
    b_c: Any,
    h0: Any = None,
    c0: Any = None,
    *,
    return_cells: bool = False,
    return_gates: Literal[True],
    **options: Unpack[_ForwardOptions],
) -> tuple[Any, ...]: ...
def lstm_layer_norm_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g_ih: Any,
    b_ih: Any,
    g_hh: Any,
    b_hh: Any,
    g_c: Any,
    b_c: Any,
    h0: Any = None,
    c0: Any = None,
    *,
    heads: int = 1,
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    padding: Padding = "zero",
    reset_h: Any = None,
    reset_c: Any = None,
    return_cells: bool = False,
    return_gates: bool = False,
    reverse: bool = False,
    compute_dtype: Any = None,
    memory: Memory = "default",
    out: Any = None,
) -> Any:
    """Run `lstm_layer_norm` and save what its gradients need: ``y, (h_n, c_n), tape``.

    Takes the arguments of `lstm_layer_norm`, and `memory` as `rnn_forward`, and computes the same
    bits; with ``return_cells=True`` returns ``y, (h_n, c_n), c, tape``. The gates of
    ``return_gates=True`` come before the tape.
    """
    y, state, cells, tape = run(
        "lstm_layer_norm",
        x,
        (w_ih, w_hh, g_ih, b_ih, g_hh, b_hh, g_c, b_c),
        (h0, c0),
        (lengths, mask, resets, padding, (reset_h, reset_c)),
        reverse,
        compute_dtype,
        out,
        "lstm_layer_norm_forward",
        return_cells=return_cells,
        return_gates=return_gates,
        memory=memory,
        heads=heads,
    )
    return y, state, *cells, tape


@overload
def lstm_layer_norm_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    dc_n: Any = None,
    *,
    dc: Any = None,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[False] = False,
) -> LayerNormLSTMGradients[A]: ...


@overload
def lstm_layer_norm_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    dc_n: Any = None,
    *,
    dc: Any = None,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[True],
) -> tuple[LayerNormLSTMGradients[A], dict[str, Any]]: ...


def lstm_layer_norm_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    dc_n: Any = None,
    *,
    dc: Any = None,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: bool = False,
) -> LayerNormLSTMGradients[A] | tuple[LayerNormLSTMGradients[A], dict[str, Any]]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n) + sum(dc_n * c_n) + sum(dc * c)``.

    Arguments as `lstm_backward`.
    """
    grads, flow = gradients(
        "lstm_layer_norm_forward",
        tape,
        dy,
        (dh_n, dc_n),
        ("h", "c"),
        out,
        (dc,),
        clip_dh,
        return_flow,
    )
    record = frozen_record(LayerNormLSTMGradients, grads)
    return (record, flow) if return_flow else record


def lstm_layer_norm_jvp(
    tangents: Mapping[str, Any], *args: Any, **keywords: Any
) -> tuple[Any, Any]:
    """Run `lstm_layer_norm` and its derivative along a direction, as `rnn_jvp`."""
    return jvp(lstm_layer_norm, tangents, args, keywords)


def lstm_layer_norm_double_backward(
    tape: Tape[A],
    directions: Mapping[str, Any],
    dy: Any = None,
    dh_n: Any = None,
    dc_n: Any = None,
    *,
    dc: Any = None,
) -> dict[str, A]:
    """Differentiate `lstm_layer_norm_backward`, as `rnn_double_backward` does `rnn_backward`."""
    upstream = {"dy": dy, "dh_n": dh_n, "dc_n": dc_n, "dc": dc}
    return double_backward("lstm_layer_norm_forward", tape, directions, upstream, ("h", "c"))


@dataclass(frozen=True, eq=False)
class LayerNormLSTMGradients(Generic[A]):
    """As `LSTMGradients`, with those of gains and of the normalisation of c."""

    dx: A
    dw_ih: A
    dw_hh: A
    dg_ih: A
    db_ih: A
    dg_hh: A
    db_hh: A
    dg_c: A
    db_c: A
    dh0: A
    dc0: A
    dreset_h: Any = field(default=None, kw_only=True)
    dreset_c: Any = field(default=None, kw_only=True)
