"""The figure of Gram matrices: cosines between class means and between classifier weights."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spa_jax.alignment.class_means import directions_of
from spa_jax.reporting.figures.style import WIDTH, Absent, Drawing, in_parts, wrapped
from spa_jax.reporting.finished_runs import Geometry
from spa_jax.reporting.grouping import Group

_COLUMNS = 4
_MOST_CELLS = 200  # on a side: a page shows no more


def draw_gram_matrices(groups: Sequence[Group]) -> Iterator[Drawing | Absent]:
    """Cosines between classes: of training means, held-out means, and weights of each head.

    Args:
      groups: one column each.

    Yields:
      Figures of up to four columns, or why there is none.
    """
    title = "Gram matrices of class means and of weights"
    known = [group for group in groups if any(run.geometry for run in group.runs)]
    if not known:
        yield Absent(title, "no run has a geometry.npz.")
        return
    matrices = {group.label: mean_gram_matrices(group) for group in known}
    values = np.concatenate([m[~np.isnan(m)] for rows in matrices.values() for m in rows.values()])
    limits = (min(values, default=-1.0), max(values, default=1.0))
    num_classes = len(known[0].class_counts)
    for name, columns in in_parts("gram", known, _COLUMNS):
        part = {group.label: matrices[group.label] for group in columns}
        yield Drawing(
            name,
            title,
            _caption(num_classes),
            "Heat maps, a column for each configuration. Mean cosine between classes: "
            + "; ".join(
                f"{label}, {kind} {np.nanmean(matrix):.3f}"
                for label, rows in part.items()
                for kind, matrix in rows.items()
                if not np.isnan(matrix).all()
            )
            + ".",
            _draw(part, limits, num_classes),
        )


def mean_gram_matrices(group: Group) -> dict[str, Float[np.ndarray, "B B"]]:
    r"""Cosines between classes, the largest class first, averaged over runs.

    .. math:: G_{cc'} = \langle \hat x_c, \hat x_{c'} \rangle

    Args:
      group: its runs with a geometry count.

    Returns:
      Matrices by name, `(C, C)`, or of blocks of neighbouring classes where C is above 200. The
      cosine of a class with itself, and of a class without a direction, is NaN.
    """
    order = np.argsort(-np.asarray(group.class_counts), kind="stable")
    of_runs = [_directions(run.geometry) for run in group.runs if run.geometry is not None]
    return {
        name: np.mean([block_cosines(rows[name][order]) for rows in of_runs], axis=0)
        for name in of_runs[0]
    }


def block_cosines(
    directions: Float[np.ndarray, "C D"], most: int = _MOST_CELLS
) -> Float[np.ndarray, "B B"]:
    """Mean cosine between the classes of two blocks of neighbouring rows, pairs with itself aside.

    Args:
      directions: `(C, D)` unit rows; zero rows have no direction and do not count.
      most: largest number of blocks; with C rows or more every block is one row.

    Returns:
      `(B, B)` with B = min(C, most); NaN where there is no pair.

    Example:
      >>> block_cosines(np.array([[1.0, 0.0], [0.6, 0.8]])).tolist()
      [[nan, 0.6], [0.6, nan]]
    """
    count = len(directions)
    starts = np.arange(min(count, most)) * count // min(count, most)
    known = directions.any(axis=1).astype(float)
    sums = np.add.reduceat(directions.astype(float), starts)
    sizes = np.add.reduceat(known, starts)
    products = sums @ sums.T - np.diag(sizes)
    pairs = np.outer(sizes, sizes) - np.diag(sizes)
    return np.where(pairs > 0, products / np.where(pairs > 0, pairs, 1.0), np.nan)


def _directions(geometry: Geometry) -> dict[str, np.ndarray]:
    """Unit rows by name: centred class means, and weights as they are."""
    several = len(geometry.heads) > 1
    weights = {
        f"weights of {head}" if several else "weights": directions_of(rows, center=False)
        for head, rows in zip(geometry.heads, geometry.weights, strict=True)
    }
    means = {
        "training means": directions_of(geometry.train_means, center=True),
        "held-out means": directions_of(geometry.test_means, center=True),
    }
    return {name: np.asarray(rows) for name, rows in (means | weights).items()}


def _draw(
    part: Mapping[str, Mapping[str, np.ndarray]],
    limits: tuple[float, float],
    num_classes: int,
) -> Figure:
    names = list(dict.fromkeys(name for rows in part.values() for name in rows))
    # At least three columns wide, so that a lone matrix is not blown up to the width of a page.
    side = (WIDTH - 1.7) / max(3, len(part))
    size = (1.7 + side * len(part), 0.6 + (side + 0.1) * len(names))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(names), len(part), squeeze=False, sharex=True, sharey=True)
    colours = {
        "cmap": colormaps["cividis"].with_extremes(bad="white"),
        "norm": Normalize(*limits),
    }
    extent = (0.5, num_classes + 0.5, num_classes + 0.5, 0.5)
    for column, (label, rows) in zip(axes.T, part.items(), strict=True):
        for panel, name in zip(column, names, strict=True):
            if name not in rows:
                panel.remove()
                continue
            panel.imshow(rows[name], extent=extent, interpolation="nearest", **colours)
            panel.grid(visible=False)
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=2))
        column[0].set_title(wrapped(label, 24), loc="left")
        column[-1].set_xlabel("class, by size")
    for panel, name in zip(axes[:, 0], names, strict=True):
        panel.set_ylabel(f"{name}\nclass, by size")
    scale = ScalarMappable(**colours)
    bar = figure.colorbar(scale, ax=axes, label="cosine", aspect=40, shrink=0.6, pad=0.09)
    bar.outline.set_linewidth(0.6)  # type: ignore[operator]
    ideal = -1 / (num_classes - 1)
    if limits[0] <= ideal <= limits[1]:
        bar.ax.axhline(ideal, color="white", linewidth=1.2)
        # In the gap that is there anyway: with room of its own it would take it from the panels.
        bar.ax.annotate(
            "ETF",
            (0, ideal),
            (-3, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="center",
        ).set_in_layout(False)
    return figure


def _caption(num_classes: int) -> str:
    blocks = ""
    if num_classes > _MOST_CELLS:
        blocks = f" A cell is the mean over about {num_classes / _MOST_CELLS:.0f} classes a side."
    return (
        "Cosines between classes, the class with most training images first: class means of "
        "training and of held-out features, each centred by their mean, and classifier weights. "
        "A simplex equiangular tight frame (ETF) has \u22121/(C \u2212 1) = "
        f"\u2212{1 / (num_classes - 1):.3g} everywhere. White: a class with itself, or without a "
        f"direction. Means over seeds.{blocks}"
    )
