"""Gates of every step on the device, by the tests of the CPU."""

from test_gates import (  # noqa: F401
    test_16_bits,
    test_cells,
    test_lstm_variants,
    test_returned_by_functions,
    test_returned_by_layers,
    test_steps_that_do_not_exist,
)
