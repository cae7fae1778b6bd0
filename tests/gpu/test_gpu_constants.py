"""Limits and activations on the device, by the tests of the CPU."""

from test_constants import (  # noqa: F401
    test_a_sequence_alone_or_in_a_batch,
    test_calls_that_differ_in_constants_alone,
    test_limits_that_nothing_reaches,
    test_nan_in_the_cell,
    test_nan_through_limits,
    test_oracle,
    test_where_the_limit_begins,
)
