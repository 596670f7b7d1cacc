"""The tables of docs/studies/, made from the records of the studies."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from spa_jax.reporting.table_text import difference_text, markdown_rows, mean_text
from studies.study_figures import NAMES
from studies.study_numbers import COLLAPSE, GEOMETRY, MEASURES, REACHED

Numbers = Mapping[str, Any]

_MEASURE_NAMES = {
    "nc2_etf_means": "class means, to ETF",
    "nc2_equiangular_means": "class means, angles",
    "nc2_etf_weights": "weights, to ETF",
    "nc2_equiangular_weights": "weights, angles",
}
_COLLAPSE_NAMES = {
    "nc1_over_c": "NC1, tr(Σ_W Σ_B⁺)/C",
    "nc2_etf_means": "NC2, class means to ETF",
    "nc2_equiangular_means": "NC2, angles of class means",
    "nc3": "NC3, weights to class means",
    "not_nc4": "NC4, share of disagreement",
}


def section(record: Numbers) -> str:
    """What stands between a page's markers: the tables of every data set, with their origin."""
    tables = _TABLES[record["study"]]
    parts = []
    for data_set in record["data_sets"]:
        parts += [f"**{data_set['title']}**", *tables(data_set), _origin(data_set, record["date"])]
    return "\n\n".join(parts)


def _alignment_and_accuracy(numbers: Numbers) -> list[str]:
    rows = [["SpA", "test accuracy", "few-shot", "EMA cosine", "held-out cosine"]]
    rows[0] += ["r, levels", "r, changes"]
    for method, columns in numbers["statistics"].items():
        row = [mean_text(columns[name], True) for name in ("accuracy", "few_shot_accuracy")]
        row += [mean_text(columns[name]) for name in ("ema_cosine", "held_out_cosine")]
        row += [mean_text(columns[name], digits=2) for name in ("r_epochs", "r_changes")]
        rows.append([NAMES.get(method, method), *row])
    paired = [["minus none", "test accuracy", "few-shot", "EMA cosine", "held-out cosine"]]
    paired[0] += ["r over seeds", "needed at 5%"]
    for method, columns in numbers["differences"].items():
        row = [difference_text(columns[name], True) for name in ("accuracy", "few_shot_accuracy")]
        row += [difference_text(columns[name]) for name in ("ema_cosine", "held_out_cosine")]
        over = numbers["over_seeds"][method]
        row += ["-" if value is None else f"{value:.3f}" for value in (over["r"], over["needed"])]
        paired.append([NAMES.get(method, method), *row])
    return [markdown_rows(rows), markdown_rows(paired)]


def _nc2_convergence(numbers: Numbers) -> list[str]:
    rows = [["measure", "SpA", "none, last", "last, minus none", "mean over epochs, minus none"]]
    rows[0] += ["epochs to none's last", "at the end alignment"]
    baseline = numbers["statistics"]["none"]
    for measure in MEASURES:
        last, mean = f"{measure}_last", f"{measure}_mean"
        for method, columns in numbers["differences"].items():
            row = [mean_text(baseline[last])]
            row += [difference_text(columns[name]) for name in (last, mean)]
            row += [_reached(numbers, method, measure), numbers["verdicts"][method][last]]
            rows.append([_MEASURE_NAMES[measure], NAMES.get(method, method), *row])
    return [markdown_rows(rows, text=(0, 1, 6))]


def _reached(numbers: Numbers, method: str, measure: str) -> str:
    """How many epochs later the method first is where the baseline ends, or how many runs are."""
    if measure not in REACHED:
        return ""
    epochs = [run[f"{measure}_reached"] for run in numbers["runs"][method]]
    there = sum(epoch is not None for epoch in epochs)
    if there < len(epochs):
        return f"{there} of {len(epochs)} get there"
    return difference_text(numbers["differences"][method][f"{measure}_reached"], digits=1)


def _train_and_held_out(numbers: Numbers) -> list[str]:
    rows = [["SpA", "EMA", "clean training", "held-out"]]
    for method, columns in numbers["statistics"].items():
        names = ("cosine_ema", "cosine_training", "cosine_held_out")
        rows.append([NAMES.get(method, method), *(mean_text(columns[name]) for name in names)])
    gaps = [["gap to held-out", "SpA", "many-shot", "few-shot", "few minus many"]]
    gaps[0] += ["slope per tenfold size"]
    for side, name in (("training", "clean training"), ("ema", "EMA")):
        for method, columns in numbers["intervals"].items():
            parts = ("many", "few", "few_minus_many", "slope")
            cells = [difference_text(columns[f"{side}_gap_{part}"]) for part in parts]
            gaps.append([name, NAMES.get(method, method), *cells])
    return [markdown_rows(rows), markdown_rows(gaps, text=(0, 1))]


def _neural_collapse(numbers: Numbers) -> list[str]:
    columns = numbers["statistics"]["none"]
    rows = [["measure", "features", "first epoch", "zero training error", "last epoch"]]
    rows[0] += ["last minus zero error"]
    for part, features in (("train", "training"), ("test", "held-out")):
        for name in COLLAPSE:
            moments = ("first", "zero", "last")
            cells = [mean_text(columns[f"{moment}_{part}_{name}"]) for moment in moments]
            cells += [difference_text(numbers["differences"][f"{part}_{name}"])]
            rows.append([_COLLAPSE_NAMES[name], features, *cells])
    runs = numbers["runs"]["none"]
    zero = ", ".join(f"{run['zero_epoch']:.0f}" for run in runs if run["zero_epoch"] is not None)
    accuracy = mean_text(columns["last_test_accuracy"], True)
    error = mean_text(columns["last_training_error"], True)
    words = (
        f"Training error is zero for the first time after epoch {zero or 'none'} (one number a "
        f"seed); after the last epoch it is {error}%, and test accuracy {accuracy}%."
    )
    return [markdown_rows(rows, text=(0, 1)), words]


def _architectures(numbers: Numbers) -> list[str]:
    names = ("accuracy", "few_shot_accuracy", "held_out_cosine", *GEOMETRY)
    header = ["test accuracy", "few-shot", "held-out cosine", "NC1", "NC2", "NC3"]
    rows = [["SpA", *header]]
    for method, columns in numbers["statistics"].items():
        cells = [mean_text(columns[name], name.endswith("accuracy")) for name in names]
        rows.append([NAMES.get(method, method), *cells])
    paired = [["minus none", *header]]
    for method, columns in numbers["differences"].items():
        cells = [difference_text(columns[name], name.endswith("accuracy")) for name in names]
        paired.append([NAMES.get(method, method), *cells])
    return [markdown_rows(rows), markdown_rows(paired)]


def _origin(data_set: Numbers, date: str) -> str:
    seeds = ", ".join(map(str, data_set["seeds"]["none"]))
    machine = data_set["hardware"]
    return (
        f"{data_set['training_images']:,} training images, {data_set['epochs']} epochs, seeds "
        f"{seeds}; split `{data_set['split_checksum'][:16]}`; jax {data_set['jax']}, "
        f"{machine['cpu_count']} CPU cores, {machine['platform']}; {date}."
    )


_TABLES: Mapping[str, Callable[[Numbers], list[str]]] = MappingProxyType(
    {
        "alignment_and_accuracy": _alignment_and_accuracy,
        "nc2_convergence": _nc2_convergence,
        "train_and_held_out": _train_and_held_out,
        "neural_collapse": _neural_collapse,
        "architectures": _architectures,
    }
)
