"""The figure of Gram matrices: cosines between class means and between classifier weights."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from spa_jax.reporting.figures import style
from spa_jax.reporting.figures.style import Drawing
from spa_jax.reporting.finished_runs import Geometry, unit_directions
from spa_jax.reporting.grouping import Group

_COLUMNS = 4
_MOST_CELLS = 200  # on a side: a page shows no more


def draw_gram_matrices(groups: Sequence[Group]) -> Iterator[Drawing]:
    """Cosines between classes: of training means, held-out means, and weights of each head.

    Args:
      groups: one column each.

    Yields:
      Figures of up to four columns; none if no run has a geometry.
    """
    known = [group for group in groups if any(run.geometry for run in group.runs)]
    matrices = [(group.label, mean_gram_matrices(group)) for group in known]
    values = np.concatenate([[], *(rows.ravel() for _, of in matrices for rows in of.values())])
    values = values[~np.isnan(values)]
    limits = (min(values, default=-1.0), max(values, default=1.0))
    num_classes = len(groups[0].class_counts)
    for name, part in style.in_parts("gram", matrices, _COLUMNS):
        facts = {
            "ideal": _ideal(num_classes),
            "classes_a_cell": num_classes / _MOST_CELLS,
            "cosines": [
                (label, kind, np.nanmean(matrix))
                for label, rows in part
                for kind, matrix in rows.items()
                if not np.isnan(matrix).all()
            ],
        }
        yield Drawing(name, _draw(dict(part), limits, num_classes), facts)


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
    result = {
        "training means": unit_directions(geometry.train_means, True),
        "held-out means": unit_directions(geometry.test_means, True),
    }
    for head, rows in zip(geometry.heads, geometry.weights, strict=True):
        result[f"weights of {head}" if several else "weights"] = unit_directions(rows, False)
    return {name: np.asarray(rows) for name, rows in result.items()}


def _draw(
    part: Mapping[str, Mapping[str, np.ndarray]],
    limits: tuple[float, float],
    num_classes: int,
) -> Figure:
    names = list(dict.fromkeys(name for rows in part.values() for name in rows))
    # At least three columns wide, so that a lone matrix is not blown up to the width of a page.
    side = (style.WIDTH - 1.7) / max(3, len(part))
    size = (side + 0.1 + 0.6 / len(names), 1.7 + side * len(part))
    figure, axes = style.panels(len(names), len(part), *size, sharex=True, sharey=True)
    norm = Normalize(*limits)
    for column, (label, rows) in zip(axes.T, part.items(), strict=True):
        for panel, name in zip(column, names, strict=True):
            if name not in rows:
                panel.remove()
                continue
            style.draw_matrix(panel, rows[name], norm, num_classes)
        column[0].set_title(style.wrapped(label, 24), loc="left")
        column[-1].set_xlabel("class, by size")
    for panel, name in zip(axes[:, 0], names, strict=True):
        panel.set_ylabel(f"{name}\nclass, by size")
    bar = style.colour_bar(figure, axes, norm, "cosine", shrink=0.6, pad=0.09)
    ideal = _ideal(num_classes)
    if limits[0] <= ideal <= limits[1]:
        bar.axhline(ideal, color="white", linewidth=1.2)
        place: Any = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        name = bar.annotate("ETF", (0, ideal), (-3, 0), ha="right", va="center", **place)
        # In the gap that is there anyway: with room of its own it would take it from the panels.
        name.set_in_layout(False)
    return figure


def _ideal(num_classes: int) -> float:
    """The cosine between two classes of a simplex equiangular tight frame."""
    return -1 / (num_classes - 1)
