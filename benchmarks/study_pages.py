"""The tables of docs/studies/, made from the records of the studies."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from benchmarks.study_figures import NAMES
from benchmarks.study_numbers import COLLAPSE, MEASURES, REACHED, Interval

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
        row = [_spread(columns[name], 100, 1) for name in ("accuracy", "few_shot_accuracy")]
        row += [_spread(columns[name], 1, 3) for name in ("ema_cosine", "held_out_cosine")]
        row += [_spread(columns[name], 1, 2) for name in ("r_epochs", "r_changes")]
        rows.append([NAMES.get(method, method), *row])
    paired = [["minus none", "test accuracy", "few-shot", "EMA cosine", "held-out cosine"]]
    paired[0] += ["r over seeds", "needed at 5%"]
    for method, columns in numbers["differences"].items():
        row = [_interval(columns[name], 100, 1) for name in ("accuracy", "few_shot_accuracy")]
        row += [_interval(columns[name], 1, 3) for name in ("ema_cosine", "held_out_cosine")]
        over = numbers["over_seeds"][method]
        row += ["-" if value is None else f"{value:.3f}" for value in (over["r"], over["needed"])]
        paired.append([NAMES.get(method, method), *row])
    return [_markdown(rows), _markdown(paired)]


def _nc2_convergence(numbers: Numbers) -> list[str]:
    rows = [["measure", "SpA", "none, last", "last, minus none", "mean over epochs, minus none"]]
    rows[0] += ["epochs to none's last", "at the end alignment"]
    baseline = numbers["statistics"]["none"]
    for measure in MEASURES:
        last, mean = f"{measure}_last", f"{measure}_mean"
        for method, columns in numbers["differences"].items():
            row = [_spread(baseline[last], 1, 3)]
            row += [_interval(columns[name], 1, 3) for name in (last, mean)]
            row += [_reached(numbers, method, measure), numbers["verdicts"][method][last]]
            rows.append([_MEASURE_NAMES[measure], NAMES.get(method, method), *row])
    return [_markdown(rows, text=(0, 1, 6))]


def _reached(numbers: Numbers, method: str, measure: str) -> str:
    """How many epochs later the method first is where the baseline ends, or how many runs are."""
    if measure not in REACHED:
        return ""
    epochs = [run[f"{measure}_reached"] for run in numbers["runs"][method]]
    there = sum(epoch is not None for epoch in epochs)
    if there < len(epochs):
        return f"{there} of {len(epochs)} get there"
    return _interval(numbers["differences"][method][f"{measure}_reached"], 1, 1)


def _train_and_held_out(numbers: Numbers) -> list[str]:
    rows = [["SpA", "EMA", "clean training", "held-out"]]
    for method, columns in numbers["statistics"].items():
        names = ("cosine_ema", "cosine_training", "cosine_held_out")
        rows.append([NAMES.get(method, method), *(_spread(columns[name], 1, 3) for name in names)])
    gaps = [["gap to held-out", "SpA", "many-shot", "few-shot", "few minus many"]]
    gaps[0] += ["slope per tenfold size"]
    for side, name in (("training", "clean training"), ("ema", "EMA")):
        for method, columns in numbers["intervals"].items():
            parts = ("many", "few", "few_minus_many", "slope")
            cells = [_interval(columns[f"{side}_gap_{part}"], 1, 3) for part in parts]
            gaps.append([name, NAMES.get(method, method), *cells])
    return [_markdown(rows), _markdown(gaps, text=(0, 1))]


def _neural_collapse(numbers: Numbers) -> list[str]:
    columns = numbers["statistics"]["none"]
    rows = [["measure", "features", "first epoch", "zero training error", "last epoch"]]
    rows[0] += ["last minus zero error"]
    for part, features in (("train", "training"), ("test", "held-out")):
        for name in COLLAPSE:
            moments = ("first", "zero", "last")
            cells = [_spread(columns[f"{moment}_{part}_{name}"], 1, 3) for moment in moments]
            cells += [_interval(numbers["differences"][f"{part}_{name}"], 1, 3)]
            rows.append([_COLLAPSE_NAMES[name], features, *cells])
    runs = numbers["runs"]["none"]
    zero = ", ".join(f"{run['zero_epoch']:.0f}" for run in runs if run["zero_epoch"] is not None)
    accuracy = _spread(columns["last_test_accuracy"], 100, 1)
    error = _spread(columns["last_training_error"], 100, 1)
    words = (
        f"Training error is zero for the first time after epoch {zero or 'none'} (one number a "
        f"seed); after the last epoch it is {error}%, and test accuracy {accuracy}%."
    )
    return [_markdown(rows, text=(0, 1)), words]


def _origin(data_set: Numbers, date: str) -> str:
    seeds = ", ".join(map(str, data_set["seeds"]["none"]))
    machine = data_set["hardware"]
    return (
        f"{data_set['training_images']:,} training images, {data_set['epochs']} epochs, seeds "
        f"{seeds}; split `{data_set['split_checksum'][:16]}`; jax {data_set['jax']}, "
        f"{machine['cpu_count']} CPU cores, {machine['platform']}; {date}."
    )


def _spread(value: Interval, scale: float, digits: int) -> str:
    return _with_width(value["mean"], value["std"], scale, digits, "")


def _interval(value: Interval, scale: float, digits: int) -> str:
    return _with_width(value["mean"], value["half_width"], scale, digits, "+")


def _with_width(
    mean: float | None, width: float | None, scale: float, digits: int, sign: str
) -> str:
    if mean is None:
        return "-"
    text = f"{scale * mean:{sign}.{digits}f}"
    return text if width is None else f"{text} ± {scale * width:.{digits}f}"


def _markdown(rows: Sequence[Sequence[str]], text: Sequence[int] = (0,)) -> str:
    header, *body = rows
    rule = ["---" if column in text else "---:" for column in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *body))


_TABLES: Mapping[str, Callable[[Numbers], list[str]]] = MappingProxyType(
    {
        "alignment_and_accuracy": _alignment_and_accuracy,
        "nc2_convergence": _nc2_convergence,
        "train_and_held_out": _train_and_held_out,
        "neural_collapse": _neural_collapse,
    }
)
