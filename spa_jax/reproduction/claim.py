"""What the records say about the paper's claim, in three sentences made from them."""

from collections.abc import Mapping
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

    groups = groups_of(table, records, wanted)
    found = {
        group: difference
        for group, (runs, _, _) in groups.items()
        if len(runs) >= _SEEDS and (difference := difference_to_none(runs, records)) is not None
    }
    tuned = {group: difference for group, difference in found.items() if group.variant == "tuned"}
    if not tuned or len(found) < len(groups):
        return f"Open: {len(found)} of {len(groups)} rows have three seeds."
    seeds = {group: len(runs) for group, (runs, _, _) in groups.items()}
    return " ".join([_own_pair(found, seeds), _all_pairs(tuned), _alignment(tuned)])


def _own_pair(found: Mapping[Cell, Difference], seeds: Mapping[Cell, int]) -> str:
    parts = [
        f"{difference_text(difference['last'], True)} points with its {group.variant} strength "
        f"({seeds[group]} seeds)"
        for group, difference in found.items()
        if (group.method, group.spa_method) == ("glmc", "proj")
    ]
    return f"GLMC with Proj, the paper's own pair, changes accuracy by {' and by '.join(parts)}."


def _all_pairs(tuned: Mapping[Cell, Difference]) -> str:
    last = {group: difference["last"] for group, difference in tuned.items()}
    order = sorted(last, key=lambda group: last[group]["mean"])
    above, below, excluded, upheld = (
        sum(rule(value["mean"], value["half_width"]) for value in last.values())
        for rule in (
            lambda mean, half: mean - half > 0,
            lambda mean, half: mean + half < 0,
            lambda mean, half: mean + half < _LOW,
            lambda mean, half: mean - half >= _LOW,
        )
    )
    ends = [
        f"{difference_text(last[group], True)} ({method_name(group)} with {spa_name(group)})"
        for group in (order[0], order[-1])
    ]
    return (
        f"Over the {len(last)} pairs of a method with a tuned variant the change goes from "
        f"{ends[0]} to {ends[1]}; {above} of the 95% intervals lie above zero, {below} below it, "
        f"{len(last) - above - below} hold it; {excluded} lie wholly below the claimed +0.5 points "
        f"and {upheld} at or above them."
    )


def _alignment(tuned: Mapping[Cell, Difference]) -> str:
    cosines = [difference[_COSINE] for difference in tuned.values()]
    higher = sum(value["mean"] - value["half_width"] > 0 for value in cosines)
    means = [value["mean"] for value in cosines]
    return (
        f"The mean cosine of weights and class means of test features changes by {min(means):+.2f} "
        f"to {max(means):+.2f} over the same pairs, and rises by more than its interval in "
        f"{higher} of them."
    )
