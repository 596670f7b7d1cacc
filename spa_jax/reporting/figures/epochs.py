"""Figures of what changes over epochs: alignment and accuracy, and neural collapse."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
from spa_jax.reporting.statistics import curves

Path = tuple[str, ...]
"""Where a number stands in a line of `metrics.jsonl`."""

_ALIGNMENT: tuple[tuple[Path, str, str], ...] = (
    (("mean_cosine",), "a  Mean cosine, EMA class means", "cosine"),
    (("test_mean_cosine",), "b  Mean cosine, held-out class means", ""),
    (("test_accuracy",), "c  Test accuracy", "test accuracy"),
)
_COLLAPSE = {
    "nc1_over_c": r"NC1: tr$(\Sigma_W \Sigma_B^+)/C$",
    "nc2_etf_means": "NC2: means to ETF",
    "nc3": "NC3: weights to means",
    "nc4": "NC4: agreement",
}
_NC2 = {
    "equinorm": "Spread of norms",
    "equiangular": "Angles to ETF",
    "etf": "Gram matrix to ETF",
}
_LOGARITHMIC = "nc1_over_c"
_SPREAD = "Lines are means over seeds, bands one standard deviation to each side."


def draw_alignment(groups: Sequence[Group]) -> Iterator[Drawing | Absent]:
    """Cosines and test accuracy over epochs, and the one against the other.

    Args:
      groups: what to compare; one curve each.

    Yields:
      The figure, or why there is none.
    """
    title = "Alignment against accuracy over epochs"
    if not _any_recorded(groups, [path for path, *_ in _ALIGNMENT[:2]]):
        yield Absent(title, "no run recorded mean_cosine or test_mean_cosine in metrics.jsonl.")
        return
    figure, axes = panels(2, 2, 2.2)
    *over_epochs, against = axes.flat
    over_epochs[1].sharey(over_epochs[0])  # the two cosines are there to be compared
    for panel, (path, name, label) in zip(over_epochs, _ALIGNMENT, strict=True):
        _draw_curves(panel, groups, path, name)
        panel.set_ylabel(label)
    _draw_paths(against, groups)
    _legend(figure, groups)
    yield Drawing(
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


def draw_collapse(groups: Sequence[Group]) -> Iterator[Drawing | Absent]:
    """NC1, NC2, NC3 and NC4 over epochs, on training and on held-out features."""
    title = "Neural collapse over epochs"
    both = {
        f"{words} features": {("collapse", part, name): text for name, text in _COLLAPSE.items()}
        for words, part in (("training", "train"), ("held-out", "test"))
    }
    rows = {label: row for label, row in both.items() if _any_recorded(groups, row)}
    if not rows:
        yield Absent(title, _NO_COLLAPSE)
        return
    first = next(path for row in rows.values() for path in row)
    yield Drawing(
        "collapse",
        title,
        "Under neural collapse NC1 (variability within classes against that between them), NC2 "
        "(distance of the centred class means from a simplex equiangular tight frame, ETF) and "
        "NC3 (distance of weights from class means) go to 0, and NC4 (share of examples on which "
        "classifier and nearest class mean agree) to 1. "
        f"{_SPREAD} NC1 has mean and deviation of its logarithm.",
        f"A panel for each of NC1 to NC4 over epochs. {_last_values(groups, first)}",
        _draw_rows(groups, rows, sharey="col"),
    )


def draw_equinorm_equiangular(groups: Sequence[Group]) -> Iterator[Drawing | Absent]:
    """The parts of NC2, of class means and of weights, over epochs."""
    title = "NC2 of class means and of weights over epochs"
    rows = {
        label: {("collapse", "train", f"nc2_{name}_{of}"): text for name, text in _NC2.items()}
        for label, of in (("class means", "means"), ("weights", "weights"))
    }
    if not any(_any_recorded(groups, row) for row in rows.values()):
        yield Absent(title, _NO_COLLAPSE)
        return
    figure = _draw_rows(groups, rows)
    for panel in figure.axes:
        panel.set_ylim(bottom=0)
    yield Drawing(
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


_NO_COLLAPSE = "no run recorded `collapse` in metrics.jsonl."


def _values(group: Group, path: Path) -> tuple[list[int], Float[np.ndarray, "R T"]]:
    """Epochs `(T,)`, and the values of the runs that have any."""
    epochs, values = curves([run.lines for run in group.runs], path)
    return epochs, values[~np.isnan(values).all(axis=1)]


def _any_recorded(groups: Sequence[Group], paths: Iterable[Path]) -> bool:
    return any(len(_values(group, path)[1]) for path in paths for group in groups)


def _draw_rows(
    groups: Sequence[Group], rows: Mapping[str, Mapping[Path, str]], **options: Any
) -> Figure:
    """A row of panels for each label, with the titles over the first and epochs below the last."""
    figure, axes = panels(len(rows), len(next(iter(rows.values()))), 1.9, sharex=True, **options)
    for i, (label, row) in enumerate(rows.items()):
        for panel, (path, title) in zip(axes[i], row.items(), strict=True):
            _draw_curves(panel, groups, path, title if i == 0 else "")
            panel.set_xlabel("epoch" if i == len(rows) - 1 else "")
        axes[i][0].set_ylabel(label)
    _legend(figure, groups)
    return figure


def _draw_curves(axes: Axes, groups: Sequence[Group], path: Path, title: str) -> None:
    for i, group in enumerate(groups):
        epochs, values = _values(group, path)
        if not len(values):
            continue
        # A marker now and then, at other epochs for each curve, tells them apart without colour.
        step = max(1, len(epochs) // 5)
        style = {
            **line_style(i),
            "linewidth": 1.1,
            "marker": marker_of(i),
            "markersize": 3,
            "markevery": (i * step // len(groups) % step, step),
        }
        draw_band_curve(axes, epochs, values, style, group.label, path[-1] == _LOGARITHMIC)
    axes.set_title(title, loc="left")
    epoch_axis(axes)


def _draw_paths(axes: Axes, groups: Sequence[Group]) -> None:
    """Test accuracy against held-out cosine, both means over seeds; a marker at the end."""
    for i, group in enumerate(groups):
        cosines, accuracies = (
            _values(group, (field,))[1] for field in ("test_mean_cosine", "test_accuracy")
        )
        if not len(cosines) or not len(accuracies):
            continue
        x, y = cosines.mean(axis=0), accuracies.mean(axis=0)
        style = line_style(i)
        axes.plot(x, y, **style, linewidth=0.9)
        axes.plot(x[-1:], y[-1:], marker_of(i), color=style["color"], markersize=6, mec="white")
    axes.set_title("d  Test accuracy against held-out cosine", loc="left")
    axes.set_xlabel("mean cosine, held-out class means")
    axes.set_ylabel("test accuracy")


def _legend(figure: Figure, groups: Sequence[Group]) -> None:
    """A legend of the groups that any panel shows; one group alone needs none."""
    shown: dict[str, Any] = {}
    for panel in figure.axes:
        handles, labels = panel.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    if len(groups) > 1:
        legend_below(figure, list(shown.values()), list(shown))


def _last_values(groups: Sequence[Group], path: Path) -> str:
    """What the curves come to, in words."""
    found = {group.label: _values(group, path)[1] for group in groups}
    ends = [f"{label}: {rows[:, -1].mean():.3g}" for label, rows in found.items() if len(rows)]
    return f"At the last epoch {path[-1]} is {'; '.join(ends)}." if ends else ""
