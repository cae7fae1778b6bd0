"""Masks on the device, by the tests of the CPU."""

from test_masks import (  # noqa: F401
    test_a_mask_leaves_steps_out,
    test_lengths_as_a_mask,
    test_reference,
)
