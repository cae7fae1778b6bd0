"""What the layers called as torch.nn's share: the constructor's checks and the call."""

from __future__ import annotations

import inspect
import numbers
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import _VF, Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fusedrnn import options as checks
from fusedrnn.options import PADDINGS, Padding
from fusedrnn.torch.base import Recurrent, check_tensor


class RecurrentLayer(Recurrent):
    """Layers over layers, in one or both directions; what torch.nn.RNNBase is to torch.nn.

    Calls are ``y, state = layer(input, hx)``, in the shapes and types of torch.nn, unbatched and
    PackedSequence too. See `forward` for what fusedrnn has beside them.
    """

    num_layers: int
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        _check_sizes(input_size, hidden_size, num_layers, bias, batch_first, dropout, proj_size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._make(self._made_of(), options, device, dtype, "")

    def _made_of(self) -> dict[str, Any]:
        """The arguments of fusedrnn's layer, but for options."""
        made: dict[str, Any] = {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "bidirectional": bool(self.bidirectional),
        }
        known = inspect.signature(self._layer).parameters
        for name, value, usual in (("bias", self.bias, True), ("proj_size", self.proj_size, 0)):
            if name in known:
                made[name] = value
            elif value != usual:
                raise ValueError(f"{name}: expected {usual} for {type(self).__name__}, got {value}")
        return made

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Any = None,
        *,
        lengths: Tensor | Sequence[int] | int | None = None,
        resets: Tensor | None = None,
        mask: Tensor | None = None,
        padding: Padding = "zero",
        reset_state: Any = None,
        return_cells: bool = False,
    ) -> tuple[Any, ...]:
        """Run the layers.

        Parameters
        ----------
        input : tensor [T, B, I], or [B, T, I] with ``batch_first=True``; [T, I]; or PackedSequence
        hx : tensor [L*D, B, H], optional
            The state before the first step, [L*D, H] of a single sequence; zero where absent. For
            an LSTM a pair (h, c), for an sLSTM a tuple (h, c, n, m).
        lengths : integers [B], optional; of a single sequence one
            Valid steps of each sequence, in any order. Beyond them the state stands still, and
            nothing is read of `input`. A PackedSequence goes with none of these, `resets`, `mask`.
        resets : bool or uint8 tensor [T, B], or [B, T] with ``batch_first=True``, optional
            True where a step starts a new sequence, to which no state crosses.
        mask : bool or uint8 tensor [T, B], or [B, T], optional
            False where a step does not exist, holes included.
        padding : {"zero", "last"}
            What `y` holds of steps that do not exist: zeros, or the state that stands still there.
        reset_state : tensor [L*D, H], or a tuple of them as `hx`, optional
            What takes the place of the state that a reset discards; zero where absent.
        return_cells : bool
            Whether the states beyond h, of a layer that has some, are returned of every step.

        Returns
        -------
        y : tensor [T, B, D*H], or [B, T, D*H]; or PackedSequence
        state : tensor [L*D, B, H], or a tuple of them as `hx`
        cells : tensor [T, B, D*H], or [B, T, D*H]
            With ``return_cells=True``: c of every step, of the last layer; of an sLSTM three
            results, c, n and m.

        Raises
        ------
        RuntimeError, ValueError
            For shapes, types and devices that torch.nn's refuse, in its words.
        ValueError, TypeError
            For the rest as fusedrnn's layers.
        """
        usual = resets is None and mask is None and reset_state is None and padding == "zero"
        usual = usual and not return_cells
        usual = usual and not (self.training and (self.dropout > 0 or self._draws_noise))
        if usual and (lengths is None or type(lengths) is Tensor):
            done = self._plain_call(input, hx, 1 if self.batch_first else 0, lengths)
            if done is not None:
                return done  # type: ignore[no-any-return]
        if isinstance(input, torch.fx.Proxy):
            options = {"lengths": lengths, "resets": resets, "mask": mask}
            options |= {"reset_state": reset_state, "return_cells": return_cells or None}
            options["padding"] = None if padding == "zero" else padding
            options = {name: value for name, value in options.items() if value is not None}
            return self._traced(input, hx, **options)
        if padding not in PADDINGS:
            checks.choice("padding", padding, PADDINGS)
        if return_cells and len(self._states) == 1:
            raise ValueError(f"return_cells: expected False for {self!r}, which has no state but h")
        if lengths is not None and not isinstance(lengths, Tensor):
            lengths = _as_tensor(lengths)
        check_tensor("resets", resets)
        check_tensor("mask", mask)
        states, resets_to = self._parts("hx", hx), self._parts("reset_state", reset_state)
        rate = self.dropout if self.num_layers > 1 else 0.0
        if isinstance(input, PackedSequence):
            if not (lengths is None and resets is None and mask is None):
                raise ValueError(
                    "lengths, resets, mask: expected None beside a PackedSequence, got some"
                )
            return self._call_packed(input, states, resets_to, padding, return_cells, rate, usual)
        if input.dim() not in (2, 3):
            raise ValueError(
                f"{type(self).__name__}: Expected input to be 2D or 3D, got {input.dim()}D instead"
            )
        batched = input.dim() == 3
        self._check_ranks(states, batched)
        swapped = self.batch_first and batched
        if not batched:
            input = input.unsqueeze(1)
            states = tuple(None if s is None else s.unsqueeze(1) for s in states)
            lengths = lengths if lengths is None else lengths.reshape(1)
            resets, mask = (m if m is None else m.unsqueeze(1) for m in (resets, mask))
        elif swapped:
            input = input.transpose(0, 1)
            resets, mask = (m if m is None else m.transpose(0, 1) for m in (resets, mask))
        weights = self._weights()
        self._check(input, weights, states)
        masks = (lengths, mask, resets)
        y, *others = self._call(
            input, weights, states, resets_to, masks, padding, return_cells, rate
        )
        count = len(self._states)
        states_n, sequences = others[:count], [y, *others[count:]]
        if not batched:
            states_n = [state.squeeze(1) for state in states_n]
            sequences = [sequence.squeeze(1) for sequence in sequences]
        elif swapped:
            sequences = [sequence.transpose(0, 1) for sequence in sequences]
        return sequences[0], self._joined(states_n), *sequences[1:]

    def _call_packed(
        self,
        packed: PackedSequence,
        states: Sequence[Tensor | None],
        resets_to: Sequence[Tensor | None],
        padding: str,
        cells: bool,
        rate: float,
        usual: bool,
    ) -> tuple[Any, ...]:
        """By way of padded sequences, in the packed one's order; `usual`: without other options."""
        data, batch_sizes, order, back = packed
        if data.dim() != 2:
            raise RuntimeError(f"input must have 2 dimensions, got {data.dim()}")
        x, lengths = _VF._pad_packed_sequence(data, batch_sizes, False, 0.0, batch_sizes.size(0))
        if order is not None:
            states = [None if s is None else s.index_select(1, order) for s in states]

        def pack(sequence: Tensor) -> PackedSequence:
            rows, sizes = _VF._pack_padded_sequence(sequence, lengths, False)
            return PackedSequence(rows, sizes, order, back)

        count, sequences = len(self._states), []
        hx = None if all(state is None for state in states) else self._joined(states)
        done = self._plain_call(x, hx, 0, lengths) if usual else None
        if done is not None:
            y, states_n = done[0], [done[1]] if count == 1 else done[1]
        else:
            weights = self._weights()
            self._check(x, weights, states)
            y, *others = self._call(
                x, weights, states, resets_to, (lengths, None, None), padding, cells, rate
            )
            states_n, sequences = others[:count], others[count:]
        if back is not None:
            states_n = [state.index_select(1, back) for state in states_n]
        return pack(y), self._joined(states_n), *map(pack, sequences)

    def _check_ranks(self, states: Sequence[Tensor | None], batched: bool) -> None:
        expected, kind = (3, "batched 3-D") if batched else (2, "unbatched 2-D")
        ranks = [state.dim() for state in states if state is not None]
        if all(rank == expected for rank in ranks):
            return
        if len(self._states) == 1:
            raise RuntimeError(
                f"For {kind} input, hx should also be {expected}-D but got {ranks[0]}-D tensor"
            )
        shown = ", ".join(f"{rank}-D" for rank in ranks)
        raise RuntimeError(
            f"For {kind} input, hx and cx should also be {expected}-D but got ({shown}) tensors"
        )

    def _check(
        self, x: Tensor, weights: list[Tensor | None], states: Sequence[Tensor | None]
    ) -> None:
        """Shapes and types of x [T, B, I] and states [L*D, B, n]."""
        self._check_type(x, weights, states)
        if x.size(-1) != self.input_size:
            raise RuntimeError(
                "input.size(-1) must be equal to input_size. Expected "
                f"{self.input_size}, got {x.size(-1)}"
            )
        runs = self.num_layers * (2 if self.bidirectional else 1)
        for i, state in enumerate(states):
            size = self.proj_size if i == 0 and self.proj_size else self.hidden_size
            if state is not None and state.shape != (runs, x.size(1), size):
                what = "hidden" if len(states) == 1 else f"hidden[{i}]"
                raise RuntimeError(
                    f"Expected {what} size {(runs, x.size(1), size)}, got {list(state.shape)}"
                )

    def flatten_parameters(self) -> None:
        """Do nothing, for code that was written for torch.nn: there is nothing to flatten."""

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:
        """The parameters of each layer and direction."""
        names = [slot for slot in self._slots if slot is not None]
        runs: dict[str, list[nn.Parameter]] = {}
        for name in names:
            runs.setdefault(name[name.rindex("_l") :], []).append(getattr(self, name))
        return list(runs.values())

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        text += f", proj_size={self.proj_size}" if self.proj_size else ""
        text += f", num_layers={self.num_layers}" if self.num_layers != 1 else ""
        text += f", bias={self.bias}" if self.bias is not True else ""
        text += f", batch_first={self.batch_first}" if self.batch_first is not False else ""
        text += f", dropout={self.dropout}" if self.dropout else ""
        text += f", bidirectional={self.bidirectional}" if self.bidirectional is not False else ""
        return text + self._shown_options()


def _check_sizes(
    input_size: object,
    hidden_size: object,
    num_layers: object,
    bias: object,
    batch_first: object,
    dropout: Any,
    proj_size: Any,
) -> None:
    """The arguments of constructors, in torch's words."""
    is_number = isinstance(dropout, numbers.Real) and not isinstance(dropout, bool)
    if not is_number or not 0 <= float(dropout) <= 1:
        raise ValueError(
            "dropout should be a number in range [0, 1] representing the probability of an element "
            "being zeroed"
        )
    rate = float(dropout)
    for name, flag in (("bias", bias), ("batch_first", batch_first)):
        if not isinstance(flag, bool):
            raise TypeError(f"{name} should be of type bool, got: {type(flag).__name__}")
    for name, size in (
        ("input_size", input_size),
        ("hidden_size", hidden_size),
        ("num_layers", num_layers),
    ):
        if not isinstance(size, int):
            raise TypeError(f"{name} should be of type int, got: {type(size).__name__}")
        if size <= 0:
            raise ValueError(f"{name} must be greater than zero")
    if proj_size < 0:
        raise ValueError("proj_size should be a positive integer or zero to disable projections")
    if proj_size >= hidden_size:
        raise ValueError("proj_size has to be smaller than hidden_size")
    if rate == 1 and num_layers != 1:
        raise ValueError("dropout: expected a number below 1 (at 1 nothing is left), got 1")
    if rate > 0 and num_layers == 1:
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout "
            f"expects num_layers greater than 1, but got dropout={dropout} and num_layers=1",
            stacklevel=4,
        )


def _as_tensor(lengths: Any) -> Tensor:
    """Lengths that are no tensor: integers of a sequence, or an array."""
    given = checks.integers("lengths", lengths)
    if isinstance(given, list):
        return torch.tensor(given, dtype=torch.int64)
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"lengths: expected a tensor or a sequence of ints, got {type(lengths).__name__}"
        ) from None
