"""`LSTM`, `GRU`, `RNN` and layers of the other cells, called as torch.nn's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

import fusedrnn
from fusedrnn.cells.constants import Activation
from fusedrnn.torch import options as given
from fusedrnn.torch.recurrent_layer import RecurrentLayer

if TYPE_CHECKING:
    from typing_extensions import Unpack


class RNN(RecurrentLayer):
    """`torch.nn.RNN` on fusedrnn.

    Parameters
    ----------
    input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional
        As of `torch.nn.RNN` (nonlinearity of `fusedrnn.RNN`); dropout is below 1.
    device, dtype
        As of `torch.nn.RNN`: the CPU or a CUDA device; float32, float64, bfloat16 or float16.
    options
        As of `fusedrnn.RNN`: clip, heads, memory, compute_dtype, init,
        weight_dropout, zoneout, recurrent_dropout, recurrent_dropout_mode.

    Raises
    ------
    ValueError, TypeError
        For what torch.nn refuses, in its words; for options as `fusedrnn.RNN`.
    """

    _layer = fusedrnn.RNN
    _states = ("h",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Activation = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[given.RNNOptions],
    ) -> None:
        _refuse_projection(options)
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
            **options,
        )

    def _made_of(self) -> dict[str, Any]:
        return super()._made_of() | {"nonlinearity": self.nonlinearity}


class LSTM(RecurrentLayer):
    """`torch.nn.LSTM` on fusedrnn.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size
        As of `torch.nn.LSTM`; dropout is below 1.
    device, dtype
        As of `torch.nn.LSTM`: the CPU or a CUDA device; float32, float64, bfloat16 or float16.
    options
        As of `fusedrnn.LSTM`: peephole, coupled, clip, cell_clip, cell_clip_nan, activations,
        layer_norm, forget_bias, heads, memory, compute_dtype, init, weight_dropout, zoneout,
        recurrent_dropout, recurrent_dropout_mode.

    Raises
    ------
    ValueError, TypeError
        For what torch.nn refuses, in its words; for options as `fusedrnn.LSTM`.

    Examples
    --------
    >>> import torch
    >>> import fusedrnn.torch as ft
    >>> lstm = ft.LSTM(3, 4, batch_first=True)
    >>> y, (h, c) = lstm(torch.ones(2, 5, 3), lengths=torch.tensor([5, 2]))
    >>> y.sum().backward()
    >>> y.shape, lstm.weight_ih_l0.grad.shape
    (torch.Size([2, 5, 4]), torch.Size([16, 3]))
    """

    _layer = fusedrnn.LSTM
    _states = ("h", "c")

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
        **options: Unpack[given.LSTMOptions],
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
            **options,
        )


class GRU(RecurrentLayer):
    """`torch.nn.GRU` on fusedrnn.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        As of `torch.nn.GRU`. On the CPU or a CUDA device; of float32, float64, bfloat16 or
        float16. dropout is below 1.
    options
        As of `fusedrnn.GRU`: reset_after, clip, activations, layer_norm, heads, memory,
        compute_dtype, init, weight_dropout, zoneout, recurrent_dropout, recurrent_dropout_mode.

    Raises
    ------
    ValueError, TypeError
        For what torch.nn refuses, in its words; for options as `fusedrnn.GRU`.
    """

    _layer = fusedrnn.GRU
    _states = ("h",)
    _keeps_dtype = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[given.GRUOptions],
    ) -> None:
        _refuse_projection(options)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
            **options,
        )


class IndRNN(RecurrentLayer):
    """`fusedrnn.IndRNN` as a module.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        As of `torch.nn.GRU`.
    options
        As of `fusedrnn.IndRNN`: nonlinearity, memory, compute_dtype, init.

    Raises
    ------
    ValueError, TypeError
        As `fusedrnn.IndRNN`.
    """

    _layer = fusedrnn.IndRNN
    _states = ("h",)


class MinGRU(RecurrentLayer):
    """`fusedrnn.MinGRU` as a module.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        As of `torch.nn.GRU`.
    options
        As of `fusedrnn.MinGRU`: candidate, memory, compute_dtype, init.

    Raises
    ------
    ValueError, TypeError
        As `fusedrnn.MinGRU`.
    """

    _layer = fusedrnn.MinGRU
    _states = ("h",)


class MinLSTM(RecurrentLayer):
    """`fusedrnn.MinLSTM` as a module.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        As of `torch.nn.GRU`.
    options
        As of `fusedrnn.MinLSTM`: candidate, memory, compute_dtype, init.

    Raises
    ------
    ValueError, TypeError
        As `fusedrnn.MinLSTM`.
    """

    _layer = fusedrnn.MinLSTM
    _states = ("h",)


class SLSTM(RecurrentLayer):
    """`fusedrnn.SLSTM` as a module; a state is a tuple (h, c, n, m).

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        As of `torch.nn.GRU`.
    options
        As of `fusedrnn.SLSTM`: forget, forget_bias, heads, memory, compute_dtype, init.

    Raises
    ------
    ValueError, TypeError
        As `fusedrnn.SLSTM`.
    """

    _layer = fusedrnn.SLSTM
    _states = ("h", "c", "n", "m")


class WorldModelGRU(RecurrentLayer):
    """`fusedrnn.WorldModelGRU` as a module.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        As of `torch.nn.GRU`, where bias is True: it is that of the normalisation.
    options
        As of `fusedrnn.WorldModelGRU`: update_bias, heads, memory, compute_dtype, init,
        weight_dropout, zoneout, recurrent_dropout.

    Raises
    ------
    ValueError, TypeError
        As `fusedrnn.WorldModelGRU`.
    """

    _layer = fusedrnn.WorldModelGRU
    _states = ("h",)
    _begins_as_torch = False


def _refuse_projection(options: Any) -> None:
    if "proj_size" in options:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
