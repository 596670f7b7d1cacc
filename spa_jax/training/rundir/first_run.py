"""What a run starts from: the newest checkpoint of another, or weights that were imported."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from spa_jax.data.dataset import LongTailedDataset
from spa_jax.errors import InputError
from spa_jax.files import local_path
from spa_jax.models.import_weights import IMPORTED, imported_record, read_imported
from spa_jax.training.config import InitOptions
from spa_jax.training.rundir.checkpoints import (
    array_shapes,
    differing_arrays,
    read_arrays,
    read_record,
    saved_steps,
    tree_checksum,
)
from spa_jax.training.rundir.workdir import read_claim, read_summary
from spa_jax.training.state import COLLECTIONS, replaced

_SCALES = "params/head/scales"


@dataclasses.dataclass(frozen=True)
class FirstRun:
    """What a run starts from, on the host.

    Attributes:
      variables: by collection and part of the network, what takes the place of the initial values.
      record: what is kept of it: `run` and `parts` as the configuration has them, the `step` of the
        checkpoint, and the `params_checksum` of all its parameters, as in the `summary.json` of a
        run that ended there; of imported weights, whose step is 0, also the `model`, the `file`
        that they were in and its SHA-256, `file_checksum`.
    """

    variables: PyTree
    record: dict[str, Any]


def check_first_run(options: InitOptions, variables: PyTree, data: LongTailedDataset) -> Path:
    """Finds the checkpoint or the import that a run is to start from; no array is read yet.

    Args:
      options: which run, and which parts of it.
      variables: of the network that starts, or their shapes.
      data: that it starts on.

    Returns:
      The folder of the checkpoint, or of the import.

    Raises:
      InputError: there is none, it is of another version of this library, of another network or of
        another number of classes, nothing of this network would be taken, or the classifier would
        be, and the run's summary names other classes; or the run was trained on another part of
        the same data set, and may have seen what this one holds out.
    """
    checkpoint = _find_checkpoint(local_path(options.run, "config.init.run"))
    imported = imported_record(checkpoint) if _is_import(checkpoint) else None
    if imported and options.parts == "all":
        raise InputError(
            f"config.init.run={options.run} holds imported weights, which are of a network without "
            "its classifier: set config.init.parts=backbone, so that one is drawn."
        )
    there, here = (
        {path: shape for path, shape in shapes.items() if _is_taken(path, options.parts)}
        for shapes in ((imported or read_record(checkpoint))["shapes"], array_shapes(variables))
    )
    if _SCALES not in there:  # which learnable weight scaling begins with ones
        here.pop(_SCALES, None)
    if not here:
        raise InputError(
            f"config.init.parts={options.parts} takes nothing from {options.run}, as this network "
            "has no parameters there: leave config.init.run empty, or set config.init.parts=all."
        )
    differing = differing_arrays(there, here)
    if differing:
        remedy = "Set config.model, config.method and config.data to what made it"
        if imported:
            size = imported["image_size"]
            remedy = (
                f"Set config.model.name={imported['model']}, for images of three channels; those "
                f"of a vision transformer are {size} x {size} pixels, the import's --image_size"
            )
        elif options.parts == "all":
            remedy += ", or take its features alone with config.init.parts=backbone"
        raise InputError(
            f"{checkpoint}, from which config.init.run={options.run} starts, is of another network "
            f"or of another number of classes: {differing}. {remedy}."
        )
    if options.parts == "all":
        _check_classes(checkpoint, options, data.class_names)
    _check_held_out(checkpoint, options, data)
    return checkpoint


def _run_of(checkpoint: Path) -> Path | None:
    """The folder of the run that has saved a checkpoint; None of one that stands elsewhere."""
    folder = checkpoint.absolute().parent
    return folder.parent if folder.name == "checkpoints" else None


def _check_held_out(checkpoint: Path, options: InitOptions, data: LongTailedDataset) -> None:
    """Raises InputError where the run of a checkpoint may have learned what is held out here."""
    folder = _run_of(checkpoint)
    claim = read_claim(folder) if folder else {}
    if claim.get("name") != data.name:
        return
    if claim.get("training_checksum") in (None, data.training_checksum):
        return
    # Of the same test images none is trained on, however the rest is split.
    same_test = claim.get("test_checksum") in (None, data.split.get("test_checksum"))
    if data.validation is not None or not same_test:
        raise InputError(
            f"config.init.run={options.run} was trained on another part of {data.name}, and may "
            "have learned images that this run validates or tests on: set config.data.split_seed, "
            "config.data.validation and the other fields of config.data to what made it, as in its "
            "config.json, or train it again with those of this run."
        )


def _check_classes(checkpoint: Path, options: InitOptions, class_names: Sequence[str]) -> None:
    """Raises InputError if the run of a checkpoint was finished on classes of other names."""
    folder = _run_of(checkpoint)
    summary = read_summary(folder) if folder else None
    there = (summary or {}).get("class_names") or class_names  # an unfinished run does not say
    differing = [
        f"class {label} is {one!r} there and {other!r} here"
        for label, (one, other) in enumerate(zip(there, class_names, strict=False))
        if one != other
    ]
    if differing:
        raise InputError(
            f"The classifier of {checkpoint}, from which config.init.run={options.run} starts, is "
            f"of other classes: {len(differing)} of {len(class_names)} differ, {differing[0]}. Set "
            "config.data to what made it, or take its features alone with "
            "config.init.parts=backbone."
        )


def read_first_run(options: InitOptions, variables: PyTree, data: LongTailedDataset) -> FirstRun:
    """Reads what a run starts from.

    Args:
      options: which run, and which parts of it.
      variables: of the network that starts, or their shapes.
      data: that it starts on.

    Raises:
      InputError: as :func:`check_first_run`, or the checkpoint is damaged.
    """
    checkpoint = check_first_run(options, variables, data)
    if _is_import(checkpoint):
        imported, arrays = imported_record(checkpoint), read_imported(checkpoint)
        of_file = {field: imported[field] for field in ("model", "file", "file_checksum")}
    else:
        arrays, of_file = read_arrays(checkpoint), {}
    # With what that run was evaluated with, where it is not what it trained.
    state = unflatten_dict(arrays, sep="/")
    evaluated = flatten_dict(replaced(state, state.get("average", {})), sep="/")
    taken = {path: array for path, array in evaluated.items() if _is_taken(path, options.parts)}
    record = {
        **dataclasses.asdict(options),
        **of_file,
        "step": int(arrays.get("step", 0)),
        "params_checksum": tree_checksum(state["params"]),
    }
    return FirstRun(unflatten_dict(taken, sep="/"), record)


def _find_checkpoint(given: Path) -> Path:
    """The folder of a checkpoint or an import: the one given, or the newest of a run's folder."""
    if not given.is_dir():
        raise InputError(
            f"config.init.run={given} is no folder: give that of a run, as --workdir has it, or of "
            "one of its checkpoints, or of imported weights."
        )
    if (given / "record").is_dir() or _is_import(given):
        return given
    steps = saved_steps(given / "checkpoints")
    if not steps:
        raise InputError(
            f"config.init.run={given} has no checkpoint to start from: give the folder of a run "
            "that has saved one, as each does at its end."
        )
    return given / "checkpoints" / str(max(steps))


def _is_import(folder: Path) -> bool:
    return (folder / IMPORTED).is_file()


def _is_taken(path: str, parts: str) -> bool:
    """Whether an array of a state is one that a run starts from."""
    collection, _, rest = path.partition("/")
    return collection in COLLECTIONS and (parts == "all" or rest.startswith(f"{parts}/"))
