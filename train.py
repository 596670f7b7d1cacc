"""Trains one configuration: python train.py --config=configs/digits_lt.py --workdir=runs/digits."""

import sys
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from spa_jax.errors import InputError
from spa_jax.training.config import check_field_name
from spa_jax.training.loop import run

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The configuration file; override fields with --config.FIELD=VALUE."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join the other hosts of a pod: start the command on each of them."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run writes, and from where it resumes.")


def main(argv: list[str]) -> None:
    """Runs the configuration that the flags give; exits with status 2 if the input is wrong."""
    if len(argv) > 1:
        _stop(f"Unknown arguments: {' '.join(argv[1:])}. Fields are set with --config.FIELD=VALUE.")
    logging.set_verbosity(logging.WARNING)  # orbax reports every file that it touches
    try:
        config = _CONFIG.value
        config.to_dict()  # a file that could not be read makes itself known at first use
    except OSError as error:
        _stop(f"The file of --config cannot be read. {_one_line(error)}")
    if _DISTRIBUTED.value:
        jax.distributed.initialize()  # finds the others through the cluster's environment
    primary = jax.process_index() == 0
    try:
        run(
            config,
            Path(str(_WORKDIR.value)),
            say=lambda line: print(line, flush=True) if primary else None,
            show_progress=primary and sys.stderr.isatty(),
        )
    except (InputError, FloatingPointError) as error:
        _stop(str(error))


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; a misspelt field or flag gets a message without a traceback."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError) as error:
        overrides = [arg.lstrip("-") for arg in argv if arg.lstrip("-").startswith("config.")]
        for override in overrides:
            try:
                check_field_name(override.partition("=")[0].removeprefix("config."))
            except InputError as unknown:
                _stop(str(unknown))
        _stop(_one_line(error))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _stop(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=_parse)
