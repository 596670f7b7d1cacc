"""Trains the runs of a table in the order of their worth, for as long as it may, and records each.

Runs that one program can train are trained together where that is faster, the first of them with
those that come later; the others one by one. Runs that were begun together go on together.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spa_jax.errors import InputError
from spa_jax.reproduction.cells import Cell
from spa_jax.reproduction.plan import TablePlan, tuned_as
from spa_jax.reproduction.records import append_record, check_records, make_record, read_records
from spa_jax.sweeps.grid import Member
from spa_jax.sweeps.runner import Runner
from spa_jax.training.checking import check_runs
from spa_jax.training.loop import RunStopped
from spa_jax.training.rundir.workdir import FREE_ON_RESUME, LOCATION_FIELDS, check_workdir

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class DriverOptions:
    """What to do of a table, and where.

    Attributes:
      folder: gets a workdir for each run.
      records: a file of JSON lines, one for each finished run; it says what is done.
      minutes: for how long to go on; a run that is cut off is continued the next time.
      most_cells: how many runs to begin or continue at most, but that those begun together go on
        together; None: no limit.
      only: names of runs, or of runs without their seed; empty: all of the table.
      overrides: fields of every configuration that say where its data are and how they are brought.
      together: begin runs as one program, or one by one; None: what is faster here.
      command: the command line that the runs' summaries name.
    """

    folder: Path
    records: Path
    minutes: float = math.inf
    most_cells: int | None = None
    only: Sequence[str] = ()
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    together: bool | None = None
    command: str | None = None


def reproduce(table: str, plan: TablePlan, options: DriverOptions, say: Say) -> int:
    """Trains what a table lacks, in the order of its worth.

    Args:
      table: its name, which the records carry.
      plan: its runs.
      options: what of it to do, and where.
      say: gets a line for a person now and then.

    Returns:
      How many of the runs that were asked for are still open.

    Raises:
      InputError: names that are none of the table's, a record or a folder of other settings than
        now, or whatever a run that was asked for would be refused for, such as missing data;
        nothing has been trained.
    """
    if not options.records.exists():
        say(f"There are no records yet: {options.records.absolute()} does not exist.")
    _check_options(plan, options)
    driver = _Driver(table, plan, options, say)
    driver.check()
    while driver.train_next():
        pass
    return len(driver.open_cells())


def _check_options(plan: TablePlan, options: DriverOptions) -> None:
    records = read_records(options.records)
    check_records(plan, records)
    cells = plan.cells(records)
    known = {name for cell in cells for name in (cell.name, cell.group_name)}
    strange = [name for name in options.only if name not in known]
    if strange:
        raise InputError(
            f"--only names {', '.join(strange)}, which the table does not have: its names are like "
            f"{cells[0].name}, or {cells[0].group_name} for all seeds."
        )
    for field in options.overrides:
        if field not in LOCATION_FIELDS and field.split(".")[0] not in FREE_ON_RESUME:
            raise InputError(
                f"--set {field} would change what the table's runs compute: it takes "
                f"{', '.join(LOCATION_FIELDS)} and the fields of {', '.join(FREE_ON_RESUME)}."
            )


class _Driver:
    """Trains one run, or one group of runs, at a time."""

    def __init__(self, table: str, plan: TablePlan, options: DriverOptions, say: Say) -> None:
        self._table, self._plan, self._options, self._say = table, plan, options, say
        self._ends = time.monotonic() + 60 * options.minutes
        self._begun = 0
        self._runner = Runner(
            options.folder,
            options.together,
            say=say,
            keep_going=lambda: time.monotonic() < self._ends,
            command=options.command,
        )

    def check(self) -> None:
        """Refuses what would be refused on the way, before anything is trained."""
        ready, waiting = [], []
        for cell in self.open_cells():
            (waiting if cell.settings is None else ready).append(self._member(cell))
        self._runner.check(ready)
        # Of what they will be set to nothing is known yet.
        check_runs(member.config for member in waiting)

    def open_cells(self) -> list[Cell]:
        """The runs without a record that were asked for, and the tuning that those wait for."""
        records, only = read_records(self._options.records), self._options.only
        done = {record["cell"] for record in records}
        left = [cell for cell in self._plan.cells(records) if cell.name not in done]
        if not only:
            return left
        asked = [cell for cell in left if cell.name in only or cell.group_name in only]
        waiting = {(tuned_as(c.method), c.spa_method) for c in asked if c.settings is None}
        return [c for c in left if c in asked or _tunes(c) in waiting]

    def train_next(self) -> bool:
        """Trains the first runs that are open; False if none is, or no time is left for them."""
        most = math.inf if self._options.most_cells is None else self._options.most_cells
        open_cells = self.open_cells()
        # Those that wait for tuning come later.
        ready = [self._member(cell) for cell in open_cells if cell.settings is not None]
        room = most - self._begun
        if not ready or time.monotonic() >= self._ends or room <= 0:
            return False
        # What was finished and not recorded, as after a crash, is recorded first.
        group = [member for member in ready if member.is_done] or self._next_group(ready, room)
        for member in group:
            check_workdir(member.folder, member.config)
        self._say(f"{', '.join(member.name for member in group)}: {len(open_cells)} open")
        new, stopped = [member for member in group if not member.is_done], False
        try:
            if new:
                self._runner.train_group(group)
        except RunStopped as error:
            self._say(f"{group[0].name}: {error}")
            stopped = True
        # Where they could not be one program, the first was trained alone.
        self._begun += sum(member.is_done for member in new)
        self._record(group)
        return not stopped

    def _member(self, cell: Cell) -> Member:
        config = self._plan.config(cell)
        config.update_from_flattened_dict(dict(self._options.overrides))
        return Member(self._options.folder / cell.name, {}, cell.seed, config)

    def _next_group(self, ready: Sequence[Member], room: float) -> list[Member]:
        """The runs of a program that was begun and holds one of these, or the first's."""
        if (self._options.folder / "together").exists():
            cells = self._plan.cells(read_records(self._options.records))
            known = [self._member(cell) for cell in cells if cell.settings is not None]
            return self._runner.next_group(ready, known)
        group = self._runner.next_group(ready)
        return group[: int(min(room, len(group)))]

    def _record(self, group: Sequence[Member]) -> None:
        """Adds records of what is done and has none."""
        records = read_records(self._options.records)
        cells = {cell.name: cell for cell in self._plan.cells(records)}
        recorded = {record["cell"] for record in records}
        for member in group:
            if member.is_done and member.name not in recorded:
                record = make_record(self._table, cells[member.name], member)
                append_record(self._options.records, record)
                if record["summary"] is None:
                    self._say(f"{member.name}: {member.failure()}")


def _tunes(cell: Cell) -> tuple[str, str] | None:
    """The method and variant whose strengths a run helps to choose."""
    return (cell.method, cell.spa_method) if cell.stage == "tune" else None
