"""Figures of sweeps: what test accuracy and held-out cosine do as one field of the config grows."""

from collections.abc import Iterator, Sequence

import numpy as np

from spa_jax.reporting.figures import style
from spa_jax.reporting.figures.style import Drawing, line_style, plain_text
from spa_jax.reporting.grouping import Group, Sweep, find_sweeps, group_by
from spa_jax.reporting.statistics import Columns, column_values

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
    for field, sweeps in group_by(find_sweeps(groups), lambda sweep: sweep.field).items():
        figure, axes = style.panels(1, 2, 2.4)
        baselines = dict.fromkeys(sweep.baseline for sweep in sweeps if sweep.baseline)
        values = [value for sweep in sweeps for value in sweep.values]
        for panel, column in zip(axes[0], _COLUMNS, strict=True):
            for i, sweep in enumerate(sweeps):
                look = style.curve_style(i, markersize=4)
                found = [_of_runs(group, column) for group in sweep.groups]
                style.draw_band_curve(panel, sweep.values, found, look, sweep.fixed or field)
            for i, baseline in enumerate(baselines, start=len(sweeps)):
                look = line_style(i) | {"linewidth": 1.1, "label": plain_text(baseline.label)}
                panel.axhline(_of_runs(baseline, column).mean(), **look)
            panel.set(xlabel=plain_text(field), ylabel=column)
            if min(values) > 0 and max(values) / min(values) >= _LOGARITHMIC_FROM:
                panel.set_xscale("log")
        if len(sweeps) + len(baselines) > 1:
            style.legend_below(figure)
        accuracies = [(sweep.fixed, _accuracies(sweep)) for sweep in sweeps]
        facts = {"field": field, "baselines": bool(baselines), "accuracies": accuracies}
        yield Drawing(style.file_name("sweep", field), figure, facts)


def _accuracies(sweep: Sweep) -> list[tuple[float, float]]:
    """Mean test accuracy by value."""
    means = (_of_runs(group, "test accuracy").mean() for group in sweep.groups)
    return list(zip(sweep.values, means, strict=True))


def _of_runs(group: Group, column: str) -> np.ndarray:
    return column_values(group.summaries, _COLUMNS[column])
