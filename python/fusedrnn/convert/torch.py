"""PyTorch's layers and state dicts, whose names and layout are this package's own."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from fusedrnn import bf16, options
from fusedrnn.cells import constants, indrnn
from fusedrnn.cells.constants import Activation
from fusedrnn.cells.mingru import Candidate
from fusedrnn.cells.slstm import Forget
from fusedrnn.convert import own, packages
from fusedrnn.convert.arrays import Array, read
from fusedrnn.convert.weights import (
    GATES,
    Cell,
    Run,
    directions_of,
    layer_of,
    named,
    runs_of,
    suffix,
)
from fusedrnn.layers.base import Layer
from fusedrnn.layers.stack import NAMES

# The names of a cell, such as torch.nn.LSTMCell, end without a layer.
_PARAMETER = re.compile(rf"({'|'.join(NAMES.values())})(?:_l(0|[1-9][0-9]*)(_reverse)?)?")
_CELLS = {
    gates: name for name, gates in ((n, len(g)) for n, g in GATES.items()) if name != "indrnn"
}
_NONLINEARITIES = ("tanh", "relu")
OwnCell = Literal["mingru", "minlstm", "slstm"]


def from_torch(
    source: Any,
    prefix: str = "",
    *,
    cell: OwnCell | None = None,
    nonlinearity: Activation | None = None,
    reset_after: bool | None = None,
    coupled: bool | None = None,
    heads: int | None = None,
    candidate: Candidate | None = None,
    forget: Forget | None = None,
    batch_first: bool | None = None,
) -> Layer:
    """Return a layer of the weights of a PyTorch module or of a state dict.

    Cell, sizes, layers, directions, biases and dtype are read off the names and shapes. The weights
    are copied, from wherever they are; the layer is on the CPU.

    Parameters
    ----------
    source : torch.nn.Module or mapping
        ``torch.nn.RNN``, ``GRU``, ``LSTM``, one of their cells (``torch.nn.LSTMCell``), any module
        of `fusedrnn.torch`, or a model that has one at `prefix`. Or arrays of any kind by the names
        of such a layer's state dict, or of that of any layer of this package.
    prefix : str
        What the names begin with in a larger model, such as "encoder.lstm."; the dot at the end may
        be left out. Names that begin otherwise belong to others and are not looked at.
    cell : {"mingru", "minlstm", "slstm"}, optional
        Of a state dict whose names and shapes are those of several cells: of a `MinGRU`, `MinLSTM`
        or `SLSTM` of this package. All others are told by their arrays.
    nonlinearity : str, or tuple of a str with alpha and beta, optional
        Of an RNN or IndRNN, where `source` is a state dict, which does not tell: what the layer
        takes, by default "tanh" of an RNN and "relu" of an IndRNN.
    reset_after : bool, optional
        Of a GRU, where `source` is the state dict of a layer of this package: by default True, as
        all of PyTorch's are.
    coupled : bool, optional
        Of the state dict of an LSTM of this package: whether its gates are coupled. Without
        peepholes its arrays have the shapes of a GRU's, which is what they are taken for.
    heads : int, optional
        Of the state dict of an `RNN`, `GRU` or `LSTM` of this package: into how many blocks its
        recurrent weights are cut, by default 1. Of other layers shapes tell.
    candidate, forget : str, optional
        Of the state dict of a `MinGRU` or `MinLSTM`, and of an `SLSTM`, which do not tell; by
        default those of the layers.
    batch_first : bool, optional
        As of the layers; by default the module's, False for a state dict.

    Returns
    -------
    RNN, GRU, LSTM, IndRNN, WorldModelGRU, MinGRU, MinLSTM or SLSTM
        Dropout, which acts in training alone, is not taken over; of a state dict neither is what
        else of a layer's options no array tells: zoneout, `clip`, `cell_clip` and `activations`.
        A module of `fusedrnn.torch` knows all of them.

    Raises
    ------
    ValueError, TypeError
        Where a name is missing or not known, a shape does not fit, or a value is not floating.

    Notes
    -----
    Source: the names and shapes of ``torch.nn.LSTM``'s documentation.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(3, 4, bidirectional=True)})
    >>> fr.convert.from_torch(model, "rnn")
    LSTM(3, 4, bidirectional=True)
    """
    prefix = _prefix(prefix)
    named_cell = None if cell is None else options.choice("cell", cell, tuple(own.NAMED))
    module = _module(source, prefix)
    told: dict[str, Any] = {
        "nonlinearity": nonlinearity,
        "reset_after": reset_after,
        "coupled": coupled,
        "heads": heads,
        "candidate": candidate,
        "forget": forget,
    }
    if module is not None and hasattr(module, "_made_with"):
        return _of_own_module(module, {**told, "cell": cell}, batch_first)
    if module is not None:
        for name in ("coupled", "heads", "candidate", "forget", "cell"):
            value = cell if name == "cell" else told[name]
            if value is not None:
                raise ValueError(f"{name}: expected None for a module of PyTorch, got {value!r}")
        told["nonlinearity"], batch_first = _options(module, nonlinearity, reset_after, batch_first)
        given = dict(module.state_dict())
    elif isinstance(source, Mapping):
        given = {
            name.removeprefix(prefix): value
            for name, value in source.items()
            if _is_text(name) and name.startswith(prefix)
        }
    else:
        raise TypeError(
            f"source: expected a torch.nn.Module or a mapping, got {type(source).__name__}"
        )
    arrays, count, directions = _arrays(given, prefix, named_cell)
    shorts = {short for short, full in NAMES.items() if f"{full}_l0" in arrays}
    kind = own.normed(shorts) if named_cell is None else own.NAMED[named_cell]
    if kind is None:
        runs = _runs(arrays, prefix, count, directions, told)
        return layer_of(runs, bidirectional=directions == 2, batch_first=bool(batch_first))
    known = {kind.told: told.pop(kind.told)} if kind.told else {}
    _refuse_options(told, kind.layer.__name__)
    return own.own_layer(kind, arrays, prefix, count, directions, known, bool(batch_first))


def to_torch(layer: Any, prefix: str = "") -> dict[str, Any]:
    """Return a layer's weights as a state dict of PyTorch.

    Of layers that PyTorch has not there is ``layer.state_dict()``, which `save_safetensors` writes
    and `from_torch` reads.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        That which `torch.nn` has as well: an RNN with tanh or relu, a GRU with
        ``reset_after=True``, an LSTM without peepholes or coupled gates.
    prefix : str
        Put before each name, such as "encoder.lstm.".

    Returns
    -------
    dict of str to torch.Tensor
        Copies on the CPU, of the layer's dtype, for ``load_state_dict`` of a module of the same
        sizes.

    Raises
    ------
    ValueError, TypeError
        For another layer.
    ImportError
        Where PyTorch is missing.
    """
    runs = runs_of(layer, "PyTorch", ("rnn", "gru", "lstm"), ["proj_size"])
    cell = runs[0].cell
    if cell.reset_after is False:
        raise ValueError(f"layer: expected reset_after=True, which PyTorch has, got {layer!r}")
    if cell.nonlinearity not in (None, *_NONLINEARITIES):
        raise ValueError(
            f"layer: expected the nonlinearity 'tanh' or 'relu', which PyTorch has, got {layer!r}"
        )
    torch = packages.load("to_torch", "torch")
    prefix = _prefix(prefix)
    return {
        prefix + name: _tensor(torch, array)
        for name, array in named(runs, directions_of(layer)).items()
    }


def _tensor(torch: Any, array: Any) -> Any:
    bits = np.array(array.view(np.int16) if bf16.dtype_name(array) == "bfloat16" else array)
    tensor = torch.from_numpy(bits)
    return tensor.view(torch.bfloat16) if bf16.dtype_name(array) == "bfloat16" else tensor


def _prefix(prefix: object) -> str:
    if not isinstance(prefix, str):
        raise TypeError(f"prefix: expected a str, got {type(prefix).__name__}")
    return prefix if not prefix or prefix.endswith(".") else f"{prefix}."


def _is_text(name: object) -> bool:
    if not isinstance(name, str):
        raise TypeError(f"source: expected names that are str, got {type(name).__name__}")
    return True


def _module(source: Any, prefix: str) -> Any:
    """The recurrent module, or None where `source` is no module."""
    torch = sys.modules.get("torch")  # whoever has a module has imported it
    if torch is None or not isinstance(source, torch.nn.Module):
        return None
    known: tuple[Any, ...] = (torch.nn.RNNBase, torch.nn.RNNCellBase)
    bridge = sys.modules.get("fusedrnn.torch.base")  # likewise
    if bridge is not None:
        known += (bridge.Recurrent,)
    try:
        module = source.get_submodule(prefix.rstrip("."))
    except AttributeError:
        module = None
    if isinstance(module, known):
        return module
    found = [name for name, part in source.named_modules() if isinstance(part, known)]
    got = "nothing" if module is None else type(module).__name__
    raise ValueError(
        "source: expected a module of torch.nn or fusedrnn.torch with recurrent weights at prefix "
        f"{prefix!r}, got {got}; there are such at {', '.join(map(repr, found)) or 'no place'}"
    )


def _of_own_module(module: Any, told: dict[str, Any], batch_first: bool | None) -> Layer:
    """A layer of a module of `fusedrnn.torch`, which has the layer's options and parameters."""
    for name, value in told.items():
        if value is not None:
            raise ValueError(f"{name}: expected None for a module of fusedrnn.torch, got {value!r}")
    first = getattr(module, "batch_first", False) if batch_first is None else batch_first
    end = "" if hasattr(module, "num_layers") else "_l0"  # which a cell's names lack
    dtype = str(next(module.parameters()).dtype).removeprefix("torch.")
    layer: Layer = module._layer(**{**module._made_with, "batch_first": first, "dtype": dtype})
    names = {name: name.removesuffix(end) for name in layer.parameters()}
    layer.load_state_dict({full: read(name, getattr(module, name)) for full, name in names.items()})
    return layer


def _options(
    module: Any, nonlinearity: Any, reset_after: bool | None, batch_first: bool | None
) -> tuple[str | None, bool]:
    """The module's own, which arguments may repeat and not change; where the batch is, they may."""
    its = getattr(module, "nonlinearity", None)  # of RNN and RNNCell
    if nonlinearity not in (None, its):
        raise ValueError(
            f"nonlinearity: expected None or the module's, {its!r}, got {nonlinearity!r}"
        )
    if reset_after is False:
        raise ValueError("reset_after: expected None or True for a module of PyTorch, got False")
    first = getattr(module, "batch_first", False) if batch_first is None else batch_first
    return its, options.flag("batch_first", first)


def _arrays(
    given: Mapping[str, Any], prefix: str, cell: str | None
) -> tuple[dict[str, Array], int, int]:
    """The arrays by name, with those of every run, and how many runs and directions there are."""
    matches = {name: _PARAMETER.fullmatch(name) for name in given}
    unknown = [prefix + name for name, match in matches.items() if match is None]
    if unknown or not given:
        raise ValueError(
            f"source: expected names such as {prefix}weight_ih_l0, got {_some(unknown)}"
        )
    ends = {match.group(2) is not None for match in matches.values() if match}
    if len(ends) > 1:
        raise ValueError(
            f"source: expected names of a cell or of layers, got both, {_some(list(given))}"
        )
    if ends == {False}:
        given = {f"{name}_l0": value for name, value in given.items()}
    # As many layers as there are names of input weights, so that no number in a name is believed.
    directions = 2 if any(name.endswith("_reverse") for name in given) else 1
    layers = -(-sum(name.startswith("weight_ih_") for name in given) // directions)
    count = max(1, layers) * directions
    shorts = [short for short, full in NAMES.items() if f"{full}_l0" in given]
    always = ["w_ih"] if cell in ("mingru", "minlstm") else ["w_ih", "w_hh"]
    wanted = [
        NAMES[short] + suffix(number, directions)
        for number in range(count)
        for short in dict.fromkeys([*always, *shorts])
    ]
    missing = [prefix + name for name in wanted if name not in given]
    extra = [prefix + name for name in given if name not in wanted]
    if missing or extra:
        raise ValueError(
            f"source: expected the same names for each layer and direction, got {_some(missing)} "
            f"missing and {_some(extra)} in excess{_hint(missing, cell)}"
        )
    return {name: read(prefix + name, given[name]) for name in wanted}, count, directions


def _hint(missing: list[str], cell: str | None) -> str:
    if cell is None and missing and all("weight_hh" in name for name in missing):
        return "; cell='mingru' or 'minlstm' has no weight_hh"
    return ""


def _runs(
    arrays: Mapping[str, Array], prefix: str, count: int, directions: int, told: dict[str, Any]
) -> list[Run]:
    cell = _cell(arrays, prefix, told)
    runs = []
    for number in range(count):
        end = suffix(number, directions)
        of_run = {
            short: arrays[NAMES[short] + end] for short in NAMES if NAMES[short] + end in arrays
        }
        columns = of_run["w_hh"].shape[-1]
        out = columns * (cell.heads or 1)
        hidden = of_run["w_hr"].shape[-1] if "w_hr" in of_run else out
        rows = len(cell.gates) * hidden
        shapes: dict[str, tuple[int | None, ...]] = {
            "w_ih": (rows, None),
            "w_hh": (out,) if cell.name == "indrnn" else (rows, columns),
            "b_ih": (rows,),
            "b_hh": (rows,),
            "w_peephole": (len(cell.peepholes) * hidden,),
            "w_hr": (out, hidden),
        }
        for short, array in of_run.items():
            read(prefix + NAMES[short] + end, array, shapes[short])
        runs.append(Run(f"source, {prefix}*{end}", cell, **of_run))
    return runs


def _refuse_options(told: Mapping[str, Any], cell: str) -> None:
    for name, value in told.items():
        if value is not None:
            raise ValueError(f"{name}: expected None for the {cell}, got {value!r}")


def _cell(arrays: Mapping[str, Array], prefix: str, told: dict[str, Any]) -> Cell:
    """Which cell has arrays of these shapes; biases and peepholes have to be those of it."""
    w_hh, w_hr = arrays["weight_hh_l0"], arrays.get("weight_hr_l0")
    heads = None if told["heads"] is None else options.positive("heads", told["heads"])
    blocks = heads or 1
    hidden = w_hh.shape[-1] * blocks if w_hh.ndim else 0
    if w_hr is not None:
        name = "lstm"  # the only one with a projection; its shapes are checked run by run
        if w_hh.ndim != 2 or w_hr.ndim != 2:
            raise ValueError(
                f"{prefix}weight_hr_l0: expected shape (P, H), of weight_hh (4*H, P), "
                f"got {w_hr.shape} and {w_hh.shape}"
            )
    elif w_hh.ndim == 1:
        name = "indrnn"
    elif w_hh.ndim == 2 and hidden and w_hh.shape[0] in [g * hidden for g in _CELLS]:
        name = _CELLS[w_hh.shape[0] // hidden]
    else:
        raise ValueError(
            f"{prefix}weight_hh_l0: expected shape (G*H, {'H' if blocks == 1 else f'H/{blocks}'}) "
            f"with G 1, 3 or 4, or (H,), got {w_hh.shape}"
        )
    has = {short for short, full in NAMES.items() if f"{full}_l0" in arrays}
    couples = told["coupled"]
    couples = None if couples is None else options.flag("coupled", couples)
    # A GRU has no peepholes.
    if name == "gru" and (couples or (couples is None and "w_peephole" in has)):
        name, couples = "lstm", True
    elif name == "lstm" and couples:
        raise ValueError(
            f"{prefix}weight_hh_l0: expected shape (3*H, H) with coupled=True, got {w_hh.shape}"
        )
    wanted = {"w_ih", "w_hh"}
    if has & {"b_ih", "b_hh"}:
        wanted |= {"b_ih"} if name == "indrnn" else {"b_ih", "b_hh"}
    if name == "lstm":
        wanted |= has & {"w_hr", "w_peephole"}
    if has != wanted:
        raise ValueError(
            f"source: expected {_names(wanted)}, as its weight_hh is of the cell {name}, "
            f"got {_names(has)}"
        )
    nonlinearity, reset_after = told["nonlinearity"], told["reset_after"]
    known = [{"gru": "reset_after", "lstm": "coupled"}.get(name, "nonlinearity")]
    known += ["heads"] if name != "indrnn" and w_hr is None else []
    _refuse_options({option: v for option, v in told.items() if option not in known}, name)
    if name == "gru":
        after = True if reset_after is None else options.flag("reset_after", reset_after)
        return Cell("gru", reset_after=after, heads=heads)
    if name == "lstm":
        size = None if w_hr is None else int(w_hr.shape[0])
        return Cell(
            "lstm",
            peephole="w_peephole" in has,
            coupled=couples or None,
            proj_size=size,
            heads=heads,
        )
    if name == "indrnn":
        kind = "relu" if nonlinearity is None else nonlinearity
        return Cell(name, nonlinearity=options.choice("nonlinearity", kind, indrnn.NONLINEARITIES))
    full = constants.activation("nonlinearity", "tanh" if nonlinearity is None else nonlinearity)
    return Cell(name, heads=heads, nonlinearity=constants.shown(full))


def _names(shorts: set[str]) -> str:
    return ", ".join(full for short, full in NAMES.items() if short in shorts)


def _some(names: list[str]) -> str:
    """Some of these names: there may be thousands."""
    shown = ", ".join(names[:8]) or "none"
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown
