"""`LSTMCell`, `GRUCell` and `RNNCell`: one step, called as torch.nn's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import fusedrnn
from fusedrnn.cells.constants import Activation
from fusedrnn.torch import options as given
from fusedrnn.torch.base import Recurrent

if TYPE_CHECKING:
    from typing_extensions import Unpack


_OF_LAYERS = ("num_layers", "batch_first", "dropout", "bidirectional", "proj_size")


class RecurrentCell(Recurrent):
    """One step of one layer: ``state = cell(input, hx)``."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        for name in _OF_LAYERS:
            if name in options:
                raise TypeError(
                    f"{type(self).__name__}.__init__() got an unexpected keyword argument '{name}'"
                )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bool(bias)  # torch.nn's take anything
        self._make(self._made_of(), options, device, dtype, "_l0")
        if not bias:
            for name in ("bias_ih", "bias_hh"):
                self.register_parameter(name, None)

    def _made_of(self) -> dict[str, Any]:
        """The arguments of fusedrnn's layer, but for options."""
        return {"input_size": self.input_size, "hidden_size": self.hidden_size, "bias": self.bias}

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """Run one step.

        Parameters
        ----------
        input : tensor [B, I], or [I]
        hx : tensor [B, H], or [H], optional
            The state before the step, zero where absent; for an LSTM a pair (h, c).

        Returns
        -------
        tensor [B, H], or [H]
            The state after it; for an LSTM a pair (h, c).

        Raises
        ------
        RuntimeError, ValueError
            For shapes, types and devices that torch.nn's cells refuse, in its words.
        """
        if not (self.training and self._draws_noise):
            done = self._plain_call(input, hx, 2)
            if done is not None:
                return done
        if isinstance(input, torch.fx.Proxy):
            return self._traced(input, hx)
        name = type(self).__name__
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        states = self._parts("hx", hx)
        for i, state in enumerate(states):
            if state is not None and state.dim() not in (1, 2):
                what = "hidden" if len(states) == 1 else f"hx[{i}]"
                raise ValueError(
                    f"{name}: Expected {what} to be 1D or 2D, got {state.dim()}D instead"
                )
        batched = input.dim() == 2
        if not batched:
            input = input.unsqueeze(0)
            states = tuple(None if s is None else s.unsqueeze(0) for s in states)
        weights = self._weights()
        self._check(input, weights, states)
        none = (None,) * len(states)
        _, *states_n = self._call(
            input.unsqueeze(0),
            weights,
            tuple(None if s is None else s.unsqueeze(0) for s in states),
            none,
            (None, None, None),
            "zero",
            False,
            0.0,
        )
        states_n = [state.squeeze(0) for state in states_n]
        return self._joined(states_n if batched else [state.squeeze(0) for state in states_n])

    def _check(
        self, x: Tensor, weights: list[Tensor | None], states: Sequence[Tensor | None]
    ) -> None:
        """Shapes and types of x [B, I] and states [B, H]."""
        if x.size(1) != self.input_size:
            raise RuntimeError(
                f"input has inconsistent input_size: got {x.size(1)} expected {self.input_size}"
            )
        for i, state in enumerate(states):
            if state is None:
                continue
            if state.dim() != 2 or state.size(0) != x.size(0):
                raise RuntimeError(
                    f"Input batch size {x.size(0)} doesn't match hidden{i} batch size "
                    f"{state.size(0)}"
                )
            if state.size(1) != self.hidden_size:
                raise RuntimeError(
                    f"hidden{i} has inconsistent hidden_size: got {state.size(1)}, expected "
                    f"{self.hidden_size}"
                )
        self._check_type(x, weights, states)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        text += f", bias={self.bias}" if self.bias is not True else ""
        return text + self._shown_options()


class RNNCell(RecurrentCell):
    """`torch.nn.RNNCell` on fusedrnn: ``h = cell(input, h)``.

    Parameters
    ----------
    input_size, hidden_size, bias, nonlinearity, device, dtype
        As of `torch.nn.RNNCell` (nonlinearity of `fusedrnn.RNN`).
    options
        As of `fusedrnn.torch.RNN`.

    Raises
    ------
    ValueError, TypeError
        As `fusedrnn.torch.RNN`.
    """

    _layer = fusedrnn.RNN
    _states = ("h",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: Activation = "tanh",
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[given.RNNOptions],
    ) -> None:
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, bias, device, dtype, **options)

    def _made_of(self) -> dict[str, Any]:
        return super()._made_of() | {"nonlinearity": self.nonlinearity}

    def extra_repr(self) -> str:
        usual = self.nonlinearity == "tanh"
        return super().extra_repr() + ("" if usual else f", nonlinearity={self.nonlinearity}")


class LSTMCell(RecurrentCell):
    """`torch.nn.LSTMCell` on fusedrnn: ``h, c = cell(input, (h, c))``.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        As of `torch.nn.LSTMCell`.
    options
        As of `fusedrnn.torch.LSTM`.

    Raises
    ------
    ValueError, TypeError
        As `fusedrnn.torch.LSTM`.
    """

    _layer = fusedrnn.LSTM
    _states = ("h", "c")
    _keeps_dtype = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[given.LSTMOptions],
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype, **options)


class GRUCell(RecurrentCell):
    """`torch.nn.GRUCell` on fusedrnn: ``h = cell(input, h)``.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        As of `torch.nn.GRUCell`.
    options
        As of `fusedrnn.torch.GRU`.

    Raises
    ------
    ValueError, TypeError
        As `fusedrnn.torch.GRU`.
    """

    _layer = fusedrnn.GRU
    _states = ("h",)
    _keeps_dtype = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[given.GRUOptions],
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype, **options)
