"""What the commands share: flags that are parsed, and errors that are told, without a traceback."""

import contextlib
import os
import re
import shlex
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from absl import flags, logging
from jax.experimental import multihost_utils

from spa_jax.errors import InputError, one_line
from spa_jax.options import parse_value
from spa_jax.training.config import check_field_name, new_name_of

_NO_CONFIG = (
    "The configuration file that --config gives returns {}, and get_config has to return a "
    "ConfigDict, such as spa_jax.training.config.default_config() makes."
)
_HOST_NAME = 256
"""Bytes that a host's name may take up, and more than any does."""
_LOST_HOST = "Gloo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|heartbeat|[Cc]onnection"
_SIGNS = {
    "takes 0 positional arguments": "This configuration file takes no argument after a colon.",
    "no attribute 'get_config'": "The file that --config gives has no function get_config, which "
    "returns the configuration.",
    "--config=None": _NO_CONFIG.format("None"),
}


def parse_flags(argv: list[str], positional: bool = False) -> list[str]:
    """Parses the command line; a misspelt field or flag stops with a message.

    Args:
      argv: the command and its arguments.
      positional: whether there may be arguments that are no flags.

    Returns:
      The command and the arguments that are no flags.
    """
    # orbax reports every file that it touches, and every error that it raises as well.
    logging.set_verbosity(logging.FATAL)
    keep_compiled_programs()
    try:
        for argument in argv:
            field = argument.lstrip("-").partition("=")[0]
            if field.startswith("config."):
                check_field_name(field.removeprefix("config."))
        rest = flags.FLAGS(argv)
    except Exception as error:  # a configuration file may raise any
        text = one_line(_in_words(error))
        missing = re.search(r'Key "(\w+)" does not exist', text)  # set in a configuration file
        stop(" ".join(filter(None, [missing and new_name_of(missing[1]), text])))
    if len(rest) > 1 and not positional:
        stop(f"Unknown arguments: {' '.join(rest[1:])}. Fields are set with --config.FIELD=VALUE.")
    return rest


def keep_compiled_programs() -> None:
    """Keeps what XLA compiles for the next command, 1 GiB of it, in the user's cache folder.

    Nothing is kept where that cannot be written to, and a folder that JAX already has, such as
    `JAX_COMPILATION_CACHE_DIR` names, stays.
    """
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is not None:
        return
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        folder = caches / "spa_jax" / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home
        return
    if os.access(folder, os.W_OK):
        settings.update("jax_compilation_cache_dir", str(folder))
        limits = {
            "jax_compilation_cache_max_size": 2**30,
            "jax_persistent_cache_min_compile_time_secs": 0.1,
        }
        for name, value in limits.items():
            if name.upper() not in os.environ:
                settings.update(name, value)


@contextlib.contextmanager
def errors_told() -> Iterator[None]:
    """Ends the command, see :func:`stop`, for an error that is told to a person, or for Ctrl-C.

    Where a host was lost JAX ends the others itself, once it knows which.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or not re.search(_LOST_HOST, str(error)):
            raise
        stop(
            f"Another host was lost, or cannot be reached ({str(error)[:200]}). JAX says which, by "
            "its number, once it has been silent for --host_timeout; the first host printed the "
            "names. Start the command on all of them again to go on from the last checkpoint."
        )
    except (InputError, FloatingPointError, OSError) as error:
        stop(str(error))
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # Ctrl-C ended its reader too; at exit this would change the status
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_config() -> Any:
    """The configuration that `--config` names; stops with a message if its file gives none."""
    config: Any = flags.FLAGS.config
    try:
        if not hasattr(config, "to_dict"):  # a file that could not be read makes itself known here
            stop(_NO_CONFIG.format(type(config).__name__))
    except OSError as error:
        stop(f"Check the path that --config gives. {error}")
    return config


def join_cluster(timeout: int) -> None:
    """Joins the other hosts, and prints the number of each on the first.

    Args:
      timeout: seconds of silence after which JAX counts a host as lost, and ends the others with a
        message that has its number.

    Raises:
      InputError: the environment names no hosts.
    """
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=timeout)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            "--distributed joins the hosts that the environment of a cluster names (a TPU pod, "
            f"Slurm, Open MPI), and that failed ({error}): start the command through it on each "
            "host, or leave --distributed out on one."
        ) from error
    own = np.frombuffer(socket.gethostname().encode().ljust(_HOST_NAME), np.uint8)
    hosts = np.reshape(multihost_utils.process_allgather(own), (-1, _HOST_NAME))
    if jax.process_index() == 0:
        names = [f"{i} is {host.tobytes().decode().strip()}" for i, host in enumerate(hosts)]
        print(f"Hosts: {', '.join(names)}. If one is silent for {timeout} s, the others end.")


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


def _in_words(error: BaseException) -> str:
    """What an error that flag libraries have wrapped says: the innermost cause, and its place."""
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    for cause in reversed(chain):  # outer ones repeat it with a traceback in their text
        if isinstance(cause, InputError):
            return str(cause)
        for sign, words in _SIGNS.items():
            if sign in str(cause):
                return words
        for place in reversed(traceback.extract_tb(cause.__traceback__)):
            if place.name in ("get_config", "<module>"):  # of the configuration file
                return f"{place.filename}, line {place.lineno}: {type(cause).__name__}: {cause}"
    return str(error)


def own_command(program: str) -> str:
    """The command line of this process, for records: `python -m spa_jax.train --config=...`.

    Args:
      program: how it is started, such as "-m spa_jax.compare".
    """
    return f"python {program} {shlex.join(sys.argv[1:])}".rstrip()


def stop(message: str) -> NoReturn:
    """Ends the command with status 2 and one paragraph on standard error."""
    print(f"error: {one_line(message)}", file=sys.stderr)
    sys.exit(2)
