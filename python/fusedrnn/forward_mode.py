"""Derivatives along a direction: of results (forward mode), and of gradients (second derivatives).

Both come of one walk over dual numbers, a value and its derivative each, which the compiled module
takes as complex arrays: the real part is the value. What it computes, forward or backward, it
computes of both, by the cells' own equations.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from fusedrnn import _core, cuda_arrays, options
from fusedrnn.functional import Tape, check_tape, parameter_names
from fusedrnn.interop import A, converter_to_kind_of

_COMPLEX = {"float32": "complex64", "float64": "complex128"}


class Duals:
    """How the arrays of one call become dual numbers, and these its results."""

    def __init__(self, x: Any, to_kind: Callable[[Any], Any] | None = None) -> None:
        self._kind = cuda_arrays.kind_of(x) if cuda_arrays.is_on_cuda(x) else None
        self._to_kind = converter_to_kind_of(x) if to_kind is None else to_kind
        self._like = x if self._kind is not None else _core.as_array("x", x, None, None)
        self._dtype = str(self._like.dtype).rpartition(".")[2]
        if self._dtype not in _COMPLEX:
            raise TypeError(
                "x: expected dtype float32 or float64 (derivatives along a direction), got "
                f"{_shown(self._dtype)}"
            )

    def join(
        self,
        name: str,
        value: Any,
        tangent: Any,
        label: str,
        shape: tuple[int, ...] | None = None,
    ) -> Any:
        """Dual numbers; None stands for zeros, and two of them for no argument.

        `shape` is that of a tangent without a value, where it is known.
        """
        if value is None and tangent is None:
            return None
        if self._kind is not None:
            return self._join_on_cuda(name, value, tangent, label, shape)
        whole = None if value is None else _core.as_array(name, value, None, self._dtype)
        shape = shape if whole is None else whole.shape
        part = None if tangent is None else _core.as_array(label, tangent, shape, self._dtype)
        joined = np.zeros((whole if whole is not None else part).shape, _COMPLEX[self._dtype])  # type: ignore[union-attr]
        if whole is not None:
            joined.real = whole
        if part is not None:
            joined.imag = part
        return joined

    def _join_on_cuda(
        self, name: str, value: Any, tangent: Any, label: str, shape: tuple[int, ...] | None
    ) -> Any:
        join = getattr(self._kind, "join", None)
        if join is None:
            raise TypeError(
                f"{name}: expected an array of PyTorch or CuPy (derivatives along a direction), "
                f"got {type(self._like).__name__}"
            )
        if value is not None or shape is None:
            shape = tuple((tangent if value is None else value).shape)
        index = self._like.__dlpack_device__()[1]
        for text, array in ((name, value), (label, tangent)):
            if array is not None:
                _core.check_on_cuda(text, array, shape, self._dtype, index)
        return join(value, tangent)

    def split(self, array: Any) -> tuple[Any, Any]:
        """Values and tangents, of the kind of x."""
        if self._kind is not None:
            parts: tuple[Any, Any] = self._kind.split(array)
            return parts
        value, tangent = np.ascontiguousarray(array.real), np.ascontiguousarray(array.imag)
        return self._to_kind(value), self._to_kind(tangent)

    def tangent(self, array: Any) -> Any:
        return self.split(array)[1]


def _shown(dtype: str) -> str:
    return "bfloat16" if dtype.startswith("void") else dtype


def check_names(argument: str, given: object, known: Iterable[str]) -> Mapping[str, Any]:
    """A mapping whose names are all known."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{argument}: expected arrays by name, got {type(given).__name__}")
    names = tuple(known)
    for name in given:
        if name not in names:
            raise ValueError(
                f"{argument}: expected names among {', '.join(names)}, got "
                f"{options.unknown(name, names)}"
            )
    return given


def jvp(
    function: Callable[..., Any],
    tangents: Mapping[str, Any],
    args: tuple[Any, ...],
    keywords: dict[str, Any],
) -> tuple[Any, Any]:
    """Results of a cell's function, and their derivative along the tangents of its arguments."""
    signature = inspect.signature(function)
    arguments = signature.bind(*args, **keywords).arguments
    if arguments.pop("out", None) is not None:
        raise ValueError("out: expected None (derivatives along a direction), got arrays")
    if options.flag("return_gates", arguments.pop("return_gates", False)):
        raise ValueError("return_gates: expected False (derivatives along a direction), got True")
    duals = Duals(arguments["x"])
    check_compute(arguments.pop("compute_dtype", None))
    known = [name for name in signature.parameters if _is_differentiable(name)]
    check_names("tangents", tangents, known)
    for name in known:
        dual = duals.join(name, arguments.get(name), tangents.get(name), f"tangents[{name!r}]")
        if dual is not None:
            arguments[name] = dual
    results = function(**arguments, compute_dtype=options.DUAL)
    return _split(duals, results)


def double_backward(
    function: str,
    tape: Tape[A],
    directions: Mapping[str, Any],
    upstream: Mapping[str, Any],
    letters: tuple[str, ...],
) -> dict[str, A]:
    """Gradients of the sum over names of directions times gradients, by argument."""
    check_tape(function, tape)
    call = tape.call
    names = parameter_names(tape.core)
    states = tuple(f"{letter}0" for letter in letters)
    resets = tuple(f"reset_{letter}" for letter in letters)
    check_names("directions", directions, ("x", *names, *states, *resets))
    duals = Duals(call.x, tape.to_kind)

    def join(name: str, value: Any) -> Any:
        return duals.join(name, value, directions.get(name), f"directions[{name!r}]")

    network = tape.core.network
    check_compute(network.compute_dtype or network.dtype)
    masks = with_resets(call.masks, resets, join)
    y, states_n, cells, dual_tape = _core.run(
        call.cell,
        join("x", call.x),
        tuple(map(join, names, call.parameters)),
        tuple(map(join, states, call.states)),
        masks,
        call.reverse,
        "dual",
        True,
        None,
        None,
        (None,) * (len(letters) - 1) or None,
        call.constants,
        network.lean,
        call.heads,
    )
    assert dual_tape is not None

    def up(name: str) -> Any:
        return duals.join(name, upstream.get(name), None, name)

    ends = tuple(f"d{letter}_n" for letter in letters)
    sequences = letters[1:]
    dx, dparameters, dstates, dresets, _ = dual_tape.backward(
        up("dy"),
        tuple(map(up, ends)),
        tuple(up(f"d{letter}") for letter in sequences) or None,
        True,
    )
    second = zip(
        ("x", *names, *states, *resets), (dx, *dparameters, *dstates, *dresets), strict=True
    )
    first = zip(
        ("dy", *ends, *(f"d{letter}" for letter in sequences)), (y, *states_n, *cells), strict=True
    )
    return {
        name: duals.tangent(array)
        for name, array in (*second, *first)
        if array is not None  # of a weight or reset state that was not given
    }


def with_resets(masks: Any, names: tuple[str, ...], join: Callable[[str, Any], Any]) -> Any:
    """What the compiled module takes of masks, with dual numbers in the place of reset states."""
    given = (None,) * len(names) if masks is None or masks[4] is None else masks[4]
    joined = tuple(map(join, names, given))
    if all(array is None for array in joined):
        return masks
    return (*((None, None, None, False) if masks is None else masks[:4]), joined)


_STATES = frozenset(options.STATES)
_OF_STATES = frozenset(f"{s}0" for s in _STATES) | frozenset(f"reset_{s}" for s in _STATES)


def _is_differentiable(name: str) -> bool:
    return name in ("x", "g", "b") or name.startswith(("w_", "b_", "g_")) or name in _OF_STATES


def check_compute(compute_dtype: object) -> None:
    """Of a call whose products are not rounded."""
    name = options.compute_dtype(compute_dtype)
    if name not in (None, "float32", "float64"):
        raise ValueError(
            "compute_dtype: expected None (derivatives along a direction are not rounded), got "
            f"{name!r}"
        )


def _split(duals: Duals, results: Any) -> tuple[Any, Any]:
    """Values and tangents, both in the form of the results."""
    if isinstance(results, tuple):
        both = [_split(duals, result) for result in results]
        return tuple(value for value, _ in both), tuple(tangent for _, tangent in both)
    return duals.split(results)
