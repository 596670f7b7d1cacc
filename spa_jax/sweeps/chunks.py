"""Chunks of members that train as one program: as many as fit into memory, and a record of each.

An open chunk has a folder with the names of its members and the checkpoints of all of them
together; it goes when the last of them is finished.
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from spa_jax.files import write_text_whole
from spa_jax.sweeps.device_memory import members_that_fit, memory_limit
from spa_jax.sweeps.grid import Member
from spa_jax.training.devices import Layout
from spa_jax.training.program import Program

_RECORD = "members.json"


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


def program_of_chunk(chunk: Chunk) -> Program:
    """The program that a chunk goes on with, of the size that it began with."""
    devices = jax.devices()
    # A number of devices that leaves its size as it is, wherever it began.
    shared_by = max(n for n in range(1, len(devices) + 1) if chunk.size % n == 0)
    layout = Layout("vmap", devices[:shared_by], chunk.size)
    return Program(chunk.members[0].config, layout=layout)


def program_that_fits(
    members: Sequence[Member], at_once: int | None, say: Callable[[str], None]
) -> Program:
    """A program for as many of the members as was asked for, or as there is memory for.

    Raises:
      CannotTrainTogether: as :func:`spa_jax.training.checking.prepare_run`.
    """
    config, devices = members[0].config, jax.devices()
    wanted = min(at_once or len(members), len(members))
    num_devices, limit = min(len(devices), wanted), memory_limit(devices[0])
    program = Program(config, layout=Layout("vmap", members=wanted))
    while at_once is None:
        size, needed = program.layout.size, program.device_bytes()
        fitting = members_that_fit(size, len(members), num_devices, needed, limit)
        if fitting == size:
            break
        program = Program(config, program.data, Layout("vmap", members=fitting))
    size = program.layout.size
    say(f"{len(members)} runs together, in {-(-len(members) // size)} chunk(s) of up to {size}.")
    return program
