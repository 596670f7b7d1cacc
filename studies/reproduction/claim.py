"""What the records say about the paper's claim, and about rows beside it, made from them."""

from collections.abc import Callable, Mapping

from spa_jax.reporting.table_text import difference_text
from spa_jax.reproduction.cells import TABLE_METHODS, Cell
from spa_jax.reproduction.plan import Records
from studies.reproduction.pairing import (
    COSINE,
    Compare,
    Difference,
    groups_of,
    minus_none,
    minus_tuned,
)
from studies.reproduction.row_names import pair_name

_PAIRS = 3
_LOW = 0.005  # the paper claims 0.5 to 2.6 points

Found = Mapping[Cell, Difference]


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

    found, rows = _found(table, records, wanted, minus_none)
    tuned = {group: difference for group, difference in found.items() if group.variant == "tuned"}
    if not tuned or len(found) < rows:
        return _open(len(found), rows)
    return " ".join([_own_pair(found), _all_pairs(tuned), _alignment(tuned)])


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
      The sentences; before every row has three pairs of seeds, that this is so.
    """
    found, rows = _found(table, records, _with_spa(wanted), minus_none)
    if not found or len(found) < rows:
        return _open(len(found), rows)
    return f"Over these {rows} rows with SpA {_spread(found, name)}. {_alignment(found)}"


def ablation_sentences(
    table: str, records: Records, wanted: Callable[[Cell], bool], name: Callable[[Cell], str]
) -> str:
    """Those of `changes_sentences`, and one on how the rows differ from tuned SpA itself."""
    changes = changes_sentences(table, records, wanted, name)
    found, rows = _found(table, records, _with_spa(wanted), minus_tuned)
    if len(found) < rows:
        return _open(len(found), rows)
    apart = {
        group: difference
        for group, difference in found.items()
        if abs(difference.columns["last"]["mean"]) > difference.columns["last"]["half_width"]
    }
    each = [f"{name(group)} by {_last(difference)}" for group, difference in apart.items()]
    listed = f": {', '.join(each)}" if each else ""
    return (
        f"{changes} From tuned SpA of the same seeds {len(apart)} of the {rows} rows differ by "
        f"more than their interval{listed}."
    )


def _with_spa(wanted: Callable[[Cell], bool]) -> Callable[[Cell], bool]:
    return lambda cell: wanted(cell) and cell.spa_method != "none"


def _found(
    table: str, records: Records, wanted: Callable[[Cell], bool], compare: Compare
) -> tuple[dict[Cell, Difference], int]:
    """The differences of rows with three pairs of seeds or more, and how many rows there are.

    Rows in which a run diverged are left out; their tables say so.
    """
    groups = groups_of(table, records, wanted)
    whole = {cell: group.runs for cell, group in groups.items() if not group.diverged}
    found = {
        cell: difference
        for cell, runs in whole.items()
        if runs and (difference := compare(runs, records)) and difference.pairs >= _PAIRS
    }
    return found, len(whole)


def _open(found: int, rows: int) -> str:
    return f"Open: {found} of {rows} rows have three pairs of seeds."


def _last(difference: Difference) -> str:
    return difference_text(difference.columns["last"], True)


def _own_pair(found: Found) -> str:
    parts = [
        f"{_last(difference)} points with {cell.variant} settings ({difference.pairs} seeds)"
        for cell, difference in found.items()
        if (cell.method, cell.spa_method) == ("glmc", "proj")
    ]
    return f"GLMC with Proj, the paper's own pair, changes accuracy by {' and by '.join(parts)}."


def _all_pairs(tuned: Found) -> str:
    last = [difference.columns["last"] for difference in tuned.values()]
    excluded = sum(value["mean"] + value["half_width"] < _LOW for value in last)
    upheld = sum(value["mean"] - value["half_width"] >= _LOW for value in last)
    return (
        f"Over the {len(last)} pairs of a method with a tuned variant {_spread(tuned, pair_name)}; "
        f"{excluded} lie wholly below the claimed +0.5 points and {upheld} at or above them."
    )


def _spread(found: Found, name: Callable[[Cell], str]) -> str:
    """From which change to which, and where the intervals lie."""
    last = {group: difference.columns["last"] for group, difference in found.items()}
    order = sorted(last, key=lambda group: last[group]["mean"])
    above = sum(value["mean"] - value["half_width"] > 0 for value in last.values())
    below = sum(value["mean"] + value["half_width"] < 0 for value in last.values())
    ends = [f"{_last(found[group])} ({name(group)})" for group in (order[0], order[-1])]
    return (
        f"the change goes from {ends[0]} to {ends[1]}; {above} of the 95% intervals lie above "
        f"zero, {below} below it, {len(last) - above - below} hold it"
    )


def _alignment(found: Found) -> str:
    """Of the rows that act on the classifier whose cosine the baseline has."""
    columns = [difference.columns for difference in found.values()]
    cosines = [values[COSINE] for values in columns if COSINE in values]
    higher = sum(value["mean"] - value["half_width"] > 0 for value in cosines)
    means = [value["mean"] for value in cosines]
    rows = (
        "the same rows"
        if len(cosines) == len(found)
        else f"the {len(cosines)} rows that act on the baseline's classifier"
    )
    return (
        f"The mean cosine of weights and class means of test features changes by "
        f"{min(means):+.2f} to {max(means):+.2f} over {rows}, and rises by more than its interval "
        f"in {higher} of them."
    )
