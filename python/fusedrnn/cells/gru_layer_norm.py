"""The gated recurrent unit with layer normalisation: the functions; the layer is `GRU`."""

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


@overload
def gru_layer_norm(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g_ih: Any,
    b_ih: Any,
    g_hh: Any,
    b_hh: Any,
    h0: Any = None,
    *,
    return_gates: Literal[False] = False,
    **options: Unpack[RunOptions],
) -> tuple[A, A]: ...
@overload
def gru_layer_norm(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g_ih: Any,
    b_ih: Any,
    g_hh: Any,
    b_hh: Any,
    h0: Any = None,
    *,
    return_gates: Literal[True],
    **options: Unpack[RunOptions],
) -> tuple[A, A, dict[str, A]]: ...
def gru_layer_norm(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g_ih: Any,
    b_ih: Any,
    g_hh: Any,
    b_hh: Any,
    h0: Any = None,
    *,
    heads: int = 1,
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    padding: Padding = "zero",
    reset_h: Any = None,
    return_gates: bool = False,
    reverse: bool = False,
    compute_dtype: Any = None,
    out: Any = None,
) -> Any:
    """Run a GRU with layer normalisation; gates in the order r, z, n, s the logistic sigmoid.

    With LN as in `lstm_layer_norm`, ``a = LN(W_ih x_t; g_ih, b_ih)`` and
    ``u = LN(W_hh h_{t-1}; g_hh, b_hh)``, cut into gate blocks::

        r, z = s(a_r + u_r), s(a_z + u_z)
        n = tanh(a_n + r * u_n)
        h_t = (1 - z) * n + z * h_{t-1}

    Of each product the 2H elements of r and z are normalised together, and the H of n by
    themselves.

    Parameters
    ----------
    x : array [T, B, I], or [T, I]
    w_ih, w_hh : arrays [3H, I] and [3H, H]
    g_ih, b_ih, g_hh, b_hh : arrays [3H]
        Gain and bias of the products' normalisation; ones and zeros at first, usually.
    h0 : array [B, H], optional
    heads, lengths, mask, resets, padding, reset_h, return_gates, reverse, compute_dtype, out
        As in `gru`.

    Returns
    -------
    y, h_n : arrays [T, B, H] and [B, H]
        As of `rnn`.
    gates : dict of arrays [T, B, H]
        With ``return_gates=True``, behind the others, as `Tape.gates` has them: by the letters
        "r", "z", "n"; zero where a step does not exist.

    Raises
    ------
    ValueError, TypeError
        As `rnn`.

    References
    ----------
    J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization" (2016), arXiv:1607.06450, equation 4
    and the GRU of its supplementary material, with z and 1 - z exchanged as in `gru`.
    """
    y, (h_n,), gates, _ = run(
        "gru_layer_norm",
        x,
        (w_ih, w_hh, g_ih, b_ih, g_hh, b_hh),
        (h0,),
        (lengths, mask, resets, padding, (reset_h,)),
        reverse,
        compute_dtype,
        out,
        return_gates=return_gates,
        heads=heads,
    )
    return y, h_n, *gates


@overload
def gru_layer_norm_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g_ih: Any,
    b_ih: Any,
    g_hh: Any,
    b_hh: Any,
    h0: Any = None,
    *,
    return_gates: Literal[False] = False,
    **options: Unpack[ForwardOptions],
) -> tuple[A, A, Tape[A]]: ...
@overload
def gru_layer_norm_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g_ih: Any,
    b_ih: Any,
    g_hh: Any,
    b_hh: Any,
    h0: Any = None,
    *,
    return_gates: Literal[True],
    **options: Unpack[ForwardOptions],
) -> tuple[A, A, dict[str, A], Tape[A]]: ...
def gru_layer_norm_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g_ih: Any,
    b_ih: Any,
    g_hh: Any,
    b_hh: Any,
    h0: Any = None,
    *,
    heads: int = 1,
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    padding: Padding = "zero",
    reset_h: Any = None,
    return_gates: bool = False,
    reverse: bool = False,
    compute_dtype: Any = None,
    memory: Memory = "default",
    out: Any = None,
) -> Any:
    """Run `gru_layer_norm` and save what its gradients need: ``y, h_n, tape``.

    Takes the arguments of `gru_layer_norm`, and `memory` as `rnn_forward`, and computes the same
    bits.
    """
    y, (h_n,), gates, tape = run(
        "gru_layer_norm",
        x,
        (w_ih, w_hh, g_ih, b_ih, g_hh, b_hh),
        (h0,),
        (lengths, mask, resets, padding, (reset_h,)),
        reverse,
        compute_dtype,
        out,
        "gru_layer_norm_forward",
        return_gates=return_gates,
        memory=memory,
        heads=heads,
    )
    return y, h_n, *gates, tape


@overload
def gru_layer_norm_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[False] = False,
) -> LayerNormGRUGradients[A]: ...


@overload
def gru_layer_norm_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[True],
) -> tuple[LayerNormGRUGradients[A], dict[str, Any]]: ...


def gru_layer_norm_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: bool = False,
) -> LayerNormGRUGradients[A] | tuple[LayerNormGRUGradients[A], dict[str, Any]]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n)``; arguments as `rnn_backward`."""
    grads, flow = gradients(
        "gru_layer_norm_forward",
        tape,
        dy,
        (dh_n,),
        ("h",),
        out,
        (),
        clip_dh,
        return_flow,
    )
    record = frozen_record(LayerNormGRUGradients, grads)
    return (record, flow) if return_flow else record


def gru_layer_norm_jvp(tangents: Mapping[str, Any], *args: Any, **keywords: Any) -> tuple[Any, Any]:
    """Run `gru_layer_norm` and its derivative along a direction, as `rnn_jvp`."""
    return jvp(gru_layer_norm, tangents, args, keywords)


def gru_layer_norm_double_backward(
    tape: Tape[A],
    directions: Mapping[str, Any],
    dy: Any = None,
    dh_n: Any = None,
) -> dict[str, A]:
    """Differentiate `gru_layer_norm_backward`, as `rnn_double_backward` does `rnn_backward`."""
    upstream = {"dy": dy, "dh_n": dh_n}
    return double_backward("gru_layer_norm_forward", tape, directions, upstream, ("h",))


@dataclass(frozen=True, eq=False)
class LayerNormGRUGradients(Generic[A]):
    """As `RNNGradients`, with those of gains."""

    dx: A
    dw_ih: A
    dw_hh: A
    dg_ih: A
    db_ih: A
    dg_hh: A
    db_hh: A
    dh0: A
    dreset_h: Any = field(default=None, kw_only=True)
