"""Trains one configuration: python train.py --config=configs/digits_lt.py --workdir=runs/digits."""

import sys

import jax
from absl import app, flags
from ml_collections import config_flags

from spa_jax.command_line import errors_told, join_cluster, own_command, parse_flags, read_config
from spa_jax.files import local_path
from spa_jax.training.loop import run

config_flags.DEFINE_config_file(
    "config", None, "The configuration file; override fields with --config.FIELD=VALUE."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join the other hosts of a pod: start the command on each of them."
)
_TIMEOUT = flags.DEFINE_integer(
    "host_timeout",
    100,
    "With --distributed: seconds of silence after which a host is lost, and the others end.",
    lower_bound=1,
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run writes, and from where it resumes.", required=True
)


@errors_told()
def main(argv: list[str]) -> None:
    """Runs the configuration that the flags give; exits with status 2 if the input is wrong."""
    del argv
    config = read_config()
    workdir = local_path(_WORKDIR.value, "--workdir")
    if _DISTRIBUTED.value:
        join_cluster(_TIMEOUT.value)
    primary = jax.process_index() == 0
    run(
        config,
        workdir,
        say=lambda line: print(line, flush=True) if primary else None,
        show_progress=primary and sys.stderr.isatty(),
        command=own_command("train.py"),
    )


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
