"""Dropout on the device: the tests of the CPU, and that both drop the same elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpu_libraries import StreamLibrary

from support import LAYERS, same_bits
from test_dropout import (  # noqa: F401
    cells,
    test_empty,
    test_extreme_rates,
    test_inference_drops_nothing,
    test_masks_of_steps,
    test_single_layers,
    test_tapes_drop_as_their_own_calls,
    test_the_seed_of_a_call_wraps,
    test_train_and_eval,
    test_unbatched,
    test_what_is_dropped_is_zero_whatever_it_was,
    test_widths,
)

pytestmark = pytest.mark.usefixtures("arrays_with_views")


@cells
def test_drops_what_the_cpu_drops(library: StreamLibrary, cell: str) -> None:
    """By a last layer whose gradient is its input where it reads something, and else zero."""
    options: dict[str, Any] = {"dropout": 0.5, "seed": 1}
    host = LAYERS[cell](3, 21, 2, **options)
    device = LAYERS[cell](3, 21, 2, **options, **library.layer_options())
    assert device.dropout_state == host.dropout_state
    x = np.random.default_rng(0).standard_normal((6, 4, 3)).astype("float32")
    for _ in range(2):
        found = []
        for layer, array, values in (
            (host, np.asarray, np.asarray),
            (device, library.array, library.values),
        ):
            y, _, tape = layer.forward(array(x))
            dy = array(np.ones((6, 4, 21), "float32"))
            grads = {name: values(g) for name, g in layer.backward(tape, dy).items()}
            found.append({"y": values(y)} | grads)
        for name, expected in found[0].items():
            np.testing.assert_allclose(found[1][name], expected, rtol=1e-4, atol=1e-5)


def test_captured(library: StreamLibrary) -> None:
    """A graph drops, in each of its runs, what the call that was captured did."""
    layer = LAYERS["gru"](3, 8, 2, dropout=0.5, seed=1, **library.layer_options())
    x = library.array(np.random.default_rng(0).standard_normal((4, 2, 3)).astype("float32"))
    layer.forward(x)  # what a first call sets up
    state = layer.dropout_state
    expected = library.values(layer.forward(x)[0])
    layer.dropout_state = state
    y, replay = library.capture(lambda: layer.forward(x)[0])
    for _ in range(2):
        replay()
        same_bits({"y": library.values(y)}, {"y": expected})
