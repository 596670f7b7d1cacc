"""Which configuration made a run's folder, and which fields may change when it is continued."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax.traverse_util import unflatten_dict
from ml_collections import ConfigDict

from spa_jax.data.data_options import DataOptions
from spa_jax.data.dataset import LongTailedDataset
from spa_jax.data.sources.opening import load_data
from spa_jax.errors import InputError
from spa_jax.files import local_path, output_folder, read_json, write_json
from spa_jax.training.config import Config, check_fields, flat_defaults, flatten_config
from spa_jax.training.rundir.owner import check_owner

SUMMARY = "summary.json"
"""Written last: a folder that has it holds a finished run."""

_DATA = "data.json"

# A run may be continued with other values of these: they do not change what is computed.
FREE_ON_RESUME = ("eval_batch_size", "parallel", "mesh", "checkpoint", "loader", "logging")

LOCATION_FIELDS = ("data.folder", "data.verify")
"""Fields that say where the data are: a run may be continued where they lie elsewhere."""

FREE_ANYWHERE = FREE_ON_RESUME + LOCATION_FIELDS
"""Fields, or groups of them, that two runs of one result may differ in."""


def differing_fields(
    one: dict[str, Any], other: dict[str, Any], free: tuple[str, ...]
) -> list[str]:
    """Fields in which two flattened configurations differ, without those (or groups) in `free`."""
    return [
        field
        for field in sorted(one.keys() | other.keys())
        if not {field, field.split(".")[0]} & {*free} and one.get(field) != other.get(field)
    ]


def check_workdir(workdir: Path, config: Config) -> None:
    """Raises InputError if a workdir cannot be a run's, is in use, or is of another config."""
    local_path(workdir, "The folder of a run")
    if not (workdir / SUMMARY).exists():  # a finished run is only read
        output_folder(workdir)
        check_owner(workdir)
    begun = any((workdir / name).exists() for name in ("metrics.jsonl", "checkpoints"))
    if not check_config(workdir, config) and begun:
        raise InputError(
            f"{workdir} holds files of a run but no config.json: choose another workdir."
        )
    if begun and not read_claim(workdir) and not (workdir / SUMMARY).exists():
        raise InputError(
            f"{workdir} holds a run but no {_DATA}, which says what data it was begun on: it was "
            "removed, or an earlier version of spa_jax began the run. Put the file back, or start "
            "anew in another folder with --workdir or --out."
        )


def read_claim(workdir: Path) -> dict[str, Any]:
    """The content of `data.json`; {} if nobody has claimed the workdir."""
    path, remedy = workdir / _DATA, "put it back, or choose another workdir."
    return read_json(path, remedy, {"content_checksum": str}) if path.exists() else {}


def claimed_data(workdir: Path) -> str | None:
    """The checksum of the data that a workdir's run was begun on.

    None if that is not known, or if its test data could not be read and may have been repaired.
    """
    claim = read_claim(workdir) or read_summary(workdir) or {}
    return None if claim.get("test_unread") else claim.get("content_checksum")


def check_data(workdir: Path, data: LongTailedDataset) -> None:
    """Raises InputError if a workdir's run was begun on other data.

    Where the test data could not be read, only those that are trained on have to be the same.
    """
    claim, what = read_claim(workdir), "trained and tested on"
    claimed, now = claimed_data(workdir), data.content_checksum
    if claim.get("test_unread"):
        claimed, what = str(claim.get("training_checksum")), "trained on"
        now = data.training_checksum
    if claimed not in (None, now):
        raise InputError(
            f"{workdir} was begun on other data: the checksum of what is {what} is "
            f"{claimed} there, and {now} now. Put the data back as they were, or choose another "
            "folder with --workdir or --out."
        )


def check_finished(workdir: Path, options: DataOptions) -> None:
    """Raises InputError if a finished run was made on other data than are there now.

    Data that are there no longer are not asked for, where the run itself had them at that place.
    """
    data = data_of_finished(workdir, options)
    if data is not None:
        check_data(workdir, data)


def data_of_finished(workdir: Path, options: DataOptions) -> LongTailedDataset | None:
    """The data that a finished run is checked against, see :func:`check_finished`."""
    if claimed_data(workdir) is None:
        return None
    try:
        return load_data(options)
    except InputError:
        made = _read_config(workdir, {"data": dict})
        if made is not None and made["data"].get("folder") == options.folder:
            return None
        raise


def claimed_init(workdir: Path) -> dict[str, Any] | None:
    """What is known of the run that a workdir's run started from; None if from its seed alone."""
    return (read_claim(workdir) or read_summary(workdir) or {}).get("init")


def check_init(workdir: Path, init: Mapping[str, Any] | None) -> None:
    """Raises InputError if a workdir's run was begun from another state of its first run."""
    claimed = claimed_init(workdir)
    if init is not None and claimed not in (None, init):
        raise InputError(
            f"{workdir} was begun from step {claimed['step']} of {claimed['run']} (checksum "
            f"{claimed['params_checksum']}), has saved nothing since, and that run now stands at "
            f"step {init['step']} (checksum {init['params_checksum']}): choose another folder with "
            "--workdir or --out to begin from there."
        )


def claim_data(
    workdir: Path, data: LongTailedDataset, init: Mapping[str, Any] | None = None
) -> None:
    """Writes `data.json`, which says what the workdir's run is trained and tested on.

    Args:
      workdir: of the run.
      data: what it is trained and tested on.
      init: the run that it starts from; None: what is known of that stays.
    """
    init = init or claimed_init(workdir)
    claim: dict[str, Any] = {
        "name": data.name,
        "content_checksum": data.content_checksum,
        "training_checksum": data.training_checksum,
        "test_checksum": data.split.get("test_checksum"),
    }
    if init:
        claim["init"] = dict(init)
    write_json(workdir / _DATA, claim, indent=2)


def note_unread_test(workdir: Path) -> None:
    """Writes into `data.json` that the test data could not be read, see :func:`check_data`."""
    write_json(workdir / _DATA, read_claim(workdir) | {"test_unread": True}, indent=2)


def write_config(workdir: Path, config: Config) -> None:
    """Writes `config.json`, which from then on claims the workdir for this run."""
    write_json(workdir / "config.json", config.to_dict(), indent=2)


def epochs_before(workdir: Path, config: Config) -> int | None:
    """The epochs of a workdir's run, where the configuration has more of them; else None."""
    made = _read_config(workdir, {"epochs": int})
    return made["epochs"] if made is not None and made["epochs"] < config.epochs else None


def _read_config(workdir: Path, needed: Mapping[str, type] | None = None) -> dict[str, Any] | None:
    """The content of `config.json`; None if there is none."""
    path = workdir / "config.json"
    return read_json(path, "choose another workdir.", needed) if path.exists() else None


def made_config(workdir: Path) -> Config:
    """The configuration that a run was made with; a field that came later has its default.

    Raises:
      InputError: its `config.json` cannot be read, or has fields that this version does not know.
    """
    made = read_json(workdir / "config.json", "put it back, or train again in another folder.")
    defaults = flat_defaults()
    fields = defaults | flatten_config(made)
    try:
        check_fields(fields, defaults)
    except InputError as error:
        raise InputError(
            f"The run in {workdir} was made by another version of spa_jax: {error} Use that "
            "version, or leave the run out."
        ) from error
    fields = {key: tuple(x) if isinstance(x, list) else x for key, x in fields.items()}
    return ConfigDict(unflatten_dict(fields, sep=".")).lock()


def check_config(workdir: Path, config: Config) -> bool:
    """Whether a workdir has a configuration; raises InputError if it is another one."""
    made = _read_config(workdir)
    remedy = (
        "Choose another folder with --workdir or --out, or run with the old values to continue "
        "that run."
    )
    if made is not None:
        check_same(made, config, str(workdir), remedy)
    return made is not None


def check_same(made: Mapping[str, Any], config: Config, what: str, remedy: str) -> None:
    """Raises InputError if something was made by another config; the message lists the fields.

    Every field counts but `LOCATION_FIELDS` and those of `FREE_ON_RESUME`.

    Args:
      made: the configuration of before, as a dictionary.
      config: that of now.
      what: was made, for the message.
      remedy: what to do, for the message.
    """
    old, new, free = flatten_config(made), flatten_config(config.to_dict()), FREE_ANYWHERE
    lacking = [field for field in new if field not in old and field.split(".")[0] not in free]
    if lacking:
        raise InputError(
            f"{what} was made by an earlier version of spa_jax, which did not know "
            f"{', '.join(lacking[:3])}: continue it with that version, or choose another folder."
        )
    if "per_device" in (old.get("model.batch_norm"), new.get("model.batch_norm")):
        free = tuple(group for group in free if group != "parallel")  # which then decides the maths
    differing = [
        f"{field} ({old.get(field)!r} there, {new.get(field)!r} now)"
        for field in differing_fields(old, new, free)
    ]
    if differing:
        raise InputError(
            f"{what} was made by another config; these fields differ: {', '.join(differing)}. "
            f"{remedy}"
        )


def read_summary(workdir: Path) -> dict[str, Any] | None:
    """The content of `summary.json`; None if the run is not finished."""
    path, remedy = workdir / SUMMARY, "remove it, and run again to write it anew."
    if not path.exists():
        return None
    summary = read_json(path, remedy, {"test_accuracy": dict})
    for name in ("test_accuracy", "balanced_accuracy"):
        found = summary.get(name)
        last = found.get("last") if isinstance(found, dict) else None
        if found is not None and not isinstance(last, int | float):
            raise InputError(f"{path} cannot be read ({name} has no number as last): {remedy}")
    if not isinstance(summary.get("class_names", []), list):
        raise InputError(f"{path} cannot be read (class_names is no list): {remedy}")
    return summary
