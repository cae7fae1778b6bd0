"""PyTorch: torch.nn's layers as they come, eager, on the CPU.

`step` uses LSTMCell, GRUCell and RNNCell: PyTorch's own one-step API, several times faster than
its layers with T = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..scenarios import Array, Problem
from .base import Job, Peer, require

WEIGHTS = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}


class PyTorch(Peer):
    name = "pytorch"

    def __init__(self) -> None:
        self._torch = require("torch")

    def version(self) -> str:
        return str(self._torch.__version__)

    def details(self) -> dict[str, Any]:
        torch = self._torch
        return {
            "capability": torch.backends.cpu.get_cpu_capability(),
            "mkldnn": torch.backends.mkldnn.is_available(),
        }

    def set_threads(self, threads: int) -> None:
        self._torch.set_num_threads(threads)
        if self._torch.get_num_threads() != threads:
            raise RuntimeError(f"pytorch: does not run {threads} threads")

    def prepare(self, scenario: str, problem: Problem) -> Job:
        module = self._module(problem, step=scenario == "step")
        return {"inference": self._inference, "step": self._step, "training": self._training}[
            scenario
        ](module, problem)

    def matmuls(self, a: Array, b: Array) -> list[Callable[[], Any]]:
        torch = self._torch
        left, right = torch.from_numpy(a), torch.from_numpy(b)
        calls = [lambda: torch.mm(left, right)]
        if torch.backends.mkldnn.is_available():
            # oneDNN, which the LSTM uses; on some CPUs twice as fast as the BLAS behind mm.
            blocked, weight = left.to_mkldnn(), right.to_mkldnn()
            calls.append(lambda: torch.nn.functional.linear(blocked, weight))
        return calls

    def _module(self, problem: Problem, *, step: bool) -> Any:
        """The layer, or the cell for a single step, with the problem's weights."""
        name = problem.shape.cell.upper() + ("Cell" if step else "")
        suffix = "" if step else "_l0"
        data = self._tensors(problem)
        hidden, dtype = problem.shape.hidden, data["x"].dtype
        module = getattr(self._torch.nn, name)(hidden, hidden, dtype=dtype)
        module.load_state_dict({f"{name}{suffix}": data[ours] for name, ours in WEIGHTS.items()})
        return module

    def _tensors(self, problem: Problem) -> dict[str, Any]:
        return {k: self._torch.from_numpy(v.copy()) for k, v in problem.arrays.items()}

    def _inference(self, module: Any, problem: Problem) -> Job:
        torch, data = self._torch, self._tensors(problem)
        x, state = data["x"], _state(problem, {k: v[None] for k, v in data.items()})

        def run() -> Any:
            with torch.inference_mode():
                return module(x, state)

        return Job(run, lambda result: _outputs(problem, result))

    def _step(self, module: Any, problem: Problem) -> Job:
        torch, data = self._torch, self._tensors(problem)
        x, state = data["x"][0], _state(problem, data)

        def run() -> Any:
            with torch.inference_mode():
                return module(x, state)

        def collect(result: Any) -> dict[str, Array]:
            h = result[0] if problem.shape.cell == "lstm" else result
            return _outputs(problem, (h[None], result))

        return Job(run, collect)

    def _training(self, module: Any, problem: Problem) -> Job:
        torch, data = self._torch, self._tensors(problem)
        leaves = {"dx": data["x"]}
        leaves |= {f"d{s}0": data[f"{s}0"][None].clone() for s in problem.states}
        for leaf in leaves.values():
            leaf.requires_grad_()
        leaves |= {f"d{ours}": getattr(module, f"{name}_l0") for name, ours in WEIGHTS.items()}
        names, inputs = list(leaves), list(leaves.values())
        x, state = (
            leaves["dx"],
            _state(problem, {k.removeprefix("d"): v for k, v in leaves.items()}),
        )
        upstream = [data["dy"], *(data[f"d{s}_n"][None] for s in problem.states)]

        def run() -> Any:
            y, last = module(x, state)
            states = last if isinstance(last, tuple) else (last,)
            return y, last, torch.autograd.grad((y, *states), inputs, upstream)

        def collect(result: Any) -> dict[str, Array]:
            y, last, grads = result
            arrays = {name: grad.numpy() for name, grad in zip(names, grads, strict=True)}
            for s in problem.states:
                arrays[f"d{s}0"] = arrays[f"d{s}0"][0]
            return _outputs(problem, (y, last)) | arrays

        return Job(run, collect)


def _state(problem: Problem, data: dict[str, Any]) -> Any:
    return (data["h0"], data["c0"]) if problem.shape.cell == "lstm" else data["h0"]


def _outputs(problem: Problem, result: Any) -> dict[str, Array]:
    y, last = result
    states = last if isinstance(last, tuple) else (last,)
    size = (problem.shape.batch, problem.shape.hidden)
    arrays = {"y": y.detach().numpy()}
    for name, state in zip(problem.states, states, strict=True):
        arrays[f"{name}_n"] = state.detach().numpy().reshape(size)
    return arrays
