"""Does the alignment of the plain classifier tell beforehand what SpA will gain?"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from spa_jax.reporting.figures import style
from spa_jax.reporting.figures.style import panels
from spa_jax.reporting.table_text import markdown_rows
from spa_jax.reproduction.feature_tables import VARIANTS
from studies.names import name_of
from studies.reproduction.pairing import TableRuns, having, intervals
from studies.reproduction.reproduction_figures import error_bars, point_style

TABLES = {
    "fashion_mnist": "Fashion-MNIST-LT",
    "features_cifar10": "features of CIFAR-10-LT",
    "features_cifar100": "features of CIFAR-100-LT",
}
"""Tables of the reproduction whose cells are looked at."""

_FEWEST = 5  # cells that a rank correlation is made of

RunsOf = Callable[[str], TableRuns]


@dataclasses.dataclass(frozen=True)
class Point:
    """A method with a tuned variant, and the same method without.

    Attributes:
      table: its name.
      variant: of SpA.
      cosine: mean held-out cosine of the plain runs.
      gain: mean paired change of accuracy.
      half_width: of its 95% interval.
    """

    table: str
    variant: str
    cosine: float
    gain: float
    half_width: float


def points(runs_of: RunsOf) -> list[Point]:
    """Of every final cell that has an interval; `runs_of` gives the runs of a table."""
    found = []
    for table in TABLES:
        for cell, change in runs_of(table).changes(having(stage="final", variant="tuned")).items():
            if cell.method == "etf":
                continue
            gain, half = intervals([change], "last")[:, 0]
            cosine = np.mean([run["summary"]["test_mean_cosine"] for run in change.others])
            found.append(Point(table, cell.spa_method, float(cosine), float(gain), float(half)))
    return found


def correlations(runs_of: RunsOf) -> str:
    """Rank correlation of the gain with what Theorem 5 says is lost, by variant and table.

    The share of the error exponent that a misalignment by the angle alpha costs is at least
    1 - cos^2(alpha): if misalignment is what hurts, the gain should grow with it.
    """
    rows = [["SpA", "cells", *TABLES.values(), "all"]]
    found = points(runs_of)
    for variant in VARIANTS:
        own = [point for point in found if point.variant == variant]
        parts = [[point for point in own if point.table == table] for table in TABLES]
        rows.append([name_of(variant), str(len(own)), *map(_correlation, [*parts, own])])
    return markdown_rows(rows)


def _correlation(found: Sequence[Point]) -> str:
    if len(found) < _FEWEST:
        return "too few"
    lost = [1 - point.cosine**2 for point in found]
    result: Any = spearmanr(lost, [point.gain for point in found])
    return f"{result.statistic:+.2f} (p = {result.pvalue:.2f})"


def beforehand_figure(found: Sequence[Point]) -> Figure:
    """Gain with its interval over the plain classifier's cosine; a panel for each variant."""
    figure, axes = panels(1, len(VARIANTS), 2.4, sharey=True)
    for panel, variant in zip(axes[0], VARIANTS, strict=True):
        panel.axhline(0, color="0.4", linewidth=0.8)
        for i, (table, name) in enumerate(TABLES.items()):
            own = [p for p in found if (p.variant, p.table) == (variant, table)]
            if own:
                error_bars(
                    panel,
                    [point.cosine for point in own],
                    [100 * point.gain for point in own],
                    yerr=[100 * point.half_width for point in own],
                    label=name,
                    **point_style(i),
                )
        panel.set_title(name_of(variant), loc="left")
        panel.set_xlabel("held-out cosine without SpA")
    axes[0, 0].set_ylabel("accuracy minus none, points")
    style.legend_below(figure, handle_length=1)
    return figure


def save_beforehand(results: Path, path: Path) -> None:
    """Draws the figure from the records in `results`."""
    found = points(functools.partial(TableRuns.read, results))
    with matplotlib.rc_context(style.RC):
        path.parent.mkdir(parents=True, exist_ok=True)
        beforehand_figure(found).savefig(path, dpi=200)
