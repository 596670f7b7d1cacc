"""What the commands share: flags that are parsed, and errors that are told, without a traceback."""

import sys
from typing import Any, NoReturn

from absl import flags, logging

from spa_jax.errors import InputError
from spa_jax.training.config import check_field_name


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; a misspelt field or flag stops with a message."""
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError) as error:
        overrides = [arg.lstrip("-") for arg in argv if arg.lstrip("-").startswith("config.")]
        for override in overrides:
            try:
                check_field_name(override.partition("=")[0].removeprefix("config."))
            except InputError as unknown:
                stop(str(unknown))
        stop(_one_line(error))
    if len(rest) > 1:
        stop(f"Unknown arguments: {' '.join(rest[1:])}. Fields are set with --config.FIELD=VALUE.")
    logging.set_verbosity(logging.ERROR)  # orbax reports every file that it touches
    return rest


def read_config() -> Any:
    """The configuration that `--config` names; stops with a message if its file cannot be read."""
    try:
        config = flags.FLAGS.config
        config.to_dict()  # a file that could not be read makes itself known at first use
    except OSError as error:
        stop(f"Check the path that --config gives. {_one_line(error)}")
    return config


def stop(message: str) -> NoReturn:
    """Ends the command with status 2 and one paragraph on standard error."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
