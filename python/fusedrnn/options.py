"""Checks of the options, which the compiled module never sees as the user wrote them."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict, get_args

import numpy as np

# What mypy and editors know of words that arguments take.
Memory = Literal["default", "lean"]
Padding = Literal["zero", "last"]
Init = Literal["uniform", "orthogonal"]
WeightDtype = Literal["bfloat16", "int8"]

DTYPES = ("float32", "float64", "bfloat16", "float16")
MEMORIES: tuple[Memory, ...] = get_args(Memory)
PADDINGS: tuple[Padding, ...] = get_args(Padding)
DUAL: Any = object()  # a compute_dtype inside the package: arrays are of dual numbers
STATES = ("h", "c", "n", "m")  # a cell has the first of them
TFLOAT32 = "tfloat32"  # of products alone, and no array's


class RunOptions(TypedDict, total=False):
    """What the functions of all cells with gates take by name, for their overloads."""

    heads: int
    lengths: Any
    mask: Any
    resets: Any
    padding: Padding
    reset_h: Any
    reverse: bool
    compute_dtype: Any
    out: Any


class ForwardOptions(RunOptions, total=False):
    """What those that save for gradients take by name."""

    memory: Memory


class FrozenOptions(TypedDict, total=False):
    """What calls of frozen layers take by name, for their overloads."""

    mask: Any
    padding: Padding
    reset_state: Any
    out: tuple[Any, ...] | None


class LayerOptions(FrozenOptions, total=False):
    """What calls of layers take by name, for their overloads."""

    parameters: Mapping[str, Any] | None


def flag(name: str, value: object) -> bool:
    """A bool; truthiness is not enough, or an argument in the wrong place would pass for one."""
    if value is True or value is False:
        return value
    if not isinstance(value, np.bool_):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")
    return bool(value)


def check_dual_types(dtype: str, compute_dtype: str | None) -> None:
    """That x of such a type, computed in such a one, has dual numbers: for autograd of others."""
    if dtype not in ("float32", "float64"):
        raise TypeError(
            "x: expected dtype float32 or float64 (derivatives along a direction, second "
            f"derivatives), got {dtype}"
        )
    if compute_dtype not in (None, "float32", "float64"):
        raise ValueError(
            "compute_dtype: expected None (derivatives along a direction, second derivatives), "
            f"got {compute_dtype!r}"
        )


def choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """One of a few words."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a str, got {type(value).__name__}")
    if value not in allowed:
        raise ValueError(
            f"{name}: expected {either(map(repr, allowed))}, got {unknown(value, allowed)}"
        )
    return value


def unknown(value: object, known: Iterable[str]) -> str:
    """A word that is none of the known ones as a message has it, with the nearest of them."""
    near = difflib.get_close_matches(value, known, 1, cutoff=0.8) if isinstance(value, str) else []
    return _shown(value) + (f"; did you mean {near[0]!r}?" if near else "")


def usual_beside(option: str, given: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    """That other options, by name, are the usual ones, where `option` goes with no others."""
    for name, value in given.items():
        if value != usual[name]:
            raise ValueError(f"{name}: expected {usual[name]!r} with {option}, got {value!r}")


def positive(name: str, value: object) -> int:
    """An integer of at least 1; True is not one."""
    return _integer(name, value, 1)


def size(name: str, value: object, *, least: int = 1, most: int = 2**63 - 1) -> int:
    """The same of a size, which the compiled module takes as an int of 64 bits."""
    number = _integer(name, value, least)
    if number > most:
        raise ValueError(f"{name}: expected at most {most}, got {number}")
    return number


def count(name: str, value: object) -> int:
    """An integer of at least 0; True is not one."""
    return _integer(name, value, 0)


def divisor(name: str, value: object, whole: str, size: int) -> int:
    """An integer that divides the size of another option."""
    number = positive(name, value)
    if size % number:
        raise ValueError(f"{name}: expected a divisor of {whole} = {size}, got {number}")
    return number


def seed(value: object) -> int | None:
    """An integer of at least 0, or None for a seed from the operating system."""
    return None if value is None else _integer("seed", value, 0, "an int or None")


def _integer(name: str, value: object, least: int, wanted: str = "an int") -> int:
    number = integer(name, value, wanted)
    if number < least:
        raise ValueError(f"{name}: expected at least {least}, got {number}")
    return number


def integer(name: str, value: object, wanted: str = "an int") -> int:
    """An integer of any sign; True is none."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:  # of an array too, which has an __index__ whatever it holds
        raise TypeError(f"{name}: expected {wanted}, got {type(value).__name__}") from None


def integers(name: str, value: Any) -> Any:
    """A sequence of ints, which may be empty, as a list of them; all else as it is."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes, bytearray)):
        return value
    return [size(f"{name}[{i}]", each, least=-(2**63)) for i, each in enumerate(value)]


def real(name: str, value: object) -> float:
    """A real number, finite or not; True is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    return float(value)


def clip_dh(value: object) -> float:
    """A limit of gradients, for None 0: none."""
    return 0.0 if value is None else number("clip_dh", value, least=1e-30)


def number(
    name: str,
    value: object,
    *,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> float:
    """A finite real number within a range."""
    result = real(name, value)
    if not (math.isfinite(result) and least <= result < below and result <= most):
        wanted = f"a finite number{'' if least == -math.inf else f' of at least {least:g}'}"
        wanted += "" if below == math.inf else f" and below {below:g}"
        wanted += "" if most == math.inf else f" and at most {most:g}"
        raise ValueError(f"{name}: expected {wanted}, got {value}")
    return result


def forget_bias(value: object, bias: bool) -> float | None:
    """A number, or None; a layer without biases has nothing to set."""
    if value is None:
        return None
    if not bias:
        raise ValueError(f"forget_bias: expected None for a layer without biases, got {value}")
    return number("forget_bias", value)


def is_zero(padding: object) -> bool:
    """Whether it is the usual one; a wrong one is not."""
    return type(padding) is str and padding == "zero"


def masks(
    lengths: Any,
    mask: Any,
    resets: Any,
    padding: object,
    reset_states: tuple[Any, ...],
) -> tuple[Any, Any, Any, bool, tuple[Any, ...] | None] | None:
    """What the compiled module takes of the masks of a call."""
    shows_last = not is_zero(padding) and choice("padding", padding, PADDINGS) == "last"
    reset = None
    for state in reset_states:
        if state is not None:
            reset = reset_states
    if lengths is None and mask is None and resets is None and reset is None:
        return None
    return lengths, mask, resets, shows_last, reset


def values(name: str, members: tuple[str, ...], value: object) -> tuple[Any, ...]:
    """As many values as there are members, in a tuple or a list."""
    if isinstance(value, (tuple, list)) and len(value) == len(members):
        return tuple(value)
    form = f"a {'pair' if len(members) == 2 else 'tuple'} ({', '.join(members)})"
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: expected {form}, got {type(value).__name__}")
    raise ValueError(f"{name}: expected {form}, got {len(value)} values")


def result_arrays(
    out: object, y: str, states: tuple[str, ...], cells: tuple[str, ...] = ()
) -> tuple[Any, tuple[Any, ...], tuple[Any, ...] | None]:
    """The arrays of `out`: y, one for each state, and for each state of every step; all given."""
    form = states[0] if len(states) == 1 else f"({', '.join(states)})"
    shown = form if states[0].endswith("_n") else "state"
    first, state, *last = values("out", (y, shown, *cells), out)
    parts = (state,) if len(states) == 1 else values("out[1]", states, state)
    of_parts = [f"out[1][{i}]" for i in range(len(states))] if len(states) > 1 else ["out[1]"]
    of_cells = [f"out[{2 + i}]" for i in range(len(cells))]
    names = ("out[0]", *of_parts, *of_cells)
    for name, array in zip(names, (first, *parts, *last), strict=True):
        if array is None:
            raise ValueError(f"{name}: expected an array, got none")
    return first, parts, tuple(last) or None


def result_names(states: Iterable[str], cells: Iterable[str] = ()) -> dict[str, str]:
    """What the compiled module calls the results of a call, and what the user of `out` does."""
    ends = tuple(states)
    parts = {
        f"{name}_n": f"out[1][{i}]" if len(ends) > 1 else "out[1]" for i, name in enumerate(ends)
    }
    return {"y": "out[0]"} | parts | {name: f"out[{2 + i}]" for i, name in enumerate(cells)}


# What a message is about, and what that overlaps: "dw_hh", "runs[2].c_n".
_SUBJECT = re.compile(r"(?:^|(?<=apart from ))(?:runs\[\d+\]\.)?\w+(?=: |,)")


def renamed(error: TypeError | ValueError, names: Mapping[str, str]) -> TypeError | ValueError:
    """An error of the compiled module about arrays that its user knows by other names."""
    text = _SUBJECT.sub(lambda found: names.get(found[0], found[0]), str(error))
    return TypeError(text) if isinstance(error, TypeError) else ValueError(text)


def outputs(value: object, names: Iterable[str]) -> dict[str, Any]:
    """Arrays to write to, by some of these names; None is none."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"out: expected a mapping, got {type(value).__name__}")
    known = tuple(names)
    for name in value:
        if name not in known:
            wanted = either(map(repr, known))
            raise ValueError(f"out: expected names among {wanted}, got {unknown(name, known)}")
    return {name: array for name, array in value.items() if array is not None}


def same_names(
    argument: str,
    given: object,
    wanted: Iterable[str],
    of: str,
    optional: frozenset[str] = frozenset(),
) -> Mapping[str, Any]:
    """A mapping with all of these names and no others."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{argument}: expected a mapping, got {type(given).__name__}")
    names = tuple(wanted)
    known = optional.union(names)
    missing = [name for name in names if name not in given]
    unexpected = [name for name in given if name not in known]
    if missing or unexpected:
        raise ValueError(
            f"{argument}: expected {of}, "
            f"got one with {_listed(missing)} missing and {_listed(unexpected)} unexpected"
        )
    return given


def is_lean(memory: object) -> bool:
    """Whether a tape keeps no gates."""
    if type(memory) is str and memory == "default":
        return False
    return choice("memory", memory, MEMORIES) == "lean"


def dtype(value: object) -> str:
    """The name of a floating type, given by name, as a NumPy scalar type or as a NumPy dtype."""
    name = _dtype_name(value)
    if name is None:
        wanted = either(map(repr, DTYPES))
        raise ValueError(f"dtype: expected {wanted}, got {unknown(value, DTYPES)}")
    return name


def compute_dtype(value: object) -> str | None:
    """The same, tfloat32 or None. Whether it goes with the arrays, the compiled module knows."""
    if value is DUAL:
        return "dual"
    name = value if isinstance(value, str) and value == TFLOAT32 else _dtype_name(value)
    if name is None and value is not None:
        known = (*DTYPES, TFLOAT32)
        wanted = f"None, {either(map(repr, known))}"
        raise ValueError(f"compute_dtype: expected {wanted}, got {unknown(value, known)}")
    return name


def _dtype_name(value: object) -> str | None:
    if value is None:  # to NumPy float64: no one asked for that
        return None
    if isinstance(value, str) and value in DTYPES:  # NumPy knows bfloat16 only at times
        return value
    try:
        found = np.dtype(value)  # type: ignore[call-overload]
    except TypeError:
        return None
    return found.name if found.isnative and found.name in DTYPES else None


def _listed(names: list[Any]) -> str:
    return ", ".join(map(str, names)) or "none"


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)


def either(words: Iterable[str]) -> str:
    """Words as a message has them: "a, b or c"."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
