"""What a table is: its runs, each named by what sets it apart, and their configurations."""

import dataclasses
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spa_jax.errors import InputError
from spa_jax.training.config import Config

Settings = tuple[tuple[str, Any], ...]
Records = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a table.

    Attributes:
      stage: "tune" (on a validation part), "final", "ablation" or "control".
      method: value of `config.method.name`.
      spa_method: value of `config.spa.method`.
      imbalance_factor: of the training set.
      seed: of the run.
      class_order: value of `config.data.class_order`.
      variant: what sets it apart besides, "" for the table's own settings, "tuned" where strengths
        are those that tuning chose, "released" for those of the released code.
      settings: fields and values that differ from the table's configuration; None: they wait for
        tuning.
      network: "" for the table's own.
    """

    stage: str
    method: str
    spa_method: str
    imbalance_factor: float
    seed: int
    class_order: str
    variant: str = ""
    settings: Settings | None = ()
    network: str = ""

    @property
    def name(self) -> str:
        """Names the run's folder and its record."""
        return f"{self.group_name}-seed{self.seed}"

    @property
    def group_name(self) -> str:
        """Names the runs that differ from it in nothing but the seed."""
        what = (self.stage, self.method, self.spa_method, self.variant)
        where = (f"if{self.imbalance_factor:g}", self.class_order, self.network)
        return "-".join(filter(None, (*what, *where)))

    @property
    def group(self) -> "Cell":
        """The cell without its seed: runs that are averaged."""
        return dataclasses.replace(self, seed=-1)


def settings_name(settings: Settings) -> str:
    """Settings as a part of a file name: `weight=0.1`."""
    return ",".join(f"{field.rpartition('.')[2]}={value}" for field, value in settings)


def with_settings(config: Config, cell: Cell) -> Config:
    """The table's configuration, changed to that of a cell."""
    fields = {
        "method.name": cell.method,
        "spa.method": cell.spa_method,
        "seed": cell.seed,
        # Recipes without a forward of unmixed images get it where SpA reads its class means.
        **({} if cell.spa_method == "none" else {"spa.means_from": "auto"}),
        **dict(cell.settings or ()),
    }
    config.update_from_flattened_dict(fields)
    return config


@dataclasses.dataclass(frozen=True)
class TablePlan:
    """A table of the reproduction.

    Attributes:
      config: `(cell)` -> the configuration of its run.
      cells: `(records so far)` -> all runs in the order of their worth.
      waits_for: `(run, tuning run)` -> whether the first is set by what the second finds.
      brief: whether its records leave out what there is of each class and epoch, as it has
        thousands of runs.
    """

    config: Callable[[Cell], Config]
    cells: Callable[[Records], list[Cell]]
    waits_for: Callable[[Cell, Cell], bool] = lambda cell, tuning: False
    brief: bool = False


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a file, none if it does not exist; a half-written last line is left out.

    Where there is only `path.gz`, the same packed by gzip, they are those in it.

    Raises:
      InputError: another line that is no record of a run, or a packed file that is damaged; the
        message names it.
    """
    packed, text = path.with_name(f"{path.name}.gz"), ""
    if path.exists():
        text = path.read_text(errors="replace")
    elif packed.exists():
        try:
            text = gzip.decompress(packed.read_bytes()).decode(errors="replace")
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(
                f"{packed} cannot be unpacked ({error}): put the file back as it was."
            ) from error
    lines = text.split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):  # without a line break: empty, or what a crash left
                break
            record = None
        if not _is_record(record):
            raise InputError(
                f"{path}, line {number}, is no record of a run: it must be one JSON object with "
                "cell, config and summary. Put the line back as it was, or remove it, and its run "
                "is recorded anew; if the file is not one of records, name another with --records."
            )
        records.append(record)
    return records


def best_settings(
    records: Mapping[str, Any], choices: Sequence[Settings], tried: Iterable[Sequence[Cell]]
) -> Settings | None:
    """What has the highest mean validation accuracy, the first of equal ones.

    The accuracy is that of the last epoch, the mean over classes, and the lowest of a run that
    diverged.

    Args:
      records: by the names of their cells.
      choices: what was tried.
      tried: the runs of each choice.

    Returns:
      One of the choices; None while a run is missing.
    """
    accuracies = []
    for cells in tried:
        runs = [records.get(cell.name) for cell in cells]
        if None in runs:
            return None
        found = [run["summary"] for run in runs if run]
        last = [own["validation_accuracy"]["last"] if own else float("-inf") for own in found]
        accuracies.append(sum(last))
    return choices[accuracies.index(max(accuracies))]


def _is_record(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and isinstance(record.get("cell"), str)
        and isinstance(record.get("config"), dict)
        and isinstance(record.get("summary", ""), (dict, type(None)))
    )
