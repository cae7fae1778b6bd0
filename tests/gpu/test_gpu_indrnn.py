"""IndRNN on the device, by the tests of the CPU."""

from test_indrnn import (  # noqa: F401
    test_a_sequence_alone_or_in_a_batch,
    test_is_an_rnn_with_a_diagonal_matrix,
    test_oracle,
)
