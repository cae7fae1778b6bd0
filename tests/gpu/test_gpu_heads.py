"""Block-diagonal recurrence on the device, by the tests of the CPU."""

from test_heads import (  # noqa: F401
    test_lean_memory_gives_the_same_bits,
    test_oracle,
    test_reference,
    test_rounding,
)
