"""Layer normalisation on the device, by the tests of the CPU."""

from test_layer_norm import (  # noqa: F401
    test_bare,
    test_oracle,
    test_reference,
)
