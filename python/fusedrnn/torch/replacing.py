"""Modules of torch.nn that become fusedrnn's where they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from fusedrnn import _core
from fusedrnn.torch.base import Recurrent
from fusedrnn.torch.cells import GRUCell, LSTMCell, RNNCell
from fusedrnn.torch.layers import GRU, LSTM, RNN
from fusedrnn.torch.recurrent_layer import RecurrentLayer

_OURS: dict[type[nn.Module], type[Recurrent]] = {
    nn.RNN: RNN,
    nn.LSTM: LSTM,
    nn.GRU: GRU,
    nn.RNNCell: RNNCell,
    nn.LSTMCell: LSTMCell,
    nn.GRUCell: GRUCell,
}
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# What torch.nn's layers keep for cuDNN, and ours have no use for.
_LEFT_BEHIND = ("mode", "_flat_weights", "_flat_weight_refs", "_flat_weights_names", "_all_weights")


@dataclass(frozen=True)
class Replaced:
    """What `replace` did, by the names of modules; that of the model itself is "".

    Attributes
    ----------
    changed : dict of str
        What is fusedrnn's now.
    left : dict of str
        Recurrent modules that stayed as they were, and why.
    """

    changed: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{name or 'the model'}: {what}" for name, what in self.changed.items()]
        lines += [f"{name or 'the model'}: left alone, {why}" for name, why in self.left.items()]
        return "\n".join(lines) or "no recurrent modules"


def replace(model: nn.Module) -> Replaced:
    """Make every RNN, LSTM, GRU, RNNCell, LSTMCell and GRUCell of torch.nn one of fusedrnn's.

    In place: each stays the object that it is, with its parameters, hooks, buffers and names, and
    changes its class. What refers to it or to its parameters, an optimiser or a tied module, needs
    no change, and `state_dict` has the same keys.

    Parameters
    ----------
    model : torch.nn.Module
        Such a module itself, or one with such modules somewhere inside.

    Returns
    -------
    Replaced
        What was changed, and which recurrent modules were left alone and why; ``print`` shows it.

    Examples
    --------
    >>> import torch
    >>> import fusedrnn.torch as ft
    >>> model = torch.nn.Sequential(torch.nn.GRU(3, 4))
    >>> print(ft.replace(model))
    0: torch.nn.GRU is fusedrnn.torch.GRU now
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    report = Replaced()
    for name, module in model.named_modules():
        if not isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            why = _another_form(module)
            if why is not None:
                report.left[name] = why
            continue
        why = _obstacle(module)
        if why is not None:
            report.left[name] = why
            continue
        before = type(module)
        _change(module, _OURS[before])
        report.changed[name] = f"torch.nn.{before.__name__} is fusedrnn.torch.{before.__name__} now"
    return report


def _another_form(module: nn.Module) -> str | None:
    """Why a module that torch.nn's was made into cannot be changed; None of one that it was not."""
    names = [known.__name__ for known in _OURS]
    if isinstance(module, torch.jit.ScriptModule) and module.original_name in names:
        return "it is TorchScript's: replace the model before it is scripted or traced"
    of = type(module).__module__
    if of.startswith("torch.ao.nn.") and type(module).__name__ in names:
        return f"its class {'.'.join(of.split('.')[:4])}.{type(module).__name__} is quantisation's"
    return None


def _obstacle(module: nn.RNNBase | nn.RNNCellBase) -> str | None:
    """Why a module cannot be changed; None where it can."""
    nonlinearity = getattr(module, "nonlinearity", "tanh")
    why: list[tuple[bool, str]] = [
        (
            parametrize.is_parametrized(module),
            "it is parametrized: replace it first, and register the parametrizations then",
        ),
        (
            type(module) not in _OURS,
            f"its class {type(module).__name__} is not one of torch.nn's own",
        ),
        ("forward" in vars(module), "its forward is another than its class's"),
        (getattr(module, "dropout", 0.0) >= 1, "its dropout is 1, and fusedrnn's is below 1"),
        (
            nonlinearity not in ("tanh", "relu"),
            f"its nonlinearity {nonlinearity!r} is not one of torch.nn's own",
        ),
    ]
    found = next((text for applies, text in why if applies), None)
    parameters = [] if found else module.parameters()
    return found or next(filter(None, map(_obstacle_of_parameter, parameters)), None)


def _obstacle_of_parameter(parameter: nn.Parameter) -> str | None:
    if parameter.dtype not in _DTYPES:
        return f"its parameters are {parameter.dtype}"
    if parameter.device.type not in ("cpu", "cuda", "meta"):
        return f"its parameters are on {parameter.device}"
    if parameter.is_cuda:
        try:
            _core.require_cuda_device("device", parameter.device.index or 0)
        except RuntimeError as error:
            return str(error)
    return None


def _change(module: Any, ours: type[Recurrent]) -> None:
    for name in _LEFT_BEHIND:
        vars(module).pop(name, None)
    weight = next(module.parameters(), None)
    module.__class__ = ours
    made = module._made_of()
    dtype = torch.float32 if weight is None else weight.dtype
    module._made_with = made | {"dtype": str(dtype).removeprefix("torch.")}
    module._know("" if isinstance(module, RecurrentLayer) else "_l0")
