"""Exceptions of the package."""


class UserError(ValueError):
    """An invalid flag, file or argument; launchers print it as one line."""
