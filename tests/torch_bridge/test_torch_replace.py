"""fusedrnn.torch.replace."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import fusedrnn.torch as bridge
from torch_support import CELLS, LAYERS, check_same, gradients, total

calls: list[int] = []


def count(*_: object) -> None:
    calls.append(1)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(4, 3, 2, bidirectional=True, batch_first=True, dtype=torch.float64)
        self.rest = nn.ModuleList([nn.GRU(6, 3, dtype=torch.float64), nn.Linear(3, 3).double()])
        self.again = self.rest[0]
        self.cells = nn.ModuleDict(
            {
                name: getattr(nn, name)(3, 3, dtype=torch.float64)
                for name in ("RNNCell", "LSTMCell", "GRUCell")
            }
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.first(x)
        y, h = self.again(y)
        y = self.rest[1](y)[0] + h[0]
        return self.cells["GRUCell"](self.cells["LSTMCell"](y)[0], self.cells["RNNCell"](y))


def test_replace() -> None:
    model = Model()
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    expected, slopes = model(x), gradients(model, model(x))
    before, keys = list(model.parameters()), list(model.state_dict())
    first = model.first
    model.first.register_forward_hook(count)
    model.first.note = "kept"
    report = bridge.replace(model)
    assert list(report.changed) == [
        *("first", "rest.0"),
        *("cells.RNNCell", "cells.LSTMCell", "cells.GRUCell"),
    ]
    assert not report.left
    assert "rest.0: torch.nn.GRU is fusedrnn.torch.GRU now" in str(report)
    assert model.first is first
    assert type(first) is bridge.LSTM
    assert model.again is model.rest[0]
    assert all(a is b for a, b in zip(model.parameters(), before, strict=True))
    assert list(model.state_dict()) == keys
    check_same(model(x), expected)
    assert len(calls) == 1
    assert first.note == "kept"
    check_same(gradients(model, model(x)), slopes)
    check_same(pickle.loads(pickle.dumps(copy.deepcopy(model)))(x), expected)
    assert bridge.replace(model).changed == {}


@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
def test_replaced_modules_are_whole(name: str) -> None:
    module = getattr(nn, name)(4, 3, bias=False)
    shown, expected = repr(module), module(torch.ones(2, 4))
    nn.utils.weight_norm(module, "weight_hh" if name in CELLS else "weight_hh_l0")
    report = bridge.replace(module)
    assert list(report.changed) == [""]
    assert type(module) is getattr(bridge, name)
    assert repr(module) == shown
    check_same(module(torch.ones(2, 4)), expected, 1e-6)
    total(module(torch.ones(2, 4))).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    state = pickle.loads(pickle.dumps(module.double().state_dict()))
    module.load_state_dict(state)
    torch.manual_seed(2)
    module.reset_parameters()


class Own(nn.LSTM):
    pass


@pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_what_torch_nns_modules_were_made_into_is_left() -> None:
    x = torch.ones(2, 2, 3)
    model = nn.Sequential(
        torch.jit.trace(nn.Sequential(nn.LSTM(3, 4)), x),
        torch.ao.nn.quantizable.LSTM(3, 4),
        nn.GRUCell(3, 4),
    )
    report = bridge.replace(model)
    assert list(report.changed) == ["2"]
    assert report.left["0.0"] == (
        "it is TorchScript's: replace the model before it is scripted or traced"
    )
    assert report.left["1"] == "its class torch.ao.nn.quantizable.LSTM is quantisation's"


@pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["LSTM", "GRUCell"])
def test_graphs_of_torch_fx_hold_modules_whole(name: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = getattr(bridge, name)(3, 4)

        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            options = {"lengths": lengths} if name == "LSTM" else {}
            return self.inner(x, **options)[0]  # type: ignore[no-any-return]

    model, x = Model(), torch.randn((2, 2, 3) if name == "LSTM" else (2, 3))
    graph, lengths = torch.fx.symbolic_trace(model), torch.tensor([2, 1])
    assert [n.target for n in graph.graph.nodes if n.op == "call_module"] == ["inner"]
    torch.testing.assert_close(graph(x, lengths), model(x, lengths), rtol=0, atol=0)
    script, trace = torch.jit.script, torch.jit.trace
    for word, run in (("script", lambda: script(model)), ("trace", lambda: trace(model.inner, x))):
        with pytest.raises(
            RuntimeError, match=f"^torch.jit.{word}: expected no module of fusedrnn"
        ):
            run()


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
def test_replace_says_what_it_leaves() -> None:
    parametrized = nn.GRU(3, 3)
    nn.utils.parametrizations.weight_norm(parametrized, "weight_hh_l0")
    patched = nn.GRU(3, 3)
    patched.forward = lambda *_: None  # type: ignore[method-assign]
    model = nn.Sequential(Own(3, 3), parametrized, patched, nn.GRU(3, 3, 2, dropout=1.0))
    model.append(nn.RNN(3, 3).to(torch.complex64))
    types = [type(module) for module in model]
    report = bridge.replace(model)
    assert report.changed == {}
    assert report.left == {
        "0": "its class Own is not one of torch.nn's own",
        "1": "it is parametrized: replace it first, and register the parametrizations then",
        "2": "its forward is another than its class's",
        "3": "its dropout is 1, and fusedrnn's is below 1",
        "4": "its parameters are torch.complex64",
    }
    assert [type(module) for module in model] == types
    assert "0: left alone, its class Own" in str(report)
    assert str(bridge.replace(nn.Linear(2, 2))) == "no recurrent modules"
    with pytest.raises(TypeError, match=r"^model: expected a torch.nn.Module, got list"):
        bridge.replace([])  # type: ignore[arg-type]
