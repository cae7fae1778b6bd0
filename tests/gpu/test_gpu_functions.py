"""The functions' tests of the CPU, on the device: the same problems, the same bounds."""

from test_functions import (  # noqa: F401
    test_absent_upstream_gradients_are_zero,
    test_empty,
    test_every_small_batch,
    test_long,
    test_one_optional_input_absent,
    test_one_step,
    test_optional_inputs,
    test_oracle,
    test_random_configurations,
    test_sizes,
    test_sums_over_many_rows,
)
