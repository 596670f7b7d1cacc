"""Trains the runs of one of the reproduction's tables, in pieces of any length.

python -m spa_jax.reproduce fashion_mnist --minutes=9

Stop it at any moment and start it again: a finished run is a line of JSON in the records, and a run
that was cut off goes on from its last checkpoint.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from spa_jax.command_line import own_command, parse_flags, stop
from spa_jax.errors import InputError
from spa_jax.reproduction.driver import reproduce
from spa_jax.reproduction.tables import TABLES


def main(argv: Sequence[str]) -> None:
    """Trains what the flags name; exits with status 2 if the input is wrong."""
    if len(argv) != 2:
        stop(f"Name one table, as in `python -m spa_jax.reproduce {next(iter(TABLES))}`.")
    values, table = flags.FLAGS, argv[1]
    records = Path(values.records or f"results/{table}.jsonl")
    try:
        left = reproduce(
            table,
            Path(values.out) / table,
            records,
            values.minutes,
            values.cells,
            _say,
            own_command("-m spa_jax.reproduce"),
        )
    except InputError as error:
        stop(str(error))
    _say(f"{left} runs of {table} are open; the records are in {records}.")


def _say(line: str) -> None:
    print(line, flush=True)


def define_flags() -> None:
    """The command line; not at import, since flags are global to a process."""
    flags.DEFINE_float("minutes", float("inf"), "How long to go on.")
    flags.DEFINE_integer("cells", None, "How many runs to begin or continue at most.")
    flags.DEFINE_string("out", "runs/reproduce", "Folder for the runs.")
    flags.DEFINE_string("records", None, "A file of JSON lines; default results/TABLE.jsonl.")


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=lambda argv: parse_flags(argv, positional=True))
