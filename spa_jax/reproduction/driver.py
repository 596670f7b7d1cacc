"""Trains the runs of a table in the order of their worth, for as long as it may, and records each.

Runs that one program can train are trained together where that is faster, the first of them with
those that come later; the others one by one. Runs that were begun together go on together.
"""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spa_jax.errors import InputError
from spa_jax.reproduction.cells import Cell, Records, TablePlan, read_records
from spa_jax.sweeps.grid import Member
from spa_jax.sweeps.runner import Runner
from spa_jax.training.checking import check_runs
from spa_jax.training.config import flat_defaults, flatten_config, resolve
from spa_jax.training.loop import RunStopped
from spa_jax.training.rundir.json_lines import JsonLines
from spa_jax.training.rundir.owner import owned
from spa_jax.training.rundir.workdir import FREE_ANYWHERE, check_same, check_workdir

_OF_CLASSES = (
    *("split", "class_names", "class_counts", "test_class_counts"),
    *("per_class_accuracy", "per_class_cosine", "per_class_test_cosine"),
)
_CURVES = ("test_accuracy", "mean_cosine", "test_mean_cosine", "validation_accuracy", "train_loss")


@dataclasses.dataclass
class Driver:
    """Trains what a table lacks.

    Attributes:
      table: its name, which the records carry.
      plan: its runs.
      records: a file of JSON lines, one for each finished run; it says what is done.
      runner: trains them, each in a folder of its own below the runner's.
      minutes: for how long to go on; a run that is cut off is continued the next time.
      most_cells: how many runs to begin or continue at most, but that those begun together go on
        together; None: no limit.
      only: names of runs, or of runs without their seed; empty: all of the table.
      overrides: fields of every configuration that say where its data are and how they are brought.
    """

    table: str
    plan: TablePlan
    records: Path
    runner: Runner
    minutes: float = math.inf
    most_cells: int | None = None
    only: Sequence[str] = ()
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ends = time.monotonic() + 60 * self.minutes
        self._begun = 0
        # Never trained or recorded again by this driver, whatever becomes of the file.
        self._recorded: set[str] = set()
        self._members: dict[Cell, Member] = {}
        # The records as they were last read, since thousands take longer to read than a run takes.
        self._found: list[dict[str, Any]] = []
        self._stamp: tuple[int, int] | None = None
        self.runner.keep_going = lambda: time.monotonic() < self._ends

    def train(self) -> int:
        """Trains in the order of worth; returns how many of the runs asked for are still open.

        Raises:
          InputError: names that are none of the table's, a record or a folder of other settings
            than now, another process that trains there, or whatever a run that was asked for would
            be refused for, such as missing data; nothing has been trained.
        """
        if not self._read():
            self.runner.say(f"There are no records yet: {self.records.absolute()} does not exist.")
        self._check()
        with owned(self.runner.out, say=self.runner.say):
            while self._train_next():
                pass
        return len(self._open_cells())

    def _read(self) -> Records:
        """The records; the file is read again only if somebody else has changed it."""
        stamp = _stamp(self.records)
        if stamp is None or stamp != self._stamp:
            self._found, self._stamp = read_records(self.records), stamp
        return self._found

    def _append(self, record: dict[str, Any]) -> None:
        known = self._stamp is not None and self._stamp == _stamp(self.records)
        append_record(self.records, record)
        if known:
            self._found.append(record)
            self._stamp = _stamp(self.records)

    def _check(self) -> None:
        records = self._read()
        check_records(self.plan, records)
        cells = self.plan.cells(records)
        known = {name for cell in cells for name in (cell.name, cell.group_name)}
        strange = [name for name in self.only if name not in known]
        if strange:
            raise InputError(
                f"--only names {', '.join(strange)}, which the table does not have: its names are "
                f"like {cells[0].name}, or {cells[0].group_name} for all seeds."
            )
        for field in self.overrides:
            if not {field, field.split(".")[0]} & {*FREE_ANYWHERE}:
                raise InputError(
                    f"--set {field} would change what the table's runs compute: it takes "
                    f"these groups and fields: {', '.join(FREE_ANYWHERE)}."
                )
        left = self._open_cells()
        by_name = {record["cell"]: record["summary"] or {} for record in records}
        recorded = [
            (
                f"the record of {cell.name}",
                resolve(self._member(cell).config).data,
                by_name[cell.name].get("content_checksum"),
            )
            for cell in cells
            if cell.name in by_name and cell.settings is not None
        ]
        ready = [self._member(cell) for cell in left if cell.settings is not None]
        self.runner.check(ready, recorded)
        # Of what these will be set to nothing is known yet.
        check_runs(self._member(cell).config for cell in left if cell.settings is None)

    def _open_cells(self) -> list[Cell]:
        """The runs without a record that were asked for, and the tuning that those wait for."""
        records = self._read()
        self._recorded |= {record["cell"] for record in records}
        left = [cell for cell in self.plan.cells(records) if cell.name not in self._recorded]
        if not self.only:
            return left
        only = {*self.only}
        asked = {cell.name: cell for cell in left if {cell.name, cell.group_name} & only}
        waiting = {cell.group for cell in asked.values() if cell.settings is None}
        waits_for = self.plan.waits_for
        return [
            cell
            for cell in left
            if cell.name in asked
            or (cell.stage == "tune" and any(waits_for(one, cell) for one in waiting))
        ]

    def _train_next(self) -> bool:
        """Trains the first runs that are open; False if none is, or no time is left for them."""
        records, open_cells = self._read(), self._open_cells()
        # Those that wait for tuning come later.
        cells = {c.name: c for c in self.plan.cells(records) if c.settings is not None}
        members = {name: self._member(cell) for name, cell in cells.items()}
        ready = [members[cell.name] for cell in open_cells if cell.name in members]
        room = len(ready) if self.most_cells is None else self.most_cells - self._begun
        if not ready or time.monotonic() >= self._ends or room <= 0:
            return False
        # What was finished and not recorded, as after a crash, is recorded first.
        group = [member for member in ready if member.is_done]
        group = group or self.runner.next_group(ready, [*members.values()], room)
        for member in group:
            check_workdir(member.folder, member.config)
        self.runner.say(f"{', '.join(member.name for member in group)}: {len(open_cells)} open")
        new, stopped = [member for member in group if not member.is_done], False
        try:
            if new:
                self.runner.train_group(group)
        except RunStopped as error:
            self.runner.say(f"{group[0].name}: {error}")
            stopped = True
        # Where they could not be one program, the first was trained alone.
        self._begun += sum(member.is_done for member in new)
        for member in group:
            if member.is_done and member.name not in self._recorded:
                self._recorded.add(member.name)
                record = make_record(self.table, cells[member.name], member, self.plan.brief)
                self._append(record)
                if member.summary() is None:
                    self.runner.say(f"{member.name}: {member.failure()}")
        return not stopped

    def _member(self, cell: Cell) -> Member:
        if cell not in self._members:  # making thousands of configurations takes seconds
            config = self.plan.config(cell)
            config.update_from_flattened_dict(dict(self.overrides))
            self._members[cell] = Member(self.runner.out / cell.name, {}, cell.seed, config)
        return self._members[cell]


def make_record(table: str, cell: Cell, member: Member, brief: bool = False) -> dict[str, Any]:
    """What is kept of a finished run: its place in the table, its config, summary and curves.

    The summary is None if the loss or its gradient did not stay finite. A brief record has no
    curves, and of its summary what is not of each class.
    """
    place = dataclasses.asdict(cell)
    del place["settings"]
    lines = JsonLines(member.folder / "metrics.jsonl").read()
    kept = [name for name in _CURVES if lines and name in lines[-1] and not brief]
    summary = member.summary()
    if summary and brief:
        summary = {name: value for name, value in summary.items() if name not in _OF_CLASSES}
    return {
        "cell": cell.name,
        "dataset": table,
        **place,
        "date": datetime.now(UTC).date().isoformat(),
        "config": member.config.to_dict(),
        "summary": summary,
        "curves": {name: [line[name] for line in lines] for name in kept},
    }


def _stamp(path: Path) -> tuple[int, int] | None:
    """Tells versions of a file apart; None if there is none."""
    if not path.exists():
        return None
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Adds a record; packed ones are unpacked first, and what a crash left of half a line drops."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (path.exists() and path.read_bytes().endswith(b"\n")) and (found := read_records(path)):
        JsonLines(path).write(found)
    JsonLines(path).append(record)


def check_records(plan: TablePlan, records: Records) -> None:
    """Raises InputError if a run was recorded with other settings than it has now."""
    by_name = {record["cell"]: record for record in records}
    # What a field that came later would have been.
    defaults = flat_defaults()
    for cell in plan.cells(records):
        if cell.name not in by_name or cell.settings is None:
            continue
        record = defaults | flatten_config(by_name[cell.name]["config"])
        remedy = "Remove its line, and its folder of that name, to train it anew."
        check_same(record, plan.config(cell), f"The record of {cell.name}", remedy)
