"""Figures of what changes over epochs: alignment and accuracy, and neural collapse."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spa_jax.reporting.figures import style
from spa_jax.reporting.figures.style import Drawing
from spa_jax.reporting.grouping import Group
from spa_jax.reporting.statistics import curves

Path = tuple[str, ...]
"""Where a number stands in a line of `metrics.jsonl`."""

Row = Mapping[Path, str]
"""The panels of a row: the number that each shows, and its title."""

_ALIGNMENT: Row = {
    ("mean_cosine",): "a  Mean cosine, EMA class means",
    ("test_mean_cosine",): "b  Mean cosine, held-out class means",
    ("test_accuracy",): "c  Test accuracy",
}
_COLLAPSE: Mapping[str, Row] = {
    f"{words} features": {
        ("collapse", part, "nc1_over_c"): r"NC1: tr$(\Sigma_W \Sigma_B^+)/C$",
        ("collapse", part, "nc2_etf_means"): "NC2: means to ETF",
        ("collapse", part, "nc3"): "NC3: weights to means",
        ("collapse", part, "nc4"): "NC4: agreement",
    }
    for words, part in (("training", "train"), ("held-out", "test"))
}
_NC2: Mapping[str, Row] = {
    words: {
        ("collapse", "train", f"nc2_equinorm_{of}"): "Spread of norms",
        ("collapse", "train", f"nc2_equiangular_{of}"): "Angles to ETF",
        ("collapse", "train", f"nc2_etf_{of}"): "Gram matrix to ETF",
    }
    for words, of in (("class means", "means"), ("weights", "weights"))
}
_LOGARITHMIC = "nc1_over_c"


def draw_alignment(groups: Sequence[Group]) -> Iterator[Drawing]:
    """Cosines and test accuracy over epochs, and the one against the other.

    Args:
      groups: what to compare; one curve each.

    Yields:
      The figure; none if no run recorded a cosine.
    """
    if not _any_recorded(groups, list(_ALIGNMENT)[:2]):
        return
    figure, axes = style.panels(2, 2, 2.2)
    *over_epochs, against = axes.flat
    over_epochs[1].sharey(over_epochs[0])  # the two cosines are there to be compared
    for panel, (path, title) in zip(over_epochs, _ALIGNMENT.items(), strict=True):
        _draw_curves(panel, groups, path, title)
    over_epochs[0].set_ylabel("cosine")
    over_epochs[2].set_ylabel("test accuracy")
    _draw_paths(against, groups)
    yield _finished("alignment", figure, groups, ("test_mean_cosine",))


def draw_collapse(groups: Sequence[Group]) -> Iterator[Drawing]:
    """NC1, NC2, NC3 and NC4 over epochs, on training and on held-out features, as far as known."""
    rows = {label: row for label, row in _COLLAPSE.items() if _any_recorded(groups, row)}
    if rows:
        first = next(path for row in rows.values() for path in row)
        figure = _draw_rows(groups, rows, sharey="col")
        yield _finished("collapse", figure, groups, first)


def draw_equinorm_equiangular(groups: Sequence[Group]) -> Iterator[Drawing]:
    """The parts of NC2, of class means and of weights, over epochs."""
    if any(_any_recorded(groups, row) for row in _NC2.values()):
        figure = _draw_rows(groups, _NC2)
        for panel in figure.axes:
            panel.set_ylim(bottom=0)
        yield _finished("nc2", figure, groups, ("collapse", "train", "nc2_etf_means"))


def _values(group: Group, path: Path) -> tuple[list[int], Float[np.ndarray, "R T"]]:
    """Epochs `(T,)`, and the values of the runs that have any."""
    epochs, values = curves([run.lines for run in group.runs], path)
    return epochs, values[~np.isnan(values).all(axis=1)]


def _any_recorded(groups: Sequence[Group], paths: Iterable[Path]) -> bool:
    return any(len(_values(group, path)[1]) for path in paths for group in groups)


def _draw_rows(groups: Sequence[Group], rows: Mapping[str, Row], **options: Any) -> Figure:
    """A row of panels for each label, with the titles over the first and epochs below the last."""
    figure, axes = style.panels(
        len(rows), len(next(iter(rows.values()))), 1.9, sharex=True, **options
    )
    for i, (label, row) in enumerate(rows.items()):
        for panel, (path, title) in zip(axes[i], row.items(), strict=True):
            _draw_curves(panel, groups, path, title if i == 0 else "")
            panel.set_xlabel("epoch" if i == len(rows) - 1 else "")
        axes[i][0].set_ylabel(label)
    return figure


def _draw_curves(axes: Axes, groups: Sequence[Group], path: Path, title: str) -> None:
    for i, group in enumerate(groups):
        epochs, values = _values(group, path)
        if not len(values):
            continue
        # A marker now and then, at other epochs for each curve, tells them apart without colour.
        step = max(1, len(epochs) // 5)
        look = {
            **style.line_style(i),
            "linewidth": 1.1,
            "marker": style.marker_of(i),
            "markersize": 3,
            "markevery": (i * step // len(groups) % step, step),
        }
        style.draw_band_curve(axes, epochs, values, look, group.label, path[-1] == _LOGARITHMIC)
    axes.set_title(title, loc="left")
    style.epoch_axis(axes)


def _draw_paths(axes: Axes, groups: Sequence[Group]) -> None:
    """Test accuracy against held-out cosine, both means over seeds; a marker at the end."""
    for i, group in enumerate(groups):
        cosines, accuracies = (
            _values(group, (field,))[1] for field in ("test_mean_cosine", "test_accuracy")
        )
        if not len(cosines) or not len(accuracies):
            continue
        x, y = cosines.mean(axis=0), accuracies.mean(axis=0)
        look = style.line_style(i)
        axes.plot(x, y, **look, linewidth=0.9)
        axes.plot(x[-1], y[-1], style.marker_of(i), color=look["color"], markersize=6, mec="white")
    axes.set_title("d  Test accuracy against held-out cosine", loc="left")
    axes.set(xlabel="mean cosine, held-out class means", ylabel="test accuracy")


def _finished(name: str, figure: Figure, groups: Sequence[Group], measure: Path) -> Drawing:
    """With a legend, which one group alone does not need, and with what a measure comes to."""
    if len(groups) > 1:
        style.legend_of_panels(figure)
    found = {group.label: _values(group, measure)[1] for group in groups}
    ends = [(label, rows[:, -1].mean()) for label, rows in found.items() if len(rows)]
    return Drawing(name, figure, {"measure": measure[-1], "ends": ends})
