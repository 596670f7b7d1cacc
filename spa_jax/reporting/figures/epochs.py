"""Figures of what changes over epochs: alignment and accuracy, and neural collapse."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from spa_jax.reporting.figures.style import (
    Absent,
    Drawing,
    draw_band_curve,
    epoch_axis,
    legend_below,
    line_style,
    marker_of,
    panels,
)
from spa_jax.reporting.grouping import Group
from spa_jax.reporting.statistics import column_value

# Where a number stands in a line of `metrics.jsonl`, and what its panel is called.
_ALIGNMENT = (
    (("mean_cosine",), "a  Mean cosine, EMA class means"),
    (("test_mean_cosine",), "b  Mean cosine, held-out class means"),
    (("test_accuracy",), "c  Test accuracy"),
)
_COLLAPSE = (
    ("nc1_over_c", r"NC1: tr$(\Sigma_W \Sigma_B^+)/C$"),
    ("nc2_etf_means", "NC2: means to ETF"),
    ("nc3", "NC3: weights to means"),
    ("nc4", "NC4: agreement"),
)
_NC2 = (
    ("equinorm", "Spread of norms"),
    ("equiangular", "Angles to ETF"),
    ("etf", "Gram matrix to ETF"),
)
_SPREAD = "Lines are means over seeds, bands one standard deviation to each side."


def draw_alignment(groups: Sequence[Group]) -> Drawing | Absent:
    """Cosines and test accuracy over epochs, and the one against the other.

    Args:
      groups: what to compare; one curve each.

    Returns:
      The figure, or why there is none.
    """
    title = "Alignment against accuracy over epochs"
    if not any(_series(group, path) for group in groups for path, _ in _ALIGNMENT[:2]):
        return Absent(title, "no run recorded mean_cosine or test_mean_cosine in metrics.jsonl.")
    figure, axes = panels(2, 2, 2.2)
    flat = list(axes.flat)
    flat[1].sharey(flat[0])  # the two cosines are there to be compared
    for panel, (path, name) in zip(flat, _ALIGNMENT, strict=False):
        _draw_curves(panel, groups, path, name)
    flat[0].set_ylabel("cosine")
    flat[2].set_ylabel("test accuracy")
    _draw_paths(flat[3], groups)
    _legend(figure, flat, groups)
    return Drawing(
        "alignment",
        title,
        "Mean cosine of classifier weights and class means: the exponential moving averages that "
        "the methods steer by (a) and the class means of held-out features (b), which alone are "
        "evidence; test accuracy (c); test accuracy against held-out cosine, epoch by epoch, with "
        f"the marker at the last (d). {_SPREAD}",
        "Three panels with a curve for each configuration over epochs, and one that puts test "
        f"accuracy against held-out cosine. {_last_values(groups, ('test_mean_cosine',))}",
        figure,
    )


def draw_collapse(groups: Sequence[Group]) -> Drawing | Absent:
    """NC1, NC2, NC3 and NC4 over epochs, on training and on held-out features."""
    title = "Neural collapse over epochs"
    rows = [part for part in ("train", "test") if _has_collapse(groups, part)]
    if not rows:
        return Absent(title, "no run recorded `collapse` in metrics.jsonl.")
    figure, axes = panels(len(rows), 4, 1.9, sharex=True, sharey="col")
    for i, part in enumerate(rows):
        for panel, (name, panel_title) in zip(axes[i], _COLLAPSE, strict=True):
            path, logarithmic = ("collapse", part, name), name == "nc1_over_c"
            _draw_curves(panel, groups, path, panel_title if i == 0 else "", logarithmic)
            panel.set_xlabel("epoch" if i == len(rows) - 1 else "")
        axes[i][0].set_ylabel({"train": "training features", "test": "held-out features"}[part])
    _legend(figure, list(axes.flat), groups)
    first = ("collapse", rows[0], "nc1_over_c")
    return Drawing(
        "collapse",
        title,
        "Under neural collapse NC1 (variability within classes against that between them), NC2 "
        "(distance of the centred class means from a simplex equiangular tight frame, ETF) and "
        "NC3 (distance of weights from class means) go to 0, and NC4 (share of examples on which "
        "classifier and nearest class mean agree) to 1. "
        f"{_SPREAD} NC1 has mean and deviation of its logarithm.",
        f"A panel for each of NC1 to NC4 over epochs. {_last_values(groups, first)}",
        figure,
    )


def draw_equinorm_equiangular(groups: Sequence[Group]) -> Drawing | Absent:
    """The parts of NC2, of class means and of weights, over epochs."""
    title = "NC2 of class means and of weights over epochs"
    if not _has_collapse(groups, "train"):
        return Absent(title, "no run recorded `collapse` in metrics.jsonl.")
    figure, axes = panels(2, 3, 1.9, sharex=True)
    for i, rows in enumerate(("means", "weights")):
        for panel, (name, panel_title) in zip(axes[i], _NC2, strict=True):
            path = ("collapse", "train", f"nc2_{name}_{rows}")
            _draw_curves(panel, groups, path, panel_title if i == 0 else "")
            panel.set_ylim(bottom=0)
            panel.set_xlabel("epoch" if i else "")
        axes[i][0].set_ylabel({"means": "class means", "weights": "weights"}[rows])
    _legend(figure, list(axes.flat), groups)
    return Drawing(
        "nc2",
        title,
        "Class means of training features (above) and classifier weights (below): standard "
        "deviation of the norms over their mean, mean distance of the cosines between classes "
        "from \u22121/(C \u2212 1), and distance of the normalised Gram matrix from that of a "
        f"simplex equiangular tight frame (ETF). All are 0 under neural collapse. {_SPREAD}",
        "Six panels over epochs: spread of norms, angles and Gram matrix, of means and of weights. "
        f"{_last_values(groups, ('collapse', 'train', 'nc2_etf_means'))}",
        figure,
    )


def _series(group: Group, path: tuple[str, ...]) -> tuple[list[int], np.ndarray] | None:
    """Epochs `(T,)` and values `(R, T)` of the runs that have any; None if none has."""
    rows = []
    length = min(len(run.lines) for run in group.runs)
    for run in group.runs:
        values = [column_value(line, path) for line in run.lines[:length]]
        rows.append([np.nan if value is None else value for value in values])
    known = [row for row in rows if not np.isnan(row).all()]
    if not known:
        return None
    return [line["epoch"] for line in group.runs[0].lines[:length]], np.array(known, dtype=float)


def _draw_curves(
    axes: Axes,
    groups: Sequence[Group],
    path: tuple[str, ...],
    title: str,
    logarithmic: bool = False,
) -> None:
    for i, group in enumerate(groups):
        series = _series(group, path)
        if series is None:
            continue
        epochs, values = series
        # A marker now and then, at other epochs for each curve, tells them apart without colour.
        step = max(1, len(epochs) // 5)
        style = {
            **line_style(i),
            "linewidth": 1.1,
            "marker": marker_of(i),
            "markersize": 3,
            "markevery": (i * step // max(1, len(groups)) % step, step),
        }
        draw_band_curve(axes, epochs, values, style, group.label, logarithmic)
    axes.set_title(title, loc="left")
    epoch_axis(axes)


def _draw_paths(axes: Axes, groups: Sequence[Group]) -> None:
    """Test accuracy against held-out cosine, both means over seeds; a marker at the end."""
    for i, group in enumerate(groups):
        cosines, accuracies = (
            _series(group, ("test_mean_cosine",)),
            _series(group, ("test_accuracy",)),
        )
        if cosines is None or accuracies is None:
            continue
        x, y = cosines[1].mean(axis=0), accuracies[1].mean(axis=0)
        axes.plot(x, y, **line_style(i), linewidth=0.9)
        axes.plot(
            x[-1:], y[-1:], marker_of(i), color=line_style(i)["color"], markersize=6, mec="white"
        )
    axes.set_title("d  Test accuracy against held-out cosine", loc="left")
    axes.set_xlabel("mean cosine, held-out class means")
    axes.set_ylabel("test accuracy")


def _legend(figure: Any, axes: Sequence[Axes], groups: Sequence[Group]) -> None:
    """A legend of the groups that any panel shows; one group alone needs none."""
    shown: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    if len(groups) > 1:
        legend_below(figure, list(shown.values()), list(shown))


def _has_collapse(groups: Sequence[Group], part: str) -> bool:
    return any(
        _series(group, ("collapse", part, name)) is not None
        for group in groups
        for name, _ in _COLLAPSE
    )


def _last_values(groups: Sequence[Group], path: tuple[str, ...]) -> str:
    """What the curves come to, in words."""
    ends = []
    for group in groups:
        series = _series(group, path)
        if series is not None:
            ends.append(f"{group.label}: {series[1][:, -1].mean():.3g}")
    return f"At the last epoch {path[-1]} is {'; '.join(ends)}." if ends else ""
