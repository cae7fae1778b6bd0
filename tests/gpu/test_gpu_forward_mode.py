"""Derivatives along a direction on the device, by the tests of the CPU."""

from test_forward_mode import (  # noqa: F401
    test_activations_and_clip,
    test_cells,
    test_layers,
    test_options_of_the_lstm,
)
