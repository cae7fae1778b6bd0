"""What flows back through time on the device, by the tests of the CPU."""

from test_gradient_flow import (  # noqa: F401
    test_a_projection_and_its_c,
    test_narrow_formats,
    test_norms_whose_squares_leave_the_range,
    test_nothing_else_changes,
    test_numbers_that_are_not_finite,
    test_oracle,
)
