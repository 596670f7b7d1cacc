"""Checkpoints: the one file that knows orbax."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from spa_jax.training.state import TrainState

FORMAT = 1


class Checkpoints:
    """The checkpoints of one run: saved in the background, verified when restored.

    A checkpoint is a directory that gets its name when it is complete, so a run that is killed
    while it writes leaves none behind. Each carries a checksum of the state, so that damage on disk
    is noticed too. Use as a context manager: leaving it waits for the last one to be written.
    """

    def __init__(self, folder: Path, keep: int, say: Callable[[str], None]) -> None:
        self._folder = folder.absolute()
        self._say = say
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def save(self, state: TrainState, on_host: PyTree) -> None:
        """Begins to save a state under the number of its step.

        Args:
          state: on the devices.
          on_host: `fetch(serializable(state))`, whose checksum is stored with it.
        """
        record = {"format": FORMAT, "checksum": tree_checksum(on_host)}
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(serializable(state)), record=ocp.args.JsonSave(record)
        )
        with jax.transfer_guard("allow"):  # orbax brings the state to the host in its own way
            self._manager.save(int(on_host.step), args=args)

    def restore_newest(self, like: TrainState) -> tuple[TrainState, int]:
        """The newest whole checkpoint, on the devices of `like`, and its step.

        A checkpoint that cannot be read, or whose content is not what was saved, is moved to a
        folder `unreadable_checkpoints` and reported, and the one before it is taken. Without any,
        `like` comes back, with step 0.
        """
        template = serializable(like)
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                restored = self._restore(step, template)
            except Exception as error:  # orbax raises many kinds for damaged files
                self._set_aside(step, error)
            else:
                rng = jax.random.wrap_key_data(restored.rng, impl=jax.random.key_impl(like.rng))
                return restored.replace(rng=jax.device_put(rng, like.rng.sharding)), step
        if steps:
            self._say("No checkpoint could be read; starting from the beginning.")
        return like, 0

    def _restore(self, step: int, template: PyTree) -> TrainState:
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), template
        )
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), record=ocp.args.JsonRestore()
            ),
        )
        record = restored["record"]
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']}, this version reads {FORMAT}")
        if tree_checksum(jax.device_get(restored["state"])) != record["checksum"]:
            raise ValueError("its content does not match its checksum")
        return restored["state"]

    def _set_aside(self, step: int, error: Exception) -> None:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        target = self._folder.parent / "unreadable_checkpoints" / str(step)
        self._say(
            f"The checkpoint of step {step} cannot be read ({reason[:200]}); moved to {target}, "
            "falling back to the one before it."
        )
        if jax.process_index() == 0:
            target.parent.mkdir(exist_ok=True)
            while target.exists():
                target = target.with_name(target.name + "_again")
            (self._folder / str(step)).rename(target)
        multihost_utils.sync_global_devices(f"set aside checkpoint {step}")
        self._manager.reload()


def serializable(state: TrainState) -> TrainState:
    """The state with the key as plain integers, which every checkpoint reader understands."""
    return state.replace(rng=jax.random.key_data(state.rng))


def tree_checksum(tree: PyTree) -> str:
    """SHA-256 over paths, types, shapes and bytes of a tree of host arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array: Any = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
