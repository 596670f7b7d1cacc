"""Figures of the classes at the end of training: angles, and Gram matrices of means and weights."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from spa_jax.alignment.class_means import directions_of
from spa_jax.reporting.figures.style import (
    Absent,
    Drawing,
    bottom_left,
    grid,
    legend_below,
)
from spa_jax.reporting.finished_runs import Run
from spa_jax.reporting.grouping import Group

_PANELS = 12  # of a figure; more would not fit on a page
_SHOT_GROUPS = (("many", "o", "#000000"), ("medium", "s", "#0072B2"), ("few", "^", "#D55E00"))
_PER_CLASS = ("per_class_cosine", "per_class_test_cosine")
_EVERY_POINT_BELOW = 500  # classes; above, an SVG holds a picture of the points


def draw_angle_by_class_size(groups: Sequence[Group]) -> Iterator[Drawing | Absent]:
    """Angle of each class's weight to its class mean, against its number of training images.

    Args:
      groups: one panel each, or one for each classifier head.

    Yields:
      Figures of up to twelve panels, or why there is none.
    """
    title = "Angle of a class against its size"
    for name, part in _parts("angle_by_class_size", _panels_of(groups)):
        figure, axes = grid([label for _, _, label in part], 2.2)
        for panel, (group, head, _) in zip(axes, part, strict=True):
            _draw_angles(panel, group, head)
        _size_axis(axes[0])
        bottom, left = bottom_left(axes)
        for panel in bottom:
            panel.set_xlabel("training images")
        for panel in left:
            panel.set_ylabel("angle (degrees)")
        legend_below(figure, *axes[0].get_legend_handles_labels(), handle_length=1)
        yield Drawing(
            name,
            title,
            "Angle between a class's weight and its class mean after the last epoch, held-out "
            f"features and {_training_means(groups)}. Points are means over seeds, the two of a "
            "class a little apart"
            f"{', bars one standard deviation to each side' if _few_classes(groups) else ''}.",
            "A panel for each configuration with two points a class. "
            + _widest(part, "held-out angle"),
            figure,
        )
    if not _panels_of(groups):
        yield Absent(title, "no run recorded per_class_test_cosine in summary.json.")


def draw_train_against_held_out(groups: Sequence[Group]) -> Iterator[Drawing | Absent]:
    """Held-out angle of each class against its angle on the training set; panels as above."""
    title = "Training angle against held-out angle"
    for name, part in _parts("train_against_held_out", _panels_of(groups)):
        figure, axes = grid([label for _, _, label in part])
        for panel, (group, head, _) in zip(axes, part, strict=True):
            _draw_shots(panel, group, head)
        limit = max(*axes[0].get_xlim(), *axes[0].get_ylim())
        for panel in axes:
            panel.plot([0, limit], [0, limit], color="#888888", linewidth=0.8, zorder=0)
            panel.xaxis.set_major_locator(MaxNLocator(4))
            panel.yaxis.set_major_locator(MaxNLocator(4))
        axes[0].set(xlim=(0, limit), ylim=(0, limit))
        bottom, left = bottom_left(axes)
        for panel in bottom:
            panel.set_xlabel("training angle (degrees)")
        for panel in left:
            panel.set_ylabel("held-out angle (degrees)")
        legend_below(figure, *axes[0].get_legend_handles_labels(), handle_length=1)
        yield Drawing(
            name,
            title,
            "Angle between a class's weight and the class mean of held-out features against that "
            f"of {_training_means(groups)}; means over seeds. Above the line the class has moved "
            "between training and held-out features.",
            "A panel for each configuration with a point a class, marked by shot group. "
            + _widest(part, "held-out angle"),
            figure,
        )
    if not _panels_of(groups):
        yield Absent(title, "no run recorded per_class_test_cosine in summary.json.")


def mean_angles(
    group: Group, held_out: bool
) -> tuple[Float[np.ndarray, "H C"], Float[np.ndarray, "H C"]]:
    r"""Angles of weights and class means in degrees.

    .. math:: \theta_c = \arccos \cos(w_c, \hat\mu_c)

    Args:
      group: its runs.
      held_out: against the class means of held-out features; otherwise of clean training features
        where every run has them (`geometry.npz`), else the moving averages of training.

    Returns:
      Mean and sample standard deviation over runs, `(H, C)` each; NaN for a class that has no
      direction in some run, and for the deviation of one run.
    """
    clean = all(_head_rows(run) for run in group.runs)
    cosines = np.array([_cosines(run, held_out, clean) for run in group.runs])
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    spread = angles.std(axis=0, ddof=1) if len(angles) > 1 else np.full(angles.shape[1:], np.nan)
    return angles.mean(axis=0), spread


def _cosines(run: Run, held_out: bool, clean: bool) -> np.ndarray:
    """Cosines of weights and class means `(H, C)`; NaN where there is none."""
    if held_out or not clean or run.geometry is None:
        recorded = run.summary["per_class_test_cosine" if held_out else "per_class_cosine"]
        return np.atleast_2d(np.array(recorded, dtype=float))
    means = np.asarray(directions_of(run.geometry.train_means, run.config.get("spa.center", True)))
    weights = run.geometry.weights[_head_rows(run)].astype(float)
    lengths = np.linalg.norm(weights, axis=2)
    known = (lengths > 0) & means.any(axis=1)
    products = (weights * means).sum(axis=2)
    return np.where(known, products / np.where(known, lengths, 1.0), np.nan)


def _head_rows(run: Run) -> list[int]:
    """The rows of `geometry.npz` that the recorded cosines are of; none if that cannot be told."""
    if run.geometry is None:
        return []
    recorded = len(_cosines(run, held_out=True, clean=False))
    heads = run.geometry.heads
    if len(heads) == recorded:
        return list(range(recorded))
    # A network may have heads that space alignment does not act on.
    classifier = run.config.get("spa.classifier", [])
    paths = [classifier] if isinstance(classifier, str) else classifier
    rows = [row for row, head in enumerate(heads) if head in paths]
    return rows if len(rows) == recorded else []


def _panels_of(groups: Sequence[Group]) -> list[tuple[Group, int, str]]:
    """Group, head and title of each panel; groups without cosines have none."""
    result = []
    for group in groups:
        if not all(run.summary.get(field) for run in group.runs for field in _PER_CLASS):
            continue
        heads = len(_cosines(group.runs[0], held_out=True, clean=False))
        rows, geometry = _head_rows(group.runs[0]), group.runs[0].geometry
        names = [f"head {head + 1}" for head in range(heads)]
        if geometry is not None and rows:
            names = [geometry.heads[row] for row in rows]
        for head in range(heads):
            label = group.label if heads == 1 else f"{group.label}: {names[head]}"
            result.append((group, head, label))
    return result


def _parts(name: str, items: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    for number, start in enumerate(range(0, len(items), _PANELS), start=1):
        yield name if number == 1 else f"{name}_{number}", items[start : start + _PANELS]


def _draw_angles(axes: Axes, group: Group, head: int) -> None:
    counts = np.asarray(group.class_counts)
    size = 4 if len(counts) <= 20 else 2.5
    # A little to each side of the class's size, or the bars would hide each other.
    styles: tuple[tuple[bool, float, dict[str, Any]], ...] = (
        (
            False,
            0.96,
            {"color": "#000000", "marker": "o", "markerfacecolor": "white", "label": "training"},
        ),
        (True, 1.04, {"color": "#D55E00", "marker": "^", "label": "held-out"}),
    )
    for held_out, shift, style in styles:
        mean, spread = (part[head] for part in mean_angles(group, held_out))
        bars = spread if _few_classes([group]) and len(group.runs) > 1 else None
        axes.errorbar(
            shift * counts,
            mean,
            yerr=bars,
            linestyle="none",
            markersize=size,
            elinewidth=0.7,
            markeredgewidth=0.8,
            rasterized=len(counts) > _EVERY_POINT_BELOW,
            **style,
        )
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _draw_shots(axes: Axes, group: Group, head: int) -> None:
    x, y = mean_angles(group, held_out=False)[0][head], mean_angles(group, held_out=True)[0][head]
    classes = group.runs[0].summary.get("shot_groups", {}).get("classes")
    classes = classes or {"many": range(len(x))}
    for name, marker, colour in _SHOT_GROUPS:
        labels = list(classes.get(name, ()))
        axes.plot(
            x[labels],
            y[labels],
            linestyle="none",
            marker=marker,
            color=colour,
            fillstyle="none" if name == "medium" else "full",
            markersize=4 if len(x) <= 20 else 2.5,
            rasterized=len(x) > _EVERY_POINT_BELOW,
            label=f"{name}-shot classes" if "few" in classes else "classes",
        )
        if "few" not in classes:
            return


def _size_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=8))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.08)


def _few_classes(groups: Sequence[Group]) -> bool:
    return len(groups[0].class_counts) <= 20


def _training_means(groups: Sequence[Group]) -> str:
    clean = {all(_head_rows(run) for run in group.runs) for group in groups}
    exact, moving = "clean training features", "the moving averages of training"
    if clean == {True}:
        return exact
    return moving if clean == {False} else f"{exact} ({moving} where a run has no geometry.npz)"


def _widest(part: Sequence[tuple[Group, int, str]], what: str) -> str:
    """The largest angle of each panel, in words."""
    texts = []
    for group, head, label in part:
        angles = mean_angles(group, held_out=True)[0][head]
        if not np.isnan(angles).all():
            worst = int(np.nanargmax(angles))
            name = group.runs[0].summary["class_names"][worst]
            texts.append(f"{label}: {angles[worst]:.1f} degrees, class {name}")
    return f"Largest {what}: {'; '.join(texts)}."
