"""Chunks of members that train as one program: as many as fit into memory, and a record of each.

An open chunk has a folder with the names of its members and the checkpoints of all of them
together; it goes when the last of them is finished.
"""

import contextlib
import dataclasses
import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from spa_jax.files import read_json, write_json
from spa_jax.sweeps.grid import Member
from spa_jax.training.devices import Layout
from spa_jax.training.program import Program

_RECORD = "members.json"

# Of what a device says it has; the rest is for fragmentation and what else lives there.
_SHARE_OF_DEVICE = 0.9
# Of the main memory: a machine does other things too.
_SHARE_OF_HOST = 0.5
_CONTROL_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


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
        numbers = (out / "together" / str(number) for number in itertools.count())
        folder = next(path for path in numbers if not path.exists())
        names = [member.name for member in members]
        write_json(folder / _RECORD, {"size": size, "members": names})
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
        remedy = f"remove {path.parent}, and its runs begin anew."
        record = read_json(path, remedy, {"members": list, "size": int})
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


def memory_limit(device: Any) -> int | None:
    """Bytes that a device may use.

    Args:
      device: of this process. A CPU device gets its share of half the main memory, or of half of
        what the control group allows if that is less.

    Returns:
      The bytes; None where neither the device nor the operating system tells.
    """
    known = device.memory_stats() or {}
    if "bytes_limit" in known:
        return int(_SHARE_OF_DEVICE * known["bytes_limit"])
    if device.platform != "cpu":
        return None
    total = _main_memory()
    return None if total is None else int(_SHARE_OF_HOST * total / jax.local_device_count("cpu"))


def members_that_fit(
    size: int, wanted: int, num_devices: int, needed: int | None, limit: int | None
) -> int:
    """How many members to try next in one program, until it fits.

    Args:
      size: members in the program now, 1 or more.
      wanted: members of the whole grid.
      num_devices: that share the members.
      needed: bytes that this program needs on each device; None: not known.
      limit: bytes that each device may use; None: not known.

    Returns:
      `size` if the program fits, if nobody can tell, or if it has one member on each device, which
      is the least. Otherwise fewer: a multiple of `num_devices`, and such that the chunks that the
      grid is cut into are of about one size.

    Example:
      >>> members_that_fit(25, wanted=25, num_devices=1, needed=225, limit=100)
      9
    """
    if needed is None or limit is None or needed <= limit or size <= num_devices:
        return size
    # What members need grows about in proportion; the images, which they share, do not.
    most = max(min(int(size * limit / needed), size - 1) // num_devices, 1) * num_devices
    chunks = -(-wanted // most)
    return -(-wanted // (chunks * num_devices)) * num_devices


def _main_memory() -> int | None:
    known = []
    with contextlib.suppress(AttributeError, OSError, ValueError):  # another operating system
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):  # there is no control group, or it says "max"
        known.append(int(_CONTROL_GROUP_LIMIT.read_text()))
    return min(known, default=None)
