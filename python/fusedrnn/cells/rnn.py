"""The vanilla RNN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, get_args, overload

from fusedrnn.cells import constants
from fusedrnn.cells.constants import Activation
from fusedrnn.forward_mode import double_backward, jvp
from fusedrnn.functional import Tape, frozen_record, gradients, run
from fusedrnn.interop import A
from fusedrnn.layers.base import Layer
from fusedrnn.layers.noise import QUIET, Noisy
from fusedrnn.options import Init, Memory, Padding

# Those that have a plain cell.
Nonlinearity = Literal["tanh", "relu", "sigmoid", "identity"]  # of the plain cells
NONLINEARITIES: tuple[Nonlinearity, ...] = get_args(Nonlinearity)
_PLAIN: dict[str, str] = {name: f"rnn_{name}" for name in NONLINEARITIES}


def _variant(nonlinearity: object, clip: object) -> tuple[str, tuple[float, ...]]:
    """The cell and its constants."""
    full, limit = constants.activation("nonlinearity", nonlinearity), constants.limit("clip", clip)
    if limit is None and (plain := _PLAIN.get(full[0])) is not None:
        return plain, ()
    return "rnn_general", constants.numbers((limit,), (full,))


def rnn(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    *,
    nonlinearity: Activation = "tanh",
    clip: float | None = None,
    heads: int = 1,
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    padding: Padding = "zero",
    reset_h: Any = None,
    reverse: bool = False,
    compute_dtype: Any = None,
    out: Any = None,
) -> tuple[A, A]:
    """Run a vanilla RNN: ``h_t = act(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)``.

    Parameters
    ----------
    x : array [T, B, I], or [T, I]
        The input of every step. T = 0 and B = 0 are valid. Of a single sequence [T, I] no array of
        the call has an axis B, results and gradients neither: `h0` is [H], `lengths` an int,
        `mask` and `resets` [T], `y` [T, H].
    w_ih, w_hh : arrays [H, I] and [H, H]
    b_ih, b_hh : arrays [H], optional
        Zero where absent.
    h0 : array [B, H], optional
        The state before the first step; zero where absent.
    nonlinearity : str, or tuple of a str with alpha and beta
        One of "tanh", "relu", "sigmoid", "identity", "hard_sigmoid", "softsign", "softplus",
        "leaky_relu", "elu", "affine", "scaled_tanh" and "thresholded_relu", as ONNX defines them
        (docs/math.md); for example ``("leaky_relu", 0.1)``. Numbers that are left out are ONNX's
        defaults, for "affine" and "scaled_tanh" 1, 0 and 1, 1. The first four are the fastest.
    clip : float, optional
        The activation is given its argument limited to [-clip, clip], as by ONNX's attribute of
        this name; gradients are 0 where the limit was reached. At least 1e-9; None is no limit.
    heads : int
        Blocks along the diagonal of `w_hh`, a divisor of H. `w_hh` is then [H, H/heads]: a unit
        reads h of the H/heads units of its own block, and of no others.
    lengths : integers [B], optional
        An array, or a sequence of ints such as a list: valid steps of each sequence, 0 to T. Beyond
        them the state stands still, and what `x` holds is never used; `padding` says what `y` is.
    mask : bool or uint8 array [T, B], optional
        False where a step does not exist, holes included: as beyond `lengths`, the state stands
        still and nothing is read of `x`. Results are those of the sequence without these steps.
    resets : bool or uint8 array [T, B], optional
        True where step t starts a new sequence: no state and no gradient crosses from t-1 to t, or
        in reverse from t to t-1. At a step that does not exist a reset does nothing.
    padding : {"zero", "last"}
        What `y` holds of steps that do not exist: zeros, or the state that stands still there (as
        Keras's layers with a mask).
    reset_h : array [H], optional
        What takes the place of the state that a reset discards, as learnt states at the beginning
        of a sequence do; zero where absent.
    reverse : bool
        From step ``lengths[b] - 1`` to 0, instead of upwards.
    compute_dtype : {"bfloat16", "tfloat32"}, optional
        With float32 arrays: round the operands of every matrix product to bfloat16, or on a CUDA
        device to tfloat32, here and in backward. All else is float32, except the gates that a tape
        keeps on the CPU: those are bfloat16 (but of a GRU with ``reset_after=False``, and of cells
        with limits or other activations than the usual ones). None, or the dtype of `x` itself, is
        plain.
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

    Examples
    --------
    >>> x = np.ones((5, 2, 3), np.float32)  # [T, B, I]
    >>> w_ih, w_hh = np.full((4, 3), 0.1, np.float32), np.zeros((4, 4), np.float32)
    >>> y, h_n = fr.rnn(x, w_ih, w_hh, lengths=[5, 2])
    >>> y.shape, h_n.shape
    ((5, 2, 4), (2, 4))
    >>> np.allclose(y[0], np.tanh(0.3)), bool(y[2:, 1].any())
    (True, False)
    """
    cell, numbers = _variant(nonlinearity, clip)
    y, (h_n,), _, _ = run(
        cell,
        x,
        (w_ih, w_hh, b_ih, b_hh),
        (h0,),
        (lengths, mask, resets, padding, (reset_h,)),
        reverse,
        compute_dtype,
        out,
        constants=numbers,
        heads=heads,
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
    nonlinearity: Activation = "tanh",
    clip: float | None = None,
    heads: int = 1,
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
    """Run `rnn` and save what its gradients need: ``y, h_n, tape``.

    Takes the arguments of `rnn` and computes the same bits.

    Parameters
    ----------
    memory : {"default", "lean"}
        What the tape keeps. "default": the states and gates of every step. "lean": the states of
        few steps, from which backward takes the others again, some at a time; on a CUDA device the
        states of all. Tape and backward then take a fraction of the memory, and a training step up
        to a third more time. Gradients are the same to the bit; on a CUDA device their products may
        sum in another order. `Tape.gates` needs "default".
    """
    cell, numbers = _variant(nonlinearity, clip)
    y, (h_n,), _, tape = run(
        cell,
        x,
        (w_ih, w_hh, b_ih, b_hh),
        (h0,),
        (lengths, mask, resets, padding, (reset_h,)),
        reverse,
        compute_dtype,
        out,
        "rnn_forward",
        constants=numbers,
        memory=memory,
        heads=heads,
    )
    return y, h_n, tape


@overload
def rnn_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[False] = False,
) -> RNNGradients[A]: ...


@overload
def rnn_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[True],
) -> tuple[RNNGradients[A], dict[str, Any]]: ...


def rnn_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: bool = False,
) -> RNNGradients[A] | tuple[RNNGradients[A], dict[str, Any]]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n)``.

    Parameters
    ----------
    tape : Tape
        From `rnn_forward`. It may be used any number of times.
    dy : array [T, B, H], optional
        Upstream gradient of `y`; zero where absent, and ignored at steps that do not exist, unless
        ``padding="last"`` shows the state there.
    dh_n : array [B, H], optional
        Upstream gradient of `h_n`; zero where absent.
    out : mapping, optional
        Arrays to write gradients to, and to return, by the names below; new ones for the others.
    clip_dh : float, optional
        Limit each element of the gradient of h that leaves a step to [-clip_dh, clip_dh] before it
        goes on to the step before (Graves 2013, section 2.1): what explodes stays bounded, and the
        result is the gradient of nothing where a limit was met. At least 1e-30.
    return_flow : bool
        Whether to return what flows back through time as well.

    Returns
    -------
    grads : RNNGradients
        dx, dw_ih, dw_hh, db_ih, db_hh, dh0, each in the shape of its variable, and dreset_h where
        there was a `reset_h`, else None. `dx` beyond `lengths` is 0.
    flow : dict of float64 arrays [T]
        With ``return_flow=True``: for each state, by its letter, the Euclidean norm over sequences
        and units of the gradient of the state that leaves step t, `clip_dh` applied: that of h has
        its `dy`, that of c what comes from later steps, not what goes through h of the same one. It
        shows gradients that vanish or explode (``python -m fusedrnn flow``). A NumPy array; on a
        CUDA device one of the library of x.

    Raises
    ------
    ValueError, TypeError
        As `rnn`; also for a tape of another function.

    Examples
    --------
    >>> x, w_ih, w_hh = np.ones((5, 2, 3)), np.zeros((4, 3)), np.zeros((4, 4))
    >>> y, h_n, tape = fr.rnn_forward(x, w_ih, w_hh)
    >>> grads = fr.rnn_backward(tape, dy=np.ones_like(y))  # of the loss y.sum()
    >>> grads.dw_ih.shape, float(grads.db_ih[0])  # tanh'(0) = 1, over 5 steps of 2 sequences
    ((4, 3), 10.0)
    """
    grads, flow = gradients("rnn_forward", tape, dy, (dh_n,), ("h",), out, (), clip_dh, return_flow)
    record = frozen_record(RNNGradients, grads)
    return (record, flow) if return_flow else record


def rnn_jvp(tangents: Mapping[str, Any], *args: Any, **keywords: Any) -> tuple[Any, Any]:
    """Run `rnn` and its derivative along a direction: ``results, tangents``.

    Forward mode: one walk over dual numbers, at three to five times the cost of `rnn`.

    Parameters
    ----------
    tangents : mapping
        The direction: by the names of arguments that are arrays ("x", "w_hh", "h0", "reset_h", ...)
        arrays of their shape and dtype; zero where absent. An argument that is not given counts as
        zeros.
    args, keywords
        As of `rnn`, but for `compute_dtype` and `out`.

    Returns
    -------
    results, tangents
        What `rnn` returns, and the derivative of each of these, in the same form.

    Raises
    ------
    ValueError, TypeError
        As `rnn`; for a name that is none of an array, and for 16-bit types.

    References
    ----------
    A. G. Baydin et al., "Automatic differentiation in machine learning: a survey" (2018),
    arXiv:1502.05767, section 3.1.
    """
    return jvp(rnn, tangents, args, keywords)


def rnn_double_backward(
    tape: Tape[A],
    directions: Mapping[str, Any],
    dy: Any = None,
    dh_n: Any = None,
) -> dict[str, A]:
    """Differentiate `rnn_backward`: gradients of the sum of directions times gradients.

    Of ``v = sum(directions[n] * grads.dn for n in directions)``, where `grads` are what
    `rnn_backward` returns for the same tape and upstream gradients. So where `directions` are the
    gradients of a loss with respect to `grads`, as a framework has them in double backward, the
    results are those with respect to all that `grads` depend on.

    Parameters
    ----------
    tape : Tape
        From `rnn_forward`. What that call was given, lengths and states too, must not have changed.
    directions : mapping
        By the names of arguments ("x", "w_hh", "h0", ...) arrays of their shape and dtype; zero
        where absent.
    dy, dh_n
        As of `rnn_backward`.

    Returns
    -------
    dict
        The gradient of v with respect to each argument, by its name ("x", "w_ih", ..., "h0"): the
        product of the Hessian and `directions`; and with respect to the upstream gradients, "dy",
        "dh_n", ...: the derivative of the results along `directions`. Of the kind of x.

    Raises
    ------
    ValueError, TypeError
        As `rnn_backward`; for a name that is none of an array, for 16-bit types, and for a tape
        whose products were rounded (`compute_dtype`).

    References
    ----------
    B. A. Pearlmutter, "Fast exact multiplication by the Hessian" (1994), Neural Computation 6(1).
    """
    upstream = {"dy": dy, "dh_n": dh_n}
    return double_backward("rnn_forward", tape, directions, upstream, ("h",))


@dataclass(frozen=True, eq=False)
class RNNGradients(Generic[A]):
    """Gradients of a scalar with respect to each input, in that input's shape.

    Those of biases or an initial state that was not given are the gradients of zeros in its place.

    Attributes
    ----------
    dx : array [T, B, I]
    dw_ih : array [H, I]
    dw_hh : array [H, H]
    db_ih : array [H]
    db_hh : array [H]
    dh0 : array [B, H]
    dreset_h : array [H], or None
        None where there was no reset state.
    """

    dx: A
    dw_ih: A
    dw_hh: A
    db_ih: A
    db_hh: A
    dh0: A
    dreset_h: Any = field(default=None, kw_only=True)


class RNN(Noisy, Layer):
    """Layers of a vanilla RNN (Elman 1990); the equation stands at `fusedrnn.rnn`.

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        I, H and L, each at least 1.
    nonlinearity, clip
        As of `fusedrnn.rnn`.
    heads : int
        Blocks along the diagonal of weight_hh, [H, H/heads], as of `fusedrnn.rnn`.
    bias : bool
        Whether there are bias_ih and bias_hh.
    batch_first : bool
        Whether sequences of a batch (x, y, mask, resets, cells, gates) have it as their first axis.
        States never have.
    dropout : float
        The probability, at least 0 and below 1, with which `forward` sets each element of what one
        layer hands to the next to zero; it divides the others by 1 - dropout (Srivastava et al.
        2014). See `train`, `eval` and `dropout_state`.
    weight_dropout : float
        The probability, at least 0 and below 1, with which `forward` takes each element of
        weight_hh for zero; it divides the others by 1 - weight_dropout. One draw for a whole call:
        DropConnect (Wan et al. 2013; Merity et al. 2018). As for `dropout`, nothing of it in plain
        calls, `step`, frozen layers and after `eval`.
    zoneout : float
        The probability, 0 to 1, with which in `forward` a unit of the state is after a step what it
        was before (Krueger et al. 2016), drawn for each unit, sequence and step. `y` is that state.
        Elsewhere, where nothing is drawn, the state is what is expected: zoneout times what it was
        before and 1 - zoneout times what the cell computes.
    recurrent_dropout : float
        The probability, at least 0 and below 1, with which in `forward` a unit of h is zero where
        weight_hh multiplies it, and nowhere else, in all steps of a sequence alike; the others are
        divided by 1 - recurrent_dropout (Gal and Ghahramani 2016; Keras's argument of this name).
        In plain calls, `step`, frozen layers and after `eval` nothing of it.
    recurrent_dropout_mode : {"state"}
        What is dropped; a GRU and an LSTM have another mode.
    bidirectional : bool
        Whether each layer also runs in reverse; the next reads both outputs side by side.
    dtype : {"float32", "float64", "bfloat16", "float16"}
        Of everything: parameters, x, y, states, gradients. In the 16-bit types sums, gates and the
        cell state within a call are float32.
    compute_dtype : {"bfloat16", "tfloat32"}, optional
        Of a float32 layer: round the operands of every matrix product to bfloat16, or on a CUDA
        device to tfloat32, forward and backward. All else is float32, but for gates that training
        keeps for backward (`fusedrnn.rnn`). None, or the dtype itself, is plain.
    memory : {"default", "lean"}
        What the tape of `forward` keeps: see `rnn_forward`.
    device : str
        "cpu", or a CUDA device: "cuda" (the first) or "cuda:N". Parameters, x, y, states and
        gradients all lie there.
    array_type : type, optional
        Of the parameters on a CUDA device: `cupy.ndarray`, `torch.Tensor` or a type made known to
        `fusedrnn.cuda_arrays`; by default the first of these that is installed. Results are of the
        kind of x whatever it is.
    seed : int, optional
        Of the initial parameters; from the operating system where absent.
    init : {"uniform", "orthogonal"}
        What parameters begin with. Uniform between -1/sqrt(H) and 1/sqrt(H), as in PyTorch. Or as
        in Keras: in weight_hh a random orthogonal matrix for each gate (Saxe et al. 2014),
        weight_ih uniform within sqrt(6 / (its rows + its columns)) of zero (Glorot and Bengio
        2010), biases zero; peepholes uniform as before.

    Raises
    ------
    ValueError, TypeError
        A wrong value or type; the message names the argument.
    RuntimeError
        A CUDA device that cannot be used; the message says why.
    """

    _modes = ("state",)  # it has no candidate
    _usual = Layer._usual | QUIET | {"nonlinearity": "tanh", "clip": None}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: Activation = "tanh",
        clip: float | None = None,
        heads: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        zoneout: float = 0.0,
        recurrent_dropout: float = 0.0,
        recurrent_dropout_mode: Literal["state"] = "state",
        bidirectional: bool = False,
        dtype: Any = "float32",
        compute_dtype: Any = None,
        memory: Memory = "default",
        device: str = "cpu",
        array_type: type | None = None,
        seed: int | None = None,
        init: Init = "uniform",
    ) -> None:
        cell, numbers = _variant(nonlinearity, clip)
        self.nonlinearity = constants.shown(constants.activation("nonlinearity", nonlinearity))
        self.clip = constants.limit("clip", clip)
        super().__init__(
            cell,
            input_size,
            hidden_size,
            num_layers,
            constants=numbers,
            noise=self._noise(
                weight_dropout=weight_dropout,
                zoneout=zoneout,
                recurrent_dropout=recurrent_dropout,
                recurrent_dropout_mode=recurrent_dropout_mode,
            ),
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
