"""What the commands share: flags that are parsed, and errors that are told, without a traceback."""

import contextlib
import re
import shlex
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from absl import flags, logging

from spa_jax.errors import InputError
from spa_jax.options import parse_value
from spa_jax.training.config import check_field_name, new_name_of


def parse_flags(argv: list[str], positional: bool = False) -> list[str]:
    """Parses the command line; a misspelt field or flag stops with a message.

    Args:
      argv: the command and its arguments.
      positional: whether there may be arguments that are no flags.

    Returns:
      The command and the arguments that are no flags.
    """
    try:
        for argument in argv:
            field = argument.lstrip("-").partition("=")[0]
            if field.startswith("config."):
                check_field_name(field.removeprefix("config."))
        rest = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError) as error:
        text = _one_line(_cause(error))
        missing = re.search(r'Key "(\w+)" does not exist', text)  # set in a configuration file
        stop(" ".join(filter(None, [missing and new_name_of(missing[1]), text])))
    if len(rest) > 1 and not positional:
        stop(f"Unknown arguments: {' '.join(rest[1:])}. Fields are set with --config.FIELD=VALUE.")
    logging.set_verbosity(logging.ERROR)  # orbax reports every file that it touches
    return rest


@contextlib.contextmanager
def errors_told() -> Iterator[None]:
    """Ends the command, see :func:`stop`, for an error that is told to a person."""
    try:
        yield
    except (InputError, FloatingPointError) as error:
        stop(str(error))


def read_config() -> Any:
    """The configuration that `--config` names; stops with a message if its file cannot be read."""
    try:
        config = flags.FLAGS.config
        config.to_dict()  # a file that could not be read makes itself known at first use
    except OSError as error:
        stop(f"Check the path that --config gives. {_one_line(error)}")
    return config


def parse_argument(argument: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """Reads what follows the colon in `--config=configs/FILE.py:NAME=VALUE,NAME=VALUE`.

    Args:
      argument: the text, "" for none.
      defaults: value of each name that the file knows; what is given gets its type.

    Returns:
      A value for each name.

    Raises:
      InputError: an unknown name, or a value of another type.

    Example:
      >>> parse_argument("imbalance_factor=200", {"imbalance_factor": 100.0, "model": "small"})
      {'imbalance_factor': 200.0, 'model': 'small'}
    """
    values = dict(defaults)
    for part in filter(None, argument.split(",")):
        name, equals, text = part.partition("=")
        if name not in defaults or not equals:
            raise InputError(
                f"This configuration takes {', '.join(f'{known}=VALUE' for known in defaults)} "
                f"after the colon, separated by commas; got {part!r}."
            )
        values[name] = parse_value(name, text, defaults[name])
    return values


def _cause(error: BaseException) -> BaseException:
    """The library's own error that a flag library has wrapped, or the error itself."""
    found, inner = error, error.__cause__ or error.__context__
    while inner is not None:
        if isinstance(inner, InputError):
            found = inner  # the innermost: outer ones repeat it with a traceback in their text
        elif "takes 0 positional arguments" in str(inner):
            found = InputError("This configuration file takes no argument after a colon.")
        inner = inner.__cause__ or inner.__context__
    return found


def own_command(program: str) -> str:
    """The command line of this process, for records: `python train.py --config=...`.

    Args:
      program: how it is started, such as "train.py" or "-m spa_jax.compare".
    """
    return f"python {program} {shlex.join(sys.argv[1:])}".rstrip()


def stop(message: str) -> NoReturn:
    """Ends the command with status 2 and one paragraph on standard error."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
