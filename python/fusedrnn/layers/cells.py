"""What is particular to each cell: its gates, its states, its options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fusedrnn import options
from fusedrnn.layers.base import Layer
from fusedrnn.layers.initial import Initial


class RNN(Layer):
    """Layers of a vanilla RNN (Elman 1990); the equation stands at `fusedrnn.rnn`.

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        I, H and L, each at least 1.
    nonlinearity : {"tanh", "relu", "sigmoid", "identity"}
    bias : bool
        Whether there are bias_ih and bias_hh.
    batch_first : bool
        Whether x, y and resets have the batch as their first axis. States never have.
    bidirectional : bool
        Whether each layer also runs in reverse; the next reads both outputs side by side.
    dtype : {"float32", "float64", "bfloat16", "float16"}
        Of everything: parameters, x, y, states, gradients. In the 16-bit types sums, gates and the
        cell state within a call are float32.
    compute_dtype : {"bfloat16", "tfloat32"}, optional
        Of a float32 layer: round the operands of every matrix product to bfloat16, or on a CUDA
        device to tfloat32, forward and backward. All else is float32, but for gates that training
        keeps for backward (`fusedrnn.functional`). None, or the dtype itself, is plain.
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

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
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
        self.nonlinearity = options.choice("nonlinearity", nonlinearity, options.NONLINEARITIES)
        super().__init__(
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

    def _cell(self) -> str:
        return options.rnn_cell(self.nonlinearity)

    def _unusual(self) -> dict[str, Any]:
        own = {} if self.nonlinearity == "tanh" else {"nonlinearity": self.nonlinearity}
        return super()._unusual() | own


class GRU(Layer):
    """Layers of gated recurrent units (Cho et al. 2014); the equations stand at `fusedrnn.gru`.

    Parameters
    ----------
    reset_after : bool
        Whether the reset gate follows the recurrent product, as in PyTorch, or precedes it.
    others
        As of `RNN`.
    """

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

    def _cell(self) -> str:
        return options.gru_cell(self.reset_after)

    def _unusual(self) -> dict[str, Any]:
        return super()._unusual() | ({} if self.reset_after else {"reset_after": False})


class LSTM(Layer):
    """Layers of long short-term memory (Hochreiter and Schmidhuber 1997).

    The equations stand at `fusedrnn.lstm`; a state is a pair (h, c).

    Parameters
    ----------
    peephole : bool
        Whether gates see the cell state, through a parameter weight_peephole [3H] (i, f, o).
    forget_bias : float, optional
        What the two biases of each forget gate add up to at first; 1 keeps gates open, so that
        gradients reach back from the start (Gers et al. 2000; Jozefowicz et al. 2015). As `init`
        says where absent.
    others
        As of `RNN`, without `nonlinearity`.
    """

    _states = ("h", "c")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        peephole: bool = False,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        dtype: Any = "float32",
        compute_dtype: Any = None,
        device: str = "cpu",
        array_type: type | None = None,
        seed: int | None = None,
        init: str = "uniform",
        forget_bias: float | None = None,
    ) -> None:
        self.peephole = options.flag("peephole", peephole)
        self._forget_bias = options.forget_bias(forget_bias, options.flag("bias", bias))
        super().__init__(
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

    def _cell(self) -> str:
        return "lstm_peephole" if self.peephole else "lstm"

    def _initial(self, init: str, seed: int | None) -> Initial:
        return replace(super()._initial(init, seed), forget_bias=self._forget_bias)

    def _unusual(self) -> dict[str, Any]:
        return super()._unusual() | ({"peephole": True} if self.peephole else {})


class IndRNN(Layer):
    """Layers of independently recurrent networks (Li et al. 2018); see `fusedrnn.indrnn`.

    Parameters
    ----------
    nonlinearity : {"relu", "tanh"}
    others
        As of `RNN`. A weight_hh is [H], there is no bias_hh, and where `bias` is False no bias_ih;
        `init` is "uniform", for what is orthogonal is a matrix.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "relu",
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
        known = options.INDRNN_NONLINEARITIES
        self.nonlinearity = options.choice("nonlinearity", nonlinearity, known)
        super().__init__(
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

    def _cell(self) -> str:
        return options.indrnn_cell(self.nonlinearity)

    def _unusual(self) -> dict[str, Any]:
        own = {} if self.nonlinearity == "relu" else {"nonlinearity": self.nonlinearity}
        return super()._unusual() | own
