"""Arrays and streams of the emulated devices, for tests on machines without a GPU."""
