"""fusedrnn.torch's modules on the device, beside the same on the CPU."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from gpu_libraries import Library

torch = pytest.importorskip("torch")  # a machine may have another library alone
bridge: Any = pytest.importorskip("fusedrnn.torch", exc_type=ImportError)

MODULES: dict[str, Any] = {
    "lstm": lambda: bridge.LSTM(4, 5, 2, bidirectional=True, dtype=torch.float64),
    "gru": lambda: bridge.GRU(4, 5, 2, dropout=0.5, dtype=torch.float64),
    "peephole": lambda: bridge.LSTM(4, 5, peephole=True, memory="lean", dtype=torch.float64),
}


def results(module: Any, x: Any, device: str) -> list[Any]:
    """Results, gradients and second derivatives, on the CPU."""
    module = copy.deepcopy(module).to(device)
    x = x.to(device).requires_grad_()
    torch.manual_seed(3)  # of what is dropped
    y, state = module(x, lengths=torch.tensor([7, 3, 0]))
    loss = y.sin().sum() + sum(s.cos().sum() for s in torch.utils._pytree.tree_leaves(state))
    wanted = [x, *module.parameters()]
    grads = torch.autograd.grad(loss, wanted, create_graph=True)
    second = torch.autograd.grad(sum(g.sin().sum() for g in grads), wanted)
    return [part.detach().cpu() for part in (y, *grads, *second)]


@pytest.mark.parametrize("name", MODULES)
def test_modules(library: Library, name: str) -> None:
    if library.name != "torch":
        return  # of another library
    module, x = MODULES[name](), torch.randn(7, 3, 4, dtype=torch.float64)
    for on_device, on_host in zip(
        results(module, x, "cuda"), results(module, x, "cpu"), strict=True
    ):
        torch.testing.assert_close(on_device, on_host, atol=1e-10, rtol=1e-10)
