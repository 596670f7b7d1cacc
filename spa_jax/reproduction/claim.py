"""What the records say about the paper's claim, and about rows beside it, made from them."""

from collections.abc import Callable, Mapping
from typing import Any

from spa_jax.dynamics.table_text import difference_text
from spa_jax.reproduction.cells import TABLE_METHODS, Cell
from spa_jax.reproduction.plan import Records
from spa_jax.reproduction.results_tables import (
    difference_to_none,
    groups_of,
    method_name,
    spa_name,
)

_SEEDS = 3
_LOW = 0.005  # the paper claims 0.5 to 2.6 points
_COSINE = "held-out cosine"

Difference = Mapping[str, Mapping[str, Any]]


def claim_sentences(table: str, records: Records, class_order: str, factor: float) -> str:
    """Three sentences on the claim of 0.5 to 2.6 points, with 95% intervals.

    Args:
      table: a name in :data:`spa_jax.reproduction.tables.TABLES`.
      records: its records so far.
      class_order: of the runs that are looked at.
      factor: their imbalance factor.

    Returns:
      The sentences; before every method has three seeds with every tuned variant, that this is so.
    """

    def wanted(cell: Cell) -> bool:
        place = cell.stage == "final" and cell.class_order == class_order
        with_spa = cell.method in TABLE_METHODS and cell.spa_method != "none"
        return place and with_spa and cell.imbalance_factor == factor

    found, seeds = _found(table, records, wanted)
    tuned = {group: difference for group, difference in found.items() if group.variant == "tuned"}
    if not tuned or len(found) < len(seeds):
        return _open(found, seeds)
    return " ".join([_own_pair(found, seeds), _all_pairs(tuned), _alignment(tuned)])


def changes_sentences(
    table: str, records: Records, wanted: Callable[[Cell], bool], name: Callable[[Cell], str]
) -> str:
    """Two sentences on what SpA changes in some rows, with 95% intervals.

    Args:
      table: a name in :data:`spa_jax.reproduction.tables.TABLES`.
      records: its records so far.
      wanted: which cells are looked at; of these the ones with SpA count.
      name: of a row, for a reader.

    Returns:
      The sentences; before every row has three seeds, that this is so.
    """

    def with_spa(cell: Cell) -> bool:
        return wanted(cell) and cell.spa_method != "none"

    found, seeds = _found(table, records, with_spa)
    if len(found) < len(seeds):
        return _open(found, seeds)
    return f"Over these {len(found)} rows with SpA {_spread(found, name)}. {_alignment(found)}"


def _found(
    table: str, records: Records, wanted: Callable[[Cell], bool]
) -> tuple[dict[Cell, Difference], dict[Cell, int]]:
    """The difference to no SpA of rows with three seeds or more, and all rows' number of seeds."""
    groups = groups_of(table, records, wanted)
    found = {
        group: difference
        for group, (runs, _, _) in groups.items()
        if len(runs) >= _SEEDS and (difference := difference_to_none(runs, records)) is not None
    }
    return found, {group: len(runs) for group, (runs, _, _) in groups.items()}


def _open(found: Mapping[Cell, Difference], seeds: Mapping[Cell, int]) -> str:
    return f"Open: {len(found)} of {len(seeds)} rows have three seeds."


def _own_pair(found: Mapping[Cell, Difference], seeds: Mapping[Cell, int]) -> str:
    parts = [
        f"{difference_text(difference['last'], True)} points with its {group.variant} strength "
        f"({seeds[group]} seeds)"
        for group, difference in found.items()
        if (group.method, group.spa_method) == ("glmc", "proj")
    ]
    return f"GLMC with Proj, the paper's own pair, changes accuracy by {' and by '.join(parts)}."


def _all_pairs(tuned: Mapping[Cell, Difference]) -> str:
    last = [difference["last"] for difference in tuned.values()]
    excluded = sum(value["mean"] + value["half_width"] < _LOW for value in last)
    upheld = sum(value["mean"] - value["half_width"] >= _LOW for value in last)
    spread = _spread(tuned, lambda cell: f"{method_name(cell)} with {spa_name(cell)}")
    return (
        f"Over the {len(last)} pairs of a method with a tuned variant {spread}; {excluded} lie "
        f"wholly below the claimed +0.5 points and {upheld} at or above them."
    )


def _spread(found: Mapping[Cell, Difference], name: Callable[[Cell], str]) -> str:
    """From which change to which, and where the intervals lie."""
    last = {group: difference["last"] for group, difference in found.items()}
    order = sorted(last, key=lambda group: last[group]["mean"])
    above = sum(value["mean"] - value["half_width"] > 0 for value in last.values())
    below = sum(value["mean"] + value["half_width"] < 0 for value in last.values())
    ends = [
        f"{difference_text(last[group], True)} ({name(group)})" for group in (order[0], order[-1])
    ]
    return (
        f"the change goes from {ends[0]} to {ends[1]}; {above} of the 95% intervals lie above "
        f"zero, {below} below it, {len(last) - above - below} hold it"
    )


def _alignment(found: Mapping[Cell, Difference]) -> str:
    """Of the rows that act on the classifier whose cosine the baseline has."""
    cosines = [difference[_COSINE] for difference in found.values() if _COSINE in difference]
    higher = sum(value["mean"] - value["half_width"] > 0 for value in cosines)
    means = [value["mean"] for value in cosines]
    rows = (
        "the same rows"
        if len(cosines) == len(found)
        else f"the {len(cosines)} rows that act on the baseline's classifier"
    )
    return (
        f"The mean cosine of weights and class means of test features changes by {min(means):+.2f} "
        f"to {max(means):+.2f} over {rows}, and rises by more than its interval in {higher} of them."
    )
