"""Figures of sweeps: what test accuracy and held-out cosine do as one field of the config grows."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from spa_jax.reporting.figures.style import (
    Absent,
    Drawing,
    file_name,
    legend_below,
    line_style,
    marker_of,
    panels,
    plain_text,
)
from spa_jax.reporting.grouping import Group, Sweep
from spa_jax.reporting.statistics import Columns, statistics

_COLUMNS: Columns = {
    "test accuracy": ("test_accuracy", "last"),
    "held-out mean cosine": ("test_mean_cosine",),
}
_LOGARITHMIC_FROM = 20  # times the smallest value


def draw_sweeps(sweeps: Sequence[Sweep]) -> Iterator[Drawing | Absent]:
    """A figure for each field that was swept.

    Args:
      sweeps: see :func:`spa_jax.reporting.grouping.find_sweeps`.

    Yields:
      Figures, or why there is none.
    """
    if not sweeps:
        yield Absent(
            "Sweep curves",
            "no numeric field of the configuration takes three values or more while the others "
            "stay as they are.",
        )
    for field in dict.fromkeys(sweep.field for sweep in sweeps):
        yield _draw_field(field, [sweep for sweep in sweeps if sweep.field == field])


def _draw_field(field: str, sweeps: Sequence[Sweep]) -> Drawing:
    figure, axes = panels(1, 2, 2.4)
    baselines = {sweep.baseline.label: sweep.baseline for sweep in sweeps if sweep.baseline}
    for panel, column in zip(axes[0], _COLUMNS, strict=True):
        for i, sweep in enumerate(sweeps):
            _draw_sweep(panel, sweep, i, column)
        for i, baseline in enumerate(baselines.values(), start=len(sweeps)):
            _draw_baseline(panel, baseline, i, column)
        panel.set_xlabel(plain_text(field))
        panel.set_ylabel(column)
        values = [value for sweep in sweeps for value in sweep.values]
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
    style: dict[str, Any] = {**line_style(index), "marker": marker_of(index), "markersize": 4}
    label = plain_text(sweep.fixed or sweep.field)
    axes.plot(sweep.values, means, label=label, linewidth=1.1, **style)
    axes.fill_between(
        sweep.values,
        means - spreads,
        means + spreads,
        color=style["color"],
        alpha=0.12,
        linewidth=0,
    )


def _draw_baseline(axes: Axes, baseline: Group, index: int, column: str) -> None:
    mean, _ = _mean_and_std(baseline, column)
    axes.axhline(mean, label=plain_text(baseline.label), linewidth=1.1, **line_style(index))


def _mean_and_std(group: Group, column: str) -> tuple[float, float]:
    """NaN where there is none."""
    found = statistics([run.summary for run in group.runs], _COLUMNS)[column]
    mean, std = found["mean"], found["std"]
    return (np.nan if mean is None else mean), (np.nan if std is None else std)


def _in_words(sweep: Sweep) -> str:
    parts = [
        f"{value:g}: {_mean_and_std(group, 'test accuracy')[0]:.3f}"
        for value, group in zip(sweep.values, sweep.groups, strict=True)
    ]
    return f"Test accuracy by {sweep.field}, {sweep.fixed or 'all else equal'}: {', '.join(parts)}."
