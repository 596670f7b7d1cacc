"""Numbers over seeds: mean and standard deviation, and differences paired by seed."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

Columns = Mapping[str, tuple[str, ...]]
"""Column of a table -> where its number stands in `summary.json`."""

COLUMNS: Columns = {
    "test accuracy": ("test_accuracy", "last"),
    "few-shot accuracy": ("shot_groups", "few"),
    "mean cosine": ("mean_cosine",),
    "lowest cosine": ("min_cosine",),
    "held-out cosine": ("test_mean_cosine",),
}
"""The columns of `python -m spa_jax.compare`."""

OVER_CLASSES: Columns = {
    "accuracy over classes": ("balanced_accuracy", "last"),
    "few-shot over classes": ("balanced_shot_groups", "few"),
}
"""What tables show beside the accuracy over images where a test set is unbalanced."""

IN_PERCENT = frozenset({"test accuracy", "few-shot accuracy", *OVER_CLASSES})
"""Those of them that tables show in percent."""


def columns_for(
    runs: Iterable[Mapping[str, Any]],
    columns: Columns = COLUMNS,
    over_classes: Columns = OVER_CLASSES,
) -> Columns:
    """The columns of a table, with those over classes if a run was tested on an unbalanced set.

    They come after those over images, which are first in a table.

    Args:
      runs: summaries.
      columns: of the table.
      over_classes: what is then added.

    Example:
      >>> columns = {"test accuracy": ("test_accuracy", "last"), "lowest": ("min_cosine",)}
      >>> list(columns_for([{"balanced_accuracy": {"last": 0.5}}], columns))
      ['test accuracy', 'accuracy over classes', 'few-shot over classes', 'lowest']
      >>> list(columns_for([{"balanced_accuracy": None}], columns))
      ['test accuracy', 'lowest']
    """
    if not any(run.get("balanced_accuracy") for run in runs):
        return columns
    of_images = {name: path for name, path in columns.items() if path[0] == "test_accuracy"}
    return {**of_images, **over_classes, **columns}


def note_on(columns: Iterable[str]) -> str:
    """What a table says of an unbalanced test set, if it has a column over classes; else ""."""
    if not any("over classes" in name for name in columns):
        return ""
    return (
        "The test set has not as many images of each class: an accuracy over classes is the mean "
        "over the classes that it has, every other one is over images."
    )


def column_value(summary: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The number that stands at `path` in a run's summary; None if it does not exist.

    Example:
      >>> summary = {"test_accuracy": {"last": 0.75}}
      >>> column_value(summary, ("test_accuracy", "last")), column_value(summary, ("min_cosine",))
      (0.75, None)
    """
    value: Any = summary
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def column_values(
    summaries: Iterable[Mapping[str, Any]], path: Sequence[str]
) -> Float[np.ndarray, " R"]:
    """The number of each of several summaries, see :func:`column_value`; NaN where it has none."""
    return np.array([column_value(summary, path) for summary in summaries], dtype=float)


def curves(
    runs: Sequence[Sequence[Mapping[str, Any]]], path: Sequence[str]
) -> tuple[list[int], Float[np.ndarray, "R T"]]:
    """A number over the epochs at which all runs have recorded it; not all are evaluated.

    Args:
      runs: one or more; the lines of `metrics.jsonl` of each.
      path: where the number stands in a line.

    Returns:
      The epochs, and the numbers, a row a run; NaN where a line has null, and for a run that never
      recorded it.

    Example:
      >>> lines = [{"epoch": 1, "nc": {"nc4": 0.5}}, {"epoch": 2, "nc": None}]
      >>> curves([lines], ("nc", "nc4"))
      ([1, 2], array([[0.5, nan]]))
    """
    known = [{line["epoch"]: line for line in lines if path[0] in line} for lines in runs]
    shared = [set(lines) for lines in known if lines]
    epochs = sorted(set.intersection(*shared)) if shared else []
    values = [column_values([lines.get(epoch, {}) for epoch in epochs], path) for lines in known]
    return epochs, np.array(values)


def mean_and_spread(values: Float[np.ndarray, "R ..."]) -> tuple[Any, Any]:
    """Mean and sample standard deviation over runs.

    Args:
      values: of each run, arrays or numbers; NaN where it has none.

    Returns:
      Two arrays or numbers; NaN where a run has no value or there is no run, the deviation also for
      one run.

    Example:
      >>> [part.tolist() for part in mean_and_spread(np.array([[0.5, 1.0], [1.5, np.nan]]))]
      [[1.0, nan], [0.7071067811865476, nan]]
    """
    missing = np.full(values.shape[1:], np.nan)
    mean = values.mean(axis=0) if len(values) else missing
    return mean, values.std(axis=0, ddof=1) if len(values) > 1 else missing


def statistics(
    runs: Sequence[Mapping[str, Any]], columns: Columns | None = None
) -> dict[str, dict[str, float | None]]:
    r"""Mean and sample standard deviation over runs of each column.

    .. math:: \bar x = \frac1n \sum_i x_i, \quad s = \sqrt{\tfrac{1}{n - 1} \sum_i (x_i - \bar x)^2}

    Args:
      runs: summaries, one a seed.
      columns: where each column's number stands; None: see :func:`columns_for`.

    Returns:
      For each column `mean` and `std`; null where a run has no value, `std` also for one run.

    Example:
      >>> statistics([{"min_cosine": 0.5}, {"min_cosine": 1.0}], {"lowest": ("min_cosine",)})
      {'lowest': {'mean': 0.75, 'std': 0.3535533905932738}}
    """
    result = {}
    for column, path in (columns or columns_for(runs)).items():
        mean, std = mean_and_spread(column_values(runs, path))
        result[column] = {"mean": _number(mean), "std": _number(std)}
    return result


def paired_differences(
    pairs: Collection[tuple[Mapping[str, Any], Mapping[str, Any]]], columns: Columns | None = None
) -> dict[str, dict[str, float | None]]:
    r"""Differences of runs and their baselines, with their 95% interval.

    .. math:: \bar d \pm t_{0.975, n - 1} \, s_d / \sqrt n

    Args:
      pairs: the summary of a run, and that of the baseline of the same seed.
      columns: where each column's number stands; None: see :func:`columns_for`.

    Returns:
      For each column `mean` and `half_width` of the interval; null where a value is missing or
      there is one seed only.

    Example:
      >>> pairs = [({"min_cosine": 0.75}, {"min_cosine": 0.5})]
      >>> paired_differences(pairs, {"lowest": ("min_cosine",)})
      {'lowest': {'mean': 0.25, 'half_width': None}}
    """
    result, n = {}, len(pairs)
    known = columns_for(run for pair in pairs for run in pair)
    for column, path in (columns or known).items():
        sides = (column_values([pair[side] for pair in pairs], path) for side in (0, 1))
        mean, std = mean_and_spread(np.subtract(*sides))
        half_width = stdtrit(n - 1, 0.975) * std / n**0.5 if n > 1 else np.nan
        result[column] = {"mean": _number(mean), "half_width": _number(half_width)}
    return result


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
