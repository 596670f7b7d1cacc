"""The elements of a random-access source, in order, made by worker processes or threads.

Arrays come from worker processes through files in memory, which are used again: fresh shared memory
costs more than a copy, because the system clears each page and maps it anew. So the parent marks a
file as free once it has read it, by its name, and a worker that needs one claims it by renaming it,
which one process alone can do.
"""

import atexit
import contextlib
import errno
import functools
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spa_jax.errors import InputError

_MAX_THREADS = 8
_FREE = ".free"


def read_in_order(source: Any, workers: int) -> Generator[np.ndarray, None, None]:
    """Makes the elements of a source ahead of their use.

    Args:
      source: has a length, and arrays by position; it is pickled into the workers, so it opens what
        it needs when it is first read, and raises InputError for what its user can mend.
      workers: processes; 0 uses threads of this one.

    Returns:
      The elements in the source's order, whatever the number of workers. Closing it ends the
      workers.

    Raises:
      InputError: as the source raised it, or a worker that was killed.
    """
    import grain

    workers = min(workers, len(source))
    threads = 0 if workers else min(_MAX_THREADS, os.cpu_count() or 1)
    # Not grain's default of 500 elements, which are batches here.
    read_options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    arrays = grain.MapDataset.source(source)
    with contextlib.ExitStack() as stack:
        if workers:
            folder = _make_folder()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            _let_grain_read_its_flags()
            dataset = arrays.map(functools.partial(hand_over, folder)).to_iter_dataset(read_options)
            start = functools.partial(_start_worker, folder)
            options = grain.MultiprocessingOptions(num_workers=workers)
            dataset = dataset.mp_prefetch(options, worker_init_fn=start)
            dataset = dataset.map(functools.partial(take, folder))
        else:
            dataset = arrays.to_iter_dataset(read_options)
        running: list[Any] = [iter(dataset)]
        stack.callback(running.clear)  # its finalizer needs modules that are gone at the very end
        stack.callback(running[0].close)
        atexit.register(stack.close)  # before the modules that it needs are gone
        stack.callback(atexit.unregister, stack.close)
        with _plain_errors():
            for _ in range(len(source)):
                yield next(running[0])


@contextlib.contextmanager
def _plain_errors() -> Generator[None, None, None]:
    """Raises what a worker met without its traceback."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error)) from None
    except RuntimeError as error:
        if "exit code" not in str(error):
            raise
        raise InputError(
            f"A worker process has ended: {error} Exit code -9 means that memory was full: use "
            "fewer workers; 1 at the start that a script has to keep its top level behind "
            '`if __name__ == "__main__":`.'
        ) from None


class Handed(NamedTuple):
    """A file that holds an array."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def hand_over(folder: Path, array: np.ndarray) -> Handed:
    """Writes an array into a file of a folder; InputError if the file system is full."""
    path = folder / uuid.uuid4().hex
    try:
        # Not truncated: its pages are kept.
        with open(path, "r+b" if _claim(path) else "xb") as file:
            file.write(np.ascontiguousarray(array).data)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"{folder} is full: a batch of {array.nbytes} bytes did not fit. Each worker keeps a "
            "few batches there: give the container more shared memory (docker run --shm-size), or "
            "use fewer workers."
        ) from error
    return Handed(path.name, array.shape, array.dtype.str)


def take(folder: Path, handed: Handed) -> np.ndarray:
    """Reads an array into memory of its own and frees its file."""
    path = folder / handed.name
    array = np.empty(handed.shape, handed.dtype)
    with open(path, "rb") as file:
        left = array.nbytes - file.readinto(array.data.cast("B"))
    if left:
        raise EOFError(f"{path} ends {left} bytes before the array that it holds.")
    path.rename(path.with_suffix(_FREE))
    return array


def _claim(path: Path) -> bool:
    """Whether there was a free file, which now has the given path."""
    for free in path.parent.glob(f"*{_FREE}"):
        with contextlib.suppress(FileNotFoundError):  # another worker was faster
            free.rename(path)
            return True
    return False


def _make_folder() -> Path:
    """A new folder in memory, where the system has a place for it."""
    memory = Path("/dev/shm")
    in_memory = memory.is_dir() and os.access(memory, os.W_OK)
    prefix = f"spa_jax_{os.getpid()}_"
    return Path(tempfile.mkdtemp(prefix=prefix, dir=memory if in_memory else None))


def _let_grain_read_its_flags() -> None:
    """In a notebook, a test or a plain script nobody parses absl's flags, and grain would fail.

    Its own flags alone are marked as given, at their defaults; others, and a later parse, are
    left as they are.
    """
    from absl import flags

    if not flags.FLAGS.is_parsed():
        for name in flags.FLAGS:
            if name.startswith("grain_"):
                flags.FLAGS[name].present = 1


def _start_worker(folder: Path, index: int, count: int) -> None:
    """Leaves Ctrl-C and SIGTERM, which all processes get, to the parent; ends if that is killed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent, folder), daemon=True).start()


def _end_after(parent: Any, folder: Path) -> None:
    parent.join()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
