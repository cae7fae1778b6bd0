"""torch's own descriptions of its recurrent modules, run against ours."""

from __future__ import annotations

import copy
import pickle
from typing import Any
from unittest import mock

import pytest
import torch

import fusedrnn.torch as bridge
from torch_support import CELLS, LAYERS, check_same, total

# The import locks flags of torch.backends for whoever shares the process.
with mock.patch("torch.backends.disable_global_flags"):
    from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

INFOS = {info.module_cls.__name__: info for info in module_db}


def inputs_of(name: str, training: bool) -> Any:
    info = INFOS[name]
    torch.manual_seed(0)
    return info.module_inputs_func(
        info, device="cpu", dtype=torch.float64, requires_grad=True, training=training
    )


def leaves(value: Any) -> list[torch.Tensor]:
    found = torch.utils._pytree.tree_leaves(value)
    return [leaf for leaf in found if isinstance(leaf, torch.Tensor)]


def strewn(value: Any) -> Any:
    """The same numbers at places that are not next to one another."""

    def strew(tensor: torch.Tensor) -> torch.Tensor:
        wide = torch.stack([tensor.detach(), torch.full_like(tensor, torch.nan)], -1)
        return wide[..., 0].requires_grad_(tensor.requires_grad)

    return torch.utils._pytree.tree_map_only(torch.Tensor, strew, value)


@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_module_db(name: str, training: bool) -> None:
    entries = inputs_of(name, training)
    assert entries
    for number, entry in enumerate(entries):
        made, called = entry.constructor_input, entry.forward_input
        if made.kwargs.get("dropout"):
            continue
        torch.manual_seed(number)
        theirs = INFOS[name].module_cls(*made.args, **made.kwargs, dtype=torch.float64)
        torch.manual_seed(number)
        ours = getattr(bridge, name)(*made.args, **made.kwargs, dtype=torch.float64)
        for module in (theirs, ours):
            module.train(training)
        args, kwargs = copy.deepcopy((called.args, called.kwargs))
        expected, found = theirs(*args, **kwargs), ours(*args, **kwargs)
        check_same(leaves(found), leaves(expected))
        given = [leaf for leaf in leaves((args, kwargs)) if leaf.requires_grad]
        for results in (found, expected):
            assert total(results).requires_grad
        check_same(
            torch.autograd.grad(total(found), [*given, *ours.parameters()]),
            torch.autograd.grad(total(expected), [*given, *theirs.parameters()]),
        )
        args, kwargs = strewn((called.args, called.kwargs))
        found = ours(*args, **kwargs)
        check_same(leaves(found), leaves(expected))
        total(found).backward()
        check_same(leaves(pickle.loads(pickle.dumps(ours))(*args, **kwargs)), leaves(found), 0.0)
        on_meta = getattr(bridge, name)(*made.args, **made.kwargs, device="meta")
        assert [p.shape for p in on_meta.parameters()] == [p.shape for p in ours.parameters()]


@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
def test_errors_of_module_db(name: str) -> None:
    info = INFOS[name]
    if info.module_error_inputs_func is None:
        return
    for entry in info.module_error_inputs_func(
        info, device="cpu", dtype=torch.float64, requires_grad=True, training=True
    ):
        made = entry.module_error_input.constructor_input
        called = entry.module_error_input.forward_input
        make = getattr(bridge, name)
        if entry.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(entry.error_type, match=entry.error_regex):
                make(*made.args, **made.kwargs)
            continue
        module = make(*made.args, **made.kwargs)
        with pytest.raises(entry.error_type, match=entry.error_regex):
            module(*called.args, **called.kwargs)
