"""Noise inside layers on the device: the tests of the CPU, and that both draw the same masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpu_libraries import StreamLibrary

from support import LAYERS, same_bits
from test_noise import (  # noqa: F401
    CELLS,
    EVERY,
    cells,
    test_a_batch_draws_for_each_sequence,
    test_against_the_oracle,
    test_dtypes,
    test_inference,
    test_lean_memory,
    test_rounded_operands,
    test_tapes_draw_as_their_own_calls,
)

pytestmark = pytest.mark.usefixtures("arrays_with_views")


@cells
def test_draws_what_the_cpu_draws(library: StreamLibrary, cell: str) -> None:
    name, options = CELLS[cell]
    options = options | EVERY | {"seed": 1, "dtype": "float64"}
    host = LAYERS[name](3, 21, 2, **options)
    device = LAYERS[name](3, 21, 2, **options, **library.layer_options())
    x = np.random.default_rng(0).standard_normal((6, 4, 3))
    for _ in range(2):
        found = []
        for layer, array, values in (
            (host, np.asarray, np.asarray),
            (device, library.array, library.values),
        ):
            y, _, tape = layer.forward(array(x))
            dy = array(np.ones(y.shape))
            grads = {key: values(g) for key, g in layer.backward(tape, dy).items()}
            found.append({"y": values(y)} | grads)
        for key, expected in found[0].items():
            np.testing.assert_allclose(found[1][key], expected, rtol=1e-9, atol=1e-11)


def test_captured(library: StreamLibrary) -> None:
    """A graph draws, in each of its runs, what the call that was captured did."""
    options: dict[str, Any] = EVERY | {"seed": 1} | library.layer_options()
    layer = LAYERS["lstm"](3, 8, 2, **options)
    x = library.array(np.random.default_rng(0).standard_normal((4, 2, 3)).astype("float32"))
    layer.forward(x)  # what a first call sets up
    state = layer.dropout_state
    expected = library.values(layer.forward(x)[0])
    layer.dropout_state = state
    y, replay = library.capture(lambda: layer.forward(x)[0])
    for _ in range(2):
        replay()
        same_bits({"y": library.values(y)}, {"y": expected})
