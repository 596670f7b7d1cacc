"""Arrays from one process to another through files in memory, which are used again."""

import errno
import os
import uuid
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spa_jax.errors import InputError

_FREE = ".free"


class Handed(NamedTuple):
    """A file that holds an array."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class Handover:
    """Arrays that workers put into a folder and their parent takes out.

    Fresh shared memory costs more than a copy, because the system clears each page and maps it
    anew. So the parent marks a file as free once it has read it, by its name, and a worker that
    needs one claims it by renaming it, which one process alone can do.

    Attributes:
      folder: on a file system in memory, or it is slow.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def put(self, array: np.ndarray) -> Handed:
        """Writes an array; InputError if the file system is full."""
        path = self.folder / uuid.uuid4().hex
        try:
            # Not truncated: its pages are kept.
            with open(path, "r+b" if self._claim(path) else "xb", buffering=0) as file:
                left = np.ascontiguousarray(array).data.cast("B")
                while left:
                    left = left[file.write(left) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(
                f"{self.folder} is full: a batch of {array.nbytes} bytes did not fit. Each worker "
                "keeps a few batches there: give the container more shared memory (docker run "
                "--shm-size), or use fewer workers."
            ) from error
        return Handed(path.name, array.shape, array.dtype.str)

    def take(self, handed: Handed) -> np.ndarray:
        """Reads an array into memory of its own and frees its file."""
        path = self.folder / handed.name
        array = np.empty(handed.shape, handed.dtype)
        with open(path, "rb", buffering=0) as file:
            left = array.data.cast("B")
            while left and (count := file.readinto(left)):
                left = left[count:]
        if left:
            raise EOFError(f"{path} ends {len(left)} bytes before the array that it holds.")
        path.rename(path.with_suffix(_FREE))
        return array

    def _claim(self, path: Path) -> bool:
        """Whether there was a free file, which now has the given path."""
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(_FREE):
                    try:
                        os.rename(entry.path, path)
                    except FileNotFoundError:  # another worker was faster
                        continue
                    return True
        return False
