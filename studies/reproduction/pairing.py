"""The rows of tables: which records each is of, its name, and which are compared, seed by seed."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spa_jax.reporting.grouping import group_by, paired
from spa_jax.reporting.statistics import paired_differences, statistics
from spa_jax.reporting.table_text import spread_text
from spa_jax.reproduction.cells import Cell, Records, read_records
from spa_jax.reproduction.tables import find_table
from studies.names import name_of

ACCURACIES = {
    "last": ("test_accuracy", "last"),
    "best epoch": ("test_accuracy", "best"),
    "many": ("shot_groups", "many"),
    "medium": ("shot_groups", "medium"),
    "few": ("shot_groups", "few"),
}
COSINE = "held-out cosine"
COLUMNS = ACCURACIES | {"EMA cosine": ("mean_cosine",), COSINE: ("test_mean_cosine",)}
"""Of the tables, and where their numbers stand in a summary."""

Record = Mapping[str, Any]
Wanted = Callable[[Cell], bool]
"""Whether a row is wanted, by the cell that its runs share; that has no seed."""


class Group(NamedTuple):
    """Runs that differ in the seed alone: records of the finished, how many diverged, and of all.

    The settings of a group may still wait for tuning.
    """

    runs: Sequence[Record]
    diverged: int
    planned: int


class Difference(NamedTuple):
    """Mean paired difference and half its 95% interval by column, of how many pairs, and to whom.

    The others are the records that were subtracted, one a pair.
    """

    columns: Mapping[str, Mapping[str, Any]]
    pairs: int
    others: Sequence[Record]


Compare = Callable[[Sequence[Record], Records], Difference | None]
"""`(runs of a group, all records)` -> how they differ from others of the same seeds."""


@dataclasses.dataclass(frozen=True, eq=False)
class TableRuns:
    """The runs of a table, as far as they were made.

    Attributes:
      table: a name in :data:`spa_jax.reproduction.tables.TABLES`.
      records: its records so far.
    """

    table: str
    records: Records

    @classmethod
    def read(cls, results: Path, table: str) -> "TableRuns":
        """Those of the table's records in a folder."""
        return cls(table, read_records(results / f"{table}.jsonl"))

    @functools.cached_property
    def groups(self) -> Mapping[Cell, Group]:
        """All runs, grouped by what they share but for the seed."""
        by_name = {record["cell"]: record for record in self.records}
        planned = group_by(find_table(self.table).cells(self.records), lambda cell: cell.group)
        groups = {}
        for cell, runs in planned.items():
            made = [by_name[run.name] for run in runs if run.name in by_name]
            found = [record for record in made if record["summary"]]
            groups[cell] = Group(found, len(made) - len(found), len(runs))
        return groups

    def where(self, wanted: Wanted) -> dict[Cell, Group]:
        """The groups that are wanted."""
        return {cell: group for cell, group in self.groups.items() if wanted(cell)}

    def changes(self, wanted: Wanted) -> dict[Cell, "Difference"]:
        """What SpA changes in groups that are wanted, where two seeds or more make an interval."""
        groups = self.where(wanted)
        found = {cell: minus_none(group.runs, self.records) for cell, group in groups.items()}
        return {cell: change for cell, change in found.items() if change and change.pairs > 1}


def having(**fields: Any) -> Wanted:
    """Of a cell, whether its fields have these values; of a tuple of values, one of them.

    Example:
      >>> cell = Cell("final", "arb", "reg", 20.0, 0, "label")
      >>> having(method="arb", spa_method=("reg", "proj"))(cell), having(stage="tune")(cell)
      (True, False)
    """
    values = {name: x if isinstance(x, tuple) else (x,) for name, x in fields.items()}
    return lambda cell: all(getattr(cell, name) in known for name, known in values.items())


def cells_of_means(group: Group, columns: Iterable[str]) -> list[str]:
    """Means over the runs of a group, with their deviations."""
    summaries = [record["summary"] for record in group.runs]
    found = statistics(summaries, {name: COLUMNS[name] for name in columns})
    return [spread_text(value, name in ACCURACIES) for name, value in found.items()]


def method_name(cell: Cell) -> str:
    """Of a cell's method, with its network where that is not the table's own."""
    return ", ".join(name_of(part) for part in (cell.method, cell.network) if part)


def variant_name(cell: Cell) -> str:
    """Of a cell's SpA method with the variant: `Proj (tuned)`."""
    return name_of(cell.spa_method) + (f" ({cell.variant})" if cell.variant else "")


def pair_name(cell: Cell) -> str:
    """Of a cell's method with its SpA method."""
    return f"{method_name(cell)} with {name_of(cell.spa_method)}"


def minus_none(runs: Sequence[Record], records: Records) -> Difference | None:
    """Runs of a group minus those of the same method without SpA, seed by seed.

    Without SpA, but with the same schedule and class means of the same images: GLMC's forward of
    unmixed ones changes a run by itself. None if the runs are without SpA, or share no seed with
    such runs.
    """

    def trained(record: Record) -> tuple[Any, ...]:
        config = record["config"]
        return *_place(record), config["optimizer"]["schedule"], config["spa"]["means_from"]

    if not runs or runs[0]["spa_method"] == "none":
        return None
    plain = [
        r for r in records if r["spa_method"] == "none" and r["stage"] not in ("tune", "control")
    ]
    return difference_of(runs, [r for r in plain if trained(r) == trained(runs[0])])


def minus_tuned(runs: Sequence[Record], records: Records) -> Difference | None:
    """Runs of a group minus those with the same SpA method as tuned, seed by seed.

    None if the runs share no seed with such runs.
    """
    tuned = [r for r in records if (r["stage"], r["variant"]) == ("final", "tuned")]
    if not runs:
        return None
    same = (*_place(runs[0]), runs[0]["spa_method"])
    return difference_of(runs, [r for r in tuned if (*_place(r), r["spa_method"]) == same])


def difference_of(runs: Sequence[Record], others: Sequence[Record]) -> Difference | None:
    """Runs of a group minus others of the same seeds; None if they share none.

    Cosines are left out where SpA acts on other weights than the method's own: those of the others
    are of other weights.
    """
    finished = [record for record in others if record["summary"]]
    pairs = paired(runs, finished, key=lambda record: record["seed"])
    if not pairs:
        return None
    same_weights = runs[0]["config"]["spa"]["classifier"] == "auto"
    columns = COLUMNS if same_weights else ACCURACIES
    summaries = [(run["summary"], other["summary"]) for run, other in pairs]
    differences = paired_differences(summaries, columns)
    return Difference(differences, len(pairs), [other for _, other in pairs])


def intervals(differences: Iterable[Difference], column: str) -> np.ndarray:
    """Middles and half widths `(2, N)` of the 95% intervals of those that have the column."""
    values = [d.columns[column] for d in differences if column in d.columns]
    return np.array([(value["mean"], value["half_width"]) for value in values]).T


def _place(record: Record) -> tuple[Any, ...]:
    fields = ("class_order", "method", "imbalance_factor")
    network = record.get("network", "")  # a record of a table with one network does not name it
    return *(record[field] for field in fields), network
