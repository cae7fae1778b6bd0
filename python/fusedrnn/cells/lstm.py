"""The long short-term memory, with and without peepholes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fusedrnn import options
from fusedrnn.cells.rnn import RNNGradients
from fusedrnn.functional import Tape, gradients, run
from fusedrnn.interop import A
from fusedrnn.layers.base import Layer


def _variant(*weights: Any) -> tuple[str, tuple[Any, ...]]:
    """The cell and its weights, the last of which are the peepholes or None."""
    return ("lstm", weights[:-1]) if weights[-1] is None else ("lstm_peephole", weights)


def lstm(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    c0: Any = None,
    *,
    w_peephole: Any = None,
    lengths: Any = None,
    resets: Any = None,
    reverse: bool = False,
    compute_dtype: Any = None,
    out: Any = None,
) -> tuple[A, tuple[A, A]]:
    """Run a long short-term memory; gates in the order i, f, g, o, s the logistic sigmoid.

    With ``a = W_ih x_t + b_ih`` and ``u = W_hh h_{t-1} + b_hh``, cut into gate blocks::

        i = s(a_i + u_i)
        f = s(a_f + u_f)
        g = tanh(a_g + u_g)
        o = s(a_o + u_o)
        c_t = f * c_{t-1} + i * g
        h_t = o * tanh(c_t)

    With peepholes ``p``, i and f add ``p * c_{t-1}`` to what they are the sigmoid of, and o adds
    ``p * c_t``.

    Parameters
    ----------
    x : array [T, B, I]
    w_ih, w_hh : arrays [4H, I] and [4H, H]
    b_ih, b_hh : arrays [4H], optional
    h0, c0 : arrays [B, H], optional
        The state before the first step; each is zero where absent.
    w_peephole : array [3H], optional
        Peepholes of i, f and o, a weight a unit each; there are none where it is absent.
    lengths, resets, reverse, compute_dtype
        As in `rnn`; lengths and resets for h and c alike.
    out : (y, (h_n, c_n)), optional
        As in `rnn`.

    Returns
    -------
    y : array [T, B, H]
        h after every step.
    (h_n, c_n) : arrays [B, H]
        The state after the last valid step; `h0`, `c0` where the length is 0.

    Raises
    ------
    ValueError, TypeError
        As `rnn`.

    References
    ----------
    S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997), with the
    forget gate of F. Gers, J. Schmidhuber, F. Cummins, Neural Computation 12 (2000); peepholes: F.
    Gers, J. Schmidhuber, "Recurrent nets that time and count", IJCNN (2000).
    """
    cell, weights = _variant(w_ih, w_hh, b_ih, b_hh, w_peephole)
    y, (h_n, c_n), _ = run(cell, x, weights, (h0, c0), lengths, resets, reverse, compute_dtype, out)
    return y, (h_n, c_n)


def lstm_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    c0: Any = None,
    *,
    w_peephole: Any = None,
    lengths: Any = None,
    resets: Any = None,
    reverse: bool = False,
    compute_dtype: Any = None,
    out: Any = None,
) -> tuple[A, tuple[A, A], Tape[A]]:
    """Run `lstm` and save what its gradients need: ``y, (h_n, c_n), tape``.

    Takes the arguments of `lstm` and computes the same bits.
    """
    cell, weights = _variant(w_ih, w_hh, b_ih, b_hh, w_peephole)
    y, (h_n, c_n), tape = run(
        cell, x, weights, (h0, c0), lengths, resets, reverse, compute_dtype, out, "lstm_forward"
    )
    return y, (h_n, c_n), tape


def lstm_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    dc_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
) -> LSTMGradients[A]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n) + sum(dc_n * c_n)``.

    Arguments as `rnn_backward`; `dc_n` [B, H] is zero where absent. The result has `dc0` as well,
    and `dw_peephole`, which is None where there are no peepholes.
    """
    by_name = gradients("lstm_forward", tape, dy, (dh_n, dc_n), ("dh0", "dc0"), out)
    kind = PeepholeLSTMGradients if "dw_peephole" in by_name else LSTMGradients
    return kind(**by_name)


@dataclass(frozen=True, eq=False)
class LSTMGradients(RNNGradients[A]):
    """As `RNNGradients`, with that of the initial cell state; `dw_peephole` is None."""

    dc0: A
    dw_peephole: ClassVar[Any] = None


@dataclass(frozen=True, eq=False)
class PeepholeLSTMGradients(LSTMGradients[A]):
    """As `LSTMGradients`, with that of the peepholes."""

    dw_peephole: A  # type: ignore[misc]


class LSTM(Layer):
    """Layers of long short-term memory (Hochreiter and Schmidhuber 1997).

    The equations stand at `fusedrnn.lstm`; a state is a pair (h, c).

    Parameters
    ----------
    peephole : bool
        Whether gates see the cell state, through a parameter weight_peephole [3H] (i, f, o).
    others
        As of `RNN`, without `nonlinearity`.
    """

    _states = ("h", "c")
    _usual = Layer._usual | {"peephole": False}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        peephole: bool = False,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        dtype: Any = "float32",
        compute_dtype: Any = None,
        device: str = "cpu",
        array_type: type | None = None,
        seed: int | None = None,
        init: str = "uniform",
        forget_bias: float | None = None,
    ) -> None:
        self.peephole = options.flag("peephole", peephole)
        super().__init__(
            "lstm_peephole" if self.peephole else "lstm",
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            bidirectional=bidirectional,
            dtype=dtype,
            compute_dtype=compute_dtype,
            device=device,
            array_type=array_type,
            seed=seed,
            init=init,
        )
