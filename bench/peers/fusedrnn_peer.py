"""fusedrnn through its public API alone.

Inference and steps run on a frozen layer, whose weights are packed once, as those of the other
inference libraries are; training on a layer that packs them at every call. `Functions` are the
functions of one layer in one direction, which pack them at every call too.

In the bfloat16 classes arrays are bfloat16 in and out; `Mixed` gives and takes float32 and
computes in bfloat16. `Lean` trains with memory="lean"; `Bf16Weights` and `Int8Weights` are float32
steps whose frozen weights are stored in fewer bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from .. import machine
from ..scenarios import PARAMETERS, Array, Problem
from .base import Job, Peer, UnavailableError, require


class FusedRnn(Peer):
    weight_dtype: ClassVar[str | None] = None
    compute_dtype: ClassVar[str | None] = None
    memory: ClassVar[str] = "default"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._fr = require("fusedrnn")

    def version(self) -> str:
        """The package's, and what the checkout that measures it stands at."""
        commit = machine.commit()
        return f"{self._fr.__version__}+{commit}" if commit else str(self._fr.__version__)

    def details(self) -> dict[str, Any]:
        info: dict[str, Any] = self._fr.info()
        return info

    def set_threads(self, threads: int) -> None:
        self._fr.set_num_threads(threads)
        if self._fr.get_num_threads() != threads:
            raise RuntimeError(f"fusedrnn: does not run {threads} threads")

    def prepare(self, scenario: str, problem: Problem) -> Job:
        return {
            "inference": self._inference,
            "step": self._step,
            "training": self._training,
            "memory": self._training,
        }[scenario](problem)

    def release_memory(self) -> None:
        self._fr.release_memory()

    def _arrays(self, problem: Problem) -> dict[str, Any]:
        """The problem's arrays in the dtype of the call."""
        if problem.dtype != "bfloat16" or self.compute_dtype:
            return dict(problem.arrays)
        convert = _bfloat16_converter()
        return {name: convert(array) for name, array in problem.arrays.items()}

    def _inference(self, problem: Problem) -> Job:
        arrays = self._arrays(problem)
        frozen = self._layer(problem, arrays).freeze(weight_dtype=self.weight_dtype)
        x, state, lengths = arrays["x"], _state(problem, arrays), problem.shape.sequence_lengths
        return Job(lambda: frozen(x, state, lengths), lambda result: _outputs(problem, *result))

    def _training(self, problem: Problem) -> Job:
        arrays, lengths = self._arrays(problem), problem.shape.sequence_lengths
        layer = self._layer(problem, arrays)
        forward, backward = layer.forward, layer.backward
        x, state, dy = arrays["x"], _state(problem, arrays), arrays["dy"]
        dstate = _state(problem, arrays, "d{}_n")

        def run() -> Any:
            y, last, tape = forward(x, state, lengths)
            return y, last, backward(tape, dy, dstate)

        def collect(result: Any) -> dict[str, Array]:
            y, last, grads = result
            named = {f"d{name}": _float32(grad) for name, grad in grads.items()}
            return _outputs(problem, y, last) | named

        return Job(run, collect)

    def _step(self, problem: Problem) -> Job:
        arrays = {name: array.copy() for name, array in self._arrays(problem).items()}
        next_x = itertools.cycle(arrays["x"]).__next__
        state = _state(problem, arrays)
        frozen = self._layer(problem, arrays).freeze(weight_dtype=self.weight_dtype)

        def collect(result: Any) -> dict[str, Array]:
            y, last = result
            views = _outputs(problem, y[None], last)
            return {name: view.copy() for name, view in views.items()}

        step, out = frozen.step, (np.empty_like(arrays["x"][0]), state)
        # The state is updated in place.
        return Job(lambda: step(next_x(), state, out=out), collect)

    def _layer(self, problem: Problem, arrays: dict[str, Any]) -> Any:
        """A layer with the problem's weights."""
        shape = problem.shape
        layer = getattr(self._fr, shape.cell.upper())(
            shape.hidden,
            shape.hidden,
            shape.layers,
            bidirectional=shape.directions > 1,
            dtype="float32" if self.compute_dtype else problem.dtype,
            compute_dtype=self.compute_dtype,
            memory=self.memory,
        )
        layer.load_state_dict({name: arrays[name] for name in problem.parameters})
        return layer


class Functions(FusedRnn):
    """The functions, which pack the weights at every call."""

    def prepare(self, scenario: str, problem: Problem) -> Job:
        if problem.shape.runs > 1:
            raise UnavailableError("has one layer and one direction: networks are for layers")
        return super().prepare(scenario, problem)

    def _arguments(self, problem: Problem) -> tuple[list[Any], dict[str, Any]]:
        arrays = self._arrays(problem)
        states = [arrays[f"{s}0"][0] for s in problem.states]
        arguments = [arrays["x"], *(arrays[name] for name in problem.parameters), *states]
        return arguments, {"lengths": problem.shape.sequence_lengths}

    def _inference(self, problem: Problem) -> Job:
        function = getattr(self._fr, problem.shape.cell)
        arguments, options = self._arguments(problem)

        def collect(result: Any) -> dict[str, Array]:
            return _outputs(problem, result[0], _with_axis(result[1]))

        return Job(lambda: function(*arguments, **options), collect)

    def _training(self, problem: Problem) -> Job:
        forward = getattr(self._fr, f"{problem.shape.cell}_forward")
        backward = getattr(self._fr, f"{problem.shape.cell}_backward")
        arguments, options = self._arguments(problem)
        arrays = self._arrays(problem)
        upstream = [arrays["dy"], *(arrays[f"d{s}_n"][0] for s in problem.states)]

        def run() -> Any:
            y, last, tape = forward(*arguments, **options)
            return y, last, backward(tape, *upstream)

        def collect(result: Any) -> dict[str, Array]:
            y, last, grads = result
            found = {"dx": _float32(grads.dx)}
            for name, short in zip(PARAMETERS, ("w_ih", "w_hh", "b_ih", "b_hh"), strict=True):
                found[f"d{name}_l0"] = _float32(getattr(grads, f"d{short}"))
            for s in problem.states:
                found[f"d{s}0"] = _float32(getattr(grads, f"d{s}0"))[None]
            return _outputs(problem, y, _with_axis(last)) | found

        return Job(run, collect)


class Mixed(FusedRnn):
    """float32 arrays in and out, products in bfloat16."""

    compute_dtype = "bfloat16"


class Lean(FusedRnn):
    memory = "lean"
    max_rounds = 2


class Bf16Weights(FusedRnn):
    weight_dtype = "bfloat16"
    tolerance = 2e-2


class Int8Weights(Bf16Weights):
    weight_dtype = "int8"
    tolerance = 5e-2


def _state(problem: Problem, arrays: dict[str, Any], name: str = "{}0") -> Any:
    """The arrays of the states as layers take them, [L*D,B,H]; a pair for an LSTM."""
    states = tuple(arrays[name.format(s)] for s in problem.states)
    return states if len(states) > 1 else states[0]


def _with_axis(state: Any) -> Any:
    """The state that a function returns, [B,H], as layers do."""
    return tuple(s[None] for s in state) if isinstance(state, tuple) else state[None]


def _bfloat16_converter() -> Callable[[Array], Any]:
    """What makes bfloat16 arrays of float32 ones: NumPy's through ml_dtypes, or PyTorch's."""
    try:
        bfloat16 = require("ml_dtypes").bfloat16
    except UnavailableError:
        torch = require("torch")
        return lambda array: torch.from_numpy(array.copy()).to(torch.bfloat16)
    return lambda array: array.astype(bfloat16)


def _float32(array: Any) -> Array:
    """The values in float32; float32 arrays as they are, so that a wrong dtype shows."""
    if hasattr(array, "float"):  # PyTorch's bfloat16, which NumPy cannot read
        array = array.float()
    values: Array = np.asarray(array)
    return values.astype("float32") if values.dtype.name == "bfloat16" else values


def _outputs(problem: Problem, y: Any, last: Any) -> dict[str, Array]:
    states = last if isinstance(last, tuple) else (last,)
    named = zip((f"{s}_n" for s in problem.states), states, strict=True)
    return {"y": _float32(y)} | {name: _float32(state) for name, state in named}
