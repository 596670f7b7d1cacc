"""What the records say about the paper's claim, and about rows beside it, made from them."""

from collections.abc import Callable, Mapping

from spa_jax.reporting.table_text import spread_text
from spa_jax.reproduction.cells import Cell
from spa_jax.reproduction.tables import TABLE_METHODS
from studies.reproduction import pairing
from studies.reproduction.pairing import Compare, Difference, TableRuns, Wanted, intervals

_PAIRS = 3
_LOW = 0.005  # the paper claims 0.5 to 2.6 points

Found = Mapping[Cell, Difference]
Name = Callable[[Cell], str]


def claim_sentences(class_order: str, factor: float, runs: TableRuns) -> str:
    """Three sentences on the claim of 0.5 to 2.6 points, with 95% intervals.

    Args:
      class_order: of the runs that are looked at.
      factor: their imbalance factor.
      runs: of the table.

    Returns:
      The sentences; before every method has three seeds with every tuned variant, that this is so.
    """
    place = {"class_order": class_order, "imbalance_factor": factor}
    wanted = pairing.having(stage="final", method=TABLE_METHODS, **place)
    found, rows = _found(runs, wanted, pairing.minus_none)
    tuned = {group: difference for group, difference in found.items() if group.variant == "tuned"}
    if not tuned or len(found) < rows:
        return _open(len(found), rows)
    return " ".join([_own_pair(found), _all_pairs(tuned), _alignment(tuned)])


def changes_sentences(wanted: Wanted, name: Name, runs: TableRuns) -> str:
    """Two sentences on what SpA changes in some rows, with 95% intervals.

    Args:
      wanted: which cells are looked at; of these the ones with SpA count.
      name: of a row, for a reader.
      runs: of the table.

    Returns:
      The sentences; before every row has three pairs of seeds, that this is so.
    """
    found, rows = _found(runs, wanted, pairing.minus_none)
    if not found or len(found) < rows:
        return _open(len(found), rows)
    return f"Over these {rows} rows with SpA {_spread(found, name)}. {_alignment(found)}"


def ablation_sentences(wanted: Wanted, name: Name, runs: TableRuns) -> str:
    """Those of `changes_sentences`, and one on how the rows differ from tuned SpA itself."""
    found, rows = _found(runs, wanted, pairing.minus_tuned)
    if not found or len(found) < rows:
        return _open(len(found), rows)
    mean, half = intervals(found.values(), "last")
    apart = [group for group, far in zip(found, abs(mean) > half, strict=True) if far]
    each = ", ".join(f"{name(group)} by {_last(found[group])}" for group in apart)
    return (
        f"{changes_sentences(wanted, name, runs)} From tuned SpA of the same seeds "
        f"{len(apart)} of the {rows} rows differ by more than their interval"
        f"{each and f': {each}'}."
    )


def _found(runs: TableRuns, wanted: Wanted, compare: Compare) -> tuple[dict[Cell, Difference], int]:
    """The differences of rows with SpA that have three pairs of seeds, and how many rows there are.

    Rows in which a run diverged are left out; their tables say so.
    """
    groups = runs.where(lambda cell: wanted(cell) and cell.spa_method != "none")
    whole = {cell: group.runs for cell, group in groups.items() if not group.diverged}
    compared = {cell: compare(found, runs.records) for cell, found in whole.items()}
    return {cell: d for cell, d in compared.items() if d and d.pairs >= _PAIRS}, len(whole)


def _open(found: int, rows: int) -> str:
    return f"Open: {found} of {rows} rows have three pairs of seeds."


def _last(difference: Difference) -> str:
    return spread_text(difference.columns["last"], True)


def _own_pair(found: Found) -> str:
    parts = [
        f"{_last(difference)} points with {cell.variant} settings ({difference.pairs} seeds)"
        for cell, difference in found.items()
        if (cell.method, cell.spa_method) == ("glmc", "proj")
    ]
    return f"GLMC with Proj, the paper's own pair, changes accuracy by {' and by '.join(parts)}."


def _all_pairs(tuned: Found) -> str:
    mean, half = intervals(tuned.values(), "last")
    spread = _spread(tuned, pairing.pair_name)
    return (
        f"Over the {len(tuned)} pairs of a method with a tuned variant {spread}; "
        f"{(mean + half < _LOW).sum()} lie wholly below the claimed +0.5 points and "
        f"{(mean - half >= _LOW).sum()} at or above them."
    )


def _spread(found: Found, name: Name) -> str:
    """From which change to which, and where the intervals lie."""
    order = sorted(found, key=lambda group: found[group].columns["last"]["mean"])
    mean, half = intervals(found.values(), "last")
    above, below = (mean > half).sum(), (mean < -half).sum()
    ends = [f"{_last(found[group])} ({name(group)})" for group in (order[0], order[-1])]
    return (
        f"the change goes from {ends[0]} to {ends[1]}; {above} of the 95% intervals lie above "
        f"zero, {below} below it, {len(found) - above - below} hold it"
    )


def _alignment(found: Found) -> str:
    """Of the rows that act on the classifier whose cosine the baseline has."""
    mean, half = intervals(found.values(), pairing.COSINE)
    rows = "the same rows"
    if len(mean) < len(found):
        rows = f"the {len(mean)} rows that act on the baseline's classifier"
    return (
        f"The mean cosine of weights and class means of test features changes by "
        f"{mean.min():+.2f} to {mean.max():+.2f} over {rows}, and rises by more than its "
        f"interval in {(mean > half).sum()} of them."
    )
