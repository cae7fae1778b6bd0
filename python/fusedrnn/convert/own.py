"""Layers that this package alone has, from the names and shapes of their state dicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fusedrnn import bf16
from fusedrnn.cells.gru import GRU
from fusedrnn.cells.gru_world_model import WorldModelGRU
from fusedrnn.cells.lstm import LSTM
from fusedrnn.cells.mingru import MinGRU
from fusedrnn.cells.minlstm import MinLSTM
from fusedrnn.cells.slstm import SLSTM
from fusedrnn.convert.arrays import Array, read
from fusedrnn.convert.weights import suffix
from fusedrnn.layers.base import Layer
from fusedrnn.layers.stack import NAMES

_WEIGHTS = {"w_ih": "G*H,I", "w_hh": "G*H,H/k"}
_NORMS = dict.fromkeys(("g_ih", "b_ih", "g_hh", "b_hh"), "G*H")


@dataclass(frozen=True)
class LayerSpec:
    """A layer's class, its blocks of weights, and its parameters' shapes."""

    layer: Any
    gates: int
    shapes: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()  # of parameters, that is biases
    told: str = ""  # an option that arrays do not tell

    @property
    def required(self) -> set[str]:
        return set(self.shapes) - self.optional


_BIASED: dict[str, Any] = {"optional": frozenset({"b_ih"})}
# By what `cell` is in `from_torch`, or by parameters that no other cell has.
NAMED = {
    "mingru": LayerSpec(MinGRU, 2, {"w_ih": "G*H,I", "b_ih": "G*H"}, told="candidate", **_BIASED),
    "minlstm": LayerSpec(MinLSTM, 3, {"w_ih": "G*H,I", "b_ih": "G*H"}, told="candidate", **_BIASED),
    "slstm": LayerSpec(SLSTM, 4, {**_WEIGHTS, "b_ih": "G*H"}, told="forget", **_BIASED),
}
_NORMED = {
    "g_c": LayerSpec(LSTM, 4, {**_WEIGHTS, **_NORMS, "g_c": "H", "b_c": "H"}, {"layer_norm": True}),
    "g_ih": LayerSpec(GRU, 3, {**_WEIGHTS, **_NORMS}, {"layer_norm": True}),
    "g": LayerSpec(WorldModelGRU, 3, {**_WEIGHTS, "g": "G*H", "b": "G*H"}),
}


def normed(shorts: set[str]) -> LayerSpec | None:
    """The layer with normalisation that has these parameters; None where there is no gain."""
    return next((own for short, own in _NORMED.items() if short in shorts), None)


def own_layer(
    own: LayerSpec,
    arrays: Mapping[str, Array],
    prefix: str,
    count: int,
    directions: int,
    told: Mapping[str, Any],
    batch_first: bool,
) -> Layer:
    """Return a layer of the arrays of `count` runs, by name, once it is clear that they fit.

    Raises
    ------
    ValueError
        Where parameters are missing or belong to another layer, or a shape or dtype does not fit.
    """
    what = own.layer.__name__ + "".join(f"({name}={v!r})" for name, v in own.options.items())
    shorts = {short for short, full in NAMES.items() if f"{full}_l0" in arrays}
    if not own.required <= shorts <= set(own.shapes):
        wanted = ", ".join(NAMES[s] for s in own.shapes if s in own.required | shorts)
        got = ", ".join(NAMES[s] for s in NAMES if s in shorts)
        raise ValueError(f"source: expected {wanted}, which {what} has, got {got}")
    name = f"{prefix}weight_ih_l0"
    first = arrays["weight_ih_l0"]
    if first.ndim != 2 or first.shape[0] % own.gates or 0 in first.shape:
        raise ValueError(f"{name}: expected shape ({own.gates}*H, I), got {first.shape}")
    hidden, dtype = first.shape[0] // own.gates, bf16.dtype_name(first)
    w_hh = arrays.get("weight_hh_l0")
    columns = w_hh.shape[1] if w_hh is not None and w_hh.ndim == 2 else hidden
    heads = hidden // columns if columns and hidden % columns == 0 else 1
    for number in range(count):
        width = first.shape[1] if number < directions else directions * hidden
        sizes = {"G*H": own.gates * hidden, "H": hidden, "H/k": hidden // heads, "I": width}
        for short in (s for s in own.shapes if s in shorts):
            name = NAMES[short] + suffix(number, directions)
            shape = tuple(sizes[letter] for letter in own.shapes[short].split(","))
            array = read(prefix + name, arrays[name], shape)
            if bf16.dtype_name(array) != dtype:
                got = bf16.dtype_name(array)
                raise ValueError(f"{prefix}{name}: expected dtype {dtype}, got {got}")
    options = dict(own.options) | {n: v for n, v in told.items() if v is not None}
    if heads > 1:
        options["heads"] = heads
    if own.optional:
        options["bias"] = "b_ih" in shorts
    layer: Layer = own.layer(
        first.shape[1],
        hidden,
        count // directions,
        batch_first=batch_first,
        bidirectional=directions == 2,
        dtype=dtype,
        seed=0,  # no need for the operating system's randomness
        **options,
    )
    layer.load_state_dict(arrays)
    return layer
