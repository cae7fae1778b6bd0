"""Single sequences on the device, by the tests of the CPU."""

from test_unbatched import test_functions, test_no_masks_and_no_states  # noqa: F401
