"""The long short-term memory, with peepholes, coupled gates or a projection, or plain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

from fusedrnn import options
from fusedrnn.cells import constants
from fusedrnn.cells.constants import Activation
from fusedrnn.cells.lstm_gradients import LSTMGradients, record_of
from fusedrnn.forward_mode import double_backward, jvp
from fusedrnn.functional import Tape, gradients, run
from fusedrnn.interop import A
from fusedrnn.layers.base import Layer
from fusedrnn.layers.initial import Initial
from fusedrnn.layers.noise import QUIET, Noisy, RecurrentDropoutMode
from fusedrnn.options import ForwardOptions, Init, Memory, Padding, RunOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

ACTIVATIONS = ("sigmoid", "tanh", "tanh")
CellClipNan = Literal["propagate", "limit"]
NANS: tuple[CellClipNan, ...] = get_args(CellClipNan)


def _numbers(
    clip: object,
    cell_clip: object,
    cell_clip_nan: object,
    activations: object,
    *,
    general: bool = False,
) -> tuple[float, ...]:
    """The cell's constants; none where they are the usual ones, unless it is to be `general`."""
    unlimited = clip is None and cell_clip is None and cell_clip_nan == NANS[0]
    if unlimited and activations is None and not general:
        return ()
    limits = constants.limit("clip", clip), constants.limit("cell_clip", cell_clip)
    limits_nan = options.choice("cell_clip_nan", cell_clip_nan, NANS) == "limit"
    if limits_nan and limits[1] is None:
        raise ValueError(
            f"cell_clip_nan: expected 'propagate' with cell_clip={cell_clip}, got 'limit'"
        )
    each = constants.activations(activations, "fgh", ACTIVATIONS)
    if limits == (None, None) and each is None and not general:
        return ()
    return constants.numbers((*limits, float(limits_nan)), each, ACTIVATIONS)


def _cell(peephole: bool, projects: bool, coupled: bool, general: bool) -> str:
    cell = "lstm_projection" if projects else "lstm_coupled" if coupled else "lstm"
    if general or (projects and peephole):
        return f"{cell}_general"
    return f"{cell}_peephole" if peephole else cell


def _variant(
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    w_peephole: Any,
    w_hr: Any,
    coupled: object,
    numbers: tuple[float, ...],
) -> tuple[str, tuple[Any, ...]]:
    """The cell and its weights."""
    if coupled is False and w_peephole is None and w_hr is None and not numbers:
        return "lstm", (w_ih, w_hh, b_ih, b_hh)
    couples = options.flag("coupled", coupled)
    if couples and w_hr is not None:
        raise ValueError("w_hr: expected none with coupled=True")
    cell = _cell(w_peephole is not None, w_hr is not None, couples, numbers != ())
    weights: tuple[Any, ...] = (w_ih, w_hh, b_ih, b_hh)
    if w_peephole is not None or cell.endswith("_general"):
        weights += (w_peephole,)
    return cell, weights if w_hr is None else (*weights, w_hr)


class _Options(RunOptions, total=False):
    w_peephole: Any
    w_hr: Any
    coupled: bool
    clip: float | None
    cell_clip: float | None
    cell_clip_nan: CellClipNan
    activations: Sequence[Activation] | None
    reset_c: Any


class _ForwardOptions(_Options, ForwardOptions, total=False):
    pass


@overload
def lstm(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    c0: Any = None,
    *,
    return_cells: Literal[False] = False,
    return_gates: Literal[False] = False,
    **options: Unpack[_Options],
) -> tuple[A, tuple[A, A]]: ...
@overload
def lstm(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    c0: Any = None,
    *,
    return_cells: Literal[True],
    return_gates: Literal[False] = False,
    **options: Unpack[_Options],
) -> tuple[A, tuple[A, A], A]: ...
@overload
def lstm(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    c0: Any = None,
    *,
    return_cells: bool = False,
    return_gates: Literal[True],
    **options: Unpack[_Options],
) -> tuple[Any, ...]: ...
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
    w_hr: Any = None,
    coupled: bool = False,
    clip: float | None = None,
    cell_clip: float | None = None,
    cell_clip_nan: CellClipNan = "propagate",
    activations: Sequence[Activation] | None = None,
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
    """Run a long short-term memory; gates in the order i, f, g, o, s the logistic sigmoid.

    With ``a = W_ih x_t + b_ih`` and ``u = W_hh h_{t-1} + b_hh``, cut into gate blocks::

        i = s(a_i + u_i)
        f = s(a_f + u_f)
        g = tanh(a_g + u_g)
        o = s(a_o + u_o)
        c_t = f * c_{t-1} + i * g
        h_t = o * tanh(c_t)

    With peepholes ``p``, i and f add ``p * c_{t-1}`` to what they are the sigmoid of, and o adds
    ``p * c_t``. With coupled gates there is no gate f of its own: ``f = 1 - i``. With a projection
    ``h_t = W_hr (o * tanh(c_t))``, of P numbers.

    Parameters
    ----------
    x : array [T, B, I], or [T, I]
    w_ih, w_hh : arrays [4H, I] and [4H, H], or with a projection [4H, P]
    b_ih, b_hh : arrays [4H], optional
    h0, c0 : arrays [B, H], optional
        The state before the first step; each is zero where absent. With a projection h0 is [B, P].
    w_peephole : array [3H], optional
        Peepholes of i, f and o, a weight a unit each; there are none where it is absent.
    w_hr : array [P, H], optional
        The projection; there is none where it is absent. It does not go with coupled gates.
    coupled : bool
        Whether ``f = 1 - i``. Weights and biases are then [3H, ...], of i, g and o, and peepholes
        [2H], of i and o.
    clip : float, optional
        As in `rnn`, of what each gate's activation is given, peepholes and all.
    cell_clip : float, optional
        c is limited to [-cell_clip, cell_clip] as soon as it is computed, as by
        cudnnRNNSetClip_v8: o's peephole, h and the next step see it limited. Gradients are 0 where
        the limit was reached. At least 1e-9; None is no limit.
    cell_clip_nan : {"propagate", "limit"}
        What becomes of a NaN in c: it stays, or it becomes `cell_clip`, and nothing goes back
        through it.
    activations : (f, g, h), optional
        In the place of ("sigmoid", "tanh", "tanh"): f makes i, f and o, g makes g, and h_t is
        ``o * h(c_t)``. Each is what `nonlinearity` of `rnn` is.
    heads, lengths, mask, resets, padding, reverse, compute_dtype
        As in `rnn`; lengths and resets for h and c alike, and 1 head with a projection.
    reset_h, reset_c : arrays [H], optional
        What takes the place of the state that a reset discards, as in `rnn`. With a projection
        reset_h is [P].
    return_cells : bool
        Whether c of every step is returned as well.
    return_gates : bool
        Whether the gates of every step are returned as well, for looking inside; no gradient goes
        back through them. A call keeps them as a forward call does. Not with `clip`, `cell_clip`,
        `activations`, ``memory="lean"`` or peepholes beside a projection, with which they are not
        kept.
    out : (y, (h_n, c_n)), or with ``return_cells=True`` (y, (h_n, c_n), c), optional
        As in `rnn`; there are none for gates.

    Returns
    -------
    y : array [T, B, H], or [T, B, P]
        h after every step.
    (h_n, c_n) : arrays [B, H], or [B, P] and [B, H]
        The state after the last valid step; `h0`, `c0` where the length is 0.
    c : array [T, B, H]
        With ``return_cells=True``: the cell state after every step; where a step does not exist, as
        `padding` says of `y`.
    gates : dict of arrays [T, B, H]
        With ``return_gates=True``, behind the others, as `Tape.gates` has them: by the letters
        "i", "f", "g", "o" (without "f" where coupled); zero where a step does not exist.

    Raises
    ------
    ValueError, TypeError
        As `rnn`.

    References
    ----------
    S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997), with the
    forget gate of F. Gers, J. Schmidhuber, F. Cummins, Neural Computation 12 (2000). Peepholes: F.
    Gers, J. Schmidhuber, "Recurrent nets that time and count", IJCNN (2000). Coupled gates: K.
    Greff et al., "LSTM: a search space odyssey" (2017), arXiv:1503.04069. Projection: H. Sak, A.
    Senior, F. Beaufays, "Long short-term memory based recurrent neural network architectures for
    large vocabulary speech recognition" (2014), arXiv:1402.1128.

    Examples
    --------
    >>> x = np.ones((5, 2, 3), np.float32)  # [T, B, I]
    >>> w_ih, w_hh = np.zeros((16, 3), np.float32), np.zeros((16, 4), np.float32)
    >>> y, (h_n, c_n), c = fr.lstm(x, w_ih, w_hh, c0=np.ones((2, 4), np.float32), return_cells=True)
    >>> c[:, 0, 0].tolist()  # f is 1/2 and g is 0
    [0.5, 0.25, 0.125, 0.0625, 0.03125]
    """
    numbers = _numbers(clip, cell_clip, cell_clip_nan, activations)
    cell, weights = _variant(w_ih, w_hh, b_ih, b_hh, w_peephole, w_hr, coupled, numbers)
    y, state, cells, _ = run(
        cell,
        x,
        weights,
        (h0, c0),
        (lengths, mask, resets, padding, (reset_h, reset_c)),
        reverse,
        compute_dtype,
        out,
        return_cells=return_cells,
        return_gates=return_gates,
        constants=numbers,
        heads=heads,
    )
    return y, state, *cells


@overload
def lstm_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    c0: Any = None,
    *,
    return_cells: Literal[False] = False,
    return_gates: Literal[False] = False,
    **options: Unpack[_ForwardOptions],
) -> tuple[A, tuple[A, A], Tape[A]]: ...
@overload
def lstm_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    c0: Any = None,
    *,
    return_cells: Literal[True],
    return_gates: Literal[False] = False,
    **options: Unpack[_ForwardOptions],
) -> tuple[A, tuple[A, A], A, Tape[A]]: ...
@overload
def lstm_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    c0: Any = None,
    *,
    return_cells: bool = False,
    return_gates: Literal[True],
    **options: Unpack[_ForwardOptions],
) -> tuple[Any, ...]: ...
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
    w_hr: Any = None,
    coupled: bool = False,
    clip: float | None = None,
    cell_clip: float | None = None,
    cell_clip_nan: CellClipNan = "propagate",
    activations: Sequence[Activation] | None = None,
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
    """Run `lstm` and save what its gradients need: ``y, (h_n, c_n), tape``.

    Takes the arguments of `lstm`, and `memory` as `rnn_forward`, and computes the same bits; with
    ``return_cells=True`` returns ``y, (h_n, c_n), c, tape``. The gates of ``return_gates=True``
    come before the tape.
    """
    numbers = _numbers(clip, cell_clip, cell_clip_nan, activations)
    cell, weights = _variant(w_ih, w_hh, b_ih, b_hh, w_peephole, w_hr, coupled, numbers)
    y, state, cells, tape = run(
        cell,
        x,
        weights,
        (h0, c0),
        (lengths, mask, resets, padding, (reset_h, reset_c)),
        reverse,
        compute_dtype,
        out,
        "lstm_forward",
        return_cells=return_cells,
        return_gates=return_gates,
        constants=numbers,
        memory=memory,
        heads=heads,
    )
    return y, state, *cells, tape


@overload
def lstm_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    dc_n: Any = None,
    *,
    dc: Any = None,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[False] = False,
) -> LSTMGradients[A]: ...


@overload
def lstm_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    dc_n: Any = None,
    *,
    dc: Any = None,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[True],
) -> tuple[LSTMGradients[A], dict[str, Any]]: ...


def lstm_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    dc_n: Any = None,
    *,
    dc: Any = None,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: bool = False,
) -> LSTMGradients[A] | tuple[LSTMGradients[A], dict[str, Any]]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n) + sum(dc_n * c_n) + sum(dc * c)``.

    Arguments as `rnn_backward`; `dc_n` [B, H] is zero where absent, and so is `dc` [T, B, H], the
    upstream gradient of the cell state of every step, whether or not the forward call returned it.
    The result has `dc0` as well, `dreset_c` as `dreset_h`, and `dw_peephole` and `dw_hr`, each None
    where there is no such weight.
    """
    by_name, flow = gradients(
        "lstm_forward", tape, dy, (dh_n, dc_n), ("h", "c"), out, (dc,), clip_dh, return_flow
    )
    record = record_of(by_name)
    return (record, flow) if return_flow else record


def lstm_jvp(tangents: Mapping[str, Any], *args: Any, **keywords: Any) -> tuple[Any, Any]:
    """Run `lstm` and its derivative along a direction, as `rnn_jvp`: ``results, tangents``."""
    return jvp(lstm, tangents, args, keywords)


def lstm_double_backward(
    tape: Tape[A],
    directions: Mapping[str, Any],
    dy: Any = None,
    dh_n: Any = None,
    dc_n: Any = None,
    *,
    dc: Any = None,
) -> dict[str, A]:
    """Differentiate `lstm_backward`, as `rnn_double_backward` does `rnn_backward`."""
    upstream = {"dy": dy, "dh_n": dh_n, "dc_n": dc_n, "dc": dc}
    return double_backward("lstm_forward", tape, directions, upstream, ("h", "c"))


class LSTM(Noisy, Layer):
    """Layers of long short-term memory (Hochreiter and Schmidhuber 1997).

    The equations stand at `fusedrnn.lstm`; a state is a pair (h, c).

    Parameters
    ----------
    proj_size : int
        P, where it is not 0: the output and h are projected to P numbers by a parameter weight_hr
        [P, H], as in PyTorch. It goes neither with coupled gates nor with `heads`.
    peephole : bool
        Whether gates see the cell state, through a parameter weight_peephole [3H] (i, f, o).
    coupled : bool
        Whether gates are coupled, f = 1 - i: parameters then have 3H rows (i, g, o), peepholes 2H.
    clip, cell_clip, cell_clip_nan, activations
        As of `fusedrnn.lstm`.
    layer_norm : bool
        Whether both products and c are normalised (Ba et al. 2016; `fusedrnn.lstm_layer_norm`).
        Parameters are then weight_ih, weight_hh, gain_ih, bias_ih, gain_hh, bias_hh [4H] and
        gain_cell, bias_cell [H]; gains are ones at first and biases, but for `forget_bias`, zeros,
        whatever `init` says. None of the options above goes with it, nor do ``bias=False`` and the
        recurrent dropout of candidates.
    zoneout : float, or a pair of them
        As of `RNN`, for h and for c, each with masks of its own; a number is for both. h is
        computed from the c that the cell computes, whatever stays of it.
    recurrent_dropout : float
        Depends on the mode.
    recurrent_dropout_mode : {"state", "candidate"}
        "state": as of `RNN`. "candidate": in each step another draw of g, where it is added to c
        (Semeniuta et al. 2016).
    forget_bias : float, optional
        What the two biases of each forget gate add up to at first; 1 keeps gates open, so that
        gradients reach back from the start (Gers et al. 2000; Jozefowicz et al. 2015). As `init`
        says where absent.
    others
        As of `RNN`, without `nonlinearity`. Orthogonal matrices that a projection makes oblong,
        its own too, have orthonormal rows or columns, whichever are fewer.
    """

    _states = ("h", "c")
    _usual = (
        Layer._usual
        | QUIET
        | {
            "proj_size": 0,
            "peephole": False,
            "coupled": False,
            "clip": None,
            "cell_clip": None,
            "cell_clip_nan": "propagate",
            "activations": None,
            "layer_norm": False,
        }
    )
    # What layer normalisation does not go with.
    _not_normalised = (
        *("proj_size", "peephole", "coupled", "clip", "cell_clip", "activations"),
        "recurrent_dropout_mode",
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        proj_size: int = 0,
        peephole: bool = False,
        coupled: bool = False,
        clip: float | None = None,
        cell_clip: float | None = None,
        cell_clip_nan: CellClipNan = "propagate",
        activations: Sequence[Activation] | None = None,
        layer_norm: bool = False,
        heads: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
        recurrent_dropout: float = 0.0,
        recurrent_dropout_mode: RecurrentDropoutMode = "state",
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
        self.peephole = options.flag("peephole", peephole)
        self.coupled = options.flag("coupled", coupled)
        self.proj_size = options.size("proj_size", proj_size, least=0)
        if self.proj_size and self.coupled:
            raise ValueError(f"proj_size: expected 0 with coupled=True, got {proj_size}")
        if self.proj_size and heads != 1:
            raise ValueError(f"heads: expected 1 with a projection, got {heads}")
        noise = self._noise(
            weight_dropout=weight_dropout,
            zoneout=zoneout,
            recurrent_dropout=recurrent_dropout,
            recurrent_dropout_mode=recurrent_dropout_mode,
        )
        numbers = _numbers(
            clip, cell_clip, cell_clip_nan, activations, general=self._drops_candidate
        )
        self.clip = constants.limit("clip", clip)
        self.cell_clip = constants.limit("cell_clip", cell_clip)
        self.cell_clip_nan = cell_clip_nan
        self.activations = constants.shown_all(activations, "fgh", ACTIVATIONS)
        self._forget_bias = options.forget_bias(forget_bias, options.flag("bias", bias))
        cell = _cell(self.peephole, self.proj_size > 0, self.coupled, numbers != ())
        self.layer_norm = options.flag("layer_norm", layer_norm)
        if self.layer_norm:
            others = {name: getattr(self, name) for name in self._not_normalised}
            options.usual_beside("layer_norm=True", others | {"bias": bias}, self._usual)
            cell = "lstm_layer_norm"
        super().__init__(
            cell,
            input_size,
            hidden_size,
            num_layers,
            constants=numbers,
            noise=noise,
            absent=() if self.peephole else ("w_peephole",),
            proj_size=self.proj_size,
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
        initial, total = super()._initial(init, seed), self._forget_bias
        initial = replace(initial, normalised=self.layer_norm)
        if total is None:
            return initial
        # Of coupled gates f = 1 - s(i) = s(-i).
        return replace(initial, bias=(0, -total) if self.coupled else (1, total))
