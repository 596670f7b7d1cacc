"""Figures of the classes at the end of training: angles against class sizes, and against angles."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from spa_jax.reporting.figures.style import (
    Absent,
    Drawing,
    grid,
    in_parts,
    legend_below,
    plain_ticks,
)
from spa_jax.reporting.finished_runs import Run
from spa_jax.reporting.grouping import Group

_PANELS = 12  # of a figure; more would not fit on a page
_SHOT_GROUPS = (("many", "o", "#000000"), ("medium", "s", "#0072B2"), ("few", "^", "#D55E00"))
_PER_CLASS = ("per_class_cosine", "per_class_test_cosine")
_FEW = 20  # classes; points are larger, and have bars
_EVERY_POINT_BELOW = 500  # classes; above, an SVG holds a picture of the points


class _Panel(NamedTuple):
    """A classifier head of a group: mean and deviation of its angles, `(C,)` each."""

    title: str
    group: Group
    training: tuple[np.ndarray, np.ndarray]
    held_out: tuple[np.ndarray, np.ndarray]


def draw_angle_by_class_size(groups: Sequence[Group]) -> Iterator[Drawing | Absent]:
    """Angle of each class's weight to its class mean, against its number of training images.

    Args:
      groups: one panel each, or one for each classifier head.

    Yields:
      Figures of up to twelve panels, or why there is none.
    """

    def draw(axes: list[Axes], part: Sequence[_Panel]) -> None:
        for panel, shown in zip(axes, part, strict=True):
            _draw_angles(panel, shown)
        axes[0].set_xscale("log")
        plain_ticks(axes[0].xaxis, (1.0, 3.0), 8)
        axes[0].margins(x=0.08)

    few = len(groups[0].class_counts) <= _FEW
    return _draw_panels(
        "angle_by_class_size",
        "Angle of a class against its size",
        groups,
        ("training images", "angle (degrees)"),
        draw,
        "Angle between a class's weight and its class mean after the last epoch, held-out "
        "features and {means}. Points are means over seeds, the two of a class a little apart"
        + (", bars one standard deviation to each side." if few else "."),
        "A panel for each configuration with two points a class.",
        height=2.2,
    )


def draw_train_against_held_out(groups: Sequence[Group]) -> Iterator[Drawing | Absent]:
    """Held-out angle of each class against its angle on the training set; panels as above."""

    def draw(axes: list[Axes], part: Sequence[_Panel]) -> None:
        for panel, shown in zip(axes, part, strict=True):
            _draw_shots(panel, shown)
        limit = max(*axes[0].get_xlim(), *axes[0].get_ylim())
        for panel in axes:
            panel.plot([0, limit], [0, limit], color="#888888", linewidth=0.8, zorder=0)
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_major_locator(MaxNLocator(4))
        axes[0].set(xlim=(0, limit), ylim=(0, limit))

    return _draw_panels(
        "train_against_held_out",
        "Training angle against held-out angle",
        groups,
        ("training angle (degrees)", "held-out angle (degrees)"),
        draw,
        "Angle between a class's weight and the class mean of held-out features against that "
        "of {means}; means over seeds. Above the line the class has moved "
        "between training and held-out features.",
        "A panel for each configuration with a point a class, marked by shot group.",
    )


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
    return run.geometry.training_cosines(run.config.get("spa.center", True))[_head_rows(run)]


def _head_rows(run: Run) -> list[int]:
    """The rows of `geometry.npz` that the recorded cosines are of; none if that cannot be told."""
    if run.geometry is None:
        return []
    heads = run.geometry.heads
    rows = [heads.index(head) for head in run.summary.get("heads", heads) if head in heads]
    return rows if len(rows) == len(_cosines(run, held_out=True, clean=False)) else []


def _draw_panels(
    name: str,
    title: str,
    groups: Sequence[Group],
    labels: tuple[str, str],
    draw: Callable[[list[Axes], Sequence[_Panel]], None],
    caption: str,
    alt: str,
    height: float | None = None,
) -> Iterator[Drawing | Absent]:
    """Figures of panels with the same axes; captions say which `{means}` training angles are to."""
    shown = _panels_of(groups)
    if not shown:
        yield Absent(title, "no run recorded per_class_test_cosine in summary.json.")
    for numbered, part in in_parts(name, shown, _PANELS):
        figure, axes = grid([panel.title for panel in part], *labels, height)
        draw(axes, part)
        legend_below(figure, *axes[0].get_legend_handles_labels(), handle_length=1)
        means = _training_means(shown)
        yield Drawing(
            numbered, title, caption.format(means=means), f"{alt} {_widest(part)}", figure
        )


def _panels_of(groups: Sequence[Group]) -> list[_Panel]:
    """A panel for each group and head; groups without cosines have none."""
    result = []
    for group in groups:
        if not all(run.summary.get(field) for run in group.runs for field in _PER_CLASS):
            continue
        first = group.runs[0]
        training, held_out = (
            list(zip(*mean_angles(group, side), strict=True)) for side in (False, True)
        )
        names = [f"head {head + 1}" for head in range(len(held_out))]
        if first.geometry is not None and (rows := _head_rows(first)):
            names = [first.geometry.heads[row] for row in rows]
        for name, *angles in zip(names, training, held_out, strict=True):
            title = group.label if len(names) == 1 else f"{group.label}: {name}"
            result.append(_Panel(title, group, *angles))
    return result


def _draw_angles(axes: Axes, panel: _Panel) -> None:
    # A little to each side of the class's size, or the bars would hide each other.
    training: dict[str, Any] = {"color": "#000000", "marker": "o", "markerfacecolor": "white"}
    held_out: dict[str, Any] = {"color": "#D55E00", "marker": "^"}
    counts = panel.group.class_counts
    for name, shift, (mean, spread), style in (
        ("training", 0.96, panel.training, training),
        ("held-out", 1.04, panel.held_out, held_out),
    ):
        axes.errorbar(
            shift * np.asarray(counts),
            mean,
            yerr=spread if len(counts) <= _FEW and len(panel.group.runs) > 1 else None,
            elinewidth=0.7,
            markeredgewidth=0.8,
            label=name,
            **_points(len(counts)),
            **style,
        )
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _draw_shots(axes: Axes, panel: _Panel) -> None:
    (x, _), (y, _) = panel.training, panel.held_out
    shots = panel.group.runs[0].summary.get("shot_groups", {}).get("classes")
    for name, marker, colour in _SHOT_GROUPS if shots else _SHOT_GROUPS[:1]:
        labels = list(shots.get(name, ())) if shots else list(range(len(x)))
        axes.plot(
            x[labels],
            y[labels],
            marker=marker,
            color=colour,
            fillstyle="none" if name == "medium" else "full",
            label=f"{name}-shot classes" if shots else "classes",
            **_points(len(x)),
        )


def _points(num_classes: int) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "markersize": 4 if num_classes <= _FEW else 2.5,
        "rasterized": num_classes > _EVERY_POINT_BELOW,
    }


def _training_means(shown: Sequence[_Panel]) -> str:
    clean = {all(_head_rows(run) for run in panel.group.runs) for panel in shown}
    exact, moving = "clean training features", "the moving averages of training"
    if clean == {True}:
        return exact
    return moving if clean == {False} else f"{exact} ({moving} where a run has no geometry.npz)"


def _widest(part: Sequence[_Panel]) -> str:
    """The largest held-out angle of each panel, in words."""
    texts = []
    for panel in part:
        angles, _ = panel.held_out
        if not np.isnan(angles).all():
            worst = int(np.nanargmax(angles))
            name = panel.group.runs[0].summary["class_names"][worst]
            texts.append(f"{panel.title}: {angles[worst]:.1f} degrees, class {name}")
    return f"Largest held-out angle: {'; '.join(texts)}."
