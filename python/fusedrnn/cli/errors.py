"""The errors of commands: their messages are printed without a traceback."""


class CommandError(Exception):
    """Something the user can put right: an option, a file."""

    exit_status = 2


class TrainingError(CommandError):
    """A training that came to nothing."""

    exit_status = 1
