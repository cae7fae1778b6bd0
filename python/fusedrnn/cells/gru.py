"""The gated recurrent unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fusedrnn import options
from fusedrnn.cells.rnn import RNNGradients
from fusedrnn.functional import Tape, gradients, run
from fusedrnn.interop import A
from fusedrnn.layers.base import Layer


def _cell(reset_after: object) -> str:
    return "gru" if options.flag("reset_after", reset_after) else "gru_reset_before"


def gru(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    *,
    reset_after: bool = True,
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    padding: str = "zero",
    reset_h: Any = None,
    reverse: bool = False,
    compute_dtype: Any = None,
    out: Any = None,
) -> tuple[A, A]:
    """Run a gated recurrent unit; gates in the order r, z, n, s the logistic sigmoid.

    With ``a = W_ih x_t + b_ih`` and ``u = W_hh h_{t-1} + b_hh``, cut into gate blocks::

        r = s(a_r + u_r)
        z = s(a_z + u_z)
        n = tanh(a_n + r * u_n)                            reset_after=True
        n = tanh(a_n + W_hn (r * h_{t-1}) + b_hn)          reset_after=False
        h_t = (1 - z) * n + z * h_{t-1}

    Parameters
    ----------
    x : array [T, B, I], or [T, I]
    w_ih, w_hh : arrays [3H, I] and [3H, H]
    b_ih, b_hh : arrays [3H], optional
    h0 : array [B, H], optional
    reset_after : bool
        Whether the reset gate follows the recurrent product (cuDNN, PyTorch, Keras) or precedes it
        (Cho et al. 2014; ONNX ``linear_before_reset=0``).
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
    K. Cho et al., "Learning phrase representations using RNN encoder-decoder" (2014),
    arXiv:1406.1078, eqs. 5 to 8, with z and 1 - z exchanged as in cuDNN.
    """
    cell, weights = _cell(reset_after), (w_ih, w_hh, b_ih, b_hh)
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


def gru_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    *,
    reset_after: bool = True,
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    padding: str = "zero",
    reset_h: Any = None,
    reverse: bool = False,
    compute_dtype: Any = None,
    out: Any = None,
) -> tuple[A, A, Tape[A]]:
    """Run `gru` and save what its gradients need: ``y, h_n, tape``.

    Takes the arguments of `gru` and computes the same bits.
    """
    cell, weights = _cell(reset_after), (w_ih, w_hh, b_ih, b_hh)
    y, (h_n,), _, tape = run(
        cell,
        x,
        weights,
        (h0,),
        (lengths, mask, resets, padding, (reset_h,)),
        reverse,
        compute_dtype,
        out,
        "gru_forward",
    )
    return y, h_n, tape


def gru_backward(
    tape: Tape[A], dy: Any = None, dh_n: Any = None, *, out: Mapping[str, Any] | None = None
) -> GRUGradients[A]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n)``; arguments as `rnn_backward`."""
    return GRUGradients(**gradients("gru_forward", tape, dy, (dh_n,), ("h",), out))


@dataclass(frozen=True, eq=False)
class GRUGradients(RNNGradients[A]):
    """As `RNNGradients`."""


class GRU(Layer):
    """Layers of gated recurrent units (Cho et al. 2014); the equations stand at `fusedrnn.gru`.

    Parameters
    ----------
    reset_after : bool
        Whether the reset gate follows the recurrent product, as in PyTorch, or precedes it.
    others
        As of `RNN`.
    """

    _usual = Layer._usual | {"reset_after": True}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        reset_after: bool = True,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        dtype: Any = "float32",
        compute_dtype: Any = None,
        device: str = "cpu",
        array_type: type | None = None,
        seed: int | None = None,
        init: str = "uniform",
    ) -> None:
        self.reset_after = options.flag("reset_after", reset_after)
        super().__init__(
            _cell(self.reset_after),
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
