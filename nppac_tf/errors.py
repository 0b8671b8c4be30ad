"""The one exception that a user is meant to read."""


class UserError(ValueError):
    """A mistake in a flag, a file or an argument; launchers print it as one line."""
