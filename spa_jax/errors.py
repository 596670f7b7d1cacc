"""The error that means: the input is wrong, here is what to do."""


class InputError(ValueError):
    """Wrong configuration, data or workdir; its message is written for the person at the keyboard.

    `train.py` prints the message without a traceback and exits with status 2.
    """
