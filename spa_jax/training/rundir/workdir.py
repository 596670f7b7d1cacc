"""Which configuration made a run's folder, and which fields may change when it is continued."""

import json
from pathlib import Path
from typing import Any

from spa_jax.errors import InputError
from spa_jax.files import write_text_whole
from spa_jax.training.config import Config, flatten_config

# A run may be continued with other values of these: they do not change what is computed.
FREE_ON_RESUME = ("parallel", "checkpoint", "loader", "logging")

LOCATION_FIELDS = ("data.folder", "data.verify")
"""Fields that say where the data are: a run may be continued where they lie elsewhere."""


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
    """Raises InputError if the workdir holds a run that was made by another config.

    Every field counts but `LOCATION_FIELDS` and those of `FREE_ON_RESUME`; the message lists those
    that differ.
    """
    for place in (workdir, *workdir.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"{place} is a file, and a run needs a folder: choose another.")
    path = workdir / "config.json"
    if path.exists():
        try:
            old = json.loads(path.read_text())
            if not isinstance(old, dict):
                raise ValueError("it holds no JSON object")
        except ValueError as error:
            raise InputError(f"{path} cannot be read ({error}): choose another workdir.") from error
        _check_same(flatten_config(old), flatten_config(config.to_dict()), workdir)
    elif any((workdir / name).exists() for name in ("metrics.jsonl", "checkpoints")):
        raise InputError(
            f"{workdir} holds files of a run but no config.json: choose another workdir."
        )


def write_config(workdir: Path, config: Config) -> None:
    """Writes `config.json`, which from then on claims the workdir for this run."""
    write_text_whole(workdir / "config.json", json.dumps(config.to_dict(), indent=2) + "\n")


def _check_same(old: dict[str, Any], new: dict[str, Any], workdir: Path) -> None:
    free = FREE_ON_RESUME + LOCATION_FIELDS
    lacking = [field for field in new if field not in old and field.split(".")[0] not in free]
    if lacking:
        raise InputError(
            f"{workdir} was made by an earlier version of spa_jax, which did not know "
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
            f"{workdir} was made by another config; these fields differ: {', '.join(differing)}. "
            "Choose another folder with --workdir or --out, or run with the old values to continue "
            "that run."
        )
