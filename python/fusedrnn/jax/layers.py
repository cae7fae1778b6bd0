"""Descriptions of layers, whose parameters are trees: `LSTM`, `GRU`, `RNN` and the others."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

import fusedrnn
from fusedrnn import options
from fusedrnn.jax.call import array, call, check_shape, integers, sequences
from fusedrnn.jax.network import Plan
from fusedrnn.layers.base import Layer
from fusedrnn.layers.initial import Initial
from fusedrnn.options import Padding

# Of fusedrnn's layers, and here said by arrays and keys.
_NOT_HERE = ("device", "array_type", "seed")


class Recurrent:
    """Layers over layers of one cell, in one or both directions: a description without arrays.

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        I, H and L, each at least 1.
    options
        As of fusedrnn's layer of the same name, but `device`, `array_type` and `seed`. `dtype` is
        that of `init`; `apply` runs in the type of its arrays.

    Raises
    ------
    ValueError, TypeError
        As fusedrnn's layer.

    Notes
    -----
    Descriptions are immutable, equal where they say the same, and leaves of no tree: they may be
    closed over, be a static argument of `jax.jit`, or stand in a pytree.

    Examples
    --------
    >>> import jax
    >>> import fusedrnn.jax as fj
    >>> gru = fj.GRU(3, 4)
    >>> params = gru.init(jax.random.key(0))
    >>> loss = lambda params, x: gru.apply(params, x)[0].sum()
    >>> grads = jax.jit(jax.grad(loss))(params, jax.numpy.ones((5, 2, 3)))
    >>> grads["weight_hh_l0"].shape
    (12, 4)
    """

    _layer: ClassVar[type[Layer]]

    def __init_subclass__(cls) -> None:
        jax.tree_util.register_static(cls)

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, **options: Any
    ) -> None:
        known = inspect.signature(self._layer).parameters
        for name in options:
            if name not in known or name in _NOT_HERE:
                raise TypeError(f"{name}: expected an option of {type(self).__name__}, got another")
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        self._made_with = tuple(
            (name, tuple(value) if isinstance(value, list) else value)
            for name, value in sorted((sizes | options).items())
        )
        described: Any = type(self._layer.__name__, (self._layer,), {"_initial": lambda *_: None})
        self._known: Layer = described(**sizes, **options)
        self._init = str(options.get("init", "uniform"))

    def __repr__(self) -> str:
        return repr(self._known)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._made_with == self._made_with

    def __hash__(self) -> int:
        return hash((type(self), self._made_with))

    def __reduce__(self) -> Any:
        return _made_again, (type(self), self._made_with)

    def __getattr__(self, name: str) -> Any:
        """What fusedrnn's layer says of its options, such as `hidden_size` and `bidirectional`."""
        if (
            name in ("input_size", "hidden_size", "num_layers")
            or name in inspect.signature(type(self)._layer).parameters
        ):
            return getattr(self._known, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter, by PyTorch's names and in its order."""
        return self._known._stack.shapes()

    def init(self, key: Any) -> dict[str, Any]:
        """Return first values of the parameters.

        Parameters
        ----------
        key : key of `jax.random`

        Returns
        -------
        dict
            Arrays by PyTorch's names, such as "weight_ih_l0" and "bias_hh_l0_reverse": distributed
            as those of fusedrnn's layer, of other numbers.

        Raises
        ------
        ValueError
            For ``dtype="float64"`` where JAX has no such type (jax_enable_x64).
        """
        known = self._known
        if known.dtype == "float64" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
            raise ValueError("dtype: expected jax_enable_x64 for 'float64', got none")
        initial = self._layer._initial(known, self._init, None)
        kinds = known._stack._kinds
        keys = jax.random.split(key, len(kinds))
        return {
            name: _draw(initial, keys[i], kind, shape, known.hidden_size).astype(known.dtype)
            for i, (name, (kind, shape)) in enumerate(kinds.items())
        }

    def apply(
        self,
        params: Mapping[str, Any],
        x: Any,
        state: Any = None,
        lengths: Any = None,
        resets: Any = None,
        *,
        mask: Any = None,
        padding: Padding = "zero",
        reset_state: Any = None,
        return_cells: bool = False,
        key: Any = None,
    ) -> tuple[Any, ...]:
        """Run the layers.

        Parameters
        ----------
        params : mapping
            Arrays by the names and in the shapes of `init`, of the dtype of `x`.
        x : array [T, B, I], or [B, T, I] with ``batch_first=True``; or [T, I]
            Of float32, float64, bfloat16 or float16.
        state, lengths, resets, mask, padding, reset_state, return_cells
            As of fusedrnn's layers. A length out of 0 to T is an error when the call runs.
        key : key of `jax.random`, optional
            Of a call in training: what dropout and noise draw. Without one nothing is dropped.

        Returns
        -------
        y, state, or with ``return_cells=True`` y, state and cells
            As of fusedrnn's layers.

        Raises
        ------
        ValueError, TypeError
            When it is traced, for a wrong name, shape or type.
        """
        known = self._known
        stack, letters = known._stack, known._states
        shows_last = options.choice("padding", padding, options.PADDINGS) == "last"
        cells = options.flag("return_cells", return_cells)
        if cells and len(letters) == 1:
            raise ValueError(f"return_cells: expected False for {self!r}, which has no state but h")
        shapes = stack.shapes()
        options.same_names("params", params, shapes, f"the parameters of {self!r}")
        named = {name: array(name, params[name]) for name in shapes}
        for name, shape in shapes.items():
            if named[name] is None:
                raise TypeError(f"{name}: expected an array, got None")
            check_shape(name, named[name], shape)
        names = stack.ordered({name: name for name in shapes})
        weights = [(name or "", None if name is None else named[name]) for name in names]
        plan = self._plan(shows_last, cells)
        x = sequences(x, known.input_size)
        unbatched = x.ndim == 2
        swapped = known.batch_first and not unbatched
        lengths = integers("lengths", lengths)
        mask, resets = array("mask", mask), array("resets", resets)
        states = self._parts("state", state)
        if unbatched:
            x = x[:, None]
            lengths = lengths if lengths is None else lengths.reshape(1)
            mask, resets = (m if m is None else m[:, None] for m in (mask, resets))
            runs = stack.num_runs
            for (name, value), size in zip(states, plan.state_sizes, strict=True):
                check_shape(name, value, (runs, size))
            states = [(name, v if v is None else v[:, None]) for name, v in states]
        elif swapped:
            x = jnp.swapaxes(x, 0, 1)
            mask, resets = (_swapped(n, m) for n, m in (("mask", mask), ("resets", resets)))
        draws = key is not None and (known.dropout > 0 or any(stack.description[-2]))
        y, *others = call(
            plan,
            x,
            weights,
            states,
            self._parts("reset_state", reset_state),
            (lengths, mask, resets),
            key if draws else None,
        )
        count = len(letters)
        ended, shown = others[:count], [y, *others[count:]]
        if unbatched:
            ended = [value[:, 0] for value in ended]
            shown = [value[:, 0] for value in shown]
        elif swapped:
            shown = [jnp.swapaxes(value, 0, 1) for value in shown]
        joined = ended[0] if count == 1 else tuple(ended)
        return shown[0], joined, *shown[1:]

    def _over(self, params: Any, x: Any, state: Any, lengths: Any, key: Any) -> Any:
        """`apply` to x [T, B, I], whatever `batch_first` says: y and the state."""
        same = self
        if self._known.batch_first:
            same = type(self)(**dict(self._made_with) | {"batch_first": False})
        return same.apply(params, x, state, lengths, key=key)

    def _plan(self, shows_last: bool, cells: bool) -> Plan:
        known = self._known
        rate = known.dropout if known.num_layers > 1 else 0.0
        return _plan(
            known._stack.description,
            known.compute_dtype,
            known.memory == "lean",
            shows_last,
            cells,
            rate,
        )

    def _parts(self, name: str, value: Any) -> list[tuple[str, Any]]:
        letters = self._known._states
        if len(letters) == 1:
            return [(name, array(name, value))]
        parts = (None,) * len(letters) if value is None else options.values(name, letters, value)
        return [(f"{name}[{i}]", array(f"{name}[{i}]", part)) for i, part in enumerate(parts)]


def _made_again(kind: type[Recurrent], made_with: tuple[tuple[str, Any], ...]) -> Recurrent:
    return kind(**dict(made_with))


@functools.lru_cache(maxsize=1024)
def _plan(
    description: Any,
    compute_dtype: str | None,
    lean: bool,
    shows_last: bool,
    cells: bool,
    dropout: float,
) -> Plan:
    """One for calls that are the same, with what it found out before."""
    return Plan(description, False, compute_dtype, lean, shows_last, cells, dropout)


def _swapped(name: str, mask: Any) -> Any:
    if mask is not None and mask.ndim != 2:
        raise ValueError(f"{name}: expected shape [B, T], got {mask.shape}")
    return None if mask is None else mask.T


def _draw(
    initial: Initial, key: Any, kind: str, shape: tuple[int, ...], hidden_size: int
) -> jax.Array:
    """First values of a parameter, distributed as `Initial.draw` says."""
    values = _draw_plain(initial, key, kind, shape, hidden_size)
    if initial.bias is not None and kind in ("b_ih", "b_hh", "b"):
        gate, total = initial.bias
        block = slice(gate * hidden_size, (gate + 1) * hidden_size)
        values = values.at[block].set(0.0 if kind == "b_hh" else total)
    return values


def _draw_plain(
    initial: Initial, key: Any, kind: str, shape: tuple[int, ...], hidden_size: int
) -> jax.Array:
    if kind[0] == "g":
        return jnp.ones(shape)
    if kind[0] == "b" and (initial.normalised or initial.init == "orthogonal"):
        return jnp.zeros(shape)
    bound = hidden_size**-0.5
    if initial.init == "orthogonal" and kind in ("w_hh", "w_hr"):
        if len(shape) != 2:
            raise ValueError(
                "init: expected 'uniform' for recurrent weights that are no matrix, "
                "got 'orthogonal'"
            )
        rows = hidden_size // initial.heads if kind == "w_hh" else shape[0]
        draw = jax.nn.initializers.orthogonal()
        keys = jax.random.split(key, shape[0] // rows)
        return jnp.concatenate([draw(each, (rows, shape[1])) for each in keys])
    if initial.init == "orthogonal" and kind == "w_ih":
        bound = (6 / sum(shape)) ** 0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


class RNN(Recurrent):
    """`fusedrnn.RNN` as a description for JAX; a state is h. See `Recurrent`."""

    _layer = fusedrnn.RNN


class GRU(Recurrent):
    """`fusedrnn.GRU` as a description for JAX; a state is h. See `Recurrent`."""

    _layer = fusedrnn.GRU


class LSTM(Recurrent):
    """`fusedrnn.LSTM` as a description for JAX; a state is a pair (h, c). See `Recurrent`."""

    _layer = fusedrnn.LSTM


class IndRNN(Recurrent):
    """`fusedrnn.IndRNN` as a description for JAX; a state is h. See `Recurrent`."""

    _layer = fusedrnn.IndRNN


class MinGRU(Recurrent):
    """`fusedrnn.MinGRU` as a description for JAX; a state is h. See `Recurrent`."""

    _layer = fusedrnn.MinGRU


class MinLSTM(Recurrent):
    """`fusedrnn.MinLSTM` as a description for JAX; a state is h. See `Recurrent`."""

    _layer = fusedrnn.MinLSTM


class SLSTM(Recurrent):
    """`fusedrnn.SLSTM` as a description for JAX; a state is (h, c, n, m). See `Recurrent`."""

    _layer = fusedrnn.SLSTM


class WorldModelGRU(Recurrent):
    """`fusedrnn.WorldModelGRU` as a description for JAX; a state is h. See `Recurrent`."""

    _layer = fusedrnn.WorldModelGRU
