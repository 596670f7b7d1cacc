"""The tables of docs/studies/, made from the records of the studies."""

from collections.abc import Mapping
from typing import Any

from spa_jax.reporting.table_text import Value, markdown_rows, spread_text
from studies.names import name_of
from studies.study_numbers import COLLAPSE, MEASURES, REACHED
from studies.study_runs import BASELINE

Numbers = Mapping[str, Any]

_ACCURACIES = {"test accuracy": "accuracy", "few-shot": "few_shot_accuracy"}
_FINAL = _ACCURACIES | {"EMA cosine": "ema_cosine", "held-out cosine": "held_out_cosine"}
_CORRELATIONS = {"r, levels": "r_epochs", "r, changes": "r_changes"}
_GEOMETRY = _ACCURACIES | {
    "held-out cosine": "held_out_cosine",
    "NC1": "nc1_over_c",
    "NC2": "nc2_etf_means",
    "NC3": "nc3",
}
_COSINES = {"EMA": "cosine_ema", "clean training": "cosine_training", "held-out": "cosine_held_out"}
_GAPS = {
    "many-shot": "many",
    "few-shot": "few",
    "few minus many": "few_minus_many",
    "slope per tenfold size": "slope",
}


def alignment_and_accuracy(numbers: Numbers) -> list[str]:
    """Final values, and their paired differences with the correlation over seeds."""
    rows = _by_method("SpA", numbers["statistics"], _FINAL | _CORRELATIONS)
    paired = _by_method("minus none", numbers["differences"], _FINAL)
    paired[0] += ["r over seeds", "needed at 5%"]
    for row, over in zip(paired[1:], numbers["over_seeds"].values(), strict=True):
        row += ["-" if value is None else f"{value:.3f}" for value in (over["r"], over["needed"])]
    return [markdown_rows(rows), markdown_rows(paired)]


def nc2_convergence(numbers: Numbers) -> list[str]:
    """Each measure of each method against the baseline, with the verdict on its end."""
    rows = [["measure", "SpA", "none, last", "last, minus none", "mean over epochs, minus none"]]
    rows[0] += ["epochs to none's last", "at the end alignment"]
    baseline = numbers["statistics"][BASELINE]
    for measure, name in MEASURES.items():
        last, mean = f"{measure}_last", f"{measure}_mean"
        for method, columns in numbers["differences"].items():
            row = [_cell(baseline, last), _cell(columns, last), _cell(columns, mean)]
            row += [_reached(numbers, method, measure), numbers["verdicts"][method][last]]
            rows.append([name, name_of(method), *row])
    return [markdown_rows(rows, text=(0, 1, 6))]


def _reached(numbers: Numbers, method: str, measure: str) -> str:
    """How many epochs later the method first is where the baseline ends, or how many runs are."""
    if measure not in REACHED:
        return ""
    epochs = [run[f"{measure}_reached"] for run in numbers["runs"][method]]
    there = sum(epoch is not None for epoch in epochs)
    if there < len(epochs):
        return f"{there} of {len(epochs)} get there"
    return spread_text(numbers["differences"][method][f"{measure}_reached"], digits=1)


def train_and_held_out(numbers: Numbers) -> list[str]:
    """Mean cosines, and the gaps between them by shot group."""
    rows = _by_method("SpA", numbers["statistics"], _COSINES)
    gaps = [["gap to held-out", "SpA", *_GAPS]]
    for side, name in (("training", "clean training"), ("ema", "EMA")):
        columns = {heading: f"{side}_gap_{part}" for heading, part in _GAPS.items()}
        gaps += [[name, *row] for row in _by_method("SpA", numbers["intervals"], columns)[1:]]
    return [markdown_rows(rows), markdown_rows(gaps, text=(0, 1))]


def neural_collapse(numbers: Numbers) -> list[str]:
    """Each measure at three moments, and a sentence on the training error."""
    columns = numbers["statistics"][BASELINE]
    rows = [["measure", "features", "first epoch", "zero training error", "last epoch"]]
    rows[0] += ["last minus zero error"]
    for part, features in (("train", "training"), ("test", "held-out")):
        for measure, name in COLLAPSE.items():
            moments = ("first", "zero", "last")
            cells = [_cell(columns, f"{moment}_{part}_{measure}") for moment in moments]
            cells += [_cell(numbers["differences"], f"{part}_{measure}")]
            rows.append([name, features, *cells])
    epochs = [run["zero_epoch"] for run in numbers["runs"][BASELINE]]
    zero = ", ".join(f"{epoch:.0f}" for epoch in epochs if epoch is not None)
    error = spread_text(columns["last_training_error"], True)
    words = (
        f"Training error is zero for the first time after epoch {zero or 'none'} (one number a "
        f"seed); after the last epoch it is {error}%, and test accuracy "
        f"{_cell(columns, 'last_test_accuracy')}%."
    )
    return [markdown_rows(rows, text=(0, 1)), words]


def architectures(numbers: Numbers) -> list[str]:
    """Final values, and their paired differences."""
    rows = _by_method("SpA", numbers["statistics"], _GEOMETRY)
    paired = _by_method("minus none", numbers["differences"], _GEOMETRY)
    return [markdown_rows(rows), markdown_rows(paired)]


def _by_method(
    first: str, found: Mapping[str, Mapping[str, Value]], columns: Mapping[str, str]
) -> list[list[str]]:
    """A row for each SpA method, below the headings of its columns."""
    rows = [[first, *columns]]
    for method, values in found.items():
        rows.append([name_of(method), *(_cell(values, name) for name in columns.values())])
    return rows


def _cell(values: Mapping[str, Value], name: str) -> str:
    """A mean or a difference: accuracies in percent, correlations with two decimals."""
    digits = 2 if name.startswith("r_") else None
    return spread_text(values[name], name.endswith("accuracy"), digits)
