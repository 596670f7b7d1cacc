"""Trains the runs of a table in the order of their worth, for as long as it may, and records each.

Runs that one program can train are trained together where that is faster, the less worthy with the
first of them; the others one by one. Runs that were begun together go on together.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from spa_jax.errors import InputError
from spa_jax.reproduction.cells import Cell
from spa_jax.reproduction.plan import Records, TablePlan, tuned_as
from spa_jax.reproduction.records import (
    append_record,
    check_records,
    make_record,
    read_records,
)
from spa_jax.sweeps.grid import Member
from spa_jax.sweeps.members import CannotTrainTogether
from spa_jax.sweeps.together import open_chunks, train_together
from spa_jax.training.config import check_config
from spa_jax.training.loop import RunStopped, run
from spa_jax.training.program import Program, compiled_differences
from spa_jax.training.rundir.json_lines import JsonLines
from spa_jax.training.rundir.workdir import FREE_ON_RESUME, PLACES, check_workdir

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Work:
    """What to do of a table, and where.

    Attributes:
      folder: gets a workdir for each run.
      records: a file of JSON lines, one for each finished run; it says what is done.
      minutes: for how long to go on; a run that is cut off is continued the next time.
      most_cells: how many runs to begin or continue at most, but that those begun together go on
        together; None: no limit.
      only: names of runs, or of runs without their seed; empty: all of the table.
      places: fields of every configuration that say where its data are and how they are brought.
      together: begin runs as one program, or one by one; None: what is faster here.
      command: the command line that the runs' summaries name.
    """

    folder: Path
    records: Path
    minutes: float = math.inf
    most_cells: int | None = None
    only: Sequence[str] = ()
    places: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    together: bool | None = None
    command: str | None = None


def reproduce(table: str, plan: TablePlan, work: Work, say: Say) -> int:
    """Trains what a table lacks, in the order of its worth.

    Args:
      table: its name, which the records carry.
      plan: its runs.
      work: what of it to do, and where.
      say: gets a line for a person now and then.

    Returns:
      How many of the runs that were asked for are still open.

    Raises:
      InputError: names that are none of the table's, missing data, or a record of other settings
        than now.
    """
    _check(plan, work)
    driver = _Driver(table, plan, work, say)
    while driver.train_next():
        pass
    return len(_open_cells(plan, work, read_records(work.records)))


def _check(plan: TablePlan, work: Work) -> None:
    records = read_records(work.records)
    check_records(plan, records)
    known = {name for cell in plan.cells(records) for name in (cell.name, cell.group_name)}
    strange = [name for name in work.only if name not in known]
    if strange:
        some = next(iter(plan.cells(records)))
        raise InputError(
            f"--only names {', '.join(strange)}, which the table does not have: its names are like "
            f"{some.name}, or {some.group_name} for all seeds."
        )
    for field in work.places:
        if field not in PLACES and field.split(".")[0] not in FREE_ON_RESUME:
            raise InputError(
                f"--set {field} would change what the table's runs compute: it takes "
                f"{', '.join(PLACES)} and the fields of {', '.join(FREE_ON_RESUME)}."
            )


def _open_cells(plan: TablePlan, work: Work, records: Records) -> list[Cell]:
    """The runs without a record that were asked for, and the tuning that those wait for."""
    done = {record["cell"] for record in records}
    left = [cell for cell in plan.cells(records) if cell.name not in done]
    if not work.only:
        return left
    asked = [c for c in left if c.name in work.only or c.group_name in work.only]
    waiting = {(tuned_as(c.method), c.spa_method) for c in asked if c.settings is None}
    return [c for c in left if c in asked or _tunes(c) in waiting]


def _tunes(cell: Cell) -> tuple[str, str] | None:
    """The method and variant whose strengths a run helps to choose."""
    return (cell.method, cell.spa_method) if cell.stage == "tune" else None


class _Driver:
    """Trains one run, or one group of runs, at a time."""

    def __init__(self, table: str, plan: TablePlan, work: Work, say: Say) -> None:
        self._table, self._plan, self._work, self._say = table, plan, work, say
        self._ends = time.monotonic() + 60 * work.minutes
        self._begun = 0
        self._program: Program | None = None
        self._together = work.together
        if work.together is None:
            self._together = jax.default_backend() != "cpu"

    def train_next(self) -> bool:
        """Trains the most worthy runs; False if there are none, or no time is left for them."""
        records = read_records(self._work.records)
        open_cells = _open_cells(self._plan, self._work, records)
        # Those that wait for tuning come later.
        ready = [cell for cell in open_cells if cell.settings is not None]
        most = math.inf if self._work.most_cells is None else self._work.most_cells
        if not ready or self._is_over() or self._begun >= most:
            return False
        chunk = self._begun_together(ready, records)
        group = chunk or self._group(ready, most)
        self._say(f"{', '.join(cell.name for cell in group)}: {len(open_cells)} open")
        began, new = time.monotonic(), sum(not member.is_done for member in group.values())
        try:
            self._train(list(group.values()), together=bool(chunk) or len(group) > 1)
        except RunStopped as stopped:
            self._say(f"{next(iter(group)).name}: {stopped}")
            return False
        except CannotTrainTogether as error:
            if chunk:
                raise
            self._say(str(error))
            self._together = False
            return True
        self._begun += new
        done = {record["cell"] for record in records}
        for cell, member in group.items():
            if cell.name not in done:
                self._record(cell, member)
        self._say(f"{time.monotonic() - began:.0f} s")
        return True

    def _is_over(self) -> bool:
        return time.monotonic() >= self._ends

    def _member(self, cell: Cell) -> Member:
        config = self._plan.config(cell)
        config.update_from_flattened_dict(dict(self._work.places))
        return Member(self._work.folder / cell.name, {}, cell.seed, config)

    def _begun_together(self, ready: list[Cell], records: Records) -> dict[Cell, Member]:
        """All runs of a program that was begun and holds one of these; none if there is none."""
        if not (self._work.folder / "together").exists():
            return {}
        known = [cell for cell in self._plan.cells(records) if cell.settings is not None]
        members = {cell.name: self._member(cell) for cell in known}
        by_name = {cell.name: cell for cell in known}
        wanted = {cell.name for cell in ready}
        for chunk in open_chunks(list(members.values()), self._work.folder):
            if any(member.name in wanted for member in chunk.members):
                return {by_name[member.name]: member for member in chunk.members}
        return {}

    def _group(self, ready: list[Cell], most: float) -> dict[Cell, Member]:
        """The first run, and those that are trained with it."""
        first, *others = ready
        member = self._member(first)
        if not self._together or _was_begun(member):
            return {first: member}
        fitting = {
            cell: other
            for cell, other in ((cell, self._member(cell)) for cell in others)
            if not compiled_differences(member.config, other.config) and not _was_begun(other)
        }
        group = [(first, member), *fitting.items()]
        return dict(itertools.islice(group, int(min(most - self._begun, len(group)))))

    def _train(self, members: list[Member], together: bool) -> None:
        """Trains members to their end; one that diverges has said so in its folder."""
        for member in members:
            check_config(member.config)
            check_workdir(member.folder, member.config)  # one that is done is not looked at again
        if together:
            self._program = None  # frees its data before those of the group are loaded
            train_together(
                members,
                self._work.folder,
                say=self._say,
                keep_going=lambda: not self._is_over(),
                command=self._work.command,
            )
        elif not members[0].is_done:
            self._train_alone(members[0])

    def _train_alone(self, member: Member) -> None:
        program = self._program
        if program is None or compiled_differences(program.config, member.config):
            self._program = program = None  # frees its data before the new one's are loaded
            self._program = Program(member.config)
        try:
            run(
                member.config,
                member.folder,
                self._program,
                say=lambda line: None,
                command=self._work.command,
                keep_going=lambda: not self._is_over(),
            )
        except FloatingPointError as error:
            member.fail(str(error))  # it would do so again, and must not stand in others' way

    def _record(self, cell: Cell, member: Member) -> None:
        config, summary = member.config, member.summary()
        lines = JsonLines(member.folder / "metrics.jsonl").read()
        append_record(self._work.records, make_record(self._table, cell, config, summary, lines))
        if summary is None:
            self._say(f"{cell.name}: {member.failure()}")
        else:
            self._say(f"{cell.name}: {summary['test_accuracy']['last']:.4f}")


def _was_begun(member: Member) -> bool:
    """Whether it is done, or has a checkpoint of its own to go on from."""
    return member.is_done or any((member.folder / "checkpoints").glob("*"))
