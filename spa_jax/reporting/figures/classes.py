"""Figures of the classes at the end of training: angles against class sizes, and against angles."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from spa_jax.reporting.figures import style
from spa_jax.reporting.figures.style import Drawing
from spa_jax.reporting.grouping import Group
from spa_jax.reporting.statistics import mean_and_spread

_PANELS = 12  # of a figure; more would not fit on a page
_SHOTS: Any = {
    "many": {"marker": "o", "color": "#000000"},
    "medium": {"marker": "s", "color": "#0072B2", "fillstyle": "none"},
    "few": {"marker": "^", "color": "#D55E00"},
}
# A little to each side of the class's size, or the bars would hide each other.
_SIDES: Any = (
    ("training", 0.96, {"color": "#000000", "marker": "o", "markerfacecolor": "white"}),
    ("held-out", 1.04, {"color": "#D55E00", "marker": "^"}),
)
_PER_CLASS = ("per_class_cosine", "per_class_test_cosine")
_FEW = 20  # classes; points are larger, and have bars
_EVERY_POINT_BELOW = 500  # classes; above, an SVG holds a picture of the points


class _Panel(NamedTuple):
    """A classifier head of a group: mean and deviation of its training and held-out angles."""

    title: str
    group: Group
    angles: Float[np.ndarray, "2 2 C"]


def draw_angle_by_class_size(groups: Sequence[Group]) -> Iterator[Drawing]:
    """Angle of each class's weight to its class mean, against its number of training images.

    Args:
      groups: one panel each, or one for each classifier head.

    Yields:
      Figures of up to twelve panels; none if no run recorded the cosines of the classes.
    """
    labels = ("training images", "angle (degrees)")
    for drawing in _draw_panels("angle_by_class_size", groups, labels, _draw_angles, height=2.2):
        first = drawing.figure.axes[0]
        first.set_xscale("log")
        style.plain_ticks(first.xaxis, (1.0, 3.0), 8)
        first.margins(x=0.08)
        yield drawing


def draw_train_against_held_out(groups: Sequence[Group]) -> Iterator[Drawing]:
    """Held-out angle of each class against its angle on the training set; panels as above."""
    labels = ("training angle (degrees)", "held-out angle (degrees)")
    for drawing in _draw_panels("train_against_held_out", groups, labels, _draw_shots):
        first = drawing.figure.axes[0]
        limit = max(*first.get_xlim(), *first.get_ylim())
        for panel in drawing.figure.axes:
            panel.plot([0, limit], [0, limit], color="#888888", linewidth=0.8, zorder=0)
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_major_locator(MaxNLocator(4))
        first.set(xlim=(0, limit), ylim=(0, limit))
        yield drawing


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
    if not held_out and _has_clean_means(group):
        cosines = [run.training_cosines() for run in group.runs]
    else:
        field = "per_class_test_cosine" if held_out else "per_class_cosine"
        cosines = [np.atleast_2d(np.array(of_run[field], float)) for of_run in group.summaries]
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return mean_and_spread(angles)


def _has_clean_means(group: Group) -> bool:
    return all(run.geometry for run in group.runs)


def _draw_panels(
    name: str,
    groups: Sequence[Group],
    labels: tuple[str, str],
    draw: Callable[[Axes, _Panel], None],
    height: float | None = None,
) -> Iterator[Drawing]:
    """Figures of panels with the same axes."""
    shown = [panel for group in groups for panel in _panels_of(group)]
    for numbered, part in style.in_parts(name, shown, _PANELS):
        figure, axes = style.grid([panel.title for panel in part], *labels, height)
        for panel, angles in zip(axes, part, strict=True):
            draw(panel, angles)
        style.legend_below(figure, handle_length=1)
        facts = {
            "few": len(groups[0].class_counts) <= _FEW,
            "clean": sorted({_has_clean_means(panel.group) for panel in shown}),
            "largest": list(filter(None, map(_largest_angle, part))),
        }
        yield Drawing(numbered, figure, facts)


def _panels_of(group: Group) -> list[_Panel]:
    """A panel for each head of a group; none if some run did not record cosines."""
    if not all(run.summary.get(field) for run in group.runs for field in _PER_CLASS):
        return []
    angles = np.array([mean_angles(group, held_out) for held_out in (False, True)])
    heads = list(group.runs[0].summary["heads"])
    titles = [f"{group.label}: {head}" for head in heads] if len(heads) > 1 else [group.label]
    return [_Panel(title, group, angles[:, :, head]) for head, title in enumerate(titles)]


def _draw_angles(axes: Axes, panel: _Panel) -> None:
    counts = panel.group.class_counts
    for (name, shift, look), (mean, spread) in zip(_SIDES, panel.angles, strict=True):
        axes.errorbar(
            shift * np.asarray(counts),
            mean,
            yerr=spread if len(counts) <= _FEW and len(panel.group.runs) > 1 else None,
            elinewidth=0.7,
            markeredgewidth=0.8,
            label=name,
            **_points(len(counts)),
            **look,
        )
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _draw_shots(axes: Axes, panel: _Panel) -> None:
    (x, _), (y, _) = panel.angles
    points = _points(len(x))
    shots = panel.group.runs[0].summary.get("shot_groups", {}).get("classes")
    if not shots:
        axes.plot(x, y, label="classes", **_SHOTS["many"], **points)
        return
    for name, look in _SHOTS.items():
        labels = list(shots.get(name, ()))
        axes.plot(x[labels], y[labels], label=f"{name}-shot classes", **look, **points)


def _points(num_classes: int) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "markersize": 4 if num_classes <= _FEW else 2.5,
        "rasterized": num_classes > _EVERY_POINT_BELOW,
    }


def _largest_angle(panel: _Panel) -> dict[str, Any] | None:
    """The largest held-out angle, and of which class; None if no class has one."""
    _, (angles, _) = panel.angles
    if np.isnan(angles).all():
        return None
    worst = int(np.nanargmax(angles))
    name = panel.group.runs[0].summary["class_names"][worst]
    return {"title": panel.title, "angle": angles[worst], "class_name": name}
