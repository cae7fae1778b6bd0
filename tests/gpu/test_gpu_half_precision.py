"""The 16-bit types and bfloat16 products on the device, by the tests of the CPU."""

from test_half_precision import (  # noqa: F401
    test_a_tape_changes_no_bit_and_may_be_used_twice,
    test_every_small_batch,
    test_long,
    test_oracle,
    test_padding_is_never_read,
    test_random_configurations,
    test_reference,
    test_sizes,
)
