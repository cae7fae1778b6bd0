"""The gated recurrent unit of world models: one layer normalisation over all of its gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, overload

from fusedrnn import options
from fusedrnn.forward_mode import double_backward, jvp
from fusedrnn.functional import Tape, frozen_record, gradients, run
from fusedrnn.interop import A
from fusedrnn.layers.base import Layer
from fusedrnn.layers.initial import Initial
from fusedrnn.layers.noise import QUIET, Noisy
from fusedrnn.options import ForwardOptions, Init, Memory, Padding, RunOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack


@overload
def gru_world_model(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g: Any,
    b: Any,
    h0: Any = None,
    *,
    return_gates: Literal[False] = False,
    **options: Unpack[RunOptions],
) -> tuple[A, A]: ...
@overload
def gru_world_model(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g: Any,
    b: Any,
    h0: Any = None,
    *,
    return_gates: Literal[True],
    **options: Unpack[RunOptions],
) -> tuple[A, A, dict[str, A]]: ...
def gru_world_model(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g: Any,
    b: Any,
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
    """Run the GRU of world models; gates in the order r, n, z, s the logistic sigmoid.

    With ``LN(v; g, b) = g * (v - mean) / sqrt(variance + 1e-3) + b`` over all 3H elements and
    ``v = LN(W_ih x_t + W_hh h_{t-1}; g, b)``, cut into gate blocks::

        r, z = s(v_r), s(v_z)
        n = tanh(r * v_n)
        h_t = z * n + (1 - z) * h_{t-1}

    The authors' code adds -1 to v_z, so that the state changes slowly at first; here that is part
    of b, with which `WorldModelGRU` begins so. z is the share of the new, and r scales all of n's
    pre-activation, other than in `gru`.

    Parameters
    ----------
    x : array [T, B, I], or [T, I]
    w_ih, w_hh : arrays [3H, I] and [3H, H]
    g, b : arrays [3H]
        Gain and bias of the normalisation.
    h0 : array [B, H], optional
    heads, lengths, mask, resets, padding, reset_h, return_gates, reverse, compute_dtype, out
        As in `gru`.

    Returns
    -------
    y, h_n : arrays [T, B, H] and [B, H]
        As of `rnn`.
    gates : dict of arrays [T, B, H]
        With ``return_gates=True``, behind the others, as `Tape.gates` has them: by the letters
        "r", "n", "z"; zero where a step does not exist.

    Raises
    ------
    ValueError, TypeError
        As `rnn`.

    References
    ----------
    D. Hafner, T. Lillicrap, M. Norouzi, J. Ba, "Mastering Atari with discrete world models" (2020),
    arXiv:2010.02193: the recurrent model, as in the authors' code (its biases before the
    normalisation left out).
    """
    y, (h_n,), gates, _ = run(
        "gru_world_model",
        x,
        (w_ih, w_hh, g, b),
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
def gru_world_model_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g: Any,
    b: Any,
    h0: Any = None,
    *,
    return_gates: Literal[False] = False,
    **options: Unpack[ForwardOptions],
) -> tuple[A, A, Tape[A]]: ...
@overload
def gru_world_model_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g: Any,
    b: Any,
    h0: Any = None,
    *,
    return_gates: Literal[True],
    **options: Unpack[ForwardOptions],
) -> tuple[A, A, dict[str, A], Tape[A]]: ...
def gru_world_model_forward(
    x: A,
    w_ih: Any,
    w_hh: Any,
    g: Any,
    b: Any,
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
    """Run `gru_world_model` and save what its gradients need: ``y, h_n, tape``.

    Takes the arguments of `gru_world_model`, and `memory` as `rnn_forward`, and computes the same
    bits.
    """
    y, (h_n,), gates, tape = run(
        "gru_world_model",
        x,
        (w_ih, w_hh, g, b),
        (h0,),
        (lengths, mask, resets, padding, (reset_h,)),
        reverse,
        compute_dtype,
        out,
        "gru_world_model_forward",
        return_gates=return_gates,
        memory=memory,
        heads=heads,
    )
    return y, h_n, *gates, tape


@overload
def gru_world_model_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[False] = False,
) -> WorldModelGRUGradients[A]: ...


@overload
def gru_world_model_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: Literal[True],
) -> tuple[WorldModelGRUGradients[A], dict[str, Any]]: ...


def gru_world_model_backward(
    tape: Tape[A],
    dy: Any = None,
    dh_n: Any = None,
    *,
    out: Mapping[str, Any] | None = None,
    clip_dh: float | None = None,
    return_flow: bool = False,
) -> WorldModelGRUGradients[A] | tuple[WorldModelGRUGradients[A], dict[str, Any]]:
    """Return the gradients of ``sum(dy * y) + sum(dh_n * h_n)``; arguments as `rnn_backward`."""
    grads, flow = gradients(
        "gru_world_model_forward",
        tape,
        dy,
        (dh_n,),
        ("h",),
        out,
        (),
        clip_dh,
        return_flow,
    )
    record = frozen_record(WorldModelGRUGradients, grads)
    return (record, flow) if return_flow else record


def gru_world_model_jvp(
    tangents: Mapping[str, Any], *args: Any, **keywords: Any
) -> tuple[Any, Any]:
    """Run `gru_world_model` and its derivative along a direction, as `rnn_jvp`."""
    return jvp(gru_world_model, tangents, args, keywords)


def gru_world_model_double_backward(
    tape: Tape[A],
    directions: Mapping[str, Any],
    dy: Any = None,
    dh_n: Any = None,
) -> dict[str, A]:
    """Differentiate `gru_world_model_backward`, as `rnn_double_backward` does `rnn_backward`."""
    upstream = {"dy": dy, "dh_n": dh_n}
    return double_backward("gru_world_model_forward", tape, directions, upstream, ("h",))


@dataclass(frozen=True, eq=False)
class WorldModelGRUGradients(Generic[A]):
    """As `RNNGradients`, with those of the one normalisation's gain and bias."""

    dx: A
    dw_ih: A
    dw_hh: A
    dg: A
    db: A
    dh0: A
    dreset_h: Any = field(default=None, kw_only=True)


class WorldModelGRU(Noisy, Layer):
    """Layers of the GRU of world models (Hafner et al. 2020); see `fusedrnn.gru_world_model`.

    Parameters
    ----------
    heads : int
        Blocks along the diagonal of weight_hh; the normalisation is over all gates of all of them.
    update_bias : float
        What the bias of each update gate z, the last block of a layer's bias, is at first.
    others
        As of `RNN`, without `nonlinearity` and `bias`. A layer has weight_ih, weight_hh, and of its
        normalisation gain and bias [3H], of r, n, z: ones and, but for those of z, zeros at first,
        whatever `init` says.
    """

    _modes = ("state",)
    _usual = Layer._usual | QUIET

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        heads: int = 1,
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
        update_bias: float = -1.0,
    ) -> None:
        self._update_bias = options.number("update_bias", update_bias)
        super().__init__(
            "gru_world_model",
            input_size,
            hidden_size,
            num_layers,
            noise=self._noise(
                weight_dropout=weight_dropout,
                zoneout=zoneout,
                recurrent_dropout=recurrent_dropout,
                recurrent_dropout_mode=recurrent_dropout_mode,
            ),
            heads=heads,
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
        return Initial(init, seed, bias=(2, self._update_bias), normalised=True, heads=self.heads)
