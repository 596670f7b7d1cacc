"""The errors that mean: the input, or the installation, is wrong, here is what to do."""

import functools
import sys
from collections.abc import Callable, Sequence


class InputError(ValueError):
    """Wrong configuration, data or workdir; its message is written for the person at the keyboard.

    A command prints the message without a traceback and exits with status 2.
    """


class MissingExtra(ModuleNotFoundError):
    """A package that an extra of the installation brings is not there; says which extra."""


def with_status(command: Callable[[Sequence[str] | None], None]) -> Callable[..., int]:
    """A command's main function that returns its exit status: 2 after an error that is told."""

    @functools.wraps(command)
    def main(argv: Sequence[str] | None = None) -> int:
        try:
            command(argv)
        except (InputError, OSError) as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            return 2
        return 0

    return main


def one_line(message: object) -> str:
    """A message as one paragraph."""
    return " ".join(str(message).split())


def first_three(names: Sequence[str]) -> str:
    """The first names of many, with commas, and three dots if there are more."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
