"""Layers for inference alone, whose weights were packed once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from fusedrnn import _core, options
from fusedrnn.interop import A, converter_to_kind_of
from fusedrnn.layers.devices import Array
from fusedrnn.layers.stack import Run, State

if TYPE_CHECKING:
    from fusedrnn.layers.base import Layer

WEIGHT_DTYPES = ("bfloat16", "int8")


class Frozen:
    """What `layer.freeze()` returns: the layer's calls and steps with weights packed once.

    It is immutable, and does not see later changes of the layer. Any number of threads may use it
    at the same time.

    Attributes
    ----------
    input_size, hidden_size, num_layers : int
    batch_first, bidirectional : bool
    dtype : str
        Of x, y and states.
    weight_dtype : str
        What the weights are kept in.
    """

    def __init__(self, layer: Layer, weight_dtype: str | None = None) -> None:
        compute = _compute(layer, weight_dtype)
        cell = layer._cell()
        runs = [[FrozenRun.of(run, cell, compute) for run in k] for k in layer._stack.layers]
        # A layer in all but its parameters: each run has packed ones in their place.
        self._layer = copy.copy(layer)
        self._layer._stack = copy.copy(layer._stack)
        self._layer._stack.layers = [list(k) for k in runs]
        self.input_size = layer.input_size
        self.hidden_size = layer.hidden_size
        self.num_layers = layer.num_layers
        self.batch_first = layer.batch_first
        self.bidirectional = layer.bidirectional
        self.dtype = layer.dtype
        self.weight_dtype = layer.dtype if compute == "same" else compute
        if self.bidirectional:
            self._fast_step: Callable[[Any, Any, Any], tuple[Any, Any] | None] = _knows_nothing
        else:
            self._steps = _core.FrozenStack([run.packed for [run] in runs])
            self._fast_step = self._steps.fast_step()

    def __repr__(self) -> str:
        given = "" if self.weight_dtype == self.dtype else f"weight_dtype={self.weight_dtype!r}"
        return f"{self._layer!r}.freeze({given})"

    def __copy__(self) -> Frozen:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r}: packed weights belong to this machine and cannot be pickled; "
            "pickle the layer and freeze it again"
        )

    def __call__(
        self, x: A, state: Any = None, lengths: Any = None, resets: Any = None
    ) -> tuple[A, Any]:
        """Run the layers: what the layer's own call takes, returns and raises.

        The same bits too, unless the weights are kept in a smaller dtype.
        """
        if lengths is None and resets is None:
            done = self._single_step(x, state)
            if done is not None:
                return done
        return self._layer(x, state, lengths, resets)

    def _single_step(self, x: Any, state: Any) -> tuple[Any, Any] | None:
        """A sequence of one step the fast way, or None where it is none or needs the checks."""
        time = 1 if self.batch_first else 0
        if type(x) is not np.ndarray or x.ndim != 3 or x.shape[time] != 1:
            return None
        done = self._fast_step(x[:, 0] if self.batch_first else x[0], state, None)
        return None if done is None else (done[0][:, None] if time else done[0][None], done[1])

    def step(
        self, x_t: A, state: Any = None, *, out: tuple[Any, Any] | None = None
    ) -> tuple[A, Any]:
        """Run one time step, for input that comes step by step: ``y_t, state``.

        Parameters
        ----------
        x_t : array [B, I]
        state : array [L, B, H], optional
            The state before the step; zero where absent. For an LSTM a pair (h, c) of them, each of
            which may be None.
        out : (y_t, state), optional
            Arrays of the form of the results, which are written and returned; every state has its
            array. They may be those of `state`, to be updated in place, and any other that the step
            reads, but share no memory with one another. Nothing is allocated then, once a step of
            as many sequences has been made.

        Returns
        -------
        y_t : array [B, H]
            The same bits as that step of a longer run.
        state : array [L, B, H]
            For the next step; for an LSTM a pair (h, c).

        Raises
        ------
        ValueError, TypeError
            As a plain call; ValueError for a bidirectional layer, which needs the whole sequence.
            The arrays of `out` have not been written then.

        Notes
        -----
        Dense NumPy arrays of the layer's dtype, with states in tuples, cost about half a
        microsecond beside the arithmetic; anything else is accepted and costs more.
        """
        done = self._fast_step(x_t, state, out)
        return self._step(x_t, state, out) if done is None else done

    def _step(self, x_t: A, state: Any, out: Any) -> tuple[A, Any]:
        """Step with arrays of any kind and layout."""
        self._layer._check_one_direction("step")
        batch = _core.as_array("x_t", x_t, (None, self.input_size), self.dtype).shape[0]
        state_0 = self._layer._import_state("state", state, batch)
        y_out, state_out = (None, (None, None)) if out is None else self._import_out(out, batch)
        y, h, c = self._steps.step(x_t, *state_0, y_out, *state_out)
        if out is not None:
            return tuple(out)
        kind = converter_to_kind_of(x_t)
        return kind(y), self._layer._export_state((h, c), kind)

    def _import_out(self, out: Any, batch: int) -> tuple[Array, State]:
        """Views of the arrays to be written, whatever library they are of."""
        y, state = _pair("out", "(y_t, state)", out)
        shape = (self.num_layers, batch, self.hidden_size)

        def view(name: str, value: Any) -> Array:
            return _core.as_array(name, value, shape, self.dtype)

        y_view = _core.as_array("out[0]", y, (batch, self.hidden_size), self.dtype)
        if not self._layer._has_c:
            return y_view, (view("out[1]", state), None)
        h, c = _pair("out[1]", "(h, c)", state)
        return y_view, (view("out[1][0]", h), view("out[1][1]", c))


@dataclass(frozen=True)
class FrozenRun(Run):
    """One direction of one layer that has packed weights, and no others."""

    packed: _core.Frozen = field(repr=False)

    @classmethod
    def of(cls, run: Run, cell: str, compute: str) -> FrozenRun:
        w_ih, w_hh, b_ih, b_hh = run.weights
        packed = _core.freeze(cell, w_ih, w_hh, b_ih, b_hh, compute)
        return cls(run.layer, run.reverse, run.index, run.share, (None,) * 4, packed)

    def forward(
        self,
        cell: str,
        x: Array,
        state: State,
        lengths: Any,
        resets: Any,
        save: bool,
        y: Array,
        state_n: State,
        compute_dtype: str | None,
    ) -> Any:
        """Run as `Run` does, without a tape; `compute_dtype` is settled, it shaped the pack."""
        (h0, c0), (h_n, c_n) = state, state_n
        self.packed.forward(x, h0, c0, lengths, resets, self.reverse, y=y, h_n=h_n, c_n=c_n)


def _knows_nothing(_x_t: Any, _state: Any, _out: Any) -> None:
    """The fast step where there is none."""


def _compute(layer: Layer, weight_dtype: object) -> str:
    """The compiled module's name of what the products are computed in."""
    if weight_dtype is None:
        return "same" if layer.compute_dtype in (None, layer.dtype) else layer.compute_dtype
    name = options.choice("weight_dtype", weight_dtype, WEIGHT_DTYPES)
    if layer.dtype != "float32":
        raise ValueError(f"weight_dtype: expected None for {layer!r}, got {name!r}")
    return name


def _pair(name: str, form: str, value: Any) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: expected a pair {form}, got {type(value).__name__}")
    if len(value) != 2:
        raise ValueError(f"{name}: expected a pair {form}, got {len(value)} values")
    first, second = value
    return first, second
