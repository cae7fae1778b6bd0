"""Errors about arrays of `out`, which the compiled module names by its runs, in a layer's words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fusedrnn import options
from fusedrnn.layers.stack import NAMES

if TYPE_CHECKING:
    from fusedrnn.layers.arguments import Arguments


def in_words_of(
    layer: Arguments,
    error: TypeError | ValueError,
    given: Iterable[tuple[str, Any, tuple[int | None, ...]]],
) -> TypeError | ValueError:
    """The error for a user who gave these arrays, each with the name and shape it has there.

    Raises
    ------
    ValueError, TypeError
        Where one of them has another shape or dtype: the compiled module would have spoken of a
        part of it.
    """
    for name, array, shape in given:
        if array is not None:
            layer._device.read(name, array, shape, layer.dtype)
    return options.renamed(error, _names(layer))


def _names(layer: Arguments) -> dict[str, str]:
    """What the compiled module calls an array, and what the layer's user does."""
    stack, letters = layer._stack, layer._states
    names = options.result_names(letters, letters[1:]) | {"dx": "out['x']"}
    for i, letter in enumerate(letters[1:]):
        names[f"d{letter}"] = "dcells" + _part(i, letters[1:])
    # Of the states the compiled module speaks as a whole or run by run.
    for i, letter in enumerate(letters):
        part = _part(i, letters)
        names |= {
            f"{letter}0": f"state{part}",
            f"reset_{letter}": f"reset_state{part}",
            f"d{letter}_n": f"dstate{part}",
            f"d{letter}0": f"out['{letter}0']",
            f"dreset_{letter}": f"out['reset_{letter}']",
        }
    of_states = dict(names)
    for run, end in enumerate(stack.ends):
        owner = f"runs[{run}]." if stack.num_runs > 1 else ""
        names |= {f"{owner}{short}": long for short, long in of_states.items()}
        for short, long in NAMES.items():
            names[f"{owner}{short}"] = f"{long}{end}"
            names[f"{owner}d{short}"] = f"out['{long}{end}']"
    return names


def _part(i: int, letters: tuple[str, ...]) -> str:
    return f"[{i}]" if len(letters) > 1 else ""
