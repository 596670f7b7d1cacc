"""The tables of what `python -m spa_jax.evaluate` found: recalls, calibration, the sweep of tau."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from spa_jax.reporting.grouping import Group, evaluations_of
from spa_jax.reporting.report_tables import Table
from spa_jax.reporting.statistics import Columns, note_on, statistics
from spa_jax.reporting.table_text import cells_of

Evaluations = Sequence[Mapping[str, Any]]

_SHOTS = ("many", "medium", "few")
_GROUPS = {"accuracy": "all"} | {f"{shot}-shot": shot for shot in _SHOTS}
_CHOSEN = {
    "chosen_tau": ("chosen tau", "at the chosen tau"),
    "tau_normalisation": ("tau of normalisation", "tau-normalised"),
}


def evaluation_tables(name: str, groups: Sequence[Group]) -> Iterator[Table]:
    """A table for each part that was evaluated on; none if no run was evaluated.

    Args:
      name: a key of :data:`EVALUATION_COLUMNS`.
      groups: a row each.
    """
    for what, shown in evaluations_of(groups).items():
        rows = evaluation_rows(name, shown)
        yield Table(rows, {"what": what, "unbalanced": note_on(rows[0])})


def evaluation_rows(name: str, shown: Mapping[str, Evaluations]) -> list[dict[str, str]]:
    """Rows in percent, but for tau: mean ± sample standard deviation over evaluations.

    Args:
      name: a key of :data:`EVALUATION_COLUMNS`.
      shown: evaluations by the name of their row.
    """
    columns = EVALUATION_COLUMNS[name]([found for of_row in shown.values() for found in of_row])
    in_percent = {*columns} - {tau for tau, _ in _CHOSEN.values()}
    return [
        {"configuration": label} | cells_of(statistics(found, columns), in_percent=in_percent)
        for label, found in shown.items()
    ]


def _of_recalls(evaluations: Evaluations) -> Columns:
    columns: dict[str, tuple[str, ...]] = {name: ("accuracy", key) for name, key in _GROUPS.items()}
    if not all(found["balanced"] for found in evaluations):
        columns |= {f"{name}, over classes": ("class_accuracy", _GROUPS[name]) for name in _GROUPS}
    return columns | {
        "macro-F1": ("macro_f1",),
        "harmonic mean": ("harmonic_mean_recall",),
        "geometric mean": ("geometric_mean_recall",),
        "lowest recall": ("lowest_recall",),
    }


def _of_calibration(_: Evaluations) -> Columns:
    return {
        "ECE": ("calibration", "all", "ece"),
        "adaptive ECE": ("calibration", "all", "adaptive_ece"),
        **{f"ECE, {shot}-shot": ("calibration", shot, "ece") for shot in _SHOTS},
    }


def _of_taus(evaluations: Evaluations) -> Columns:
    taus = dict.fromkeys(tau for found in evaluations for tau in found["tau_sweep"]["accuracy"])
    columns = {f"tau {tau}": ("tau_sweep", "class_accuracy", tau) for tau in taus}
    for field, (tau, accuracy) in _CHOSEN.items():
        if any(found.get(field) for found in evaluations):
            columns |= {tau: (field, "tau"), accuracy: (field, "class_accuracy")}
    return columns


EVALUATION_COLUMNS: Mapping[str, Callable[[Evaluations], Columns]] = {
    "evaluation": _of_recalls,
    "calibration": _of_calibration,
    "tau": _of_taus,
}
"""The tables in their order, each with where its numbers stand in `evaluation.json`."""
