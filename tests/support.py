"""The package's functions and layers behind the interface of `oracle` and `reference`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import reference
from reference import VARIANT_IDS, VARIANTS, random_problem, random_stack

Arguments = dict[str, Any]
DTYPES = ("float32", "float64")
# The design's promise: relative, by norm.
BOUND = {"float32": 2e-6, "float64": 1e-12}
# Further difficulties of a random problem.
HARD: dict[str, Any] = {"lengths": True, "resets": True}

variants = pytest.mark.parametrize(("cell", "options"), VARIANTS, ids=VARIANT_IDS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)
directions = pytest.mark.parametrize("reverse", [False, True], ids=["forth", "back"])

LAYERS: dict[str, Any] = {"rnn": fr.RNN, "gru": fr.GRU, "lstm": fr.LSTM}
ALL_LAYERS: dict[str, Any] = LAYERS | {
    "indrnn": fr.IndRNN,
    "mingru": fr.MinGRU,
    "minlstm": fr.MinLSTM,
    "slstm": fr.SLSTM,
    "gru_world_model": fr.WorldModelGRU,
}

PNG = b"\x89PNG\r\n\x1a\n"  # how such pictures begin


def cast(arguments: Mapping[str, Any], dtype: str) -> Arguments:
    """The same values rounded to `dtype`; lengths and resets as they are."""
    return {
        name: cast(value, dtype)
        if isinstance(value, Mapping)
        else value.astype(dtype)
        if value.dtype.kind == "f"
        else value
        for name, value in arguments.items()
    }


def problem_of(
    cell: str, dtype: str, weight_scale: float = 1.0, **shape: Any
) -> tuple[Arguments, Arguments]:
    """A random problem in `dtype`: a function's arguments, and the upstream gradients."""
    problem, upstream = random_problem(cell, **shape)
    for name in problem.keys() & {"w_ih", "w_hh", "b_ih", "b_hh"}:
        problem[name] *= weight_scale
    return cast(problem, dtype), cast(upstream, dtype)


def stack_of(cell: str, dtype: str, **shape: Any) -> tuple[Arguments, Arguments]:
    """As `problem_of`, for layers; half the weights keep few units from saturating together."""
    problem, upstream = random_stack(cell, **shape)
    problem["parameters"] = {name: w * 0.5 for name, w in problem["parameters"].items()}
    return cast(problem, dtype), cast(upstream, dtype)


class Host:
    """Where `infer`, `forward` and `backward` run: arguments and results as they are."""

    def give(self, arguments: Arguments) -> Arguments:
        return arguments

    def read(self, results: dict[str, Any]) -> dict[str, Any]:
        return results

    def check_alike(self, got: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        """Results of the same sums from calls of other shapes."""
        same_bits(got, expected)

    def layer(self, cell: str, *sizes: int, **options: Any) -> Any:
        return LAYERS[cell](*sizes, **options)

    def precision(self, precision: Any) -> Any:
        """A `half_support.Precision` as it is here."""
        return precision


_places: list[Any] = [Host()]


def place() -> Any:
    """Where the functions run now."""
    return _places[-1]


@contextlib.contextmanager
def running_on(other: Any) -> Iterator[None]:
    """Another place with these methods, between the tests' NumPy arrays and the functions."""
    _places.append(other)
    try:
        yield
    finally:
        _places.pop()


def infer(cell: str, **arguments: Any) -> dict[str, Any]:
    """Outputs of the function by name: y, h_n (and c_n, c)."""
    return place().read(outputs(*getattr(fr, cell)(**place().give(arguments))))


def forward(cell: str, **arguments: Any) -> tuple[dict[str, Any], Any]:
    """Outputs by name, and the tape."""
    *results, tape = getattr(fr, f"{cell}_forward")(**place().give(arguments))
    return place().read(outputs(*results)), tape


def backward(cell: str, tape: Any, **upstream: Any) -> dict[str, Any]:
    """Gradients by name."""
    return place().read(by_name(getattr(fr, f"{cell}_backward")(tape, **place().give(upstream))))


def by_name(gradients: Any) -> dict[str, Any]:
    """Those that a backward pass returned: not what was not asked for."""
    found = {f.name: getattr(gradients, f.name) for f in dataclasses.fields(gradients)}
    return {name: gradient for name, gradient in found.items() if gradient is not None}


def outputs(y: Any, state: Any, *cells: Any) -> dict[str, Any]:
    states = state if isinstance(state, tuple) else (state,)
    ends = {f"{letter}_n": s for letter, s in zip("hcnm", states, strict=False)}
    return {"y": y, **ends, **dict(zip("cnm", cells, strict=False))}


def with_zero_biases(problem: Arguments) -> Arguments:
    """Biases spelled out, so that a reference has gradients for those that were not given."""
    zeros = np.zeros(len(problem["w_hh"]), problem["w_hh"].dtype)
    return {"b_ih": zeros, "b_hh": zeros} | problem


def check_function(
    cell: str,
    problem: Arguments,
    upstream: Arguments,
    against: Any = reference,
    *,
    together: bool = False,
    **options: Any,
) -> None:
    """Outputs and every gradient within the bound of the dtype of x.

    With `together`, outputs are measured as one vector and gradients as another: where one of them
    is a single sum whose terms happen to cancel, no sum of rounded terms has relative accuracy.
    """
    bound = BOUND[problem["x"].dtype.name]
    got, tape = forward(cell, **problem, **options)
    expected = against.forward(cell, **problem, **options)
    expected_grads = against.gradients(cell, **with_zero_biases(problem), **upstream, **options)
    grads = backward(cell, tape, **upstream)
    if together:
        got, expected, grads, expected_grads = map(joined, (got, expected, grads, expected_grads))
    check(got, expected, bound)
    check(grads, expected_grads, bound)


def joined(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """One vector under all their names."""
    names = sorted(arrays)
    return {" ".join(names): np.concatenate([np.ravel(arrays[name]) for name in names])}


def check(got: Mapping[str, Any], expected: Mapping[str, Any], bound: float) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        shaped = np.reshape(value, got[name].shape) if np.size(value) == 0 else value
        error = reference.relative_error(got[name], shaped)
        assert error <= bound, f"{name}: relative error {error:.2e}, bound {bound:.0e}"


def check_by_differences(layer: Any, x: Any, grads: Mapping[str, Any]) -> None:
    """A number of each parameter's gradient of ``sum(y)``, of a float64 layer on the CPU."""
    for name, parameter in layer.parameters().items():
        numbers, step = parameter.reshape(-1), 1e-6
        numbers[1] += step
        above = layer(x)[0].sum()
        numbers[1] -= 2 * step
        below = layer(x)[0].sum()
        numbers[1] += step
        assert abs((above - below) / (2 * step) - grads[name].reshape(-1)[1]) < 1e-6, name


def sequence_of(name: str, value: Any, b: int) -> Any:
    """The part of an array that belongs to sequence b."""
    if name in ("x", "y", "dx", "dy", "resets"):
        return value[:, b : b + 1]
    return value[b : b + 1] if name[-2:] in ("_n", "h0", "c0") or name == "lengths" else value


def same_bits(got: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Equal shapes, dtypes and bits; -0 is not 0 and a NaN equals itself."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        a, b = np.asarray(got[name]), np.asarray(value)
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        assert a.tobytes() == b.tobytes(), name
