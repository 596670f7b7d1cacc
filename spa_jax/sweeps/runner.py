"""The one way to train many runs: those of one program together, or one after another."""

import dataclasses
import shutil
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from spa_jax.errors import InputError
from spa_jax.sweeps.chunks import Chunk, open_chunks, program_of_chunk, program_that_fits
from spa_jax.sweeps.grid import Member
from spa_jax.training.checking import check_runs
from spa_jax.training.config import resolve
from spa_jax.training.devices import CannotTrainTogether
from spa_jax.training.loop import EpochLoop, Say
from spa_jax.training.program import Program, compiled_differences
from spa_jax.training.rundir.checkpoints import Checkpoints, saved_steps
from spa_jax.training.rundir.owner import check_owner, owned
from spa_jax.training.rundir.run_record import RunRecord, Trained
from spa_jax.training.rundir.workdir import (
    SUMMARY,
    check_config,
    check_workdir,
    claimed_data,
    claimed_init,
    data_of_finished,
)

Claim = tuple[str, Hashable, str | None]
"""A result, the options of its data, and the checksum of what those were, where it is known."""

Start = tuple[str, Mapping[str, Any] | None]
"""A result, and the record of the run that it started from, where it did and that is known."""


@dataclasses.dataclass
class Runner:
    """Trains members, each recorded in a folder like that of `train.py`.

    A member whose loss or gradient does not stay finite gets a `failed.json`, and the others go on.
    What was begun is continued: as one program if it was begun so, else by itself.

    Attributes:
      out: the folder of the members; gets a folder `together` while members train as one program.
      together: train those of one program as one; None: where that is faster, on accelerators.
      at_once: members in a program; None: as many as fit into the devices' memory.
      say: gets a line for a person now and then.
      show_progress: draw a progress bar.
      keep_going: asked after each epoch but the last; False stops at a checkpoint.
      command: the command line that the summaries name as the runs'.
    """

    out: Path
    together: bool | None = None
    at_once: int | None = None
    say: Say = print
    show_progress: bool = False
    keep_going: Callable[[], bool] = lambda: True
    command: str | None = None

    def __post_init__(self) -> None:
        self._program: Program | None = None
        self._side_by_side: Sequence[Member] = ()
        self._as_one = self.together
        if self.together is None:
            self._as_one = jax.default_backend() != "cpu"

    def check(self, members: Sequence[Member], recorded: Iterable[Claim] = ()) -> None:
        """Raises InputError for whatever a member would be refused for, before any is trained.

        Args:
          members: of the grid.
          recorded: what else stands beside them, and on which data it was made.
        """
        check_owner(self.out)
        for member in members:
            check_workdir(member.folder, member.config)
            _ = member.summary(), member.failure()  # which refuse a damaged file
        begun = {
            member.name
            for chunk in open_chunks(members, self.out)
            if saved_steps(chunk.folder / "checkpoints")
            for member in chunk.members
        }
        begun |= {member.name for member in members if member.was_begun}
        left = [member for member in members if not member.is_done]
        loaded = check_runs(
            (member.config for member in left if member.name not in begun),
            self.together or (None if self._as_one else False),
            continued=(member.config for member in left if member.name in begun),
        )
        for member in members:
            options = resolve(member.config).data
            if (member.folder / SUMMARY).exists() and options not in loaded:
                data = data_of_finished(member.folder, options)
                if data is not None:
                    loaded[options] = data.content_checksum
        now = [("what is there now", data, checksum) for data, checksum in loaded.items()]
        check_same_data([*now, *recorded, *map(_claim, members)])
        check_same_start(map(_start, members))
        self._side_by_side = members

    def train(self, members: Sequence[Member]) -> None:
        """Trains the members that are not done, those of one program after one another.

        Raises:
          InputError: a wrong configuration, data or folder, or another process trains there, and
            nothing has been trained; or data or a first run that were changed meanwhile, or a full
            disk.
          RunStopped: `keep_going` said so.
        """
        self.check(members)

        def first_of_program(member: Member) -> int:
            return next(i for i, other in enumerate(members) if _fits(member, other))

        ordered = sorted(members, key=first_of_program)
        with owned(self.out, say=self.say):
            for member in members:  # which another process may have trained since
                check_config(member.folder, member.config)
            while group := self.next_group(ordered):
                self.train_group(group)
        check_same_data(map(_claim, members))

    def next_group(
        self,
        members: Sequence[Member],
        known: Sequence[Member] | None = None,
        most: int | None = None,
    ) -> list[Member]:
        """What is trained next: an open chunk, or the first that is not done and what goes with it.

        Args:
          members: all that may be trained, the first first.
          known: all that an open chunk may hold; None: `members`.
          most: of them that are begun together; None: no limit.
        """
        left = [member for member in members if not member.is_done]
        names = {member.name for member in left}
        for chunk in open_chunks(members if known is None else known, self.out):
            if all(member.is_done for member in chunk.members):
                chunk.close()  # which a crash at its end had left
            elif any(member.name in names for member in chunk.members):
                return chunk.members
        if not left or not self._as_one or left[0].was_begun:
            return left[:1]
        return [m for m in left if _fits(m, left[0]) and not m.was_begun][:most]

    def train_group(self, group: Sequence[Member]) -> None:
        """Trains what :meth:`next_group` gave, to the end."""
        chunks = open_chunks(group, self.out)
        if chunks:
            self._program = None  # frees its data before those of the chunk are loaded
            self._train_chunk(chunks[0], program_of_chunk(chunks[0]))
        elif group[0].was_begun or not self._as_one or (len(group) == 1 and not self.together):
            self._train_alone(group[0])
        else:
            self._train_together(group)

    def _train_together(self, group: Sequence[Member]) -> None:
        """As one program in chunks; the first alone where they cannot be one."""
        self._program = None
        try:
            program = program_that_fits(group, self.at_once, self.say)
        except CannotTrainTogether as error:
            if self.together:
                raise
            self.say(str(error))
            self._as_one = False
            self._train_alone(group[0])
            return
        size = program.layout.size
        for start in range(0, len(group), size):
            self._train_chunk(Chunk.create(self.out, group[start : start + size], size), program)

    def _train_alone(self, member: Member) -> None:
        if self._program is None or not self._program.adopt(member.config):
            self.say(f"{member.name}: compiling")
            self._program = None  # frees its data before the new one's are loaded
            self._program = Program(member.config)
        self._train([member], member.folder, self._program)

    def _train_chunk(self, chunk: Chunk, program: Program) -> None:
        self._train(chunk.members, chunk.folder, program)
        chunk.close()

    def _train(self, members: Sequence[Member], folder: Path, program: Program) -> None:
        """To the end, with checkpoints of all in a folder, which may be that of a single run."""
        alone = folder == members[0].folder
        if not saved_steps(folder / "checkpoints") and program.first_run is not None:
            names = {member.name for member in members}
            others = [member for member in self._side_by_side if member.name not in names]
            now = (f"{members[0].folder}, begun now,", program.first_run.record)
            check_same_start([*map(_start, others), now])
        records = [RunRecord(member.config, member.folder) for member in members]

        def fail(i: int, error: FloatingPointError) -> None:
            members[i].fail(str(error))
            self.say(f"{members[i].name}: failed; see {members[i].failure_path}")

        loop = EpochLoop(
            program,
            records,
            folder / "checkpoints",
            self.say,
            self.show_progress,
            self.keep_going,
            # Those that were finished or had failed before are trained along, and not written to.
            closed=[i for i, member in enumerate(members) if member.is_done],
            fail=None if alone else fail,
        )
        folders = {folder, *(member.folder for member in members if not member.is_done)}
        with owned(*folders, say=self.say):
            try:
                ended = loop.train()
            except FloatingPointError as error:
                if not alone:
                    raise
                fail(0, error)
                if loop.interruption.due:
                    raise loop.interruption.error() from None
                return
            for i, trained in ended.items():
                if not alone:
                    _leave_checkpoint(members[i], trained, self.say)
                summary = records[i].finish(program, trained, self.command)
                self.say(f"{members[i].name}: test accuracy {summary['test_accuracy']['last']:.3f}")


def check_same_data(claims: Iterable[Claim]) -> None:
    """Raises InputError if results that name the same data were made on different ones."""
    if found := _unlike(claims):
        what, checksum, other, known = found
        raise InputError(
            f"{what} and {other} are not of the same data, so that they cannot stand side by "
            f"side: the checksums of what is trained and tested on are {checksum} and {known}. "
            "Put the data back as they were, or choose another --out."
        )


def check_same_start(starts: Iterable[Start]) -> None:
    """Raises InputError if results that name one first run started from different states of it."""
    named = ((what, init["run"], init) for what, init in starts if init)
    if found := _unlike(named, lambda init: init["params_checksum"]):
        what, init, other, known = found
        here, there = (
            f"step {start['step']} (checksum {start['params_checksum']})" for start in (init, known)
        )
        raise InputError(
            f"{what} and {other} do not start from one state of {init['run']}, so that they "
            f"cannot stand side by side: one from {here}, the other from {there}. Choose "
            "another --out, and let that run end before or name a checkpoint of it by "
            "config.init.run."
        )


def _unlike(
    claims: Iterable[tuple[str, Hashable, Any]], told_by: Callable[[Any], Any] = lambda value: value
) -> tuple[str, Any, str, Any] | None:
    """The first two results that say different things of the same, with what each says."""
    first: dict[Hashable, tuple[str, Any]] = {}
    for what, key, said in claims:
        if said is None:
            continue
        other, known = first.setdefault(key, (what, said))
        if told_by(said) != told_by(known):
            return what, said, other, known
    return None


def _start(member: Member) -> Start:
    return str(member.folder), claimed_init(member.folder)


def _claim(member: Member) -> Claim:
    return str(member.folder), resolve(member.config).data, claimed_data(member.folder)


def _fits(member: Member, other: Member) -> bool:
    return not compiled_differences(member.config, other.config)


def _leave_checkpoint(member: Member, trained: Trained, say: Say) -> None:
    """The last checkpoint of a run of its own."""
    folder = member.folder / "checkpoints"
    shutil.rmtree(folder, ignore_errors=True)  # of a finish that was cut off
    with Checkpoints(folder, member.config.checkpoint.keep, say) as checkpoints:
        checkpoints.save(trained.state)
