"""The one error that a user sees."""


class InputError(ValueError):
    """A user's mistake or a broken file: the message says what was given, what is possible, what to do."""
