"""Which configuration made a run's folder, and which fields may change when it is continued."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spa_jax.data.dataset import LongTailedDataset
from spa_jax.errors import InputError
from spa_jax.files import local_path, output_folder, read_json, write_json
from spa_jax.training.config import Config, flatten_config

SUMMARY = "summary.json"
"""Written last: a folder that has it holds a finished run."""

_DATA = "data.json"

# A run may be continued with other values of these: they do not change what is computed.
FREE_ON_RESUME = ("eval_batch_size", "parallel", "checkpoint", "loader", "logging")

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
    """Raises InputError if a workdir cannot be a run's, or holds one of another config."""
    local_path(workdir, "The folder of a run")
    if not (workdir / SUMMARY).exists():  # a finished run is only read
        output_folder(workdir)
    path = workdir / "config.json"
    if path.exists():
        check_same(
            read_json(path, "choose another workdir."),
            config,
            str(workdir),
            "Choose another folder with --workdir or --out, or run with the old values to continue "
            "that run.",
        )
    elif any((workdir / name).exists() for name in ("metrics.jsonl", "checkpoints")):
        raise InputError(
            f"{workdir} holds files of a run but no config.json: choose another workdir."
        )


def claimed_data(workdir: Path) -> str | None:
    """The checksum of the data that a workdir's run was begun on; None if that is not known."""
    path = workdir / _DATA
    if not path.exists():
        return None
    remedy = "put it back, or choose another workdir."
    return read_json(path, remedy, ["content_checksum"])["content_checksum"]


def check_data(workdir: Path, data: LongTailedDataset) -> None:
    """Raises InputError if a workdir's run was begun on other data."""
    claimed, now = claimed_data(workdir), data.content_checksum
    if claimed not in (None, now):
        raise InputError(
            f"{workdir} was begun on other data: the checksum of what is trained and tested on is "
            f"{claimed} there, and {now} now. Put the data back as they were, or choose another "
            "folder with --workdir or --out."
        )


def claim_data(workdir: Path, data: LongTailedDataset) -> None:
    """Writes `data.json`, which says what the workdir's run is trained and tested on."""
    claim = {"name": data.name, "content_checksum": data.content_checksum}
    write_json(workdir / _DATA, claim, indent=2)


def write_config(workdir: Path, config: Config) -> None:
    """Writes `config.json`, which from then on claims the workdir for this run."""
    write_json(workdir / "config.json", config.to_dict(), indent=2)


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
    return read_json(path, remedy, ["test_accuracy"]) if path.exists() else None
