"""Figures of sweeps: what test accuracy and held-out cosine do as one field of the config grows."""

from collections.abc import Iterator, Sequence

import numpy as np

from spa_jax.reporting.figures import style
from spa_jax.reporting.figures.style import Drawing, line_style, plain_text
from spa_jax.reporting.grouping import Group, Sweep, find_sweeps, group_by
from spa_jax.reporting.statistics import Columns, column_values, mean_and_spread

_COLUMNS: Columns = {
    "test accuracy": ("test_accuracy", "last"),
    "held-out mean cosine": ("test_mean_cosine",),
}
_LOGARITHMIC_FROM = 20  # times the smallest value


def draw_sweeps(groups: Sequence[Group]) -> Iterator[Drawing]:
    """A figure for each field that was swept, see :func:`spa_jax.reporting.grouping.find_sweeps`.

    Args:
      groups: all groups of the report.

    Yields:
      Figures; none if no field was swept.
    """
    for field, of_field in group_by(find_sweeps(groups), lambda sweep: sweep.field).items():
        yield _draw_field(field, of_field)


def _draw_field(field: str, sweeps: Sequence[Sweep]) -> Drawing:
    figure, axes = style.panels(1, 2, 2.4)
    baselines = {sweep.baseline.label: sweep.baseline for sweep in sweeps if sweep.baseline}
    values = [value for sweep in sweeps for value in sweep.values]
    for panel, column in zip(axes[0], _COLUMNS, strict=True):
        for i, sweep in enumerate(sweeps):
            means, spreads = np.transpose([_mean_and_spread(g, column) for g in sweep.groups])
            look = line_style(i) | {"marker": style.marker_of(i), "markersize": 4, "linewidth": 1.1}
            curves = np.stack([means, means - spreads, means + spreads])
            style.draw_curve(panel, sweep.values, curves, look, sweep.fixed or field)
        for i, (label, baseline) in enumerate(baselines.items(), start=len(sweeps)):
            mean, _ = _mean_and_spread(baseline, column)
            panel.axhline(mean, label=plain_text(label), linewidth=1.1, **line_style(i))
        panel.set(xlabel=plain_text(field), ylabel=column)
        if min(values) > 0 and max(values) / min(values) >= _LOGARITHMIC_FROM:
            panel.set_xscale("log")
    if len(sweeps) + len(baselines) > 1:
        style.legend_of_panels(figure)
    accuracies = [(sweep.fixed, _accuracies(sweep)) for sweep in sweeps]
    facts = {"field": field, "baselines": bool(baselines), "accuracies": accuracies}
    return Drawing(style.file_name("sweep", field), figure, facts)


def _accuracies(sweep: Sweep) -> list[tuple[float, float]]:
    """Mean test accuracy by value."""
    means = (_mean_and_spread(group, "test accuracy")[0] for group in sweep.groups)
    return list(zip(sweep.values, means, strict=True))


def _mean_and_spread(group: Group, column: str) -> tuple[float, float]:
    mean, spread = mean_and_spread(column_values(group.summaries, _COLUMNS[column]))
    return float(mean), float(spread)
