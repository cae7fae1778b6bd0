"""The one error of the demo."""


class DemoError(Exception):
    """Something the user can put right; the message is printed without a traceback."""
