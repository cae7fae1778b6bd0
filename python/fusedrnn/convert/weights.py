"""A layer as a list of runs, which each converter reads and writes, and the orders of gates.

A run is one direction of one layer. Runs are counted layer by layer, forward before reverse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusedrnn import bf16, options
from fusedrnn.cells.constants import Activation
from fusedrnn.cells.gru import GRU
from fusedrnn.cells.indrnn import IndRNN
from fusedrnn.cells.lstm import LSTM
from fusedrnn.cells.rnn import RNN
from fusedrnn.convert.arrays import Array, read, zeros_like
from fusedrnn.layers import stack
from fusedrnn.layers.base import Layer

# The parameters of cells that other libraries have.
NAMES = {
    short: stack.NAMES[short] for short in ("w_ih", "w_hh", "b_ih", "b_hh", "w_peephole", "w_hr")
}
# The blocks of weights and biases, one letter a gate: an RNN's only one is h; g of an LSTM is what
# Keras and ONNX call c, n of a GRU what they call h.
GATES = {"rnn": "h", "indrnn": "h", "gru": "rzn", "lstm": "ifgo"}
KERAS_GATES = {"rnn": "h", "gru": "zrn", "lstm": "ifgo"}
ONNX_GATES = {"rnn": "h", "gru": "zrn", "lstm": "iofg"}
COUPLED_GATES = "igo"  # of an LSTM: f = 1 - i
PEEPHOLES = "ifo"
COUPLED_PEEPHOLES = "io"
ONNX_PEEPHOLES = "iof"

LAYERS: dict[str, Any] = {"rnn": RNN, "gru": GRU, "lstm": LSTM, "indrnn": IndRNN}

# Options of layers that converters know, or that are no part of a layer's function.
_KNOWN_OPTIONS = {
    *("num_layers", "bias", "batch_first", "bidirectional"),
    *("dtype", "compute_dtype", "device", "dropout", "memory"),
    *("weight_dropout", "recurrent_dropout", "recurrent_dropout_mode", "zoneout"),
    *("nonlinearity", "reset_after", "peephole", "coupled", "proj_size"),
    *("clip", "cell_clip", "cell_clip_nan", "activations", "layer_norm"),
}
# Those that a library has to have, and what messages call them.
_SPECIAL_OPTIONS = {
    "peephole": "peepholes",
    "coupled": "coupled gates",
    "proj_size": "projection (proj_size=0)",
    "clip": "limits of what activations are given (clip=None)",
    "cell_clip": "limit of the cell state (cell_clip=None)",
    "activations": "activations of its own (activations=None)",
    "layer_norm": "layer normalisation",
    "zoneout": "zoneout, which inference has too (zoneout=0)",
}


def reorder(array: Array, source: str, target: str) -> Array:
    """The blocks along the first axis, which come in the order of `source`, in that of `target`.

    Those that `target` has not are left out; those that `source` has not are zeros.
    """
    blocks = dict(zip(source, np.split(array, len(source)), strict=True))
    zeros = zeros_like(blocks[source[0]])
    return np.concatenate([blocks.get(gate, zeros) for gate in target])


@dataclass(frozen=True)
class Cell:
    """A cell with the options that it has; others are None."""

    name: str
    nonlinearity: Any = None
    reset_after: bool | None = None
    peephole: bool | None = None
    coupled: bool | None = None
    proj_size: int | None = None
    heads: int | None = None
    clip: float | None = None
    activations: tuple[Activation, ...] | None = None

    @property
    def gates(self) -> str:
        return COUPLED_GATES if self.coupled else GATES[self.name]

    @property
    def peepholes(self) -> str:
        return COUPLED_PEEPHOLES if self.coupled else PEEPHOLES

    def options(self) -> dict[str, Any]:
        """What to give to the layer's constructor."""
        given = dataclasses.asdict(self)
        return {
            name: value for name, value in given.items() if name != "name" and value is not None
        }


@dataclass(frozen=True, eq=False)
class Run:
    """The weights of a run in this package's layout, of shapes that belong together."""

    label: str  # what messages call it
    cell: Cell
    w_ih: Array  # [G*H, I]
    w_hh: Array  # [G*H, H], with a projection [G*H, P], with heads [G*H, H/heads]; [H] of an IndRNN
    b_ih: Array | None = None  # [G*H]
    b_hh: Array | None = None  # [G*H]; an IndRNN has none
    w_peephole: Array | None = None  # [3*H]
    w_hr: Array | None = None  # [P, H]

    @property
    def input_size(self) -> int:
        return int(self.w_ih.shape[1])

    @property
    def hidden_size(self) -> int:
        return self.output_size if self.w_hr is None else int(self.w_hr.shape[1])

    @property
    def output_size(self) -> int:
        return int(self.w_hh.shape[-1]) * (self.cell.heads or 1)

    def arrays(self) -> dict[str, Array]:
        """Those that there are, by the names of the functions' arguments."""
        given = {name: getattr(self, name) for name in NAMES}
        return {name: array for name, array in given.items() if array is not None}


def layer_of(runs: Sequence[Run], *, bidirectional: bool = False, batch_first: bool) -> Layer:
    """Return a new layer of these runs, once it is clear that they fit.

    Raises
    ------
    ValueError
        Where they are not of one cell, one size, one dtype, or do not read what the layer below
        writes; the message names the run.
    """
    first, directions = runs[0], 2 if bidirectional else 1
    dtype = bf16.dtype_name(first.w_ih)
    for number, run in enumerate(runs):
        below = directions * first.output_size if number >= directions else first.input_size
        for what, wanted, got in (
            ("cell", _shown(first.cell), _shown(run.cell)),
            ("arrays", ", ".join(first.arrays()), ", ".join(run.arrays())),
            ("hidden size", first.hidden_size, run.hidden_size),
            ("input size", below, run.input_size),
            *(("dtype", dtype, bf16.dtype_name(array)) for array in run.arrays().values()),
        ):
            if got != wanted:
                raise ValueError(f"{run.label}: expected {what} {wanted}, got {got}")
    layer: Layer = LAYERS[first.cell.name](
        first.input_size,
        first.hidden_size,
        len(runs) // directions,
        bias=first.b_ih is not None,
        batch_first=batch_first,
        bidirectional=bidirectional,
        dtype=dtype,
        seed=0,  # no need for the operating system's randomness
        **first.cell.options(),
    )
    layer.load_state_dict(named(runs, directions))
    return layer


def _shown(cell: Cell) -> str:
    given = [f"{name}={value!r}" for name, value in cell.options().items()]
    return f"{cell.name} ({', '.join(given)})" if given else cell.name


def named(runs: Sequence[Run], directions: int) -> dict[str, Array]:
    """The arrays of runs by the names of a layer's parameters, which are PyTorch's."""
    return {
        f"{NAMES[name]}{suffix(number, directions)}": array
        for number, run in enumerate(runs)
        for name, array in run.arrays().items()
    }


def suffix(number: int, directions: int) -> str:
    """What the name of a parameter of that run ends with."""
    return f"_l{number // directions}{'_reverse' if number % directions else ''}"


def cell_of(layer: object, library: str, cells: Sequence[str], special: Sequence[str] = ()) -> Cell:
    """Return the cell of a layer.

    Raises
    ------
    TypeError
        Where it is no layer of this package.
    ValueError
        Where its cell is not among `cells`, those that the library has, or has an option that no
        converter knows, or one that the library has to have and that is not among `special`.
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"layer: expected a layer of fusedrnn, got {type(layer).__name__}")
    name = next((known for known, kind in LAYERS.items() if isinstance(layer, kind)), None)
    if name is None or name not in cells:
        wanted = options.either([LAYERS[cell].__name__ for cell in cells])
        raise ValueError(f"layer: expected {wanted}, which {library} has, got {layer!r}")
    unusual = {o for o, usual in layer._usual.items() if getattr(layer, o) != usual}
    if unknown := unusual - _KNOWN_OPTIONS:
        raise ValueError(
            f"layer: expected none of the options {', '.join(sorted(unknown))}, which cannot be "
            f"converted to {library}, got {layer!r}"
        )
    for option, what in _SPECIAL_OPTIONS.items():
        if option in unusual and option not in special:
            raise ValueError(f"layer: expected no {what}, which {library} has not, got {layer!r}")
    given = {
        field.name: getattr(layer, field.name, None)
        for field in dataclasses.fields(Cell)
        if field.name != "name"
    }
    for rare in ("coupled", "proj_size"):
        given[rare] = given[rare] or None
    given["heads"] = None  # more than one is no known option
    return Cell(name, **given)


def runs_of(
    layer: Any, library: str, cells: Sequence[str], special: Sequence[str] = ()
) -> list[Run]:
    """Return the runs of a layer, the weights on the CPU; of a wrong one errors as `cell_of`."""
    cell = cell_of(layer, library, cells, special)
    directions, parameters = directions_of(layer), layer.state_dict()
    runs = []
    for number in range(layer.num_layers * directions):
        end = suffix(number, directions)
        arrays = {
            short: read(full + end, parameters.pop(full + end))
            for short, full in NAMES.items()
            if full + end in parameters
        }
        runs.append(Run(f"layer, {end[1:]}", cell, **arrays))
    if parameters:
        raise ValueError(
            f"layer: expected the parameters of {wanted_names()}, got {', '.join(parameters)} "
            f"too, which cannot be converted to {library}"
        )
    return runs


def wanted_names() -> str:
    """The parameters that converters know."""
    return ", ".join(NAMES.values())


def directions_of(layer: Layer) -> int:
    return 2 if layer.bidirectional else 1
