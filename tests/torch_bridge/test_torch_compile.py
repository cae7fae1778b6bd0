"""fusedrnn.torch under torch.compile and torch.export."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._functorch.config
import torch._inductor.config
from torch import nn

import fusedrnn.torch as bridge
from torch_support import check_same

pytestmark = [
    # PyTorch's own, of its parts.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(autouse=True)
def _compiled_anew() -> Iterator[None]:
    """Without what other runs have left on the disk."""
    with (
        torch._inductor.config.patch(fx_graph_cache=False),
        torch._functorch.config.patch(enable_autograd_cache=False),
    ):
        yield


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = bridge.LSTM(4, 3, 2, bidirectional=True, batch_first=True)
        self.second = bridge.GRU(6, 3)
        self.cell = bridge.GRUCell(3, 3)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        y, (h, c) = self.first(x.sin(), lengths=lengths)
        y, _ = self.second(y, resets=y[..., 0] > 0.1)
        z: torch.Tensor = self.cell(y[0], self.cell(y[1]))
        return z.sum() + (h * c).sum() + y.cos().mean()


def run(model: Any, call: Any, T: int, B: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(T)
    x = torch.randn(B, T, 4, requires_grad=True)
    lengths = torch.arange(B) % T + 1
    loss = call(x, lengths)
    return loss, list(torch.autograd.grad(loss, [x, *model.parameters()]))


@pytest.mark.parametrize(
    ("backend", "dynamic"),
    [("eager", False), ("aot_eager", False), ("aot_eager", True), ("inductor", True)],
)
def test_compile(backend: str, dynamic: bool) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = Model()
    compiled = torch.compile(model, fullgraph=True, backend=backend, dynamic=dynamic)
    for T, B in ((5, 3), (7, 4), (40, 9)) if dynamic else ((5, 3),):
        check_same(run(model, compiled, T, B), run(model, model, T, B), 1e-5)
    with torch.no_grad():
        x, lengths = torch.randn(3, 5, 4), torch.tensor([5, 2, 3])
        check_same(compiled(x, lengths), model(x, lengths), 1e-5)


def test_compile_in_training_with_dropout() -> None:
    torch._dynamo.reset()
    model = bridge.LSTM(4, 3, 2, dropout=0.5)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 2, 4)
    torch.manual_seed(1)
    first = compiled(x)[0]
    assert not torch.equal(compiled(x)[0], first)
    torch.manual_seed(1)
    check_same(compiled(x)[0], first, 0.0)
    model.eval()
    check_same(compiled(x)[0], model(x)[0], 0.0)


def test_compile_under_autocast() -> None:
    torch._dynamo.reset()
    model = bridge.LSTM(4, 3)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        check_same(compiled(x), model(x), 0.0)


def test_export(tmp_path: Any) -> None:
    model = Model().eval()
    T, B = torch.export.Dim("T", min=2, max=100), torch.export.Dim("B", min=2, max=100)
    x, lengths = torch.randn(3, 5, 4), torch.tensor([5, 2, 3])
    program = torch.export.export(
        model, (x, lengths), dynamic_shapes={"x": {0: B, 1: T}, "lengths": {0: B}}
    )
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    # A layer is one operator of a key that can be read, and so is a cell.
    assert sum(name.startswith("fusedrnn.network") for name in names) == 4
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for shape in ((3, 5), (4, 9)):
        x, lengths = torch.randn(*shape, 4), torch.arange(shape[0]) + 1
        check_same(loaded(x, lengths), model(x, lengths), 1e-6)


def test_ahead_of_time(tmp_path: Any) -> None:
    """A package of AOTInductor; without optimisation of its wrapper, which is compiled for long."""
    model = bridge.GRU(4, 3).eval()
    x = torch.randn(5, 2, 4)
    with torch.no_grad():
        T = torch.export.Dim("T", min=2, max=100)
        program = torch.export.export(model, (x,), dynamic_shapes={"input": {0: T}})
        quick = {
            "aot_inductor.compile_wrapper_opt_level": "O0",
            "aot_inductor.precompile_headers": False,
            "cpp_cache_precompile_headers": False,
        }
        package = torch._inductor.aoti_compile_and_package(
            program, package_path=str(tmp_path / "model.pt2"), inductor_configs=quick
        )
        loaded = torch._inductor.aoti_load_package(package)
        for steps in (5, 9):
            x = torch.randn(steps, 2, 4)
            check_same(list(loaded(x)), list(model(x)), 0.0)
