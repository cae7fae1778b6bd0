"""PyTorch, eager: torch.nn's layers as they come, on the CPU.

In the bfloat16 classes the layer is converted with `module.to(torch.bfloat16)`; `Autocast` keeps
float32 parameters under `torch.autocast` instead. As they come, LSTM layers compute through oneDNN
and the others do not; `Native` is the LSTM with oneDNN switched off, faster at some small sizes.
Batches with lengths go through a PackedSequence, in no order of lengths (`enforce_sorted=False`),
packing and padding being part of the call. For a step there are LSTMCell, GRUCell and RNNCell
(`PyTorch`), and the layers with T = 1 (`LayerStep`).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

from ..scenarios import Array, Problem
from .base import Job, Peer, UnavailableError, require


class PyTorch(Peer):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._torch = require("torch")

    def version(self) -> str:
        return str(self._torch.__version__)

    def details(self) -> dict[str, Any]:
        mkldnn = self._torch.backends.mkldnn
        return {
            "capability": self._torch.backends.cpu.get_cpu_capability(),
            "mkldnn": mkldnn.is_available(),
            "mkldnn_enabled": mkldnn.enabled,
        }

    def set_threads(self, threads: int) -> None:
        self._torch.set_num_threads(threads)
        if self._torch.get_num_threads() != threads:
            raise RuntimeError(f"pytorch: does not run {threads} threads")

    def prepare(self, scenario: str, problem: Problem) -> Job:
        if self._lacks(scenario, problem):
            raise UnavailableError("has no bfloat16 LSTM on this CPU (oneDNN wants AVX-512)")
        return {
            "inference": self._inference,
            "step": self._step,
            "training": self._training,
            "memory": self._training,
        }[scenario](problem)

    def _lacks(self, scenario: str, problem: Problem) -> bool:
        """Whether the layer would go to oneDNN, which cannot compute it here."""
        layer = problem.shape.cell == "lstm" and problem.dtype == "bfloat16" and scenario != "step"
        return (
            layer
            and not problem.shape.lengths
            and not self._torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )

    def matmuls(self, a: Array, b: Array, dtype: str) -> list[Callable[[], Any]]:
        torch = self._torch
        left, right = (torch.from_numpy(m).to(getattr(torch, dtype)) for m in (a, b))
        calls = [lambda: torch.mm(left, right)]
        if dtype == "float32" and torch.backends.mkldnn.is_available():
            # oneDNN, which the LSTM uses; on some CPUs twice as fast as the BLAS behind mm.
            blocked, weight = left.to_mkldnn(), right.to_mkldnn()
            calls.append(lambda: torch.nn.functional.linear(blocked, weight))
        return calls

    # What the other ways to run PyTorch change.

    def _context(self) -> contextlib.AbstractContextManager[Any]:
        """What a call runs in."""
        return contextlib.nullcontext()

    def _dtype(self, problem: Problem) -> Any:
        """The dtype of parameters and data."""
        return getattr(self._torch, problem.dtype)

    def _inference_mode(self) -> contextlib.AbstractContextManager[Any]:
        mode: contextlib.AbstractContextManager[Any] = self._torch.inference_mode()
        return mode

    def _prepared(self, module: Any, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        """What is called as the module would be, for inference."""
        call: Callable[..., Any] = module
        return call

    def _trainable(self, module: Any) -> Callable[..., Any]:
        """The same for training."""
        call: Callable[..., Any] = module
        return call

    # The scenarios.

    def _module(self, problem: Problem, *, cell: bool = False) -> Any:
        """The layer, or the cell for a single step, with the problem's weights."""
        shape, data, dtype = problem.shape, self._tensors(problem), self._dtype(problem)
        if cell:
            module = getattr(self._torch.nn, f"{shape.cell.upper()}Cell")
            made = module(shape.hidden, shape.hidden, dtype=dtype)
        else:
            made = getattr(self._torch.nn, shape.cell.upper())(
                shape.hidden,
                shape.hidden,
                shape.layers,
                bidirectional=shape.directions > 1,
                dtype=dtype,
            )
        names = {n.removesuffix("_l0") if cell else n: n for n in problem.parameters}
        made.load_state_dict({theirs: data[ours] for theirs, ours in names.items()})
        return made

    def _of_lengths(self, problem: Problem, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call with the batch packed before it and y padded behind it, where lengths vary."""
        if problem.shape.sequence_lengths is None:
            return call
        rnn = self._torch.nn.utils.rnn
        lengths = self._torch.from_numpy(problem.shape.sequence_lengths)

        def packed(x: Any, state: Any) -> Any:
            y, last = call(rnn.pack_padded_sequence(x, lengths, enforce_sorted=False), state)
            return rnn.pad_packed_sequence(y, total_length=problem.shape.steps)[0], last

        return packed

    def _tensors(self, problem: Problem) -> dict[str, Any]:
        dtype = self._dtype(problem)
        return {k: self._torch.from_numpy(v.copy()).to(dtype) for k, v in problem.arrays.items()}

    def _inference(self, problem: Problem) -> Job:
        data = self._tensors(problem)
        x, state = data["x"], _state(problem, data)
        call = self._prepared(self._module(problem).eval(), (x, state))
        call = self._of_lengths(problem, call)

        def run() -> Any:
            with self._inference_mode(), self._context():
                return call(x, state)

        return Job(run, lambda result: _outputs(problem, *result))

    def _step(self, problem: Problem) -> Job:
        data = self._tensors(problem)
        xs, state = list(data["x"]), _state(problem, {k: v[0] for k, v in data.items()})
        call = self._prepared(self._module(problem, cell=True).eval(), (xs[0], state))
        next_x = itertools.cycle(xs).__next__

        def run() -> Any:
            nonlocal state
            with self._inference_mode():
                state = call(next_x(), state)
            return state

        def collect(result: Any) -> dict[str, Array]:
            h = result[0] if isinstance(result, tuple) else result
            return _outputs(problem, h[None], result)

        return Job(run, collect)

    def _training(self, problem: Problem) -> Job:
        torch, data = self._torch, self._tensors(problem)
        module = self._module(problem)
        leaves = {"dx": data["x"]}
        leaves |= {f"d{s}0": data[f"{s}0"].clone() for s in problem.states}
        for leaf in leaves.values():
            leaf.requires_grad_()
        leaves |= {f"d{name}": getattr(module, name) for name in problem.parameters}
        names, inputs = list(leaves), list(leaves.values())
        x = leaves["dx"]
        state = _state(problem, {k.removeprefix("d"): v for k, v in leaves.items()})
        upstream = [data["dy"], *(data[f"d{s}_n"] for s in problem.states)]
        call = self._of_lengths(problem, self._trainable(module))

        def run() -> Any:
            with self._context():
                y, last = call(x, state)
            states = last if isinstance(last, tuple) else (last,)
            # Autocast may return bfloat16: gradients come in the dtype of what they belong to.
            given = [g.to(out.dtype) for g, out in zip(upstream, (y, *states), strict=True)]
            return y, last, torch.autograd.grad((y, *states), inputs, given)

        def collect(result: Any) -> dict[str, Array]:
            y, last, grads = result
            arrays = {name: numpy_of(grad) for name, grad in zip(names, grads, strict=True)}
            return _outputs(problem, y, last) | arrays

        return Job(run, collect)


class Native(PyTorch):
    """The LSTM without oneDNN: PyTorch's own kernels around a BLAS."""

    def prepare(self, scenario: str, problem: Problem) -> Job:
        if problem.shape.lengths:
            raise UnavailableError("is pytorch itself: a PackedSequence never goes to oneDNN")
        return super().prepare(scenario, problem)

    def _lacks(self, scenario: str, problem: Problem) -> bool:
        return False

    def _context(self) -> contextlib.AbstractContextManager[Any]:
        return _WithoutOneDnn(self._torch._C._set_mkldnn_enabled)

    def matmuls(self, a: Array, b: Array, dtype: str) -> list[Callable[[], Any]]:
        return []


class _WithoutOneDnn:
    """`torch.backends.mkldnn.flags(enabled=False)` sets more, and takes microseconds."""

    def __init__(self, enable: Callable[[bool], Any]) -> None:
        self._enable = enable

    def __enter__(self) -> None:
        self._enable(False)

    def __exit__(self, *_: object) -> None:
        self._enable(True)


class Autocast(PyTorch):
    """float32 parameters and data; autocast computes in bfloat16 what it has a rule for."""

    def _dtype(self, problem: Problem) -> Any:
        return self._torch.float32

    def _context(self) -> contextlib.AbstractContextManager[Any]:
        autocast: contextlib.AbstractContextManager[Any] = self._torch.autocast(
            "cpu", self._torch.bfloat16
        )
        return autocast

    def matmuls(self, a: Array, b: Array, dtype: str) -> list[Callable[[], Any]]:
        return []


class LayerStep(PyTorch):
    """A step through the layer: a sequence of one."""

    def _step(self, problem: Problem) -> Job:
        data = self._tensors(problem)
        xs = [x[None] for x in data["x"]]
        state = _state(problem, data)
        call = self._prepared(self._module(problem).eval(), (xs[0], state))
        next_x = itertools.cycle(xs).__next__

        def run() -> Any:
            nonlocal state
            with self._inference_mode():
                y, state = call(next_x(), state)
            return y, state

        return Job(run, lambda result: _outputs(problem, *result))

    def matmuls(self, a: Array, b: Array, dtype: str) -> list[Callable[[], Any]]:
        return []


def numpy_of(tensor: Any) -> Array:
    """float32 values of a tensor; other dtypes than bfloat16 stay as they are."""
    detached = tensor.detach()
    if str(detached.dtype) == "torch.bfloat16":
        detached = detached.float()
    array: Array = detached.numpy()
    return array


def _state(problem: Problem, data: dict[str, Any]) -> Any:
    return (data["h0"], data["c0"]) if problem.shape.cell == "lstm" else data["h0"]


def _outputs(problem: Problem, y: Any, last: Any) -> dict[str, Array]:
    states = last if isinstance(last, tuple) else (last,)
    size = (problem.shape.runs, problem.shape.batch, problem.shape.hidden)
    arrays = {"y": numpy_of(y)}
    for name, state in zip(problem.states, states, strict=True):
        arrays[f"{name}_n"] = numpy_of(state).reshape(size)
    return arrays
