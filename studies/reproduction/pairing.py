"""Which records are averaged, and which are compared with which: differences paired by seed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from spa_jax.reporting.statistics import paired_differences
from spa_jax.reproduction.cells import Cell
from spa_jax.reproduction.plan import Records
from spa_jax.reproduction.tables import find_table

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


class Group(NamedTuple):
    """Runs that differ in the seed alone: records of the finished, how many diverged, and of all.

    The settings of a group may still wait for tuning.
    """

    runs: Sequence[Record]
    diverged: int
    planned: int


class Difference(NamedTuple):
    """Mean paired difference and half its 95% interval by column, and of how many pairs."""

    columns: Mapping[str, Mapping[str, Any]]
    pairs: int


Compare = Callable[[Sequence[Record], Records], Difference | None]
"""`(runs of a group, all records)` -> how they differ from others of the same seeds."""


def groups_of(table: str, records: Records, wanted: Callable[[Cell], bool]) -> dict[Cell, Group]:
    """The wanted runs of a table, grouped by what they share but for the seed."""
    by_name = {record["cell"]: record for record in records}
    cells: dict[Cell, list[Cell]] = {}
    for cell in find_table(table).cells(records):
        if wanted(cell):
            cells.setdefault(cell.group, []).append(cell)
    groups = {}
    for group, planned in cells.items():
        made = [by_name[cell.name] for cell in planned if cell.name in by_name]
        found = [record for record in made if record["summary"]]
        groups[group] = Group(found, len(made) - len(found), len(planned))
    return groups


def minus_none(runs: Sequence[Record], records: Records) -> Difference | None:
    """Runs of a group minus those of the same method without SpA, seed by seed.

    Without SpA, but with the same schedule and class means of the same images: GLMC's forward of
    unmixed ones changes a run by itself. None if the runs are without SpA, or share no seed with
    such runs.
    """

    def is_baseline(record: Record) -> bool:
        return record["spa_method"] == "none" and record["stage"] != "tune"

    def trained(record: Record) -> tuple[Any, ...]:
        config = record["config"]
        return *_place(record), config["optimizer"]["schedule"], config["spa"]["means_from"]

    first = runs[0]
    if first["spa_method"] == "none":
        return None
    others = [r for r in records if is_baseline(r) and trained(r) == trained(first)]
    return paired(runs, others)


def minus_tuned(runs: Sequence[Record], records: Records) -> Difference | None:
    """Runs of a group minus those with the same SpA method as tuned, seed by seed.

    None if the runs are without SpA, or share no seed with such runs.
    """

    def is_tuned(record: Record) -> bool:
        return (record["stage"], record["variant"]) == ("final", "tuned")

    first = runs[0]
    same = (*_place(first), first["spa_method"])
    others = [r for r in records if is_tuned(r) and (*_place(r), r["spa_method"]) == same]
    return paired(runs, others)


def paired(runs: Sequence[Record], others: Sequence[Record]) -> Difference | None:
    """Runs of a group minus others of the same seeds; None if they share none.

    Cosines are left out where SpA acts on other weights than the method's own: those of the others
    are of other weights.
    """
    baseline = {record["seed"]: record["summary"] for record in others if record["summary"]}
    shared = [run for run in runs if run["seed"] in baseline]
    if not shared:
        return None
    same_weights = shared[0]["config"]["spa"]["classifier"] == "auto"
    columns = COLUMNS if same_weights else ACCURACIES
    pairs = [baseline[run["seed"]] for run in shared]
    found = paired_differences([run["summary"] for run in shared], pairs, columns)
    return Difference(found, len(shared))


def _place(record: Record) -> tuple[Any, ...]:
    fields = ("class_order", "method", "imbalance_factor")
    network = record.get("network", "")  # a record of a table with one network does not name it
    return *(record[field] for field in fields), network
