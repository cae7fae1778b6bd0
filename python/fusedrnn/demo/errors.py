"""The errors of the demo: their messages are printed without a traceback."""


class DemoError(Exception):
    """Something the user can put right: an option, a file."""

    exit_status = 2


class TrainingError(DemoError):
    """A training that came to nothing."""

    exit_status = 1
