"""Errors about arrays of `out`, which the compiled module names by its runs, in a layer's words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fusedrnn.layers.stack import NAMES

if TYPE_CHECKING:
    from fusedrnn.layers.arguments import Arguments

# What a message is about, and what that overlaps: "dw_hh", "runs[2].c_n".
_NAME = re.compile(r"(?:^|(?<=apart from ))(?:runs\[\d+\]\.)?\w+(?=: |,)")


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
    known = _names(layer)
    text = _NAME.sub(lambda found: known.get(found[0], found[0]), str(error))
    return TypeError(text) if isinstance(error, TypeError) else ValueError(text)


def _names(layer: Arguments) -> dict[str, str]:
    """What the compiled module calls an array, and what the layer's user does."""
    stack, letters = layer._stack, layer._states
    names = {"y": "out[0]", "dx": "out['x']"}
    for i, letter in enumerate(letters[1:]):
        names |= {letter: f"out[{2 + i}]", f"d{letter}": "dcells" + _part(i, letters[1:])}
    for run, end in enumerate(stack.ends):
        owner = f"runs[{run}]." if stack.num_runs > 1 else ""
        for short, long in NAMES.items():
            names[f"{owner}{short}"] = f"{long}{end}"
            names[f"{owner}d{short}"] = f"out['{long}{end}']"
        for i, letter in enumerate(letters):
            part = _part(i, letters)
            names |= {
                f"{owner}{letter}0": f"state{part}",
                f"{owner}{letter}_n": f"out[1]{part}",
                f"{owner}reset_{letter}": f"reset_state{part}",
                f"{owner}d{letter}_n": f"dstate{part}",
                f"{owner}d{letter}0": f"out['{letter}0']",
                f"{owner}dreset_{letter}": f"out['reset_{letter}']",
            }
            if i:  # of each step, of the last layer
                names[f"{owner}{letter}"] = names[letter]
                names[f"{owner}d{letter}"] = names[f"d{letter}"]
    return names


def _part(i: int, letters: tuple[str, ...]) -> str:
    return f"[{i}]" if len(letters) > 1 else ""
