"""PyTorch through torch.compile and its inductor backend, with frozen weights for inference.

Without `allow_rnn` the compiler leaves torch.nn's recurrent layers to eager PyTorch, so it is set.
Then an LSTM becomes one oneDNN call with weights reordered ahead of time, and a GRU or RNN becomes
all of its steps one after the other, whose compilation takes about a second for every step: only
short ones are tried. In training the LSTM is unrolled too. A step is left out: what a compiled cell
checks at every call takes longer than the eager cell. Both switches hold for a whole process.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Callable, Iterator
from typing import Any

from ..scenarios import Array, Problem
from .base import Job, UnavailableError
from .pytorch_peer import PyTorch

COMPILE_LIMIT_S = 30
UNROLL_LIMIT = 4


class Compiled(PyTorch):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        if not (shutil.which("g++") or shutil.which("clang++")):
            raise UnavailableError("inductor finds no C++ compiler")
        self._torch._dynamo.config.allow_rnn = True
        self._torch._inductor.config.freezing = True
        # Compile in this process: a pool of others would outlive a worker that is killed.
        self._torch._inductor.config.compile_threads = 1

    def prepare(self, scenario: str, problem: Problem) -> Job:
        if problem.shape.lengths:
            raise UnavailableError("has no PackedSequence: dynamo leaves it to eager PyTorch")
        unrolled = scenario == "training" or problem.shape.cell != "lstm"
        if unrolled and problem.shape.steps > UNROLL_LIMIT:
            raise UnavailableError(
                "inductor unrolls GRU, RNN and all training: more than"
                f" {UNROLL_LIMIT} steps do not compile within {COMPILE_LIMIT_S} s"
            )
        return super().prepare(scenario, problem)

    def _inference_mode(self) -> contextlib.AbstractContextManager[Any]:
        # Inductor freezes weights where gradients are off; inference tensors it does not take.
        mode: contextlib.AbstractContextManager[Any] = self._torch.no_grad()
        return mode

    def _prepared(self, module: Any, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        self._torch._dynamo.reset()
        compiled: Callable[..., Any] = self._torch.compile(module)
        with _time_limit(COMPILE_LIMIT_S), self._inference_mode():
            compiled(*arguments)
        return compiled

    def _trainable(self, module: Any) -> Callable[..., Any]:
        self._torch._dynamo.reset()
        compiled: Callable[..., Any] = self._torch.compile(module)
        return compiled

    def matmuls(self, a: Array, b: Array, dtype: str) -> list[Callable[[], Any]]:
        return []


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Raise UnavailableError after so many seconds; needs the main thread."""

    message = f"compilation takes longer than {seconds} s"
    late = False

    def stop(*_: Any) -> None:
        nonlocal late
        late = True
        raise UnavailableError(message)

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    except Exception as error:  # inductor's own, of what stopped it
        if late:
            raise UnavailableError(message) from error
        raise
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
