"""The cells as functions: one layer in one direction, forward and backward.

Letters: T time steps, B batch, I input size, H hidden size, G gate blocks (RNN and IndRNN 1, GRU 3,
LSTM 4).
Arrays are NumPy arrays or anything with `__dlpack__` (PyTorch, JAX, CuPy, ...), read without a copy
where their last axis is dense. Results, gradients too, are of the kind of `x` (`fusedrnn.interop`
says how that is found), on its device, and of its dtype: float32, float64, bfloat16 (in NumPy by
the package ml_dtypes) or float16, one a call. They are no part of PyTorch's graph, whether or not a
tensor given requires a gradient, nor of what JAX or PyTorch traces: what is traced has no values.

All arrays of a call lie on the CPU, or all on one CUDA device, where `lengths` and `resets` alone
may stay on the CPU (as lists and NumPy arrays do). On a CUDA device work goes on the current stream
of the library of `x`, results and memory come from that library, and nothing waits for the device;
so lengths there are not checked but limited to 0..T. A call can be captured in a CUDA graph. The
same call gives the same bits; in calls of other shapes a product may sum in another order.
`fusedrnn.cuda_arrays` has what is asked of a library.

The 16-bit types are for storage: matrix products, gates and the cell state within a call are
float32. docs/math.md says what is rounded where.

A tape refers to `x`, `w_ih` and `w_hh` of its forward call: leave them as they are until the last
backward. All else it owns; `y` and the states may be changed at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusedrnn import _core, options
from fusedrnn.interop import A, converter_to_kind_of
from fusedrnn.tape import (
    GRUGradients,
    IndRNNGradients,
    LSTMGradients,
    PeepholeLSTMGradients,
    RNNGradients,
    Tape,
)


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
    out: Any = None,
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
        An array, or a sequence of ints such as a list: valid steps of each sequence, 0 to T. Beyond
        them `y` is 0 and the state stands still; what `x` holds there is never used.
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
    out : (y, h_n), optional
        Arrays to write the results to, and to return: on the device of `x` and of its dtype, each
        with a dense last axis. They share no memory with what is read, but that `h_n` may be `h0`.

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
    cell, weights = options.rnn_cell(nonlinearity), (w_ih, w_hh, b_ih, b_hh)
    y, (h_n,), _ = _run(
        cell, x, weights, (h0,), lengths, resets, reverse, compute_dtype, _results(out, "h_n")
    )
    return y, h_n


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
    out: Any = None,
) -> tuple[A, A, Tape[A]]:
    """Run `rnn` and save what its gradients need: ``y, h_n, tape``.

    Takes the arguments of `rnn` and computes the same bits.
    """
    cell, weights = options.rnn_cell(nonlinearity), (w_ih, w_hh, b_ih, b_hh)
    y, (h_n,), tape = _run(
        cell,
        x,
        weights,
        (h0,),
        lengths,
        resets,
        reverse,
        compute_dtype,
        _results(out, "h_n"),
        "rnn_forward",
    )
    return y, h_n, tape


def rnn_backward(
    tape: Tape[A], dy: Any = None, dh_n: Any = None, *, out: Mapping[str, Any] | None = None
) -> RNNGradients[A]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n)``.

    Parameters
    ----------
    tape : Tape
        From `rnn_forward`. It may be used any number of times.
    dy : array [T, B, H], optional
        Upstream gradient of `y`; zero where absent, ignored beyond `lengths`.
    dh_n : array [B, H], optional
        Upstream gradient of `h_n`; zero where absent.
    out : mapping, optional
        Arrays to write gradients to, and to return, by the names below; new ones for the others.

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
    return RNNGradients(**_gradients("rnn_forward", tape, dy, (dh_n,), ("dh0",), out))


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
    x : array [T, B, I]
    w_ih, w_hh : arrays [3H, I] and [3H, H]
    b_ih, b_hh : arrays [3H], optional
    h0 : array [B, H], optional
    reset_after : bool
        Whether the reset gate follows the recurrent product (cuDNN, PyTorch, Keras) or precedes it
        (Cho et al. 2014; ONNX ``linear_before_reset=0``).
    lengths, resets, reverse, compute_dtype, out
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
    cell, weights = options.gru_cell(reset_after), (w_ih, w_hh, b_ih, b_hh)
    y, (h_n,), _ = _run(
        cell, x, weights, (h0,), lengths, resets, reverse, compute_dtype, _results(out, "h_n")
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
    resets: Any = None,
    reverse: bool = False,
    compute_dtype: Any = None,
    out: Any = None,
) -> tuple[A, A, Tape[A]]:
    """Run `gru` and save what its gradients need: ``y, h_n, tape``.

    Takes the arguments of `gru` and computes the same bits.
    """
    cell, weights = options.gru_cell(reset_after), (w_ih, w_hh, b_ih, b_hh)
    y, (h_n,), tape = _run(
        cell,
        x,
        weights,
        (h0,),
        lengths,
        resets,
        reverse,
        compute_dtype,
        _results(out, "h_n"),
        "gru_forward",
    )
    return y, h_n, tape


def gru_backward(
    tape: Tape[A], dy: Any = None, dh_n: Any = None, *, out: Mapping[str, Any] | None = None
) -> GRUGradients[A]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n)``; arguments as `rnn_backward`."""
    return GRUGradients(**_gradients("gru_forward", tape, dy, (dh_n,), ("dh0",), out))


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
    cell, weights = _lstm(w_ih, w_hh, b_ih, b_hh, w_peephole)
    y, (h_n, c_n), _ = _run(
        cell,
        x,
        weights,
        (h0, c0),
        lengths,
        resets,
        reverse,
        compute_dtype,
        _results(out, "h_n", "c_n"),
    )
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
    cell, weights = _lstm(w_ih, w_hh, b_ih, b_hh, w_peephole)
    y, (h_n, c_n), tape = _run(
        cell,
        x,
        weights,
        (h0, c0),
        lengths,
        resets,
        reverse,
        compute_dtype,
        _results(out, "h_n", "c_n"),
        "lstm_forward",
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
    gradients = _gradients("lstm_forward", tape, dy, (dh_n, dc_n), ("dh0", "dc0"), out)
    kind = PeepholeLSTMGradients if "dw_peephole" in gradients else LSTMGradients
    return kind(**gradients)


def indrnn(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    h0: Any = None,
    *,
    nonlinearity: str = "relu",
    lengths: Any = None,
    resets: Any = None,
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
    x : array [T, B, I]
    w_ih : array [H, I]
    w_hh : array [H]
    b_ih : array [H], optional
    h0 : array [B, H], optional
    nonlinearity : {"relu", "tanh"}
    lengths, resets, reverse, out
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
    cell, weights = options.indrnn_cell(nonlinearity), (w_ih, w_hh, b_ih)
    y, (h_n,), _ = _run(
        cell, x, weights, (h0,), lengths, resets, reverse, compute_dtype, _results(out, "h_n")
    )
    return y, h_n


def indrnn_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    h0: Any = None,
    *,
    nonlinearity: str = "relu",
    lengths: Any = None,
    resets: Any = None,
    reverse: bool = False,
    compute_dtype: Any = None,
    out: Any = None,
) -> tuple[A, A, Tape[A]]:
    """Run `indrnn` and save what its gradients need: ``y, h_n, tape``.

    Takes the arguments of `indrnn` and computes the same bits.
    """
    cell, weights = options.indrnn_cell(nonlinearity), (w_ih, w_hh, b_ih)
    y, (h_n,), tape = _run(
        cell,
        x,
        weights,
        (h0,),
        lengths,
        resets,
        reverse,
        compute_dtype,
        _results(out, "h_n"),
        "indrnn_forward",
    )
    return y, h_n, tape


def indrnn_backward(
    tape: Tape[A], dy: Any = None, dh_n: Any = None, *, out: Mapping[str, Any] | None = None
) -> IndRNNGradients[A]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n)``.

    Arguments as `rnn_backward`; the result has no `db_hh`, and its `dw_hh` is [H].
    """
    return IndRNNGradients(**_gradients("indrnn_forward", tape, dy, (dh_n,), ("dh0",), out))


def _lstm(*weights: Any) -> tuple[str, tuple[Any, ...]]:
    """The compiled module's name of an LSTM with or without its last weights, the peepholes."""
    return ("lstm", weights[:-1]) if weights[-1] is None else ("lstm_peephole", weights)


def _results(out: object, *states: str) -> tuple[Any, tuple[Any, ...] | None]:
    return (None, None) if out is None else options.result_arrays(out, "y", states)


def _run(
    cell: str,
    x: A,
    parameters: tuple[Any, ...],
    states: tuple[Any, ...],
    lengths: Any,
    resets: Any,
    reverse: object,
    compute_dtype: object,
    out: tuple[Any, tuple[Any, ...] | None],
    function: str = "",
) -> tuple[A, tuple[A, ...], Any]:
    """y, the states after the last step, and for a forward function's name its tape."""
    backwards = options.flag("reverse", reverse)
    computed_in = options.compute_dtype(compute_dtype)
    results: tuple[Any, tuple[Any, ...], Any] = _core.run(
        cell,
        x,
        parameters,
        states,
        lengths,
        resets,
        backwards,
        computed_in,
        function != "",
        *out,
    )
    y, states_n, tape = results
    kind = converter_to_kind_of(x)
    saved = None if tape is None else Tape(function, tape, kind)
    if out[0] is not None:
        return y, states_n, saved
    return kind(y), tuple(map(kind, states_n)), saved


def _gradients(
    function: str,
    tape: Tape[A],
    dy: Any,
    dstates_n: tuple[Any, ...],
    states: tuple[str, ...],
    out: Mapping[str, Any] | None,
) -> dict[str, A]:
    if not isinstance(tape, Tape):
        raise TypeError(f"tape: expected the tape of {function}, got {type(tape).__name__}")
    if tape.function != function:
        raise ValueError(f"tape: expected the tape of {function}, got that of {tape.function}")
    parameters = tuple(f"d{name}" for name in tape.core.parameters)
    given = options.outputs(out, ("dx", *parameters, *states))
    results: tuple[Any, tuple[Any, ...], tuple[Any, ...]] = tape.core.backward(
        dy,
        dstates_n,
        True,
        given.get("dx"),
        tuple(map(given.get, parameters)),
        tuple(map(given.get, states)),
    )
    dx, dparameters, dstates = results
    computed = zip(("dx", *parameters, *states), (dx, *dparameters, *dstates), strict=True)
    return {
        name: gradient if name in given else tape.to_kind(gradient) for name, gradient in computed
    }
