"""Trains the runs of one of the reproduction's tables, in pieces of any length.

python -m spa_jax.reproduce fashion_mnist --minutes=9
python -m spa_jax.reproduce cifar10 --only=final-glmc-none-if200-label --set data.folder=FOLDER
python -m spa_jax.reproduce imagenet --dry_run

Stop it at any moment and start it again: a finished run is a line of JSON in the records, and a run
that was cut off goes on from its last checkpoint. --only names a run, or all seeds of a run by its
name without the seed, and may be given again. --set gives every run a place for its data, or fields
of loader, checkpoint, logging and parallel. On accelerators runs that differ in the seed or in a
strength train as one program; --together and --notogether decide where none was begun. --dry_run
trains every cell for two epochs, to see that it would train: of imagenet with one seed on a few
small JPEG files, of cifar10 and cifar100 with two seeds on some of their images.
"""

import functools
from collections.abc import Sequence
from typing import Any

import spa_jax.extras  # noqa: F401

from absl import app, flags

from spa_jax.command_line import errors_told, own_command, parse_flags, stop
from spa_jax.errors import InputError
from spa_jax.files import output_file, output_folder
from spa_jax.reproduction.driver import Driver
from spa_jax.reproduction.dry_run import dry_run, short_run
from spa_jax.reproduction.tables import TABLES, find_table
from spa_jax.sweeps.grid import parse_axis
from spa_jax.sweeps.runner import Runner


@errors_told()
def main(argv: Sequence[str]) -> None:
    """Trains what the flags name; exits with status 2 if the input is wrong."""
    if len(argv) != 2:
        stop(f"Name one table, as in `python -m spa_jax.reproduce {next(iter(TABLES))}`.")
    values, table = flags.FLAGS, argv[1]
    name = f"{table}_dry_run" if values.dry_run else table
    folder = output_folder(values.out, "--out") / name
    records = f"results/{name}.jsonl" if values.records is None else values.records
    records = output_file(records, "--records")
    plan = find_table(table)
    if values.dry_run:
        if table not in ("imagenet", "cifar10", "cifar100"):
            stop("--dry_run is for imagenet, cifar10 and cifar100; the others begin in seconds.")
        plan = dry_run(plan, folder / "images") if table == "imagenet" else short_run(plan)
    overrides = _parse_overrides(values.set)
    say = functools.partial(print, flush=True)
    driver = Driver(
        table,
        plan,
        records,
        Runner(folder, values.together, say=say, command=own_command("-m spa_jax.reproduce")),
        values.minutes,
        values.cells,
        values.only,
        overrides,
    )
    left = driver.train()
    print(f"{left} runs of {name} are open; the records are in {records}.")


def _parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Reads FIELD=VALUE texts; InputError for one that is not that, or a field set twice."""
    overrides: dict[str, Any] = {}
    for text in texts:
        field, (value, *others) = parse_axis(text, "--set")
        if others or field in overrides:
            raise InputError(f"--set {field} has more than one value: give it one.")
        overrides[field] = value
    return overrides


def define_flags() -> None:
    """The command line; not at import, since flags are global to a process."""
    flags.DEFINE_float("minutes", float("inf"), "How long to go on.")
    flags.DEFINE_integer("cells", None, "How many runs to begin or continue at most.")
    flags.DEFINE_multi_string("only", [], "A run, with or without its seed; may be given again.")
    flags.DEFINE_multi_string("set", [], "FIELD=VALUE; may be given several times.")
    flags.DEFINE_boolean("together", None, "One program for many; default: where it is faster.")
    flags.DEFINE_boolean("dry_run", False, "Two epochs of every cell on little data.")
    flags.DEFINE_string("out", "runs/reproduce", "Folder for the runs.")
    flags.DEFINE_string("records", None, "JSON lines; default results/TABLE.jsonl.")


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=lambda argv: parse_flags(argv, positional=True))
