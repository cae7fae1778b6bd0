"""Padding, resets, tapes, odd values and empty problems on the device, by the tests of the CPU."""

from test_compute_dtype import (  # noqa: F401
    test_backward_keeps_to_the_tape,
    test_small_integers_are_exact,
    test_the_dtype_itself_is_plain,
)
from test_hostile_inputs import (  # noqa: F401
    test_masks_of_odd_bytes,
    test_no_steps_and_no_sequences,
    test_padding_is_never_looked_at,
    test_values_that_are_no_numbers,
)
from test_promises import (  # noqa: F401
    test_a_tape_keeps_its_arrays_alive,
    test_inputs_are_not_written,
    test_padding_is_never_read,
    test_tape,
    test_what_a_reset_cuts_off_is_never_read,
)
