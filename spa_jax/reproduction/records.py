"""What is kept of a table's runs: one line of JSON for each."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spa_jax.errors import InputError
from spa_jax.files import write_text_whole
from spa_jax.reproduction.cells import Cell, Records, TablePlan
from spa_jax.sweeps.grid import Member
from spa_jax.training.config import default_config, flatten_config
from spa_jax.training.rundir.json_lines import JsonLines
from spa_jax.training.rundir.workdir import FREE_ON_RESUME, LOCATION_FIELDS, differing_fields

_CURVES = ("test_accuracy", "mean_cosine", "test_mean_cosine", "validation_accuracy", "train_loss")


def make_record(table: str, cell: Cell, member: Member) -> dict[str, Any]:
    """What is kept of a finished run: its place in the table, its config, summary and curves.

    The summary is None if the loss or its gradient did not stay finite.
    """
    place = dataclasses.asdict(cell)
    del place["settings"]
    lines = JsonLines(member.folder / "metrics.jsonl").read()
    kept = [name for name in _CURVES if lines and name in lines[-1]]
    return {
        "cell": cell.name,
        "dataset": table,
        **place,
        "date": datetime.now(UTC).date().isoformat(),
        "config": member.config.to_dict(),
        "summary": member.summary(),
        "curves": {name: [line[name] for line in lines] for name in kept},
    }


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a file, none if it does not exist; a half-written last line is left out."""
    return JsonLines(path).read()


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Adds a record; what a crash left of half a line is dropped first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size:
        whole = path.read_text().rpartition("\n")[0]
        write_text_whole(path, whole + "\n" if whole else "")
    JsonLines(path).append(record)


def check_records(plan: TablePlan, records: Records) -> None:
    """Raises InputError if a run was recorded with other settings than it has now."""
    by_name = {record["cell"]: record for record in records}
    # What a field that came later would have been.
    defaults = flatten_config(default_config().to_dict())
    for cell in plan.cells(records):
        if cell.name not in by_name or cell.settings is None:
            continue
        old = defaults | flatten_config(by_name[cell.name]["config"])
        new = flatten_config(plan.config(cell).to_dict())
        differing = differing_fields(old, new, FREE_ON_RESUME + LOCATION_FIELDS)
        if differing:
            raise InputError(
                f"The record of {cell.name} was made with other values of {', '.join(differing)}: "
                "remove its line, and its folder of that name, to train it anew."
            )
