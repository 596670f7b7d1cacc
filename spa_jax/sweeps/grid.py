"""The grid of a sweep: fields and their values, the runs they make, and what became of each run."""

import copy
import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ml_collections.config_flags.config_path import get_value

from spa_jax.errors import InputError
from spa_jax.files import read_json, write_json
from spa_jax.options import CHOSEN_BY, is_read, parse_value
from spa_jax.training.config import Config, check_field_name, default_config, flatten_config
from spa_jax.training.rundir.checkpoints import saved_steps
from spa_jax.training.rundir.workdir import FREE_ON_RESUME, SUMMARY, read_summary

Axes = Mapping[str, tuple[Any, ...]]
"""Dotted fields of the configuration, and the values that each takes."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a grid.

    Attributes:
      folder: where it is recorded.
      settings: the value of each axis.
      seed: its seed.
      config: its configuration.
    """

    folder: Path
    settings: dict[str, Any]
    seed: int
    config: Config

    @property
    def name(self) -> str:
        """The folder's name, which no other member has."""
        return self.folder.name

    @property
    def failure_path(self) -> Path:
        """Of the file that says why it failed; to train it again, remove that."""
        return self.folder / "failed.json"

    @property
    def is_done(self) -> bool:
        """Whether it is finished or failed, so that there is nothing left to train."""
        return (self.folder / SUMMARY).exists() or self.failure_path.exists()

    @property
    def was_begun(self) -> bool:
        """Whether it has a checkpoint of its own to go on from."""
        return bool(saved_steps(self.folder / "checkpoints"))

    def summary(self) -> dict[str, Any] | None:
        """The content of `summary.json`; None if it is not finished."""
        return read_summary(self.folder)

    def failure(self) -> str | None:
        """Why it failed; None if it did not."""
        path = self.failure_path
        remedy = "remove it, and run again to train it anew."
        return read_json(path, remedy, {"reason": str})["reason"] if path.exists() else None

    def fail(self, reason: str) -> None:
        """Records that its training came to an end that leaves nothing to continue."""
        write_json(self.failure_path, {"reason": reason})


def parse_axis(text: str, flag: str = "--axis") -> tuple[str, tuple[Any, ...]]:
    """Reads `FIELD=VALUE,VALUE`; a field that takes several numbers has `;` between its values.

    Args:
      text: such as "spa.proj.gamma=0.1,0.5" or "model.small.widths=8,16;16,32".
      flag: what messages call it.

    Returns:
      The field, and its values in the type of the field's default.

    Raises:
      InputError: an unknown field, a value of another type, a value twice, or no value.

    Example:
      >>> parse_axis("spa.proj.gamma=0.1,1")
      ('spa.proj.gamma', (0.1, 1.0))
      >>> parse_axis("model.small.widths=8,16;16,32")
      ('model.small.widths', ((8, 16), (16, 32)))
    """
    field, _, values = text.partition("=")
    field = field.strip().removeprefix("config.")
    check_field_name(field)
    default = get_value(field, default_config())
    if hasattr(default, "items"):
        raise InputError(
            f"{flag} {field} is a group of fields, not a field: name one of "
            f"{', '.join(f'{field}.{key}' for key in default)}."
        )
    parts = [part.strip() for part in values.split(";" if isinstance(default, tuple) else ",")]
    if not all(parts):
        raise InputError(
            f"{flag} {text} lacks a value: write the field, an equals sign, and its values with "
            f"commas between, as in {flag} {field}={default},..."
        )
    parsed = tuple(parse_value(f"{flag} {field}", part, default) for part in parts)
    twice = [value for value, count in Counter(parsed).items() if count > 1]
    if twice:
        raise InputError(f"{flag} {field} has the value {twice[0]!r} twice: give each value once.")
    return field, parsed


def parse_axes(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Reads the axes of a grid, see :func:`parse_axis`; InputError if two are of one field."""
    axes: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        field, values = parse_axis(text)
        if field == "seed":
            raise InputError("--axis seed: the seeds of a sweep are given by --seeds.")
        if field.split(".")[0] in FREE_ON_RESUME:
            raise InputError(
                f"--axis {field} does not change what is computed, so that its runs would be the "
                "same: set it once, with --config."
            )
        if field in axes:
            raise InputError(f"--axis {field} is given twice: put all its values into one axis.")
        axes[field] = values
    return axes


def parse_seeds(text: str) -> tuple[int, ...]:
    """Reads seeds: a number of seeds from 0, or a list with commas.

    Raises:
      InputError: something else, no seed, or a seed twice.

    Example:
      >>> parse_seeds("3"), parse_seeds("0,3"), parse_seeds("7,")
      ((0, 1, 2), (0, 3), (7,))
    """
    numbers, seeds = text.strip().removesuffix(",").split(","), ()
    if all(number.strip().isdecimal() for number in numbers):
        seeds = tuple(map(int, numbers)) if "," in text else tuple(range(int(text)))
    if not seeds:
        raise InputError(
            "--seeds must be a number of seeds (5 for the seeds 0 to 4) or a list with commas "
            f"(0,3, or 7, for one), got {text!r}."
        )
    if len({*seeds}) < len(seeds):
        raise InputError(f"--seeds={text} has a seed twice: give each once.")
    return seeds


def make_grid(config: Config, axes: Axes, seeds: Sequence[int], out: Path) -> list[Member]:
    """All runs of a grid, the last axis and then the seeds changing fastest.

    Args:
      config: the configuration that they share.
      axes: fields and their values.
      seeds: seeds of each grid point.
      out: the folder that gets a folder for each run.

    Returns:
      The runs; nothing has been checked but the axes, and nothing written.

    Raises:
      InputError: an axis that no run reads.
    """
    members = []
    for values in itertools.product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        for seed in seeds:
            member = copy.deepcopy(config)
            member.update_from_flattened_dict(settings | {"seed": seed})
            members.append(Member(out / _folder_name(settings, seed), settings, seed, member))
    flat = [flatten_config(member.config.to_dict()) for member in members]
    for field in axes:
        if not any(is_read(field, values) for values in flat):
            group, name, _ = field.split(".")
            chooser = CHOSEN_BY[group]
            found = ", ".join(sorted({str(values[chooser]) for values in flat}))
            raise InputError(
                f"--axis {field} is read with config.{chooser}={name} only, and here it is "
                f"{found}: all its runs would be the same. Add --config.{chooser}={name}."
            )
    return members


def _folder_name(settings: Mapping[str, Any], seed: int) -> str:
    """Of a run; that of a comparison of SpA's variants alone has just the variant's name."""
    if tuple(settings) == ("spa.method",):
        return f"{settings['spa.method']}-seed{seed}"
    name = ",".join(f"{field}={_short(value)}" for field, value in settings.items())
    return f"{name}-seed{seed}" if name else f"seed{seed}"


def _short(value: Any) -> str:
    """A value as part of a folder's name."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return quote(str(value), safe="")
