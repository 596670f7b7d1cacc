"""Trains the members of a grid as one program, each recorded in a folder like that of its own run.

The grid is cut into chunks that fit into memory. An open chunk has a folder with the names of its
members and the checkpoints of all of them together; it goes when the last of them is finished.
"""

import contextlib
import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from spa_jax.files import write_text_whole
from spa_jax.sweeps.device_memory import members_that_fit, memory_limit
from spa_jax.sweeps.grid import Member
from spa_jax.sweeps.members import MembersProgram
from spa_jax.training.loop import RunStopped, full_report, wants_checkpoint, write_results
from spa_jax.training.metrics import Totals, check_finite, epoch_line, fetch
from spa_jax.training.rundir.checkpoints import Checkpoints, serializable
from spa_jax.training.rundir.json_lines import JsonLines, ProgressBar
from spa_jax.training.rundir.summary import make_summary
from spa_jax.training.rundir.workdir import write_config
from spa_jax.training.state import TrainState

Say = Callable[[str], None]


def train_together(
    members: Sequence[Member],
    out: Path,
    at_once: int | None = None,
    say: Say = print,
    show_progress: bool = False,
    keep_going: Callable[[], bool] = lambda: True,
    command: str | None = None,
) -> None:
    """Trains the members that are not done, from the start or from where their chunk stands.

    Each member gets the `config.json`, `metrics.jsonl`, `summary.json`, plots and last checkpoint
    of a run of its own; step lines and event files are left out. Its times are its share of the
    chunk's. A member whose loss is no longer finite gets a `failed.json`, and the others go on.

    Args:
      members: differ only in the seed and the traced hyper-parameters.
      out: gets a folder `together` while chunks are open.
      at_once: members in a chunk; None: as many as fit into the devices' memory.
      say: gets a line for a person now and then.
      show_progress: draw a progress bar.
      keep_going: asked after each epoch but the last; False stops the chunk at a checkpoint.
      command: the command line that the summaries name as the runs'.

    Raises:
      InputError: runs that cannot be trained together; nothing has been trained.
      RunStopped: `keep_going` said so.
    """
    program = None
    for chunk in open_chunks(members, out):
        if all(member.is_done for member in chunk.members):
            chunk.close()
            continue
        say(f"Continuing the {len(chunk.members)} runs of {chunk.folder}.")
        program = _program_of(chunk, program)
        _Epochs(chunk, program, say, keep_going, command).train(show_progress)
    left = [member for member in members if not member.is_done]
    if not left:
        return
    program = _program_that_fits(left, at_once, program, say)
    for first in range(0, len(left), program.size):
        chunk = Chunk.create(out, left[first : first + program.size], program.size)
        _Epochs(chunk, program, say, keep_going, command).train(show_progress)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Members that are trained as one program.

    Attributes:
      folder: where it is recorded while it is open.
      members: in the order of its arrays.
      size: what the program had room for when it began, which its rounding may depend on.
    """

    folder: Path
    members: list[Member]
    size: int

    @classmethod
    def create(cls, out: Path, members: Sequence[Member], size: int) -> "Chunk":
        """Records a new chunk."""
        root = out / "together"
        taken = {path.name for path in root.iterdir()} if root.exists() else set()
        folder = root / next(str(i) for i in range(len(taken) + 1) if str(i) not in taken)
        record = {"size": size, "members": [member.name for member in members]}
        write_text_whole(folder / _RECORD, json.dumps(record, indent=1) + "\n")
        return cls(folder, list(members), size)

    def close(self) -> None:
        """Removes what is recorded only to go on from."""
        shutil.rmtree(self.folder)
        with contextlib.suppress(OSError):  # other chunks are open
            self.folder.parent.rmdir()


_RECORD = "members.json"


def open_chunks(members: Sequence[Member], out: Path) -> list[Chunk]:
    """The chunks in `out` that were begun and hold none but these members."""
    known = {member.name: member for member in members}
    chunks = []
    for path in sorted((out / "together").glob(f"*/{_RECORD}")):
        record = json.loads(path.read_text())
        if known.keys() >= {*record["members"]}:
            found = [known[name] for name in record["members"]]
            chunks.append(Chunk(path.parent, found, record["size"]))
    return chunks


def _program_of(chunk: Chunk, program: MembersProgram | None) -> MembersProgram:
    """The program if it is the chunk's, or a new one."""
    if program is not None and program.size == chunk.size:
        return program
    data = None if program is None else program.data
    return MembersProgram(chunk.members[0].config, chunk.size, data)


def _program_that_fits(
    members: Sequence[Member], at_once: int | None, program: MembersProgram | None, say: Say
) -> MembersProgram:
    """A program for as many of the members at once as was asked for or as there is memory for."""
    config, devices = members[0].config, jax.devices()
    data = None if program is None else program.data
    wanted = min(at_once or len(members), len(members))
    num_devices, limit = min(len(devices), wanted), memory_limit(devices[0])
    program = MembersProgram(config, wanted, data)
    while at_once is None:
        needed = program.device_bytes()
        fitting = members_that_fit(program.size, len(members), num_devices, needed, limit)
        if fitting == program.size:
            break
        program = MembersProgram(config, fitting, program.data)
    chunks = -(-len(members) // program.size)
    say(f"{len(members)} runs together, in {chunks} chunk(s) of up to {program.size}.")
    return program


@dataclasses.dataclass
class _Epochs:
    """The epochs of a chunk, and the records of its members."""

    chunk: Chunk
    program: MembersProgram
    say: Say
    keep_going: Callable[[], bool]
    command: str | None

    def __post_init__(self) -> None:
        self.config = self.chunk.members[0].config
        # Those that were finished or had failed before are trained along, and not written to.
        self.open = {i: m for i, m in enumerate(self.chunk.members) if not m.is_done}
        self.report: Any = None
        self.lines = {i: JsonLines(m.folder / "metrics.jsonl") for i, m in self.open.items()}

    def train(self, show_progress: bool) -> None:
        """Trains the chunk to its end and closes it."""
        config, spe = self.config, self.program.steps_per_epoch
        for member in self.open.values():
            write_config(member.folder, member.config)
        folder = self.chunk.folder / "checkpoints"
        with (
            Checkpoints(folder, config.checkpoint.keep, self.say) as checkpoints,
            contextlib.closing(self.program.feed),
        ):
            states, start = self._restore(checkpoints)
            self._cut_back(start)
            with (
                ProgressBar(start, config.epochs * spe, show_progress) as bar,
                jax.transfer_guard("disallow"),
            ):
                for epoch in range(start // spe, config.epochs):
                    if not self.open:
                        break
                    states = self._train_epoch(states, epoch, bar)
                    stops = epoch + 1 < config.epochs and not self.keep_going()
                    if stops or wants_checkpoint(config, epoch + 1):
                        checkpoints.save(_with_one_step(self._on_host(states)))
                    if stops:
                        raise RunStopped(f"stopped after epoch {epoch + 1} of {config.epochs}")
                if self.report is None:  # resumed after the last epoch: only the end was missing
                    self.report = fetch(full_report(self.program, states, self.program.config))
        self._finish(self._on_host(states), self.report)
        self.chunk.close()

    def _restore(self, checkpoints: Checkpoints) -> tuple[TrainState, int]:
        """The states of the newest checkpoint, or those before the first step."""
        states = self.program.init_states([member.config for member in self.chunk.members])
        like = _with_one_step(self._on_host(states))
        like = jax.device_put(like, jax.local_devices()[0])
        like = like.replace(rng=jax.random.wrap_key_data(like.rng))
        restored, start = checkpoints.restore_newest(like)
        if not start:
            return states, 0
        on_host = fetch(serializable(restored))
        steps = np.full(len(self.chunk.members), start, np.int32)
        return self.program.place(on_host.replace(step=steps)), start

    def _on_host(self, states: TrainState) -> TrainState:
        """The states of the members, without the copies that fill up the program."""
        number = len(self.chunk.members)
        return jax.tree.map(lambda leaf: leaf[:number], fetch(serializable(states)))

    def _cut_back(self, start: int) -> None:
        """Drops lines after the checkpoint; InputError if it does not hold all before it."""
        spe = self.program.steps_per_epoch
        for lines in self.lines.values():
            lines.check_epochs(start, spe, self.chunk.folder)
            lines.cut_back(start)

    def _train_epoch(self, states: TrainState, epoch: int, bar: ProgressBar) -> TrainState:
        program, began = self.program, time.perf_counter()
        totals = program.zero_totals
        for inputs in program.batches(states, self.config.seed, epoch):
            states, totals = program.train_step(states, totals, inputs)
        jax.block_until_ready(totals)
        train_seconds = time.perf_counter() - began
        self.report, totals = fetch((full_report(program, states, program.config), totals))
        number = len(self.chunk.members)
        images = program.steps_per_epoch * self.config.batch_size * number
        times = {
            "images_per_second": images / train_seconds,
            "seconds": (time.perf_counter() - began) / number,
        }
        self._record_epoch(epoch, totals, times, bar)
        return states

    def _record_epoch(
        self, epoch: int, totals: Totals, times: dict[str, float], bar: ProgressBar
    ) -> None:
        """A line for each member; one that is not finite any more gets none, now and later."""
        step, accuracies = (epoch + 1) * self.program.steps_per_epoch, []
        for i, member in list(self.open.items()):
            own_totals, own_report = _of_member(totals, i), _of_member(self.report, i)
            try:
                check_finite(own_totals)
            except FloatingPointError as error:
                member.fail(str(error))
                self.say(f"{member.name} failed in epoch {epoch + 1}; the others go on.")
                del self.open[i]
                continue
            line = epoch_line(epoch, step, own_totals, own_report)
            self.lines[i].append(line | times)
            accuracies.append(line["test_accuracy"])
        if accuracies:
            shown = {"test acc": float(np.mean(accuracies)), "img/s": times["images_per_second"]}
            bar.show(step, {"runs": float(len(accuracies)), **shown})

    def _finish(self, on_host: TrainState, report: dict[str, Any]) -> None:
        """Leaves each member what a run of its own leaves."""
        for i, member in self.open.items():
            own, own_report = _of_member(on_host, i), _of_member(report, i)
            folder = member.folder / "checkpoints"
            shutil.rmtree(folder, ignore_errors=True)  # of a finish that was cut off
            with Checkpoints(folder, member.config.checkpoint.keep, self.say) as checkpoints:
                checkpoints.save(own)
            lines = self.lines[i].read()
            summary = make_summary(
                member.config, self.program, own_report, own.params, lines, self.command
            )
            summary["parallel"] = "vmap"
            write_results(member.config, member.folder, self.program, own_report, summary)


def _with_one_step(on_host: TrainState) -> TrainState:
    """What a checkpoint holds: all members are at one step, which is its number."""
    return on_host.replace(step=on_host.step[0])


def _of_member(tree: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[i], tree)
