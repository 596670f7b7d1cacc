"""Numbers over seeds: mean and standard deviation, and differences paired by seed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student_t

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

IN_PERCENT = frozenset({"test accuracy", "few-shot accuracy"})
"""Those of them that tables show in percent."""


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


def curves(
    runs: Sequence[Sequence[Mapping[str, Any]]], path: Sequence[str]
) -> tuple[list[int], Float[np.ndarray, "R T"]]:
    """A number over the epochs that all runs have.

    Args:
      runs: one or more; the lines of `metrics.jsonl` of each.
      path: where the number stands in a line.

    Returns:
      The epochs, and the numbers, a row a run; NaN where a line has none.

    Example:
      >>> lines = [{"epoch": 1, "nc": {"nc4": 0.5}}, {"epoch": 2, "nc": None}]
      >>> curves([lines], ("nc", "nc4"))
      ([1, 2], array([[0.5, nan]]))
    """
    length = min(map(len, runs))
    values = [[column_value(line, path) for line in lines[:length]] for lines in runs]
    return [line["epoch"] for line in runs[0][:length]], np.array(values, dtype=float)


def statistics(
    runs: Sequence[Mapping[str, Any]], columns: Columns = COLUMNS
) -> dict[str, dict[str, float | None]]:
    r"""Mean and sample standard deviation over runs of each column.

    .. math:: \bar x = \frac1n \sum_i x_i, \quad s = \sqrt{\tfrac{1}{n - 1} \sum_i (x_i - \bar x)^2}

    Args:
      runs: summaries, one a seed.
      columns: where each column's number stands.

    Returns:
      For each column `mean` and `std`; null where a run has no value, `std` also for one run.

    Example:
      >>> statistics([{"min_cosine": 0.5}, {"min_cosine": 1.0}], {"lowest": ("min_cosine",)})
      {'lowest': {'mean': 0.75, 'std': 0.3535533905932738}}
    """
    result: dict[str, dict[str, float | None]] = {}
    for column, path in columns.items():
        mean, std = _mean_and_std([column_value(summary, path) for summary in runs])
        result[column] = {"mean": mean, "std": std}
    return result


def paired_differences(
    runs: Sequence[Mapping[str, Any]],
    baseline: Sequence[Mapping[str, Any]],
    columns: Columns = COLUMNS,
) -> dict[str, dict[str, float | None]]:
    r"""Differences to the baseline of the same seed, with their 95% interval.

    .. math:: \bar d \pm t_{0.975, n - 1} \, s_d / \sqrt n

    Args:
      runs: summaries of a method, seed by seed.
      baseline: summaries of the baseline for the same seeds in the same order.
      columns: where each column's number stands.

    Returns:
      For each column `mean` and `half_width` of the interval; null where a value is missing or
      there is one seed only.

    Example:
      >>> runs, baseline = [{"min_cosine": 0.75}], [{"min_cosine": 0.5}]
      >>> paired_differences(runs, baseline, {"lowest": ("min_cosine",)})
      {'lowest': {'mean': 0.25, 'half_width': None}}
    """
    result: dict[str, dict[str, float | None]] = {}
    for column, path in columns.items():
        sides = ([column_value(summary, path) for summary in side] for side in (runs, baseline))
        pairs = list(zip(*sides, strict=True))
        mean, std = _mean_and_std([None if None in pair else pair[0] - pair[1] for pair in pairs])
        n = len(pairs)
        half_width = None if std is None else float(student_t.ppf(0.975, n - 1) * std / n**0.5)
        result[column] = {"mean": mean, "half_width": half_width}
    return result


def _mean_and_std(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """None where a value is missing or there is none; the deviation also for one value."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None, None
    return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None
