"""fusedrnn through its public API alone.

Inference and steps run on a frozen layer, whose weights are packed once, as those of the other
inference libraries are; `Functions` packs them at every call. Training uses the functions.

In the bfloat16 classes arrays are bfloat16 in and out; `Mixed` gives and takes float32 and
computes in bfloat16. `Bf16Weights` and `Int8Weights` are float32 steps whose frozen weights are
stored in fewer bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ..scenarios import Array, Problem
from .base import Job, Peer, UnavailableError, require

WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")
PARAMETERS = {
    "weight_ih_l0": "w_ih",
    "weight_hh_l0": "w_hh",
    "bias_ih_l0": "b_ih",
    "bias_hh_l0": "b_hh",
}


class FusedRnn(Peer):
    weight_dtype: ClassVar[str | None] = None
    compute_dtype: ClassVar[str | None] = None

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._fr = require("fusedrnn")

    def version(self) -> str:
        return str(self._fr.__version__)

    def details(self) -> dict[str, Any]:
        info: dict[str, Any] = self._fr.info()
        return info

    def set_threads(self, threads: int) -> None:
        self._fr.set_num_threads(threads)
        if self._fr.get_num_threads() != threads:
            raise RuntimeError(f"fusedrnn: does not run {threads} threads")

    def prepare(self, scenario: str, problem: Problem) -> Job:
        return {"inference": self._inference, "step": self._step, "training": self._training}[
            scenario
        ](problem)

    def _arrays(self, problem: Problem) -> dict[str, Any]:
        """The problem's arrays in the dtype of the call."""
        if problem.dtype != "bfloat16" or self.compute_dtype:
            return dict(problem.arrays)
        convert = _bfloat16_converter()
        return {name: convert(array) for name, array in problem.arrays.items()}

    def _options(self) -> dict[str, Any]:
        """The keyword arguments that set the precision of the functions."""
        return {"compute_dtype": self.compute_dtype} if self.compute_dtype else {}

    def _inference(self, problem: Problem) -> Job:
        arrays = self._arrays(problem)
        frozen = self._frozen(problem, arrays)
        x, state = arrays["x"], _layer_state(problem, arrays)

        def collect(result: Any) -> dict[str, Array]:
            y, last = result
            return _outputs(problem, y, _of_one_layer(last))

        return Job(lambda: frozen(x, state), collect)

    def _training(self, problem: Problem) -> Job:
        forward = getattr(self._fr, f"{problem.shape.cell}_forward")
        backward = getattr(self._fr, f"{problem.shape.cell}_backward")
        options, arrays = self._options(), self._arrays(problem)
        arguments = _arguments(problem, arrays)
        upstream = [arrays[n] for n in ("dy", *(f"d{s}_n" for s in problem.states))]

        def run() -> Any:
            y, state, tape = forward(*arguments, **options)
            return y, state, backward(tape, *upstream)

        def collect(result: Any) -> dict[str, Array]:
            y, state, grads = result
            names = ["dx", *(f"d{w}" for w in WEIGHTS), *(f"d{s}0" for s in problem.states)]
            return _outputs(problem, y, state) | {n: _float32(getattr(grads, n)) for n in names}

        return Job(run, collect)

    def _step(self, problem: Problem) -> Job:
        arrays = {name: array.copy() for name, array in self._arrays(problem).items()}
        next_x = itertools.cycle(arrays["x"]).__next__
        state = _layer_state(problem, arrays)
        frozen = self._frozen(problem, arrays)

        def collect(result: Any) -> dict[str, Array]:
            y, last = result
            views = _outputs(problem, y[None], _of_one_layer(last))
            return {name: view.copy() for name, view in views.items()}

        step, out = frozen.step, (np.empty_like(arrays["x"][0]), state)
        # The state is updated in place.
        return Job(lambda: step(next_x(), state, out=out), collect)

    def _frozen(self, problem: Problem, arrays: dict[str, Any]) -> Any:
        """A layer with the problem's weights, packed once."""
        dtype = "float32" if self.compute_dtype else problem.dtype
        hidden = problem.shape.hidden
        layer = getattr(self._fr, problem.shape.cell.upper())(hidden, hidden, dtype=dtype)
        layer.load_state_dict({name: arrays[ours] for name, ours in PARAMETERS.items()})
        return layer.freeze(weight_dtype=self.weight_dtype)


class Functions(FusedRnn):
    """Inference through the functions, which pack the weights at every call."""

    def _inference(self, problem: Problem) -> Job:
        function, options = getattr(self._fr, problem.shape.cell), self._options()
        arguments = _arguments(problem, self._arrays(problem))
        return Job(
            lambda: function(*arguments, **options), lambda result: _outputs(problem, *result)
        )


class Mixed(Functions):
    """float32 arrays in and out, products in bfloat16."""

    compute_dtype = "bfloat16"


class Bf16Weights(FusedRnn):
    weight_dtype = "bfloat16"
    tolerance = 2e-2


class Int8Weights(Bf16Weights):
    weight_dtype = "int8"
    tolerance = 5e-2


def _arguments(problem: Problem, arrays: dict[str, Any]) -> list[Any]:
    return [arrays[name] for name in ("x", *WEIGHTS, *(f"{s}0" for s in problem.states))]


def _layer_state(problem: Problem, arrays: dict[str, Any]) -> Any:
    """The initial state as layers take it, [1,B,H]; a pair for an LSTM."""
    states = tuple(arrays[f"{s}0"][None] for s in problem.states)
    return states if len(states) > 1 else states[0]


def _of_one_layer(state: Any) -> Any:
    """A layer's state as the functions return it, [B,H]."""
    return tuple(s[0] for s in state) if isinstance(state, tuple) else state[0]


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
