"""The one error that a user sees, and what is said of all others."""


class InputError(ValueError):
    """A user's mistake or a broken file: the message says what was given, what is possible, what to do."""


def defect(error: Exception) -> str:
    """The message for an error that is ours, in the place of its traceback."""
    return f"{type(error).__name__}: {error} (a defect; TUTORED_DEBUG=1 shows where)"
