"""Figures of sweeps: what test accuracy and held-out cosine do as one field of the config grows."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes

from spa_jax.reporting.figures.style import (
    Absent,
    Drawing,
    draw_band,
    file_name,
    legend_below,
    line_style,
    marker_of,
    panels,
    plain_text,
)
from spa_jax.reporting.grouping import Group, Sweep, find_sweeps, group_by
from spa_jax.reporting.statistics import Columns, statistics

_COLUMNS: Columns = {
    "test accuracy": ("test_accuracy", "last"),
    "held-out mean cosine": ("test_mean_cosine",),
}
_LOGARITHMIC_FROM = 20  # times the smallest value


def draw_sweeps(groups: Sequence[Group]) -> Iterator[Drawing | Absent]:
    """A figure for each field that was swept, see :func:`spa_jax.reporting.grouping.find_sweeps`.

    Args:
      groups: all groups of the report.

    Yields:
      Figures, or why there is none.
    """
    sweeps = find_sweeps(groups)
    if not sweeps:
        yield Absent(
            "Sweep curves",
            "no numeric field of the configuration takes three values or more while the others "
            "stay as they are.",
        )
    for field, of_field in group_by(sweeps, lambda sweep: sweep.field).items():
        yield _draw_field(field, of_field)


def _draw_field(field: str, sweeps: Sequence[Sweep]) -> Drawing:
    figure, axes = panels(1, 2, 2.4)
    baselines = {sweep.baseline.label: sweep.baseline for sweep in sweeps if sweep.baseline}
    values = [value for sweep in sweeps for value in sweep.values]
    for panel, column in zip(axes[0], _COLUMNS, strict=True):
        for i, sweep in enumerate(sweeps):
            _draw_sweep(panel, sweep, i, column)
        for i, baseline in enumerate(baselines.values(), start=len(sweeps)):
            mean, _ = _mean_and_std(baseline, column)
            panel.axhline(mean, label=plain_text(baseline.label), linewidth=1.1, **line_style(i))
        panel.set_xlabel(plain_text(field))
        panel.set_ylabel(column)
        if min(values) > 0 and max(values) / min(values) >= _LOGARITHMIC_FROM:
            panel.set_xscale("log")
    handles, labels = axes[0][0].get_legend_handles_labels()
    if len(handles) > 1:
        legend_below(figure, handles, labels)
    return Drawing(
        file_name("sweep", field),
        f"Sweep of {field}",
        f"Test accuracy and held-out cosine after the last epoch against {field}. Lines are means "
        "over seeds, bands one standard deviation to each side"
        + ("; level lines are runs without space alignment." if baselines else "."),
        "Two panels, test accuracy and held-out cosine. " + " ".join(map(_in_words, sweeps)),
        figure,
    )


def _draw_sweep(axes: Axes, sweep: Sweep, index: int, column: str) -> None:
    means, spreads = np.array([_mean_and_std(group, column) for group in sweep.groups]).T
    style = line_style(index) | {"marker": marker_of(index), "markersize": 4, "linewidth": 1.1}
    axes.plot(sweep.values, means, label=plain_text(sweep.fixed or sweep.field), **style)
    draw_band(axes, sweep.values, means - spreads, means + spreads, style)


def _mean_and_std(group: Group, column: str) -> tuple[float, float]:
    """NaN where there is none."""
    found = statistics(group.summaries, _COLUMNS)[column]
    mean, std = (np.nan if value is None else value for value in found.values())
    return mean, std


def _in_words(sweep: Sweep) -> str:
    parts = [
        f"{value:g}: {_mean_and_std(group, 'test accuracy')[0]:.3f}"
        for value, group in zip(sweep.values, sweep.groups, strict=True)
    ]
    return f"Test accuracy by {sweep.field}, {sweep.fixed or 'all else equal'}: {', '.join(parts)}."
