"""The gated recurrent unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, overload

from fusedrnn import options
from fusedrnn.cells import constants
from fusedrnn.cells.constants import Activation
from fusedrnn.cells.rnn import RNNGradients
from fusedrnn.forward_mode import double_backward, jvp
from fusedrnn.functional import Tape, frozen_record, gradients, run
from fusedrnn.interop import A
from fusedrnn.layers.base import Layer
from fusedrnn.layers.initial import Initial
from fusedrnn.layers.noise import QUIET, Noisy, RecurrentDropoutMode
from fusedrnn.options import ForwardOptions, Init, Memory, Padding, RunOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

ACTIVATIONS = ("sigmoid", "tanh")


def _variant(
    reset_after: object, clip: object, activations: object, *, general: bool = False
) -> tuple[str, tuple[float, ...]]:
    """The cell and its constants; `general`: the one that has some, whatever they are."""
    if reset_after is True and clip is None and activations is None and not general:
        return "gru", ()
    cell = "gru" if options.flag("reset_after", reset_after) else "gru_reset_before"
    limit = constants.limit("clip", clip)
    each = constants.activations(activations, "fg", ACTIVATIONS)
    if limit is None and each is None and not general:
        return cell, ()
    return f"{cell}_general", constants.numbers((limit,), each, ACTIVATIONS)


class _Options(RunOptions, total=False):
    reset_after: bool
    clip: float | None
    activations: Sequence[Activation] | None


class _ForwardOptions(_Options, ForwardOptions, total=False):
    pass


@overload
def gru(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    *,
    return_gates: Literal[False] = False,
    **options: Unpack[_Options],
) -> tuple[A, A]: ...
@overload
def gru(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    *,
    return_gates: Literal[True],
    **options: Unpack[_Options],
) -> tuple[A, A, dict[str, A]]: ...
def gru(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    *,
    reset_after: bool = True,
    clip: float | None = None,
    activations: Sequence[Activation] | None = None,
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
    clip : float, optional
        As in `rnn`, of what each gate's activation is given: of n all of ``a_n + r * u_n``.
    activations : (f, g), optional
        In the place of ("sigmoid", "tanh"): f makes r and z, g makes n. Each is what `nonlinearity`
        of `rnn` is.
    heads, lengths, mask, resets, padding, reset_h, reverse, compute_dtype, out
        As in `rnn`; `out` has no arrays for gates.
    return_gates : bool
        Whether the gates of every step are returned as well, for looking inside; no gradient goes
        back through them. A call keeps them as a forward call does. Not with `clip`,
        `activations` or ``memory="lean"``, with which they are not kept.

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
    K. Cho et al., "Learning phrase representations using RNN encoder-decoder" (2014),
    arXiv:1406.1078, eqs. 5 to 8, with z and 1 - z exchanged as in cuDNN.

    Examples
    --------
    >>> x = np.ones((5, 2, 3), np.float32)  # [T, B, I]
    >>> w_ih, w_hh = np.zeros((12, 3), np.float32), np.zeros((12, 4), np.float32)
    >>> y, h_n = fr.gru(x, w_ih, w_hh, h0=np.ones((2, 4), np.float32))
    >>> float(h_n[0, 0])  # n is 0 and z is 1/2: half of the state stays, five times
    0.03125
    """
    cell, numbers = _variant(reset_after, clip, activations)
    y, (h_n,), gates, _ = run(
        cell,
        x,
        (w_ih, w_hh, b_ih, b_hh),
        (h0,),
        (lengths, mask, resets, padding, (reset_h,)),
        reverse,
        compute_dtype,
        out,
        return_gates=return_gates,
        constants=numbers,
        heads=heads,
    )
    return y, h_n, *gates


@overload
def gru_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    *,
    return_gates: Literal[False] = False,
    **options: Unpack[_ForwardOptions],
) -> tuple[A, A, Tape[A]]: ...
@overload
def gru_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    *,
    return_gates: Literal[True],
    **options: Unpack[_ForwardOptions],
) -> tuple[A, A, dict[str, A], Tape[A]]: ...
def gru_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    h0: Any = None,
    *,
    reset_after: bool = True,
    clip: float | None = None,
    activations: Sequence[Activation] | None = None,
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
    """Run `gru` and save what its gradients need: ``y, h_n, tape``.

    Takes the arguments of `gru`, and `memory` as `rnn_forward`, and computes the same bits; with
    ``return_gates=True`` returns ``y, h_n, gates, tape``.
    """
    cell, numbers = _variant(reset_after, clip, activations)
    y, (h_n,), gates, tape = run(
        cell,
        x,
        (w_ih, w_hh, b_ih, b_hh),
        (h0,),
        (lengths, mask, resets, padding, (reset_h,)),
        reverse,
        compute_dtype,
        out,
        "gru_forward",
        return_gates=return_gates,
        constants=numbers,
        memory=memory,
        heads=heads,
    )
    return y, h_n, *gates, tape


@overload
def gru_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[False] = False,
) -> GRUGradients[A]: ...


@overload
def gru_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[True],
) -> tuple[GRUGradients[A], dict[str, Any]]: ...


def gru_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: bool = False,
) -> GRUGradients[A] | tuple[GRUGradients[A], dict[str, Any]]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n)``; arguments as `rnn_backward`."""
    grads, flow = gradients("gru_forward", tape, dy, (dh_n,), ("h",), out, (), clip_dh, return_flow)
    record = frozen_record(GRUGradients, grads)
    return (record, flow) if return_flow else record


def gru_jvp(tangents: Mapping[str, Any], *args: Any, **keywords: Any) -> tuple[Any, Any]:
    """Run `gru` and its derivative along a direction, as `rnn_jvp`: ``results, tangents``."""
    return jvp(gru, tangents, args, keywords)


def gru_double_backward(
    tape: Tape[A],
    directions: Mapping[str, Any],
    dy: Any = None,
    dh_n: Any = None,
) -> dict[str, A]:
    """Differentiate `gru_backward`, as `rnn_double_backward` does `rnn_backward`."""
    upstream = {"dy": dy, "dh_n": dh_n}
    return double_backward("gru_forward", tape, directions, upstream, ("h",))


@dataclass(frozen=True, eq=False)
class GRUGradients(RNNGradients[A]):
    """As `RNNGradients`; weights and biases have 3H rows, of r, z and n."""


class GRU(Noisy, Layer):
    """Layers of gated recurrent units (Cho et al. 2014); the equations stand at `fusedrnn.gru`.

    Parameters
    ----------
    reset_after : bool
        Whether the reset gate follows the recurrent product, as in PyTorch, or precedes it.
    clip, activations
        As of `fusedrnn.gru`.
    layer_norm : bool
        Whether both products are normalised (Ba et al. 2016; `fusedrnn.gru_layer_norm`). Parameters
        are then weight_ih, weight_hh, gain_ih, bias_ih, gain_hh and bias_hh [3H]; gains are ones at
        first and biases zeros, whatever `init` says. It goes with none of ``reset_after=False``,
        `clip`, `activations`, ``bias=False`` and the recurrent dropout of candidates.
    recurrent_dropout : float
        Depends on the mode.
    recurrent_dropout_mode : {"state", "candidate"}
        "state": as of `RNN`; with ``reset_after=False`` the mask is on h and on r * h. "candidate":
        in each step another draw of n, where it is added to the state (Semeniuta et al. 2016).
    others
        As of `RNN`, without `nonlinearity`.
    """

    _usual = (
        Layer._usual
        | QUIET
        | {"reset_after": True, "clip": None, "activations": None, "layer_norm": False}
    )
    # What layer normalisation does not go with.
    _not_normalised = ("reset_after", "clip", "activations", "recurrent_dropout_mode")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        reset_after: bool = True,
        clip: float | None = None,
        activations: Sequence[Activation] | None = None,
        layer_norm: bool = False,
        heads: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        zoneout: float = 0.0,
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
    ) -> None:
        noise = self._noise(
            weight_dropout=weight_dropout,
            zoneout=zoneout,
            recurrent_dropout=recurrent_dropout,
            recurrent_dropout_mode=recurrent_dropout_mode,
        )
        cell, numbers = _variant(reset_after, clip, activations, general=self._drops_candidate)
        self.reset_after = bool(reset_after)
        self.clip = constants.limit("clip", clip)
        self.activations = constants.shown_all(activations, "fg", ACTIVATIONS)
        self.layer_norm = options.flag("layer_norm", layer_norm)
        if self.layer_norm:
            others = {name: getattr(self, name) for name in self._not_normalised}
            others["bias"] = options.flag("bias", bias)
            options.usual_beside("layer_norm=True", others, self._usual)
            cell = "gru_layer_norm"
        super().__init__(
            cell,
            input_size,
            hidden_size,
            num_layers,
            constants=numbers,
            noise=noise,
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
        return replace(super()._initial(init, seed), normalised=self.layer_norm)
