"""What a number that is not finite reaches on the device, by the tests of the CPU."""

from test_non_finite import (  # noqa: F401
    test_relu_of_nan,
    test_what_it_reaches,
)
