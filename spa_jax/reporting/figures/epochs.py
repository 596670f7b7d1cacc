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

Lines = Sequence[Sequence[Mapping[str, Any]]]
"""The lines of `metrics.jsonl` of several runs."""

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
    runs = _lines_of(groups)
    if not _any_recorded(runs, list(_ALIGNMENT)[:2]):
        return
    figure, axes = style.panels(2, 2, 2.2)
    *over_epochs, against = axes.flat
    over_epochs[1].sharey(over_epochs[0])  # the two cosines are there to be compared
    for panel, (path, title) in zip(over_epochs, _ALIGNMENT.items(), strict=True):
        draw_curves(panel, runs, path, title)
    over_epochs[0].set_ylabel("cosine")
    over_epochs[2].set_ylabel("test accuracy")
    _draw_paths(against, runs)
    yield _finished("alignment", figure, runs, ("test_mean_cosine",))


def draw_collapse(groups: Sequence[Group]) -> Iterator[Drawing]:
    """NC1, NC2, NC3 and NC4 over epochs, on training and on held-out features, as far as known."""
    return _draw_rows("collapse", groups, _COLLAPSE, measure=0, sharey="col")


def draw_equinorm_equiangular(groups: Sequence[Group]) -> Iterator[Drawing]:
    """The parts of NC2, of class means and of weights, over epochs."""
    for drawing in _draw_rows("nc2", groups, _NC2, measure=-1):
        for panel in drawing.figure.axes:
            panel.set_ylim(bottom=0)
        yield drawing


def draw_curves(axes: Axes, runs: Mapping[str, Lines], path: Path, title: str) -> None:
    """Draws a number over epochs: a curve a name, the mean over its runs that have the number."""
    for i, (name, lines) in enumerate(runs.items()):
        epochs, values = _values(lines, path)
        if not len(values):
            continue
        # A marker now and then, at other epochs for each curve, tells them apart without colour.
        step = max(1, len(epochs) // 5)
        places = (i * step // len(runs) % step, step)
        look = style.curve_style(i, markersize=3, markevery=places)
        style.draw_band_curve(axes, epochs, values.T, look, name, path[-1] == _LOGARITHMIC)
    axes.set_title(title, loc="left")
    style.epoch_axis(axes)


def _lines_of(groups: Sequence[Group]) -> dict[str, Lines]:
    return {group.label: [run.lines for run in group.runs] for group in groups}


def _values(lines: Lines, path: Path) -> tuple[list[int], Float[np.ndarray, "R T"]]:
    """Epochs `(T,)`, and the values of the runs that have any."""
    epochs, values = curves(lines, path)
    return epochs, values[~np.isnan(values).all(axis=1)]


def _any_recorded(runs: Mapping[str, Lines], paths: Iterable[Path]) -> bool:
    return any(len(_values(lines, path)[1]) for path in paths for lines in runs.values())


def _draw_rows(
    name: str, groups: Sequence[Group], known: Mapping[str, Row], measure: int, **options: Any
) -> Iterator[Drawing]:
    """A row of panels for each label of which something is recorded, if there is one.

    Titles are over the first row, epochs below the last; the figure states one measure of a row.
    """
    runs = _lines_of(groups)
    rows = {label: row for label, row in known.items() if _any_recorded(runs, row)}
    if not rows:
        return
    measures = list(next(iter(rows.values())))
    figure, axes = style.panels(len(rows), len(measures), 1.9, sharex=True, **options)
    for i, (label, row) in enumerate(rows.items()):
        for panel, (path, title) in zip(axes[i], row.items(), strict=True):
            draw_curves(panel, runs, path, title if i == 0 else "")
            panel.set_xlabel("epoch" if i == len(rows) - 1 else "")
        axes[i][0].set_ylabel(label)
    yield _finished(name, figure, runs, measures[measure])


def _draw_paths(axes: Axes, runs: Mapping[str, Lines]) -> None:
    """Test accuracy against held-out cosine, both means over seeds; a marker at the end."""
    for i, lines in enumerate(runs.values()):
        sides = [_values(lines, (field,))[1] for field in ("test_mean_cosine", "test_accuracy")]
        if all(map(len, sides)):
            x, y = (values.mean(axis=0) for values in sides)
            look = style.line_style(i)
            end = {"color": look["color"], "markersize": 6, "mec": "white"}
            axes.plot(x, y, **look, linewidth=0.9)
            axes.plot(x[-1], y[-1], style.marker_of(i), **end)
    axes.set_title("d  Test accuracy against held-out cosine", loc="left")
    axes.set(xlabel="mean cosine, held-out class means", ylabel="test accuracy")


def _finished(name: str, figure: Figure, runs: Mapping[str, Lines], measure: Path) -> Drawing:
    """With a legend, which one group alone does not need, and with what a measure comes to."""
    if len(runs) > 1:
        style.legend_below(figure)
    found = {label: _values(lines, measure)[1] for label, lines in runs.items()}
    ends = [(label, rows[:, -1].mean()) for label, rows in found.items() if len(rows)]
    return Drawing(name, figure, {"measure": measure[-1], "ends": ends})
