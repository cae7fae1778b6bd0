"""Layers for inference alone, whose weights were packed once."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args, overload

import numpy as np

from fusedrnn import _core, bf16, options
from fusedrnn.fixed import Fixed
from fusedrnn.interop import A, converter_to_kind_of, warn_of_lost_gradients
from fusedrnn.layers.devices import Array, rank
from fusedrnn.options import FrozenOptions, Padding, WeightDtype

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fusedrnn.layers.base import Layer

WEIGHT_DTYPES: tuple[WeightDtype, ...] = get_args(WeightDtype)


class Frozen(Fixed):
    """What `layer.freeze()` returns: the layer's calls and steps with weights packed once.

    It is immutable, and does not see later changes of the layer. Any number of threads may use it
    at the same time.

    Attributes
    ----------
    input_size : int
    hidden_size : int
    num_layers : int
    batch_first : bool
    bidirectional : bool
    dtype : str
        Of x, y and states.
    weight_dtype : str
        What the weights are kept in.
    """

    def __init__(self, layer: Layer, weight_dtype: WeightDtype | None = None) -> None:
        if weight_dtype is not None:
            options.choice("weight_dtype", weight_dtype, WEIGHT_DTYPES)
            if layer.dtype != "float32":
                raise ValueError(f"weight_dtype: expected None for {layer!r}, got {weight_dtype!r}")
        stack = layer._stack
        weights = stack.ordered(stack.parameters)
        core = _core.Frozen(stack.network, weights, weight_dtype, layer.batch_first)
        self._hold(core, copy.copy(layer), weight_dtype or layer.compute_dtype or layer.dtype)

    def _hold(self, core: _core.Frozen, layer: Layer, weight_dtype: str) -> None:
        """Take a layer in all but its parameters, which a frozen network has in their place."""
        self._core = core
        self._layer = layer
        self._layer._run = partial(_run_packed, self._core)  # type: ignore[method-assign]
        self.input_size = layer.input_size
        self.hidden_size = layer.hidden_size
        self.num_layers = layer.num_layers
        self.batch_first = layer.batch_first
        self.bidirectional = layer.bidirectional
        self.dtype = layer.dtype
        self.weight_dtype = weight_dtype
        self._fast_step: Callable[..., tuple[Any, Any] | None] = (
            _knows_nothing if self.bidirectional else self._core.make_step()
        )
        self._plain_call = _core.make_frozen_call(self._core)
        self._fix()

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
            "pickle the layer and freeze it again, or write a file: frozen.save(path)"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a model file, for `fusedrnn.load_frozen` and `fusedrnn_frozen_load` of C.

        It has the network and its weights, in the type that they are kept in: so in `weight_dtype`
        "int8" a quarter of float32's bytes. Any machine reads it, and packs the weights for its own
        instruction set; on this one the bits of results stay what they are.

        Parameters
        ----------
        path : path
            A file, or nothing yet; of symbolic links what they lead to. Either the whole new file
            is there afterwards, or what was there before.

        Raises
        ------
        OSError
            Where the file cannot be written.
        ValueError
            Where something that is no file, such as a folder or a device, is at the path.
        """
        self._core.save(path_argument(path))

    @overload
    def __call__(
        self,
        x: A,
        state: Any = None,
        lengths: Any = None,
        resets: Any = None,
        *,
        return_cells: Literal[False] = False,
        return_gates: bool = False,
        **options: Unpack[FrozenOptions],
    ) -> tuple[A, Any]: ...
    @overload
    def __call__(
        self,
        x: A,
        state: Any = None,
        lengths: Any = None,
        resets: Any = None,
        *,
        return_cells: bool = False,
        return_gates: bool = False,
        **options: Unpack[FrozenOptions],
    ) -> tuple[A, Any, Unpack[tuple[A, ...]]]: ...
    def __call__(
        self,
        x: A,
        state: Any = None,
        lengths: Any = None,
        resets: Any = None,
        *,
        mask: Any = None,
        padding: Padding = "zero",
        reset_state: Any = None,
        return_cells: bool = False,
        return_gates: bool = False,
        out: tuple[Any, ...] | None = None,
    ) -> Any:
        """Run the layers: what the layer's own call takes, returns and raises, but for parameters.

        The same bits too, unless the weights are kept in a smaller dtype. Frozen layers keep no
        gates: ``return_gates=True`` is an error.
        """
        if options.flag("return_gates", return_gates):
            raise ValueError(
                f"return_gates: expected False for {self!r}, as frozen layers keep no gates; call "
                "the layer itself"
            )
        # Without masks there is no padding; a wrong word for it is still refused.
        unmasked = lengths is None and mask is None and resets is None and reset_state is None
        if unmasked and out is None and return_cells is False and options.is_zero(padding):
            done = self._single_step(x, state)
            if done is None:
                done = self._plain_call(None, x, state, 1 if self.batch_first else 0, False)
            if done is not None:
                return done
        masks = (lengths, mask, resets, padding, reset_state)
        y, state, cells, _ = self._layer._forward(
            x, state, masks, return_cells, None, out, save=False
        )
        return y, state, *cells

    def _single_step(self, x: Any, state: Any) -> tuple[Any, Any] | None:
        """A sequence of one step the fast way, or None where it is none or needs the checks."""
        time = 1 if self.batch_first else 0
        if type(x) is not np.ndarray or x.ndim != 3 or x.shape[time] != 1:
            return None
        done = self._fast_step(x[:, 0] if self.batch_first else x[0], state, None)
        return None if done is None else (done[0][:, None] if time else done[0][None], done[1])

    def step(
        self,
        x_t: A,
        state: Any = None,
        *,
        resets: Any = None,
        reset_state: Any = None,
        out: tuple[Any, Any] | None = None,
    ) -> tuple[A, Any]:
        """Run one time step, for input that comes step by step: ``y_t, state``.

        Parameters
        ----------
        x_t : array [B, I], or [I]
            Of a single sequence [I] no array of the call has an axis B.
        state : array [L, B, H], optional
            The state before the step; zero where absent. For an LSTM a pair (h, c) of them, for an
            sLSTM a tuple (h, c, n, m), each of which may be None.
        resets : bool or uint8 array [B], or a bool, optional
            True where the step starts a new sequence: the state is discarded before it.
        reset_state : array [L, H], optional
            What takes the place of a discarded state; zero where absent. For an LSTM a pair.
        out : (y_t, state), optional
            Arrays of the form of the results, which are written and returned; every state has its
            array. They may be those of `state`, to be updated in place, and any other that the step
            reads, but share no memory with one another. Nothing is allocated then, where the step
            before had as many sequences.

        Returns
        -------
        y_t : array [B, H]
            The same bits as that step of a longer run, but of a 16-bit layer with states beyond h:
            these are rounded from step to step, within a call they are not.
        state : array [L, B, H]
            For the next step; for an LSTM a pair (h, c), for an sLSTM a tuple (h, c, n, m).

        Raises
        ------
        ValueError, TypeError
            As a plain call; ValueError for a bidirectional layer, which needs the whole sequence.
            The arrays of `out` have not been written then.

        Notes
        -----
        Dense NumPy arrays [B, I] of the layer's dtype, with states in tuples, cost about half a
        microsecond beside the arithmetic, PyTorch's tensors up to one more (where their type has
        DLPack's table of C functions), and so do resets without a `reset_state`; anything else is
        accepted and costs more.

        Examples
        --------
        >>> frozen = fr.GRU(3, 4, seed=0).freeze()
        >>> x = np.ones((5, 2, 3), np.float32)
        >>> state = None
        >>> for x_t in x:
        ...     y_t, state = frozen.step(x_t, state)
        >>> np.array_equal(y_t, frozen(x)[0][-1])
        True
        """
        if reset_state is None:
            done = self._fast_step(x_t, state, out, resets)
            if done is not None:
                return done
        return self._step(x_t, state, resets, reset_state, out)

    def _step(self, x_t: A, state: Any, resets: Any, reset_state: Any, out: Any) -> tuple[A, Any]:
        """Step with arrays of any kind and layout."""
        layer = self._layer
        layer._check_one_direction("step")
        wanted = (self.input_size,) if rank(x_t) == 1 else (None, self.input_size)
        x = _core.as_array("x_t", x_t, wanted, self.dtype)
        batches = x.shape[:-1]
        x = _dense(x if batches else x[None])
        state_0 = tuple(
            None if part is None else _dense(part if batches else part[:, None])
            for part in layer._import_state("state", state, *batches)
        )
        begins = layer._import_step_resets(resets, batches)
        fresh = layer._import_reset_state(reset_state)
        if begins is not None:
            if begins.dtype not in (np.bool_, np.uint8):
                raise TypeError(f"resets: expected dtype bool or uint8, got {begins.dtype.name}")
            state_0 = tuple(
                _replaced(part, new, begins.astype(bool).reshape(-1, 1), size, self.dtype)
                for part, new, size in zip(
                    state_0, fresh, layer._stack.network.state_sizes, strict=True
                )
            )
        written = {} if out is None else self._views(out, batches)
        _core.check_outputs(written)
        done = self._fast_step(x, state_0 if len(state_0) > 1 else state_0[0], None)
        if done is None:
            raise ValueError(f"x_t: shape {x.shape} is too large")
        y, state_n = done
        if out is not None:
            states = state_n if isinstance(state_n, tuple) else (state_n,)
            for view, result in zip(written.values(), (y, *states), strict=True):
                _bits(view)[...] = _bits(result).reshape(view.shape)
            warn_of_lost_gradients(x_t, state, reset_state)
            return tuple(out)
        warn_of_lost_gradients(x_t, state, reset_state)
        kind = converter_to_kind_of(x_t)

        def given(result: Array) -> Any:
            return kind(result if batches else result.squeeze(-2))

        return given(y), tuple(map(given, state_n)) if isinstance(state_n, tuple) else given(
            state_n
        )

    def _views(self, out: object, batches: tuple[int, ...]) -> dict[str, Array]:
        """The arrays of `out` under the names of messages, whatever library they are of."""
        y, states, _ = options.result_arrays(out, "y_t", self._layer._states)
        stack = self._layer._stack
        names = ["out[1]"] if len(states) == 1 else [f"out[1][{i}]" for i in range(len(states))]
        views = {"out[0]": _core.as_array("out[0]", y, (*batches, stack.width), self.dtype)}
        return views | {
            name: _core.as_array(name, value, (self.num_layers, *batches, size), self.dtype)
            for name, value, size in zip(names, states, stack.network.state_sizes, strict=True)
        }


def path_argument(path: object) -> bytes:
    """A path as the system has it."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path: expected a path, got {type(path).__name__}")
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError(f"path: expected a path, got {path!r}, with a null character")
    return name


def _dense(array: Array) -> Array:
    """In the order of memory and aligned, so that a step can read it as it lies."""
    dense = np.require(array, requirements=["C", "A"]).view(np.ndarray)
    return dense if dense.dtype.kind == "f" else dense.view(bf16.BITS)


def _replaced(
    state: Array | None, reset: Array | None, begins: Array, size: int, dtype: str
) -> Array | None:
    """A state [L,B,n] with the reset state [L,n], or zeros, where a sequence begins [B,1]."""
    given = reset if state is None else state
    if given is None:
        return None
    replaced = _core.empty((len(given), len(begins), size), dtype)
    numbers = _bits(replaced)
    numbers[...] = 0 if state is None else _bits(state)
    np.copyto(numbers, 0 if reset is None else _bits(reset)[:, None], where=begins)
    return replaced


def _bits(array: Array) -> Array:
    """An array to copy from or to: bfloat16, which NumPy has no zero of, as integers."""
    return array if array.dtype.kind == "f" else array.view(np.uint16)


def _run_packed(
    core: _core.Frozen,
    x: Array,
    weights: tuple[Any, ...],
    state: tuple[Any, ...],
    masks: Any,
    save: bool,
    y: Array | None,
    state_n: tuple[Any, ...] | None,
    cells: tuple[Any, ...] | None,
    drop: None,
) -> tuple[Array, tuple[Array, ...], tuple[Array, ...], Any]:
    """In the place of the layer's own run: the weights are packed, nothing is saved or dropped."""
    return core.forward(x, state, masks, y, state_n, cells)


def _knows_nothing(*_: Any) -> None:
    """The fast step where there is none."""
