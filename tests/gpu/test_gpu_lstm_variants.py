"""The LSTM's options on the device, by the tests of the CPU."""

from test_lstm_variants import (  # noqa: F401
    test_a_sequence_alone_or_in_a_batch,
    test_autograd,
    test_oracle,
)
