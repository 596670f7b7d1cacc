"""Figures of predictions: reliability diagrams and confusion matrices, of evaluated runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.colors import Normalize

from spa_jax.reporting.figures import style
from spa_jax.reporting.figures.style import Drawing
from spa_jax.reporting.grouping import Group, evaluations_of

Shown = Mapping[str, Sequence[Mapping[str, Any]]]
"""Title of a panel -> the evaluations of runs that it shows together."""

_PANELS = 6  # of a figure
_SHOTS = {"all": "all classes"} | {name: f"{name}-shot" for name in ("many", "medium", "few")}


def draw_reliability(groups: Sequence[Group]) -> Iterator[Drawing]:
    """Accuracy against confidence of each group, by shot group; none if no run was evaluated."""
    return _in_figures("reliability", groups, reliability_drawing)


def draw_confusion(groups: Sequence[Group]) -> Iterator[Drawing]:
    """What the examples of each class were taken for; none if no run was evaluated."""
    return _in_figures("confusion", groups, confusion_drawing)


def reliability_drawing(name: str, shown: Shown) -> Drawing:
    """A reliability diagram for each title.

    Args:
      name: of the figure's files.
      shown: whose examples are put together.
    """
    figure, panels = style.grid([*shown], "confidence", "accuracy")
    for panel, found in zip(panels, shown.values(), strict=True):
        panel.plot([0, 1], [0, 1], color="#888888", linewidth=0.8, zorder=0)
        for i, (group, label) in enumerate(_SHOTS.items()):
            confidence, accuracy = pooled_bins([run["calibration"].get(group) for run in found])
            look = style.curve_style(i, markersize=3, clip_on=False)
            panel.plot(confidence, accuracy, label=label, **look)
        panel.set(xlim=(0, 1), ylim=(0, 1))
    style.legend_below(figure)
    errors = [
        (title, np.mean([run["calibration"]["all"]["ece"] for run in found]))
        for title, found in shown.items()
    ]
    return Drawing(name, figure, {"errors": errors})


def confusion_drawing(name: str, shown: Shown) -> Drawing:
    """A confusion matrix for each title, each row divided by its sum.

    Args:
      name: of the figure's files.
      shown: whose examples are put together.
    """
    figure, panels = style.grid([*shown], "predicted class, by size", "class, by size")
    norm = Normalize(0, 1)
    for panel, found in zip(panels, shown.values(), strict=True):
        counts = np.sum([run["confusion"] for run in found], axis=0, dtype=float)
        rows = counts.sum(axis=1, keepdims=True)
        shares = np.divide(counts, rows, where=rows > 0, out=np.full_like(counts, np.nan))
        style.draw_matrix(panel, shares, norm, len(found[0]["per_class"]["recall"]))
    figure.set_figheight(figure.get_figheight() + 0.4)  # for the bar
    style.colour_bar(figure, panels, norm, "share of the class", location="bottom", shrink=0.8)
    lowest = [
        (title, np.mean([run["lowest_recall"] for run in found])) for title, found in shown.items()
    ]
    return Drawing(name, figure, {"lowest": lowest})


def pooled_bins(
    calibrations: Sequence[Mapping[str, Any] | None],
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
    """Bins of several runs as if their examples were those of one.

    Args:
      calibrations: each with `bins` of `count`, `confidence` and `accuracy`; None: no example.

    Returns:
      Mean confidence and accuracy of the bins that have examples.

    Example:
      >>> one = {"bins": {"count": [3, 0], "confidence": [0.25, None], "accuracy": [0.0, None]}}
      >>> two = {"bins": {"count": [1, 0], "confidence": [0.25, None], "accuracy": [1.0, None]}}
      >>> [part.tolist() for part in pooled_bins([one, two])]
      [[0.25], [0.25]]
    """
    bins = [found["bins"] for found in calibrations if found]
    if not bins:
        return np.empty(0), np.empty(0)
    count = np.array([own["count"] for own in bins], dtype=float)
    total = count.sum(axis=0)
    means = (
        np.nansum(count * np.array([own[field] for own in bins], dtype=float), axis=0)[total > 0]
        for field in ("confidence", "accuracy")
    )
    confidence, accuracy = (sums / total[total > 0] for sums in means)
    return confidence, accuracy


def _in_figures(
    name: str, groups: Sequence[Group], draw: Callable[[str, Shown], Drawing]
) -> Iterator[Drawing]:
    """A figure for what was evaluated on, or several where there are many groups."""
    for what, shown in evaluations_of(groups).items():
        for numbered, part in style.in_parts(
            style.file_name(name, what), [*shown.items()], _PANELS
        ):
            drawing = draw(numbered, dict(part))
            yield Drawing(numbered, drawing.figure, {**drawing.facts, "what": what})
