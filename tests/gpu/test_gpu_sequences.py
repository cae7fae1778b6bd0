"""States of every step and reset states on the device, by the tests of the CPU."""

from test_sequences import (  # noqa: F401
    test_16_bits,
    test_a_reset_state_at_every_step,
    test_empty,
    test_lstm_variants,
    test_no_batch_of_one_sequence_has_cells_of_its_own,
    test_plain_calls_are_the_same,
    test_reference,
)
