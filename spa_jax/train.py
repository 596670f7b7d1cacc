"""Trains one configuration.

python -m spa_jax.train --config=configs/digits_lt.py --workdir=runs/digits

Fields of the configuration are set with --config.FIELD=VALUE. Started again with the same workdir,
the run goes on from its last checkpoint.
"""

import sys
from collections.abc import Sequence

import spa_jax.extras  # noqa: F401

import jax
from absl import app, flags
from ml_collections import config_flags

from spa_jax.command_line import errors_told, join_cluster, own_command, parse_flags, read_config
from spa_jax.files import local_path
from spa_jax.training.loop import run


@errors_told()
def main(argv: Sequence[str]) -> None:
    """Runs the configuration that the flags give; exits with status 2 if the input is wrong."""
    del argv
    values, config = flags.FLAGS, read_config()
    workdir = local_path(values.workdir, "--workdir")
    if values.distributed:
        join_cluster(values.host_timeout)
    primary = jax.process_index() == 0
    run(
        config,
        workdir,
        say=lambda line: print(line, flush=True) if primary else None,
        show_progress=primary and sys.stderr.isatty(),
        command=own_command("-m spa_jax.train"),
    )


def define_flags() -> None:
    """The command line; not at import, since flags are global to a process."""
    config_flags.DEFINE_config_file(
        "config", None, "The configuration file; override fields with --config.FIELD=VALUE."
    )
    flags.DEFINE_string("workdir", None, "Where the run writes, and from where it resumes.")
    flags.DEFINE_boolean(
        "distributed", False, "Join the other hosts of a pod: start the command on each of them."
    )
    flags.DEFINE_integer(
        "host_timeout",
        100,
        "With --distributed: seconds of silence after which a host is lost, and the others end.",
        lower_bound=1,
    )
    flags.mark_flags_as_required(["config", "workdir"])


def start() -> None:
    """What `python -m spa_jax.train` and `python train.py` do."""
    define_flags()
    app.run(main, flags_parser=parse_flags)


if __name__ == "__main__":
    start()
