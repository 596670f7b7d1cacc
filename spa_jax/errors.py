"""The errors that mean: the input, or the installation, is wrong, here is what to do."""


class InputError(ValueError):
    """Wrong configuration, data or workdir; its message is written for the person at the keyboard.

    A command prints the message without a traceback and exits with status 2.
    """


class MissingExtra(ModuleNotFoundError):
    """A package that an extra of the installation brings is not there; says which extra."""
