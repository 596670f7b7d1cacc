"""The figures of the reproduction's page, drawn from the records of its tables."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spa_jax.reporting.figures import style
from spa_jax.reporting.figures.style import line_style, panels
from spa_jax.reproduction.cells import Cell
from spa_jax.reproduction.tables import GAMMAS, TABLE_METHODS
from studies.names import name_of
from studies.reproduction.pairing import COSINE, Difference, TableRuns, having, intervals

_CLAIM = (0.5, 2.6)
_TUNED: Any = {"stage": "final", "class_order": "reversed", "variant": "tuned"}
_CURVES = (("test_accuracy", "test accuracy, %", 100), ("test_mean_cosine", "held-out cosine", 1))
_CHANGES = (("last", 100, "accuracy minus none, points"), (COSINE, 1, "held-out cosine minus none"))

Draw = Callable[[TableRuns], Figure | None]

PROJ: Mapping[str, str] = {
    "final-glmc-none-if100-reversed": "GLMC",
    "final-glmc-proj-tuned-if100-reversed": "GLMC with Proj",
}
"""The runs of the figure over epochs and what they are called."""

FIGURE_4: Mapping[str, str] = {
    "final-cross_entropy-none-if200-label": "cross-entropy",
    "final-cross_entropy-reg-default-if200-label": "cross-entropy with Reg",
}
"""The runs of the paper's Figure 4 and what they are called."""


def differences_figure(runs: TableRuns) -> Figure | None:
    """What each tuned variant changes on Fashion-MNIST-LT: accuracy, and cosine on test features.

    None before any pair has two seeds, of which an interval can be made.
    """
    found = runs.changes(having(**_TUNED, imbalance_factor=100.0))
    if not found:
        return None
    figure, axes = panels(1, 2, 3.0, sharey=True)
    axes[0, 0].axvspan(*_CLAIM, color="0.9", zorder=0, label="claimed")
    for panel, (column, scale, label) in zip(axes[0], _CHANGES, strict=True):
        _draw_methods(panel, found, column, scale)
        panel.set_xlabel(label)
    axes[0, 0].set_yticks(range(len(TABLE_METHODS)), map(name_of, TABLE_METHODS))
    axes[0, 0].set_ylim(len(TABLE_METHODS) - 0.5, -0.5)
    style.legend_below(figure, handle_length=1)
    return figure


def gamma_figure(runs: TableRuns) -> Figure | None:
    """GLMC with Proj on Fashion-MNIST-LT over gamma; None before two values have two seeds."""
    gammas = {f"gamma={gamma}": gamma for gamma in GAMMAS}
    found = runs.changes(having(stage="ablation", variant=(*gammas,)))
    return _strength_figure({gammas[c.variant]: d for c, d in found.items()}, "gamma", log=False)


def imbalance_figure(runs: TableRuns) -> Figure | None:
    """GLMC with tuned Proj over the imbalance factor; None before two of them have two seeds."""
    found = runs.changes(having(**_TUNED, method="glmc", spa_method="proj"))
    by_factor = {cell.imbalance_factor: difference for cell, difference in found.items()}
    return _strength_figure(by_factor, "imbalance factor", log=True)


def epochs_figure(names: Mapping[str, str], runs: TableRuns) -> Figure | None:
    """Accuracy and held-out cosine over epochs; None unless every group has a run.

    Args:
      names: of the groups of runs, and what they are called.
      runs: of the table.
    """
    found = drawn_groups(names, runs)
    if found is None:
        return None
    figure, axes = panels(1, 2, 2.4)
    for panel, (curve, label, scale) in zip(axes[0], _CURVES, strict=True):
        for i, (name, text) in enumerate(names.items()):
            values = scale * np.array([record["curves"][curve] for record in found[name]])
            epochs = range(1, values.shape[1] + 1)
            style.draw_band_curve(panel, epochs, values.T, line_style(i), label=text)
        style.epoch_axis(panel)
        panel.set_ylabel(label)
    style.legend_below(figure)
    return figure


def drawn_groups(names: Mapping[str, str], runs: TableRuns) -> dict[str, Sequence[Any]] | None:
    """The runs of each group that `epochs_figure` draws; None unless every group has one."""
    groups = runs.where(lambda cell: cell.group_name in names)
    found = {cell.group_name: group.runs for cell, group in groups.items() if group.runs}
    return found if found.keys() == names.keys() else None


def _draw_methods(axes: Axes, found: Mapping[Cell, Difference], column: str, scale: float) -> None:
    """A point with its interval for each group: methods below each other, variants side by side."""
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.grid(axis="y", visible=False)
    variants = sorted({cell.spa_method for cell in found}, key=["reg", "slerp", "proj"].index)
    for i, variant in enumerate(variants):
        cells = [cell for cell in found if cell.spa_method == variant]
        places = [TABLE_METHODS.index(cell.method) + 0.22 * (i - 1) for cell in cells]
        means, halves = scale * intervals([found[cell] for cell in cells], column)
        error_bars(axes, means, places, xerr=halves, label=name_of(variant), **point_style(i))


def _strength_figure(found: Mapping[float, Difference], label: str, log: bool) -> Figure | None:
    """Accuracy and held-out cosine minus none, over a number; None for a single one."""
    if len(found) < 2:
        return None
    figure, axes = panels(1, 2, 2.4)
    x = sorted(found)
    for panel, (column, scale, title) in zip(axes[0], _CHANGES, strict=True):
        means, halves = scale * intervals([found[at] for at in x], column)
        panel.axhline(0, color="0.4", linewidth=0.8)
        error_bars(panel, x, means, yerr=halves, color="black", marker="o", linewidth=0.9)
        panel.set_xlabel(label)
        panel.set_ylabel(title)
        if log:
            panel.set_xscale("log")
            panel.set_xticks(x, [f"{at:g}" for at in x])
            panel.minorticks_off()
    return figure


def point_style(index: int) -> dict[str, Any]:
    """Of points that no line connects, the colour and marker of the curve with this index."""
    color = line_style(index)["color"]
    return {"color": color, "marker": style.marker_of(index), "linestyle": "none"}


def error_bars(axes: Axes, x: Any, y: Any, **look: Any) -> None:
    """Draws points with the bars of their intervals."""
    axes.errorbar(x, y, markersize=4, elinewidth=0.9, capsize=2, **look)


FIGURES: Mapping[str, tuple[str, Draw]] = {
    "differences": ("fashion_mnist", differences_figure),
    "gamma": ("fashion_mnist", gamma_figure),
    "imbalance": ("fashion_mnist", imbalance_figure),
    "epochs": ("fashion_mnist", functools.partial(epochs_figure, PROJ)),
    "figure_4": ("cifar100", functools.partial(epochs_figure, FIGURE_4)),
}
"""By name: the table whose records a figure is drawn from, and how."""


def save_figures(results: Path, folder: Path) -> None:
    """Draws the figures that the records in `results` are enough for, as `folder/<name>.png`.

    Each file names the checksum of the records that it was drawn from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, (table, draw) in FIGURES.items():
        with matplotlib.rc_context(style.RC):
            figure = draw(TableRuns.read(results, table))
            if figure is not None:
                metadata = {"Description": records_checksum(results / f"{table}.jsonl")}
                figure.savefig(folder / f"{name}.png", dpi=200, metadata=metadata)


def records_checksum(path: Path) -> str:
    """SHA-256 of a file of records."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
