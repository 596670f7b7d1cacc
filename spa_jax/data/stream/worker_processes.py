"""The elements of a random-access source, in order, made by worker processes or threads."""

import atexit
import functools
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from spa_jax.data.stream.handover import Handover
from spa_jax.errors import InputError

_MAX_THREADS = 8


@runtime_checkable
class ArraySource(Protocol):
    """Arrays by position; pickled into the workers, so it opens what it needs when first read."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...


def read_in_order(source: ArraySource, workers: int) -> Generator[np.ndarray, None, None]:
    """Makes the elements of a source ahead of their use.

    Args:
      source: element k is an array; it raises InputError for what its user can mend.
      workers: processes; 0 uses threads of this one.

    Returns:
      The elements in the source's order, whatever the number of workers. Closing it ends the
      workers.

    Raises:
      InputError: as the source raised it, or a worker that was killed.
    """
    reader = _Reader(source, min(workers, len(source)))
    atexit.register(reader.close)  # before the modules that it needs are gone
    try:
        for _ in range(len(source)):
            yield reader.read()
    finally:
        atexit.unregister(reader.close)
        reader.close()


class _Reader:
    """A grain iterator, and the folder through which its workers hand their arrays over."""

    def __init__(self, source: ArraySource, workers: int):
        import grain

        threads = 0 if workers else min(_MAX_THREADS, os.cpu_count() or 1)
        # Not grain's default of 500 elements, which are batches here.
        read_options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        self._handover = Handover(_make_folder()) if workers else None
        arrays = grain.MapDataset.source(source)
        if self._handover:
            arrays = arrays.map(self._handover.put)
        dataset = arrays.to_iter_dataset(read_options)
        if self._handover:
            _let_grain_read_its_flags()
            options = grain.MultiprocessingOptions(num_workers=workers)
            start = functools.partial(_start_worker, self._handover.folder)
            dataset = dataset.mp_prefetch(options, worker_init_fn=start)
        self._iterator: Any = iter(dataset)

    def read(self) -> np.ndarray:
        element: Any
        try:
            element = next(self._iterator)
        except InputError as error:
            raise InputError(str(error)) from None  # without the worker's traceback
        except RuntimeError as error:
            if "exit code" not in str(error):
                raise
            raise InputError(
                f"A worker process has ended: {error} Exit code -9 means that memory was full: use "
                "fewer workers; 1 at the start that a script has to keep its top level behind "
                '`if __name__ == "__main__":`.'
            ) from None
        return self._handover.take(element) if self._handover else element

    def close(self) -> None:
        if self._iterator is None:
            return
        try:
            self._iterator.close()
        finally:
            self._iterator = None  # its finalizer needs modules that are gone at the very end
            if self._handover:
                shutil.rmtree(self._handover.folder, ignore_errors=True)


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
    """Leaves Ctrl-C to the parent, and ends the worker if the parent is killed."""
    del index, count
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent, folder), daemon=True).start()


def _end_after(parent: Any, folder: Path) -> None:
    parent.join()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
