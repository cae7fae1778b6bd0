"""Flax: trees of parameters of a cell, of linen and of nnx. Nothing of Flax is imported.

A kernel is [I, H] or [H, H] a gate. Biases there are where two sums meet once: the state's of an
LSTM, the input's of an RNN and of a GRU, and linen's GRU has that of the state for n. nnx has one
kernel [I, G*H] and one [H, G*H] for all gates (an `nnx.LSTMCell` those of linen), and its GRU no
bias of the state. Source: ``flax.linen`` and ``flax.nnx``, recurrent.py, Flax 0.12.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from fusedrnn import bf16, options
from fusedrnn.cells import rnn
from fusedrnn.convert import arrays
from fusedrnn.convert.arrays import Array
from fusedrnn.convert.weights import GATES, Cell, Run, layer_of, runs_of
from fusedrnn.layers.base import Layer

Form = Literal["linen", "nnx", "nnx.LSTMCell"]
_FORMS: tuple[Form, ...] = get_args(Form)
_CELLS = ("rnn", "gru", "lstm")
# Which of a gate's two products has a bias: of the input (i) or of the state (h).
_BIASED = {"rnn": "i", "gru": "i", "lstm": "h"}
_FUSED = ("dense_i", "dense_h")  # for all gates at once


def _names(cell: str, side: str, form: str) -> list[str]:
    """The names of the parts of one side, i or h, gate by gate in this package's order."""
    if cell == "rnn":
        return [side]
    names = [f"{side}{gate}" for gate in GATES[cell]]
    return [f"{name}_" if name == "if" and form != "linen" else name for name in names]


def from_flax(
    params: Any,
    *,
    bidirectional: bool = False,
    nonlinearity: rnn.Nonlinearity | None = None,
    batch_first: bool = False,
) -> Layer:
    """Return a layer of the parameters of Flax cells.

    Parameters
    ----------
    params : mapping or list of mappings
        The parameters of one ``LSTMCell``, ``OptimizedLSTMCell``, ``GRUCell`` or ``SimpleCell``:
        of linen ``variables["params"]`` (of ``nn.RNN(cell)`` the "cell" in it), of nnx
        ``nnx.to_pure_dict(nnx.state(cell, nnx.Param))``. Which cell they are of their names tell.
        Or a list of such, layer by layer, forward before reverse.
    bidirectional : bool
        Whether the list has two for each layer.
    nonlinearity : {"tanh", "relu", "sigmoid", "identity"}, optional
        The ``activation_fn`` of a ``SimpleCell``, which parameters do not tell; "tanh" by default.
    batch_first : bool
        As of the layers; ``nn.RNN`` has the batch first where it is not ``time_major``.

    Returns
    -------
    RNN, GRU or LSTM
        With biases; zero where Flax has none. ``residual`` of a ``SimpleCell`` does not exist here.

    Raises
    ------
    ValueError, TypeError
        Where a name is missing or not known, or a shape does not fit.
    """
    both = options.flag("bidirectional", bidirectional)
    first = options.flag("batch_first", batch_first)
    single = isinstance(params, Mapping)
    several = [params] if single else params
    if not isinstance(several, (list, tuple)):
        raise TypeError(
            f"params: expected a mapping or a list of mappings, got {type(params).__name__}"
        )
    if not several or (both and len(several) % 2):
        raise ValueError(
            f"params: expected {'two' if both else 'one'} for each layer, got {len(several)}"
        )
    runs = [
        _run("params" if single else f"params[{k}]", one, nonlinearity)
        for k, one in enumerate(several)
    ]
    return layer_of(runs, bidirectional=both, batch_first=first)


def to_flax(layer: Any, form: Form = "linen") -> list[dict[str, Any]]:
    """Return a layer's weights as parameters of Flax cells.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        A GRU with ``reset_after=True``, an LSTM without peepholes.
    form : {"linen", "nnx", "nnx.LSTMCell"}
        Of which cells: all of linen; nnx's ``OptimizedLSTMCell``, ``GRUCell`` and ``SimpleCell``;
        or nnx's ``LSTMCell``.

    Returns
    -------
    list of dict
        NumPy arrays of the layer's dtype, one dict for each layer and direction, layer by layer,
        forward before reverse: ``(params,) = to_flax(layer)`` for the most common one. Where Flax
        has one bias it is bias_ih + bias_hh; where layers have none it is zero. For linen
        ``cell.apply({"params": params}, ...)``; for nnx, ``nnx.update(cell, params)``. The
        ``activation_fn`` of a ``SimpleCell`` and compute_dtype do not go along.

    Raises
    ------
    ValueError, TypeError
        For another layer; and for a GRU that goes to nnx with a bias that is not there, that of the
        state for gate n (the last H of bias_hh).
    """
    options.choice("form", form, _FORMS)
    runs = runs_of(layer, "Flax", _CELLS)
    cell = runs[0].cell
    if cell.reset_after is False:
        raise ValueError(f"layer: expected reset_after=True, which Flax has, got {layer!r}")
    if form == "nnx.LSTMCell" and cell.name != "lstm":
        raise ValueError(f"form: expected 'linen' or 'nnx' for {layer!r}, got {form!r}")
    return [_tree(run, form) for run in runs]


def _tree(run: Run, form: str) -> dict[str, Any]:
    name, gates = run.cell.name, len(run.cell.gates)
    zeros = np.zeros(gates * run.hidden_size, run.w_ih.dtype)
    b_ih = zeros if run.b_ih is None else run.b_ih
    b_hh = zeros if run.b_hh is None else run.b_hh
    bias = {_BIASED[name]: np.split(arrays.added(b_ih, b_hh), gates)}
    if name == "gru":  # whose n keeps the two apart
        state = np.split(b_hh, gates)[-1]
        bias["i"][-1] = np.split(b_ih, gates)[-1]
        if form == "linen":
            bias["h"] = [state]
        elif bf16.cast(state, "float64").any():
            raise ValueError(
                f"{run.label}: expected a bias_hh of 0 for gate n, for nnx.GRUCell has none, got "
                "other numbers; form 'linen' has it"
            )
    parts: dict[str, Any] = {}
    for side, matrix in (("i", run.w_ih), ("h", run.w_hh)):
        kernels = [block.T for block in np.split(matrix, gates)]
        biases = bias.get(side, [])
        if form == "nnx":
            part = {"kernel": np.concatenate(kernels, axis=1)}
            parts[f"dense_{side}"] = part | ({"bias": np.concatenate(biases)} if biases else {})
            continue
        names = _names(name, side, form)
        # Fewer biases than gates are those of the last ones.
        padded = [None] * (gates - len(biases)) + list(biases)
        for key, kernel, own in zip(names, kernels, padded, strict=True):
            parts[key] = {"kernel": kernel} | ({} if own is None else {"bias": own})
    return {
        key: {leaf: np.ascontiguousarray(bf16.for_numpy(array)) for leaf, array in part.items()}
        for key, part in parts.items()
    }


# From Flax


def _run(label: str, params: Any, nonlinearity: str | None) -> Run:
    parts = _parts(label, params)
    fused = set(parts) == set(_FUSED)
    if fused:
        name, sides = _fused(label, parts)
    else:
        name = _separate(label, parts)
        form = "nnx" if "if_" in parts else "linen"
        sides = {side: [parts[key] for key in _names(name, side, form)] for side in "ih"}
    if nonlinearity is not None and name != "rnn":
        raise ValueError(f"nonlinearity: expected None for the {name}, got {nonlinearity!r}")
    known = rnn.NONLINEARITIES
    usual = "tanh" if nonlinearity is None else nonlinearity
    cell = {
        "rnn": Cell("rnn", nonlinearity=options.choice("nonlinearity", usual, known))
        if name == "rnn"
        else Cell("rnn"),
        "gru": Cell("gru", reset_after=True),
        "lstm": Cell("lstm", peephole=False),
    }[name]
    w_ih, w_hh = (_joined([part["kernel"] for part in sides[side]]) for side in "ih")
    b_ih, b_hh = (_biases(sides[side]) for side in "ih")
    return Run(label, cell, w_ih, w_hh, b_ih, b_hh)


def _parts(label: str, params: Any) -> dict[str, dict[str, Array]]:
    """The kernel and perhaps the bias of each product, read and of the right number of axes."""
    if not isinstance(params, Mapping):
        raise TypeError(f"{label}: expected a mapping, got {type(params).__name__}")
    parts: dict[str, dict[str, Array]] = {}
    for name, part in params.items():
        if (
            not isinstance(part, Mapping)
            or "kernel" not in part
            or not {*part} <= {"kernel", "bias"}
        ):
            got = (
                f"the names {', '.join(map(str, part))}"
                if isinstance(part, Mapping)
                else type(part).__name__
            )
            raise ValueError(
                f"{label}[{name!r}]: expected a mapping of kernel and perhaps bias, got {got}"
            )
        kernel = arrays.read(f"{label}[{name!r}]['kernel']", _value(part["kernel"]), (None, None))
        parts[str(name)] = {"kernel": kernel}
        if "bias" in part:
            bias = _value(part["bias"])
            if bias is not None:  # as nnx has one that is not used
                shape = (kernel.shape[1],)
                parts[str(name)]["bias"] = arrays.read(f"{label}[{name!r}]['bias']", bias, shape)
    dtypes = {bf16.dtype_name(array) for part in parts.values() for array in part.values()}
    if len(dtypes) > 1:
        raise ValueError(f"{label}: expected one dtype, got {', '.join(sorted(dtypes))}")
    return parts


def _value(leaf: Any) -> Any:
    """What a variable of nnx holds; others are arrays themselves."""
    get = getattr(leaf, "get_value", None)
    return get() if callable(get) else leaf


def _separate(label: str, parts: Mapping[str, Mapping[str, Array]]) -> str:
    """Which cell has these parts, one for each gate, once their shapes belong together."""
    wanted = {
        (name, form): {*_names(name, "i", form), *_names(name, "h", form)}
        for name in _CELLS
        for form in ("linen", "nnx")
    }
    name = next((name for (name, _), names in wanted.items() if names == set(parts)), None)
    if name is None:
        known = "; ".join(" ".join(sorted(names)) for names in wanted.values())
        raise ValueError(
            f"{label}: expected the names of a cell ({known}; or dense_h dense_i), "
            f"got {' '.join(sorted(parts)) or 'none'}"
        )
    biased = {
        "rnn": {"i"},
        "gru": {"ir", "iz", "in", "hn"},
        "lstm": {"hi", "hf", "hg", "ho"},
    }[name]
    _check_biases(label, parts, biased)
    first = "i" if name == "rnn" else f"i{GATES[name][0]}"
    inputs, hidden = parts[first]["kernel"].shape
    for key, part in parts.items():
        shape = (inputs if key.startswith("i") else hidden, hidden)
        arrays.read(f"{label}[{key!r}]['kernel']", part["kernel"], shape)
    return name


def _fused(
    label: str, parts: Mapping[str, Mapping[str, Array]]
) -> tuple[str, dict[str, list[dict[str, Array]]]]:
    """Which cell has these two parts; and cut into gates, as the separate ones are."""
    hidden, columns = parts["dense_h"]["kernel"].shape
    cells = {len(GATES[name]) * hidden: name for name in _CELLS}
    if columns not in cells or not hidden:
        raise ValueError(
            f"{label}['dense_h']['kernel']: expected shape (H, G*H) with G 1, 3 or 4, "
            f"got {(hidden, columns)}"
        )
    name = cells[columns]
    arrays.read(f"{label}['dense_i']['kernel']", parts["dense_i"]["kernel"], (None, columns))
    _check_biases(label, parts, {f"dense_{_BIASED[name]}"})
    sides: dict[str, list[dict[str, Array]]] = {}
    for side in "ih":
        part, gates = parts[f"dense_{side}"], len(GATES[name])
        cut = {leaf: np.split(array, gates, axis=-1) for leaf, array in part.items()}
        sides[side] = [{leaf: each[k] for leaf, each in cut.items()} for k in range(gates)]
    return name, sides


def _check_biases(label: str, parts: Mapping[str, Mapping[str, Array]], wanted: set[str]) -> None:
    got = {name for name, part in parts.items() if "bias" in part}
    if got != wanted:
        raise ValueError(
            f"{label}: expected biases in {' '.join(sorted(wanted))}, "
            f"got them in {' '.join(sorted(got)) or 'none'}"
        )


def _joined(kernels: Sequence[Array]) -> Array:
    return np.concatenate([kernel.T for kernel in kernels])


def _biases(parts: Sequence[Mapping[str, Array]]) -> Array:
    """The biases of one side, zero where there is none."""
    zeros = np.zeros(parts[0]["kernel"].shape[1], parts[0]["kernel"].dtype)
    return np.concatenate([part.get("bias", zeros) for part in parts])
