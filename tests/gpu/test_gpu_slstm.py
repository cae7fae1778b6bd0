"""sLSTM on the device, by the tests of the CPU."""

from test_slstm import (  # noqa: F401
    test_a_reset_is_a_beginning,
    test_a_sequence_alone_or_in_a_batch,
    test_oracle,
    test_reference,
)
