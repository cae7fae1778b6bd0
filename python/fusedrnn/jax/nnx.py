"""Modules for Flax: `RNN` in the place of `flax.nnx.RNN`, over its cells or over a layer.

rnn = fusedrnn.jax.nnx.RNN(flax.nnx.LSTMCell(4, 8, rngs=rngs))      # the same parameters, carries
rnn = fusedrnn.jax.nnx.RNN(fusedrnn.jax.LSTM(4, 8, num_layers=2), rngs=rngs)
rnn = fusedrnn.jax.nnx.from_flax(rnn)                    # Flax's, over a layer with its weights
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.recurrent import flip_sequences

import fusedrnn
import fusedrnn.jax as layers
from fusedrnn.convert import from_flax as weights_of
from fusedrnn.convert import to_flax as weights_for
from fusedrnn.convert.flax import Form
from fusedrnn.jax import flax_cells
from fusedrnn.jax.call import array, check_shape, integers
from fusedrnn.options import positive

__all__ = ["RNN", "from_flax", "to_flax"]


class RNN(nnx.Module):
    """One of Flax's cells, or a layer of `fusedrnn.jax`, over sequences: called as `flax.nnx.RNN`.

    Parameters
    ----------
    cell : LSTMCell, OptimizedLSTMCell, GRUCell or SimpleCell of flax.nnx; or Recurrent
        A cell stays what it is, with its parameters, and is the attribute `cell`, so that trees,
        checkpoints and optimisers are those of `flax.nnx.RNN`; a call puts its kernels together.
        Of a layer, such as ``fusedrnn.jax.LSTM(in_features, hidden_features)``, the parameters
        become those of this module, under their names; it may have several layers and directions.
    time_major, return_carry, reverse, keep_order : bool
        As of `flax.nnx.RNN`; ``batch_first`` of a layer is not looked at.
    unroll : int
        As of `flax.nnx.RNN`, of which any positive number computes the same; no loop of XLA's is
        here to be unrolled.
    deterministic : bool
        Of a layer, whether nothing is dropped; `train()` and `eval()` of a module say so too.
    rngs : flax.nnx.Rngs
        Of a layer: of its "params" come first values; of its "dropout", where the layer drops or
        has noise, what a call draws. Of a cell, optional: its "carry" is what a `carry_init` draws
        from; without it, as in Flax, a stream of seed 0.

    Raises
    ------
    TypeError
        For a cell of another kind, or whose products are not all `flax.nnx.Linear`.
    ValueError
        For activations of a cell that fusedrnn has not, a `residual`, a smaller `dtype` than
        `param_dtype` but bfloat16 beside float32.

    Notes
    -----
    A carry is that of Flax's cells where there is one: (c, h) of an LSTM, h of a GRU and an RNN. Of
    several layers or directions each array is [L*D, ..., H]; an sLSTM's are (h, c, n, m). Beyond
    `seq_lengths` results are zero, where Flax's go on.
    """

    def __init__(
        self,
        cell: Any,
        *,
        time_major: bool = False,
        return_carry: bool = False,
        reverse: bool = False,
        keep_order: bool = False,
        unroll: int = 1,
        deterministic: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        positive("unroll", unroll)
        over_layer = isinstance(cell, layers.Recurrent)
        if not over_layer:
            flax_cells.check(cell)
        elif rngs is None:
            raise TypeError("rngs: expected flax.nnx.Rngs for the parameters of a layer, got None")
        self.layer: Any = nnx.static(cell if over_layer else None)
        if not over_layer:
            self.cell = cell
        self.time_major = time_major
        self.return_carry = return_carry
        self.reverse = reverse
        self.keep_order = keep_order
        self.deterministic = deterministic
        self.rngs = nnx.data(None)
        if not over_layer and cell.carry_init is not None:
            self.rngs = nnx.RngStream(0, tag="carry") if rngs is None else rngs.carry.fork()
        if over_layer and rngs is not None:
            for name, value in cell.init(rngs.params()).items():
                setattr(self, name, nnx.Param(value))
            if _draws(cell):
                self.rngs = rngs.dropout.fork()

    def __call__(
        self,
        inputs: Any,
        *,
        initial_carry: Any = None,
        seq_lengths: Any = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | None = None,
    ) -> Any:
        """Run over `inputs`, [..., T, I] or where `time_major` [T, ..., I].

        Parameters
        ----------
        inputs : array
        initial_carry : array or tuple of arrays [..., H], optional
            Zero where absent.
        seq_lengths : integers [...], optional
            Valid steps of each sequence, 0 to T.
        return_carry, time_major, reverse, keep_order : bool, optional
            Others than the module's own.
        rngs : Rngs or RngStream, optional
            Another source of what the call draws.

        Returns
        -------
        outputs, or where `return_carry` (carry, outputs)
            The carry is that after the last valid step.

        Raises
        ------
        ValueError, TypeError
            As `Recurrent.apply`.
        """
        returns = self.return_carry if return_carry is None else return_carry
        major = self.time_major if time_major is None else time_major
        backwards = self.reverse if reverse is None else reverse
        keeps = self.keep_order if keep_order is None else keep_order
        x = array("inputs", inputs)
        size = self.cell.in_features if self.layer is None else self.layer.input_size
        if x is None or x.ndim < 2 or x.shape[-1] != size:
            got = "None" if x is None else f"shape {x.shape}"
            raise ValueError(f"inputs: expected shape [..., {size}], got {got}")
        batch = x.shape[1:-1] if major else x.shape[:-2]
        lengths = integers("seq_lengths", seq_lengths)
        if lengths is not None:
            lengths = jnp.broadcast_to(lengths, batch)

        def flip(sequence: Any) -> Any:
            return flip_sequences(sequence, lengths, len(batch), major)

        x = flip(x) if backwards else x
        x = x if major else jnp.moveaxis(x, -2, 0)
        run = self._run_layer if self.layer is not None else self._run_cell
        folded = x.reshape(x.shape[0], math.prod(batch), size)
        lengths = None if lengths is None else lengths.reshape(-1)
        y, carry = run(folded, initial_carry, lengths, batch, rngs)
        y = y.reshape(*x.shape[:-1], y.shape[-1])
        y = y if major else jnp.moveaxis(y, 0, -2)
        y = flip(y) if backwards and keeps else y
        return (carry, y) if returns else y

    def _run_cell(
        self, x: Any, carry: Any, lengths: Any, batch: tuple[int, ...], rngs: Any
    ) -> tuple[Any, Any]:
        cell = self.cell
        if carry is None and cell.carry_init is not None:
            source: Any = self.rngs if rngs is None else rngs
            source = source.carry.fork() if isinstance(source, nnx.Rngs) else source
            carry = cell.initialize_carry((*batch, x.shape[-1]), source)
        shape, count = (*batch, cell.hidden_features), flax_cells.carry_size(cell)
        if carry is not None:
            parts = [
                part.reshape(x.shape[1], cell.hidden_features)
                for part in _parts(carry, [shape] * count)
            ]
            carry = parts[0] if count == 1 else tuple(parts)
        y, ended = flax_cells.run(cell, x, carry, lengths)
        return y, jax.tree.map(lambda part: part.reshape(shape), ended)

    def _run_layer(
        self, x: Any, carry: Any, lengths: Any, batch: tuple[int, ...], rngs: Any
    ) -> tuple[Any, Any]:
        params = {name: getattr(self, name)[...] for name in self.layer.shapes()}
        state = self._state(carry, batch)
        y, state = self.layer._over(params, x, state, lengths, self._key(rngs))
        return y, self._carry(state, batch)

    def _key(self, rngs: Any) -> Any:
        if self.deterministic or not _draws(self.layer):
            return None
        source: Any = self.rngs if rngs is None else rngs
        return source.dropout() if isinstance(source, nnx.Rngs) else source()

    def _state(self, carry: Any, batch: tuple[int, ...]) -> Any:
        """A carry as the layer's state [runs, B, n]."""
        if carry is None:
            return None
        stack = self.layer._known._stack
        lead = () if stack.num_runs == 1 else (stack.num_runs,)
        sizes = stack.network.state_sizes
        sizes = sizes[::-1] if len(sizes) == 2 else sizes
        shapes = [(*lead, *batch, size) for size in sizes]
        flat = [
            part.reshape(stack.num_runs, math.prod(batch), size)
            for part, size in zip(_parts(carry, shapes), sizes, strict=True)
        ]
        if len(sizes) == 1:
            return flat[0]
        return tuple(flat[::-1] if len(sizes) == 2 else flat)

    def _carry(self, state: Any, batch: tuple[int, ...]) -> Any:
        single = _runs(self.layer) == 1

        def shaped(part: Any) -> Any:
            lead = () if single else part.shape[:1]
            return part.reshape(*lead, *batch, part.shape[-1])

        parts = jax.tree.map(shaped, state)
        return parts[::-1] if isinstance(parts, tuple) and len(parts) == 2 else parts


def _parts(carry: Any, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """The arrays of a carry, one or several, of these shapes."""
    parts = carry if len(shapes) > 1 else (carry,)
    if not isinstance(parts, (tuple, list)) or len(parts) != len(shapes):
        raise ValueError(f"initial_carry: expected {len(shapes)} arrays, got another structure")
    given = [array("initial_carry", part) for part in parts]
    for part, shape in zip(given, shapes, strict=True):
        if part is None:
            raise TypeError("initial_carry: expected an array, got None")
        check_shape("initial_carry", part, shape)
    return given


def _runs(layer: layers.Recurrent) -> int:
    return layer._known._stack.num_runs


def _draws(layer: layers.Recurrent) -> bool:
    known = layer._known
    return known.dropout > 0 or any(known._stack.description[-2])


def from_flax(rnn: nnx.RNN) -> RNN:
    """Return a module with the weights of Flax's.

    Parameters
    ----------
    rnn : flax.nnx.RNN
        Of a ``LSTMCell``, ``OptimizedLSTMCell``, ``GRUCell`` or ``SimpleCell`` with the usual
        activations, or of `SimpleCell` one that `fusedrnn.RNN` has.

    Raises
    ------
    ValueError, TypeError
        For another module or cell, and for options that fusedrnn's layers have not.
    """
    if not isinstance(rnn, nnx.RNN):
        raise TypeError(f"rnn: expected a flax.nnx.RNN, got {type(rnn).__name__}")
    cell: Any = rnn.cell
    names: dict[Any, str] = {nnx.SimpleCell: "RNN", nnx.GRUCell: "GRU"}
    names |= {nnx.LSTMCell: "LSTM", nnx.OptimizedLSTMCell: "LSTM"}
    if type(cell) not in names:
        raise TypeError(f"rnn.cell: expected one of Flax's cells, got {type(cell).__name__}")
    options = _options(cell)
    plain = weights_of(nnx.to_pure_dict(nnx.state(cell, nnx.Param)), **options)
    options |= {"dtype": plain.dtype}
    layer = getattr(layers, names[type(cell)])(plain.input_size, plain.hidden_size, **options)
    module = RNN(
        layer,
        time_major=rnn.time_major,
        return_carry=rnn.return_carry,
        reverse=rnn.reverse,
        keep_order=rnn.keep_order,
        rngs=nnx.Rngs(0),
    )
    for name, value in plain.parameters().items():
        setattr(module, name, nnx.Param(jnp.asarray(value)))
    return module


def _options(cell: Any) -> dict[str, Any]:
    """The activation of an RNN; of other cells that all are the usual ones."""
    if isinstance(cell, nnx.SimpleCell):
        known = {nnx.tanh: "tanh", nnx.relu: "relu", nnx.sigmoid: "sigmoid"}
        if cell.activation_fn not in known:
            raise ValueError("rnn.cell.activation_fn: expected tanh, relu or sigmoid, got another")
        if cell.residual:
            raise ValueError("rnn.cell.residual: expected False, got True")
        return {"nonlinearity": known[cell.activation_fn]}
    if cell.gate_fn is not nnx.sigmoid or cell.activation_fn is not nnx.tanh:
        raise ValueError("rnn.cell: expected gate_fn sigmoid and activation_fn tanh, got others")
    return {}


def to_flax(module: RNN, form: Form = "nnx") -> list[Mapping[str, Any]]:
    """Return a module's weights as parameters of Flax cells; see `fusedrnn.convert.to_flax`."""
    layer = module.layer
    if layer is None:
        raise TypeError(
            "module: expected one over a layer, got one over a cell: its own parameters"
        )
    options: Any = {
        name: value
        for name, value in layer._made_with
        if name not in ("input_size", "hidden_size", "num_layers")
    }
    plain = getattr(fusedrnn, type(layer).__name__)(
        layer.input_size, layer.hidden_size, layer.num_layers, **options
    )
    plain.load_state_dict({name: getattr(module, name)[...] for name in layer.shapes()})
    return list(weights_for(plain, form))
