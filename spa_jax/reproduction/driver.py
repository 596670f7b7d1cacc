"""Trains the runs of a table one after another, for as long as it may, and records each."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spa_jax.errors import InputError
from spa_jax.reproduction.cells import Cell
from spa_jax.reproduction.tables import TABLES, TablePlan
from spa_jax.training.config import Config, check_config, default_config
from spa_jax.training.loop import RunStopped, run
from spa_jax.training.program import Program
from spa_jax.training.records import JsonLines
from spa_jax.training.workdir import FREE_ON_RESUME, differing_fields, flatten_config

_CURVES = ("test_accuracy", "mean_cosine", "test_mean_cosine", "validation_accuracy", "train_loss")


def reproduce(
    table: str,
    folder: Path,
    records_path: Path,
    minutes: float,
    most_cells: int | None,
    say: Callable[[str], None],
    command: str | None = None,
) -> int:
    """Trains what a table lacks, in the order of its worth.

    Args:
      table: a name in :data:`spa_jax.reproduction.tables.TABLES`.
      folder: gets a workdir for each run.
      records_path: a file of JSON lines, one for each finished run; it says what is done.
      minutes: for how long to go on; a run that is cut off is continued the next time.
      most_cells: how many runs to begin or continue at most; None: no limit.
      say: gets a line for a person now and then.
      command: the command line that the runs' summaries name.

    Returns:
      How many runs are still open.

    Raises:
      InputError: an unknown table, missing data, or a record of other settings than now.
    """
    plan = find_table(table)
    check_records(plan, read_records(records_path))
    ends = time.monotonic() + 60 * minutes
    program, begun = None, 0
    while True:
        records = read_records(records_path)
        cell = _next_cell(plan, records)
        open_cells = count_open(plan, records)
        if cell is None or time.monotonic() >= ends or begun == most_cells:
            return open_cells
        config = plan.config(cell)
        check_config(config)
        workdir = folder / cell.name
        if program is None or not _fits(program, config):
            program = None  # frees the old one's data before the new one's are loaded
            program = Program(config)
        say(f"{cell.name}: {open_cells} open")
        began = time.monotonic()
        try:
            summary = run(
                config,
                workdir,
                program,
                say=lambda line: None,
                command=command,
                keep_going=lambda: time.monotonic() < ends,
            )
        except RunStopped as stopped:
            say(f"{cell.name}: {stopped}")
            return open_cells
        except FloatingPointError as error:
            summary = None  # it would do so again, and must not stand in the way of the others
            say(f"{cell.name}: {error}")
        begun += 1
        lines = JsonLines(workdir / "metrics.jsonl").read()
        append_record(records_path, make_record(table, cell, config, summary, lines))
        if summary is not None:
            accuracy = summary["test_accuracy"]["last"]
            say(f"{cell.name}: {accuracy:.4f} in {time.monotonic() - began:.0f} s")


def find_table(table: str) -> TablePlan:
    """The plan of a table by name; InputError if there is none."""
    if table not in TABLES:
        raise InputError(f"There is no table {table!r}; there are {', '.join(TABLES)}.")
    return TABLES[table]


def count_open(plan: TablePlan, records: list[dict[str, Any]]) -> int:
    """How many of a table's runs have no record."""
    done = {record["cell"] for record in records}
    return sum(cell.name not in done for cell in plan.cells(records))


def make_record(
    table: str,
    cell: Cell,
    config: Config,
    summary: Mapping[str, Any] | None,
    lines: list[dict[str, Any]],
) -> dict[str, Any]:
    """What is kept of a finished run: its place in the table, its config, summary and curves.

    The summary is None if the loss or its gradient did not stay finite.
    """
    return {
        "cell": cell.name,
        "stage": cell.stage,
        "dataset": table,
        "class_order": cell.class_order,
        "method": cell.method,
        "spa_method": cell.spa_method,
        "variant": cell.variant,
        "imbalance_factor": cell.imbalance_factor,
        "seed": cell.seed,
        "date": datetime.now(UTC).date().isoformat(),
        "config": config.to_dict(),
        "summary": summary and dict(summary),
        "curves": {
            name: [line[name] for line in lines] for name in _CURVES if lines and name in lines[-1]
        },
    }


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a file, none if it does not exist; a half-written last line is left out."""
    return JsonLines(path).read()


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Adds a record; what a crash left of half a line is dropped first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size:
        whole = path.read_text().rpartition("\n")[0]
        path.write_text(whole + "\n" if whole else "")
    JsonLines(path).append(record)


def check_records(plan: TablePlan, records: list[dict[str, Any]]) -> None:
    """Raises InputError if a run was recorded with other settings than it has now."""
    by_name = {record["cell"]: record for record in records}
    # What a field that came later would have been.
    defaults = flatten_config(default_config().to_dict())
    for cell in plan.cells(records):
        if cell.name not in by_name or cell.settings is None:
            continue
        old = defaults | flatten_config(by_name[cell.name]["config"])
        new = flatten_config(plan.config(cell).to_dict())
        differing = differing_fields(old, new, FREE_ON_RESUME)
        if differing:
            raise InputError(
                f"The record of {cell.name} was made with other values of {', '.join(differing)}: "
                "remove its line to train it anew."
            )


def _next_cell(plan: TablePlan, records: list[dict[str, Any]]) -> Cell | None:
    """The first run without a record whose settings are known; those that wait come later."""
    done = {record["cell"] for record in records}
    for cell in plan.cells(records):
        if cell.name not in done and cell.settings is not None:
            return cell
    return None


def _fits(program: Program, config: Config) -> bool:
    try:
        program.check_fits(config)
    except InputError:
        return False
    return True
