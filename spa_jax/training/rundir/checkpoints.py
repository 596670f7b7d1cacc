"""Checkpoints: the one file that knows orbax."""

import contextlib
import dataclasses
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from spa_jax.errors import InputError
from spa_jax.files import read_json
from spa_jax.training.metrics import fetch, is_spread
from spa_jax.training.state import TrainState

FORMAT = 3

_GRACE = 10.0  # seconds
_FAILED = 2  # as the commands end for errors that are told


class Checkpoints:
    """The checkpoints of one run: saved in the background, verified when restored.

    A checkpoint is a directory that gets its name when it is complete, so a run that is killed
    while it writes leaves none behind. Each carries a checksum of the state, so that damage on disk
    is noticed too. Use as a context manager: leaving it waits for the last one to be written.

    Attributes:
      folder: of them all.
      position: of the run where the one that was restored was saved, see :meth:`save`.
    """

    def __init__(self, folder: Path, keep: int, say: Callable[[str], None]) -> None:
        self.folder, self.position = folder.absolute(), {}
        self._say = say
        self._kept = _NewestAndBest(keep)
        options = ocp.CheckpointManagerOptions(preservation_policy=self._kept, create=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        with self._storage_told():
            self._manager.wait_until_finished()
            if error[0] is None:
                # The best of before, which stays until the next one is whole.
                for step in self._kept.stale(self.steps):
                    self._manager.delete(step)
            self._manager.close()

    @property
    def steps(self) -> list[int]:
        """Of all checkpoints, the one that is being written too, ascending."""
        return sorted(self._manager.all_steps())

    def keep_best(self, step: int | None) -> None:
        """Keeps the checkpoint of a step, and no longer the one that was named before."""
        self._kept.best = step

    def save(self, state: TrainState, position: Mapping[str, Any] | None = None) -> None:
        """Begins to save a state under the number of its step; its buffers may then be given up.

        Each host writes a part. The first reads one array after another for the checksum, and all
        of them where arrays are cut over hosts: it is of whole arrays, however they are cut.

        Args:
          state: on the devices, or on the host.
          position: what else the run goes on from, as JSON can hold it; None: nothing.

        Raises:
          InputError: it cannot be written, or the one before could not be, such as on a full disk.
        """
        step, state = int(fetch(state.step)), serializable(state)
        reads = jax.process_index() == 0 or any(map(is_spread, jax.tree.leaves(state)))
        record = {
            "format": FORMAT,
            "shapes": array_shapes(state),
            "checksum": tree_checksum(state) if reads else None,
            "position": dict(position or {}),
        }
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(_fields(state)), record=ocp.args.JsonSave(record)
        )
        with self._storage_told(), jax.transfer_guard("allow"):  # or jax takes it for an accident
            self._manager.save(step, args=args)

    def wait(self) -> None:
        """Waits until what was saved is whole; InputError if it could not be written."""
        with self._storage_told():
            self._manager.wait_until_finished()

    def restore_newest(self, like: TrainState) -> tuple[TrainState, int]:
        """The newest whole checkpoint, on the devices of `like`, and its step.

        A checkpoint that cannot be read, or whose content is not what was saved, is reported; once
        an older one has been read, it is moved to a folder `unreadable_checkpoints`. Where there
        is no checkpoint, `like` comes back, with step 0.

        Raises:
          InputError: none of the checkpoints can be read, or one has the format of another version
            of this library or holds another network; nothing is moved.
        """
        for half in self.folder.glob("*.orbax-checkpoint-tmp*"):
            self._say(f"Passing over {half}: the run was stopped while it wrote that checkpoint.")
        template = serializable(like)
        unreadable: dict[int, str] = {}
        for step in reversed(self.steps):
            restored, reason = self._restore(step, template)
            if restored is not None:
                if unreadable:
                    self._set_aside(unreadable)
                return _with_key(restored, like), step
            self._say(f"The checkpoint of step {step} cannot be read ({reason}).")
            unreadable[step] = reason
        if unreadable:
            raise InputError(
                f"None of the checkpoints in {self.folder} can be read: "
                + "; ".join(f"step {step}: {reason}" for step, reason in unreadable.items())
                + ". They were left as they are: mend them, or start over in another workdir."
            )
        return like, 0

    def restore_step(self, like: TrainState, step: int) -> TrainState:
        """The checkpoint of one step, on the devices of `like`; nothing is moved, whatever it is.

        Raises:
          InputError: it cannot be read, or as :meth:`restore_newest`.
        """
        restored, reason = self._restore(step, serializable(like))
        if restored is None:
            raise InputError(
                f"The checkpoint of step {step} in {self.folder} cannot be read ({reason}): put it "
                "back from a copy, or train the run again in another folder."
            )
        return _with_key(restored, like)

    def _restore(self, step: int, template: TrainState) -> tuple[Any, str]:
        """The checkpointed state, or None and why it cannot be read; the same on every host."""
        state, reason = None, "another host cannot read it"
        record: dict[str, Any] = {}
        try:
            args = ocp.args.Composite(record=ocp.args.JsonRestore())
            record = self._manager.restore(step, args=args)["record"]
            self._check_fits(step, record, template)
            self.position = record.get("position", {})  # which earlier ones lack
            args = ocp.args.Composite(state=ocp.args.StandardRestore(_fields(template)))
            state = type(template)(**self._manager.restore(step, args=args)["state"])
        except InputError:
            raise
        except Exception as error:  # orbax raises many kinds for damaged files
            reason = _reason(error)
        if not _on_every_host(state is not None):
            return None, reason
        # Which hosts may have to read together.
        if not _on_every_host(tree_checksum(state) == record.get("checksum")):
            return None, "its content does not match its checksum"
        return state, ""

    def _check_fits(self, step: int, record: dict[str, Any], template: PyTree) -> None:
        """Raises InputError for a checkpoint of another version or of another network."""
        if record["format"] != FORMAT:
            raise InputError(
                f"The checkpoint of step {step} in {self.folder} has format {record['format']}, "
                f"and this version of spa_jax reads {FORMAT}: continue the run with the version "
                "that began it, or start over elsewhere."
            )
        differing = differing_arrays(record["shapes"], array_shapes(template))
        if differing:
            raise InputError(
                f"The checkpoint of step {step} in {self.folder} holds another network or "
                f"optimiser: {differing}. Set config.model, config.method and config.optimizer to "
                "what made it, or choose another workdir."
            )

    @contextlib.contextmanager
    def _storage_told(self) -> Iterator[None]:
        """Raises InputError for whatever keeps a checkpoint from being written."""
        try:
            yield
        except Exception as error:  # orbax raises many kinds
            _end_in_time()
            raise InputError(
                f"A checkpoint cannot be written to {self.folder} ({_reason(error)}). The last "
                "one is whole: make room there, or let it be written to, and run again to go on "
                "from it."
            ) from error

    def _set_aside(self, unreadable: dict[int, str]) -> None:
        """Moves checkpoints out of the way, so that their steps can be saved again."""
        folder = self.folder.parent / "unreadable_checkpoints"
        self._say(f"Falling back to the one before; what cannot be read is moved to {folder}.")
        if jax.process_index() == 0:
            folder.mkdir(exist_ok=True)
            for step in unreadable:
                target = folder / str(step)
                while target.exists():
                    target = target.with_name(target.name + "_again")
                (self.folder / str(step)).rename(target)
        multihost_utils.sync_global_devices("unreadable checkpoints are set aside")
        self._manager.reload()


def _on_every_host(holds: bool) -> bool:
    return bool(np.all(multihost_utils.process_allgather(np.array(holds))))


@dataclasses.dataclass
class _NewestAndBest:
    """Which checkpoints stay, for orbax: the newest, and one that was named."""

    keep: int
    best: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: object) -> Sequence[bool]:
        """Whether each of the checkpoints, the oldest first, stays."""
        del context
        stale = self.stale([checkpoint.step for checkpoint in checkpoints])
        return [checkpoint.step not in stale for checkpoint in checkpoints]

    def stale(self, steps: Sequence[int]) -> list[int]:
        """Of the steps of all checkpoints, ascending, those that need not stay."""
        return [step for step in steps[: -self.keep] if step != self.best]


def _end_in_time() -> None:
    """Lets the process end soon after its main thread, whatever orbax's threads are at.

    Those of a checkpoint that could not be written may wait for each other for ever.
    """
    ending = threading.Event()

    def end() -> None:
        ending.wait()
        time.sleep(_GRACE)
        os._exit(_FAILED)

    threading.Thread(target=end, daemon=True).start()
    # Not `atexit`, whose functions are called once all threads of executors have ended.
    private: Any = threading
    private._register_atexit(ending.set)


def _reason(error: Exception) -> str:
    """What the operating system says, or an error without the storage library's own details."""
    number = re.search(r"os_error_code='(\d+)'", str(error))
    if number:
        return os.strerror(int(number[1]))
    text = str(error).partition("See full TensorStore details")[0].partition(" [source")[0]
    return " ".join(f"{type(error).__name__}: {text}".split())[:200]


def serializable(state: TrainState) -> TrainState:
    """The state with the key as plain integers, which every checkpoint reader understands."""
    if not jnp.issubdtype(state.rng.dtype, jax.dtypes.prng_key):
        return state  # it has been made so
    return state.replace(rng=jax.random.key_data(state.rng))


def _fields(state: TrainState) -> dict[str, Any]:
    """The fields of a state that it has, so that a checkpoint knows nothing of the others."""
    return {name: part for name, part in vars(state).items() if part is not None}


def _with_key(restored: TrainState, like: TrainState) -> TrainState:
    """What :func:`serializable` made of a state with a typed key, back with one."""
    rng = jax.random.wrap_key_data(restored.rng, impl=jax.random.key_impl(like.rng))
    return restored.replace(rng=jax.device_put(rng, like.rng.sharding))


def array_shapes(tree: PyTree) -> dict[str, list[int]]:
    """The shape of every array by its path."""
    return {path: list(leaf.shape) for path, leaf in _leaves(tree)}


def differing_arrays(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """In words, which arrays differ in their shapes, or are missing on one side; "" if none."""
    differing = [path for path in there.keys() | here if there.get(path) != here.get(path)]
    if not differing:
        return ""
    first = min(differing)
    return (
        f"{len(differing)} of its arrays differ, the first {first}, which is "
        f"{there.get(first, 'missing')} there and {here.get(first, 'missing')} here"
    )


def saved_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, which need not be there."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())


def read_record(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself: its `shapes` and its `checksum`.

    Args:
      checkpoint: its folder, of any run.

    Raises:
      InputError: it cannot be read, or is of another version of this library.
    """
    remedy = "name another checkpoint, or train that run anew."
    needed = {"format": int, "shapes": dict, "checksum": str}
    record = read_json(checkpoint / "record" / "metadata", remedy, needed)
    if record["format"] != FORMAT:
        raise InputError(
            f"{checkpoint} has format {record['format']}, and this version of spa_jax reads "
            f"{FORMAT}: {remedy}"
        )
    return record


def read_arrays(checkpoint: Path) -> dict[str, Any]:
    """The arrays of a checkpoint by their paths, on the host, whatever network they are of.

    Args:
      checkpoint: its folder, of any run.

    Raises:
      InputError: as :func:`read_record`, or the content is not what was saved.
    """
    record, reason = read_record(checkpoint), "its content does not match its checksum"
    handler: Any = ocp.StandardCheckpointHandler()
    place = checkpoint.absolute() / "state"
    try:
        found = handler.metadata(place)
        # Into host arrays, as that run may have had other devices.
        like = jax.tree.map(lambda of: np.empty(of.shape, of.dtype), found.tree)
        state = handler.restore(place, args=ocp.args.StandardRestore(like))
        arrays = {path: np.asarray(leaf) for path, leaf in _leaves(state)}
        # In the order of before, which is not that of nested dictionaries.
        if _checksum((path, arrays[path]) for path in record["shapes"]) == record["checksum"]:
            return arrays
    except Exception as error:  # orbax raises many kinds for damaged files
        reason = _reason(error)
    raise InputError(
        f"{checkpoint} cannot be read ({reason}): name the one before it, or another run."
    )


def tree_checksum(tree: PyTree) -> str:
    """SHA-256 over paths, types, shapes and bytes of a tree of arrays, fetched one by one."""
    return _checksum(_leaves(tree))


def _checksum(leaves: Iterable[tuple[str, Any]]) -> str:
    digest = hashlib.sha256()
    for path, leaf in leaves:
        array: Any = np.ascontiguousarray(fetch(leaf))
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _leaves(tree: PyTree) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf
