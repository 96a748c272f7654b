"""Errors that a user can mend: entries print them as one message and leave with code 2, without a traceback."""

__all__ = ["ConfigError", "UserError"]


class UserError(Exception):
    """Something outside the program is missing or wrong; the text says what, and what to change."""


class ConfigError(UserError):
    """A setting has a wrong name, type or value; the text says which, and what is allowed."""
