"""The cells as functions: one layer in one direction, forward and backward.

Letters: T time steps, B batch, I input size, H hidden size, G gate blocks (RNN 1, GRU 3, LSTM 4).
Arrays are NumPy arrays or anything with `__dlpack__` (PyTorch, JAX, CuPy, ...), read without a copy
where their last axis is dense. Results, gradients too, are of the kind of `x` (`fusedrnn.interop`
says how that is found), on its device, and of its dtype: float32, float64, bfloat16 (in NumPy by
the package ml_dtypes) or float16, one a call. They are no part of PyTorch's graph, whether or not a
tensor given requires a gradient.

All arrays of a call lie on the CPU, or all on one CUDA device, where `lengths` and `resets` alone
may stay on the CPU (as lists and NumPy arrays do). On a CUDA device work goes on the current stream
of the library of `x`, results and memory come from that library, and nothing waits for the device;
so lengths there are not checked but limited to 0..T. A call can be captured in a CUDA graph. The
same call gives the same bits; in calls of other shapes a product may sum in another order.
`fusedrnn.cuda_arrays` has what is asked of a library.

The 16-bit types are for storage: sums of matrix products, gates and the cell state within a call
are float32; of what a tape keeps, states are in the type, and on the CPU gates are. docs/math.md
says what is rounded where.

A tape refers to `x`, `w_ih` and `w_hh` of its forward call: leave them as they are until the last
backward. All else it owns; `y` and the states may be changed at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fusedrnn import _core, options
from fusedrnn.interop import A, converter_to_kind_of
from fusedrnn.tape import GRUGradients, LSTMGradients, RNNGradients, Tape


def rnn(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    *,
    nonlinearity: str = "tanh",
    lengths: Any = None,
    resets: Any = None,
    reverse: bool = False,
    compute_dtype: Any = None,
) -> tuple[A, A]:
    """Run a vanilla RNN: ``h_t = act(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)``.

    Parameters
    ----------
    x : array [T, B, I]
        The input of every step. T = 0 and B = 0 are valid.
    w_ih, w_hh : arrays [H, I] and [H, H]
    b_ih, b_hh : arrays [H], optional
        Zero where absent.
    h0 : array [B, H], optional
        The state before the first step; zero where absent.
    nonlinearity : {"tanh", "relu", "sigmoid", "identity"}
    lengths : integers [B], optional
        Valid steps of each sequence, 0 to T. Beyond them `y` is 0 and the state stands still; what
        `x` holds there is never used.
    resets : bool array [T, B], optional
        True where step t starts a new sequence: no state and no gradient crosses from t-1 to t, or
        in reverse from t to t-1. Beyond `lengths` a reset does nothing.
    reverse : bool
        From step ``lengths[b] - 1`` to 0, instead of upwards.
    compute_dtype : {"bfloat16", "tfloat32"}, optional
        With float32 arrays: round the operands of every matrix product to bfloat16, or on a CUDA
        device to tfloat32, here and in backward. All else is float32, except the gates that a tape
        keeps on the CPU: those are bfloat16 (but of a GRU with ``reset_after=False``). None, or the
        dtype of `x` itself, is plain.

    Returns
    -------
    y : array [T, B, H]
        The state after every step.
    h_n : array [B, H]
        The state after the last valid step; `h0` where the length is 0.

    Raises
    ------
    ValueError, TypeError
        A wrong shape, range, dtype or device; the message names the argument, what was expected
        and what came. Nothing has been computed then.
    RuntimeError
        A CUDA device that cannot be used; the message says why.
    MemoryError
        No memory for results, tape or work; on a CUDA device the cause is what the allocator of
        the library of `x` raised.

    References
    ----------
    J. L. Elman, "Finding structure in time", Cognitive Science 14 (1990), eq. of section 2.
    """
    cell = options.rnn_cell(nonlinearity)
    kind, (y, h_n, _, _) = _run(
        cell, False, x, w_ih, w_hh, b_ih, b_hh, h0, None, lengths, resets, reverse, compute_dtype
    )
    return kind(y), kind(h_n)


def rnn_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    *,
    nonlinearity: str = "tanh",
    lengths: Any = None,
    resets: Any = None,
    reverse: bool = False,
    compute_dtype: Any = None,
) -> tuple[A, A, Tape[A]]:
    """Run `rnn` and save what its gradients need: ``y, h_n, tape``.

    Takes the arguments of `rnn` and computes the same bits.
    """
    cell = options.rnn_cell(nonlinearity)
    kind, (y, h_n, _, tape) = _run(
        cell, True, x, w_ih, w_hh, b_ih, b_hh, h0, None, lengths, resets, reverse, compute_dtype
    )
    return kind(y), kind(h_n), Tape("rnn_forward", tape, kind)


def rnn_backward(tape: Tape[A], dy: Any = None, dh_n: Any = None) -> RNNGradients[A]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n)``.

    Parameters
    ----------
    tape : Tape
        From `rnn_forward`. It may be used any number of times.
    dy : array [T, B, H], optional
        Upstream gradient of `y`; zero where absent, ignored beyond `lengths`.
    dh_n : array [B, H], optional
        Upstream gradient of `h_n`; zero where absent.

    Returns
    -------
    RNNGradients
        dx, dw_ih, dw_hh, db_ih, db_hh, dh0, each in the shape of its variable. `dx` beyond
        `lengths` is 0.

    Raises
    ------
    ValueError, TypeError
        As `rnn`; also for a tape of another function.
    """
    return RNNGradients(**_gradients("rnn_forward", tape, dy, dh_n, None))


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
    resets: Any = None,
    reverse: bool = False,
    compute_dtype: Any = None,
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
    x : array [T, B, I]
    w_ih, w_hh : arrays [3H, I] and [3H, H]
    b_ih, b_hh : arrays [3H], optional
    h0 : array [B, H], optional
    reset_after : bool
        Whether the reset gate follows the recurrent product (cuDNN, PyTorch, Keras) or precedes it
        (Cho et al. 2014; ONNX ``linear_before_reset=0``).
    lengths, resets, reverse, compute_dtype
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
    cell = options.gru_cell(reset_after)
    kind, (y, h_n, _, _) = _run(
        cell, False, x, w_ih, w_hh, b_ih, b_hh, h0, None, lengths, resets, reverse, compute_dtype
    )
    return kind(y), kind(h_n)


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
    resets: Any = None,
    reverse: bool = False,
    compute_dtype: Any = None,
) -> tuple[A, A, Tape[A]]:
    """Run `gru` and save what its gradients need: ``y, h_n, tape``.

    Takes the arguments of `gru` and computes the same bits.
    """
    cell = options.gru_cell(reset_after)
    kind, (y, h_n, _, tape) = _run(
        cell, True, x, w_ih, w_hh, b_ih, b_hh, h0, None, lengths, resets, reverse, compute_dtype
    )
    return kind(y), kind(h_n), Tape("gru_forward", tape, kind)


def gru_backward(tape: Tape[A], dy: Any = None, dh_n: Any = None) -> GRUGradients[A]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n)``; arguments as `rnn_backward`."""
    return GRUGradients(**_gradients("gru_forward", tape, dy, dh_n, None))


def lstm(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    c0: Any = None,
    *,
    lengths: Any = None,
    resets: Any = None,
    reverse: bool = False,
    compute_dtype: Any = None,
) -> tuple[A, tuple[A, A]]:
    """Run a long short-term memory; gates in the order i, f, g, o, s the logistic sigmoid.

    With ``a = W_ih x_t + b_ih`` and ``u = W_hh h_{t-1} + b_hh``, cut into gate blocks::

        i = s(a_i + u_i)
        f = s(a_f + u_f)
        g = tanh(a_g + u_g)
        o = s(a_o + u_o)
        c_t = f * c_{t-1} + i * g
        h_t = o * tanh(c_t)

    Parameters
    ----------
    x : array [T, B, I]
    w_ih, w_hh : arrays [4H, I] and [4H, H]
    b_ih, b_hh : arrays [4H], optional
    h0, c0 : arrays [B, H], optional
        The state before the first step; each is zero where absent.
    lengths, resets, reverse, compute_dtype
        As in `rnn`; lengths and resets for h and c alike.

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
    forget gate of F. Gers, J. Schmidhuber, F. Cummins, Neural Computation 12 (2000).
    """
    kind, (y, h_n, c_n, _) = _run(
        "lstm", False, x, w_ih, w_hh, b_ih, b_hh, h0, c0, lengths, resets, reverse, compute_dtype
    )
    return kind(y), (kind(h_n), kind(c_n))


def lstm_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    c0: Any = None,
    *,
    lengths: Any = None,
    resets: Any = None,
    reverse: bool = False,
    compute_dtype: Any = None,
) -> tuple[A, tuple[A, A], Tape[A]]:
    """Run `lstm` and save what its gradients need: ``y, (h_n, c_n), tape``.

    Takes the arguments of `lstm` and computes the same bits.
    """
    kind, (y, h_n, c_n, tape) = _run(
        "lstm", True, x, w_ih, w_hh, b_ih, b_hh, h0, c0, lengths, resets, reverse, compute_dtype
    )
    return kind(y), (kind(h_n), kind(c_n)), Tape("lstm_forward", tape, kind)


def lstm_backward(
    tape: Tape[A], dy: Any = None, dh_n: Any = None, dc_n: Any = None
) -> LSTMGradients[A]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n) + sum(dc_n * c_n)``.

    Arguments as `rnn_backward`; `dc_n` [B, H] is zero where absent. The result has `dc0` as well.
    """
    return LSTMGradients(**_gradients("lstm_forward", tape, dy, dh_n, dc_n))


def _run(
    cell: str,
    save: bool,
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    h0: Any,
    c0: Any,
    lengths: Any,
    resets: Any,
    reverse: object,
    compute_dtype: object,
) -> tuple[Callable[[Any], A], tuple[Any, Any, Any, Any]]:
    """How to make results of the kind of `x`, and the compiled module's y, h_n, c_n, tape."""
    backwards = options.flag("reverse", reverse)
    computed_in = options.compute_dtype(compute_dtype)
    results = _core.forward(
        cell,
        x,
        w_ih,
        w_hh,
        b_ih,
        b_hh,
        h0,
        c0,
        lengths,
        resets,
        backwards,
        save,
        compute_dtype=computed_in,
    )
    return converter_to_kind_of(x), results


def _gradients(function: str, tape: Tape[A], dy: Any, dh_n: Any, dc_n: Any) -> dict[str, A]:
    if not isinstance(tape, Tape):
        raise TypeError(f"tape: expected the tape of {function}, got {type(tape).__name__}")
    if tape.function != function:
        raise ValueError(f"tape: expected the tape of {function}, got that of {tape.function}")
    gradients = _core.backward(tape.core, dy, dh_n, dc_n)
    return {name: tape.to_kind(gradient) for name, gradient in gradients.items()}
