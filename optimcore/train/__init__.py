"""Real trainings that ship with the package, behind ``python -m optimcore train``.

Here is what they share: the type of their numeric options and the error for wrong ones.
"""

from argparse import ArgumentTypeError

__all__ = ["UsageError", "at_least"]


class UsageError(Exception):
    """A training cannot be done as asked; the message is one line for the user."""


def at_least(minimum):
    """Return an argparse type that accepts an int >= `minimum`."""

    def whole_number(text):
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or number < minimum:
            raise ArgumentTypeError(f"must be an int >= {minimum}, got {text!r}")
        return number

    return whole_number
