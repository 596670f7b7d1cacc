"""A folder has one owner: while a process trains in it, no other one does."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from spa_jax.errors import InputError

OWNER = "owner.json"
"""Says who trains in a folder; it is locked meanwhile, and removed at the end."""

# Seconds between two heartbeats, and how long a silent owner is waited for where no lock tells.
_BEAT, _PATIENCE = 10.0, 60.0
# Who only looks holds the lock for a moment.
_TRIES, _PAUSE = 5, 0.1
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextlib.contextmanager
def owned(*folders: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Makes this process, with the hosts that train with it, the one owner of folders meanwhile.

    The kernel holds the lock, and releases it however the process ends. Where it knows none, or
    another machine was the owner, as on a shared file system, one without a heartbeat counts as
    gone.

    Args:
      folders: which are made if they are not there.
      say: gets a line where an owner's heartbeat has to be waited for.

    Raises:
      InputError: another process is the owner, on every host; or, from within, a full disk or one
        that became read-only.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder, owned(Path(folder), say=print):
      ...     os.listdir(folder)
      ['owner.json']
    """
    refusal, stopped = None, threading.Event()
    with contextlib.ExitStack() as stack, _disk_told(folders[0]):
        if jax.process_index() == 0:
            try:
                held = [stack.enter_context(_held(folder / OWNER, say)) for folder in folders]
                beating = threading.Thread(target=_beat, args=(held, stopped), daemon=True)
                beating.start()
                stack.callback(beating.join)
                stack.callback(stopped.set)
            except (InputError, OSError) as error:
                refusal = error
        if np.any(multihost_utils.process_allgather(np.array(refusal is not None))):
            raise refusal or InputError(
                f"The first host cannot train in {folders[0]}: it says why."
            )
        yield


def check_owner(folder: Path) -> None:
    """Raises InputError if another process trains in a folder; nothing is written.

    Several hosts do not ask, as one of them may be the owner already: see :func:`owned`.
    """
    path = folder / OWNER
    if jax.process_count() == 1 and path.exists():
        with path.open("r+") as file:
            if _lock(file.fileno()) is False:
                raise _in_use(path)


@contextlib.contextmanager
def _disk_told(folder: Path) -> Iterator[None]:
    """Raises InputError for a disk that takes nothing more."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise InputError(
            f"{folder} cannot be written to ({error.strerror}). The last checkpoint is whole: make "
            "room, or let it be written to, and run again to go on from there."
        ) from error


@contextlib.contextmanager
def _held(path: Path, say: Callable[[str], None]) -> Iterator[int]:
    """The open file of a folder that is this process's until the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = None
    while descriptor is None:
        descriptor = _take(path, say)
    try:
        yield descriptor
    finally:
        with contextlib.suppress(OSError):  # a disk that became read-only has its say elsewhere
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path: Path, say: Callable[[str], None]) -> int | None:
    """Opens and locks an owner's file; None if the owner before has just removed it."""
    with contextlib.ExitStack() as stack:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        stack.callback(os.close, descriptor)
        locked, before = _lock(descriptor), _read(path)
        if locked is False:
            raise _in_use(path)
        if before and not (locked and before.get("machine") == _machine()):
            say(f"{path.parent} was left by {_who(before)}: waiting {_PATIENCE:g} s for its sign.")
            if _shows_life(path, before):
                raise _in_use(path)
        if not _is_at(descriptor, path):
            return None
        os.ftruncate(descriptor, 0)
        _write(descriptor)
        stack.pop_all()
        return descriptor


def _lock(descriptor: int) -> bool | None:
    """Whether the lock of an open file is now held by it; None where there are no locks."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_PAUSE)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return None
    return False


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still is the one at a path, which the owner before may have removed."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _shows_life(path: Path, record: dict[str, Any]) -> bool:
    """Whether an owner's record changes in time; not if it is gone, as after a run's end."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and (now := _read(path)):
        if now != record:
            return True
        time.sleep(_PAUSE)
    return False


def _beat(descriptors: list[int], stopped: threading.Event) -> None:
    while not stopped.wait(_BEAT):
        for descriptor in descriptors:
            with contextlib.suppress(OSError):  # a full disk has its say elsewhere
                _write(descriptor)


def _write(descriptor: int) -> None:
    """Writes who is the owner, and that it lives; always as long, so that no half is read."""
    record = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "machine": _machine(),
        "heartbeat": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    os.pwrite(descriptor, json.dumps(record).encode(), 0)
    os.fsync(descriptor)


def _read(path: Path) -> dict[str, Any]:
    """An owner's record; {} if there is none."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _machine() -> str:
    """What tells one running kernel from another, whatever they call themselves."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # another operating system
        return socket.gethostname()


def _in_use(path: Path) -> InputError:
    record = _read(path)
    return InputError(
        f"{path.parent} is in use: {_who(record)} trains there. Wait for its end, stop it, or "
        "choose another folder with --workdir or --out."
    )


def _who(record: dict[str, Any]) -> str:
    """An owner in words, as far as its record can be read."""
    return f"process {record.get('process', '?')} on {record.get('host', 'an unknown host')}"
