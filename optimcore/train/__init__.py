"""Real trainings that ship with the package, behind ``python -m optimcore train``.

Here is what they share: the types of their options and the error for wrong ones.
"""

from argparse import ArgumentTypeError

__all__ = ["UsageError", "at_least", "some_of"]


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


def some_of(choices):
    """Return an argparse type that accepts different names among `choices`, with commas between them."""

    def names(text):
        chosen = [name.strip() for name in text.split(",")]
        for name in chosen:
            if name not in choices:
                raise ArgumentTypeError(f"must be names from {', '.join(choices)}, got {name!r}")
        if len(set(chosen)) < len(chosen):
            raise ArgumentTypeError(f"must not hold a name twice, got {text!r}")
        return chosen

    return names
