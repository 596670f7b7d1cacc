"""The figures of docs/studies/: a row of panels for each data set.

Each takes the runs of every data set, for curves, and the numbers that the study made of them.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
    StrMethodFormatter,
)

from spa_jax.reporting.figures.style import (
    draw_band_curve,
    epoch_axis,
    legend_below,
    line_style,
    marker_of,
    panels,
)
from spa_jax.reporting.finished_runs import Run
from spa_jax.reporting.grouping import Group
from studies.study_numbers import collapse_curve
from studies.study_runs import BASELINE, Experiment, curve

Numbers = Mapping[str, Any]
Curve = Callable[[Run], np.ndarray]

NAMES: Mapping[str, str] = MappingProxyType(
    {"none": "none", "reg": "Reg", "slerp": "SLERP", "proj": "Proj"}
)
"""What SpA methods are called."""

_METHODS = tuple(NAMES)
_NC2 = (
    ("nc2_etf_means", "Class means to ETF"),
    ("nc2_equiangular_means", "Class means, angles"),
    ("nc2_etf_weights", "Weights to ETF"),
    ("nc2_equiangular_weights", "Weights, angles"),
)
_SIDES = (
    ("training", "o", "#000000", "clean training means"),
    ("ema", "x", "#D55E00", "EMA means"),
)
_COLLAPSE = (
    ("nc1_over_c", r"NC1: tr$(\Sigma_W \Sigma_B^+)/C$"),
    ("nc2_etf_means", "NC2: class means to ETF"),
    ("nc2_equiangular_means", "NC2: angles of class means"),
    ("nc3", "NC3: weights to class means"),
    ("not_nc4", "NC4: share of disagreement"),
)
_PARTS = (("train", "training features", 0), ("test", "held-out features", 2))


def draw_alignment_and_accuracy(
    experiments: Sequence[Experiment], found: Sequence[Numbers]
) -> Figure:
    """Cosine and accuracy over epochs with and without Reg, and paired changes of all methods."""
    figure, axes = panels(len(experiments), 3, 2.1)
    for row, experiment, numbers in zip(axes, experiments, found, strict=True):
        for method in (BASELINE, "reg"):
            group = experiment.groups[method]
            _draw_curve(row[0], group, lambda run: curve(run, ("test_mean_cosine",)))
            _draw_curve(row[1], group, lambda run: curve(run, ("test_accuracy",)))
        row[0].set_title(_short(experiment), loc="left")
        row[0].set_ylabel("held-out cosine")
        row[1].set_ylabel("test accuracy")
        row[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        _draw_changes(row[2], numbers["runs"])
    lines, names = axes[0][0].get_legend_handles_labels()
    points, changes = axes[0][2].get_legend_handles_labels()
    legend_below(figure, [*lines, *points], [*names, *changes])
    return figure


def draw_nc2_convergence(experiments: Sequence[Experiment], found: Sequence[Numbers]) -> Figure:
    """NC2 of class means and of weights over epochs, by method."""
    del found
    figure, axes = panels(len(experiments), 4, 1.9, sharex="row")
    for row, experiment in zip(axes, experiments, strict=True):
        for panel, (name, title) in zip(row, _NC2, strict=True):
            for group in experiment.groups.values():
                _draw_curve(panel, group, _measure("train", name))
            panel.set_title(title, loc="left")
            panel.set_ylim(bottom=0)
        row[0].set_ylabel(_short(experiment))
    legend_below(figure, *axes[0][0].get_legend_handles_labels())
    return figure


def draw_train_and_held_out(experiments: Sequence[Experiment], found: Sequence[Numbers]) -> Figure:
    """For each class, how much larger its cosine is on the training side, against its size."""
    columns = max(len(experiment.groups) for experiment in experiments)
    figure, axes = panels(len(experiments), columns, 2.0, sharex="row", sharey="row")
    for row, experiment, numbers in zip(axes, experiments, found, strict=True):
        counts = np.asarray(experiment.baseline.class_counts)
        methods = list(experiment.groups)
        for panel, method in zip(row, methods, strict=False):
            _draw_gaps(panel, counts, numbers["classes"][method])
            panel.set_title(NAMES.get(method, method), loc="left")
            panel.set_xlabel("training images")
        for unused in row[len(methods) :]:
            unused.remove()
        row[0].set_ylabel(f"{_short(experiment)}\ngap to held-out cosine")
        _size_axis(row[0], counts)
    legend_below(figure, *axes[0][0].get_legend_handles_labels(), handle_length=1)
    return figure


def draw_neural_collapse(experiments: Sequence[Experiment], found: Sequence[Numbers]) -> Figure:
    """Errors and NC1 to NC4 over epochs without SpA; a line where training error first is zero."""
    figure, axes = panels(2 * len(experiments), 3, 1.9, sharex=True)
    for i, (experiment, numbers) in enumerate(zip(experiments, found, strict=True)):
        flat = list(axes[2 * i : 2 * i + 2].flat)
        for part, label, style in _PARTS:
            _draw_curve(flat[0], experiment.baseline, _errors(part), label, style)
            for panel, (name, _) in zip(flat[1:], _COLLAPSE, strict=True):
                logarithmic = name == "nc1_over_c"
                measure = _measure(part, name)
                _draw_curve(panel, experiment.baseline, measure, label, style, logarithmic)
        titles = ["Share of errors", *(title for _, title in _COLLAPSE)]
        zero = [values["zero_epoch"] for values in numbers["runs"][BASELINE]]
        for number, (panel, title) in enumerate(zip(flat, titles, strict=True)):
            panel.set_title(title, loc="left")
            panel.set_xlabel("epoch" if number >= 3 else "")
            if panel.get_yscale() == "linear":
                panel.set_ylim(bottom=0)
            for epoch in (epoch for epoch in zero if epoch is not None):
                panel.axvline(epoch, color="#888888", linewidth=0.6, zorder=0)
    legend_below(figure, *axes[0][0].get_legend_handles_labels())
    return figure


def draw_architectures(experiments: Sequence[Experiment], found: Sequence[Numbers]) -> Figure:
    """Accuracy, held-out cosine, NC1 and NC2 over epochs by method; a row for each network."""
    del found
    figure, axes = panels(len(experiments), 4, 1.9, sharex="row")
    for row, experiment in zip(axes, experiments, strict=True):
        for group in experiment.groups.values():
            _draw_curve(row[0], group, lambda run: 100 * curve(run, ("test_accuracy",)))
            _draw_curve(row[1], group, lambda run: curve(run, ("test_mean_cosine",)))
            _draw_curve(row[2], group, _measure("train", "nc1_over_c"), logarithmic=True)
            _draw_curve(row[3], group, _measure("train", "nc2_etf_means"))
        row[0].set_ylabel(f"{_short(experiment)}\n{experiment.network}")
        row[3].set_ylim(bottom=0)
        titles = ("Test accuracy, %", "Held-out cosine", _COLLAPSE[0][1], "NC2: class means")
        for panel, title in zip(row, titles, strict=True):
            panel.set_title(title, loc="left")
    legend_below(figure, *axes[0][0].get_legend_handles_labels())
    return figure


def _errors(part: str) -> Curve:
    return lambda run: 1 - curve(run, (f"{part}_accuracy",))


def _measure(part: str, name: str) -> Curve:
    return lambda run: collapse_curve(run, part, name)


def _draw_curve(
    axes: Axes,
    group: Group,
    values_of: Curve,
    label: str = "",
    style: int | None = None,
    logarithmic: bool = False,
) -> None:
    values = np.array([values_of(run) for run in group.runs])
    look = line_style(_place(group.method) if style is None else style) | {"linewidth": 1.1}
    epochs = [line["epoch"] for line in group.runs[0].lines]
    name = label or NAMES.get(group.method, group.method)
    draw_band_curve(axes, epochs, values, look, name, logarithmic)
    epoch_axis(axes)


def _draw_changes(axes: Axes, runs: Mapping[str, Sequence[Numbers]]) -> None:
    """A point a seed: change of final accuracy against change of final held-out cosine."""
    for method in [method for method in runs if method != BASELINE]:
        both = list(zip(runs[method], runs[BASELINE], strict=True))
        axes.plot(
            [run["held_out_cosine"] - base["held_out_cosine"] for run, base in both],
            [100 * (run["accuracy"] - base["accuracy"]) for run, base in both],
            marker_of(_place(method)),
            color=line_style(_place(method))["color"],
            fillstyle="none",
            markersize=4,
            label=f"{NAMES.get(method, method)} \u2212 none",
        )
    axes.axhline(0, color="#888888", linewidth=0.8, zorder=0)
    axes.axvline(0, color="#888888", linewidth=0.8, zorder=0)
    axes.set_title("Change by seed", loc="left")
    axes.set_xlabel("held-out cosine")
    axes.set_ylabel("accuracy, points")
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _draw_gaps(axes: Axes, counts: np.ndarray, classes: Sequence[Numbers]) -> None:
    """Means over seeds, with bars of one standard deviation; a little apart, not to overlap."""
    for (side, marker, colour, label), shift in zip(_SIDES, (0.94, 1.06), strict=True):
        gaps = np.array(
            [np.array(run[side], float) - np.array(run["held_out"], float) for run in classes]
        )
        axes.errorbar(
            shift * counts,
            gaps.mean(axis=0),
            yerr=gaps.std(axis=0, ddof=1) if len(gaps) > 1 else None,
            linestyle="none",
            marker=marker,
            markersize=3.5,
            fillstyle="none",
            elinewidth=0.7,
            color=colour,
            label=label,
        )
    axes.axhline(0, color="#888888", linewidth=0.8, zorder=0)


def _size_axis(axes: Axes, counts: np.ndarray) -> None:
    axes.set_xscale("log")
    # Four panels in a row have room for a few labels each.
    steps = (1.0, 3.0) if counts.max() < 30 * counts.min() else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=8))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.08)


def _place(method: str) -> int:
    """The place of a method's style, the same in every figure."""
    return _METHODS.index(method) if method in _METHODS else len(_METHODS)


def _short(experiment: Experiment) -> str:
    return experiment.title.split(",")[0]
