"""The figures of docs/studies/: a row of panels for each data set.

Each takes the runs of every data set, for curves, and the numbers that the study made of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from spa_jax.reporting.figures import style
from spa_jax.reporting.figures.style import legend_below, line_style, panels
from spa_jax.reporting.grouping import Group
from studies.names import name_of
from studies.study_runs import BASELINE, Experiment, curve, place_of

Numbers = Mapping[str, Any]

_NC1 = r"NC1: tr$(\Sigma_W \Sigma_B^+)/C$"
_NC2 = {
    "collapse.train.nc2_etf_means": "Class means to ETF",
    "collapse.train.nc2_equiangular_means": "Class means, angles",
    "collapse.train.nc2_etf_weights": "Weights to ETF",
    "collapse.train.nc2_equiangular_weights": "Weights, angles",
}
_ARCHITECTURES = {
    "test_accuracy": "Test accuracy, %",
    "test_mean_cosine": "Held-out cosine",
    "collapse.train.nc1_over_c": _NC1,
    "collapse.train.nc2_etf_means": "NC2: class means",
}
_COLLAPSE = {
    "not_{part}_accuracy": "Share of errors",
    "collapse.{part}.nc1_over_c": _NC1,
    "collapse.{part}.nc2_etf_means": "NC2: class means to ETF",
    "collapse.{part}.nc2_equiangular_means": "NC2: angles of class means",
    "collapse.{part}.nc3": "NC3: weights to class means",
    "collapse.{part}.not_nc4": "NC4: share of disagreement",
}
_PARTS = (("train", "training features", 0), ("test", "held-out features", 2))
_SIDES: Any = (
    ("training", 0.94, {"marker": "o", "color": "#000000", "label": "clean training means"}),
    ("ema", 1.06, {"marker": "x", "color": "#D55E00", "label": "EMA means"}),
)
_GREY: Any = {"color": "#888888", "zorder": 0}


def alignment_and_accuracy(experiments: Sequence[Experiment], found: Sequence[Numbers]) -> Figure:
    """Cosine and accuracy over epochs with and without Reg, and paired changes of all methods."""
    figure, axes = panels(len(experiments), 3, 2.1)
    for row, experiment, numbers in zip(axes, experiments, found, strict=True):
        for method in (BASELINE, "reg"):
            _draw_curve(row[0], experiment.groups[method], "test_mean_cosine")
            _draw_curve(row[1], experiment.groups[method], "test_accuracy")
        row[0].set_title(_short(experiment), loc="left")
        row[0].set_ylabel("held-out cosine")
        row[1].set_ylabel("test accuracy")
        row[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        _draw_changes(row[2], numbers["runs"])
    legend_below(figure)
    return figure


def nc2_convergence(experiments: Sequence[Experiment], found: Sequence[Numbers]) -> Figure:
    """NC2 of class means and of weights over epochs, by method."""
    del found
    return _draw_measures(experiments, _NC2)


def architectures(experiments: Sequence[Experiment], found: Sequence[Numbers]) -> Figure:
    """Accuracy, held-out cosine, NC1 and NC2 over epochs by method; a row for each network."""
    del found
    figure = _draw_measures(experiments, _ARCHITECTURES, with_network=True)
    for panel in figure.axes[:: len(_ARCHITECTURES)]:
        panel.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    return figure


def train_and_held_out(experiments: Sequence[Experiment], found: Sequence[Numbers]) -> Figure:
    """For each class, how much larger its cosine is on the training side, against its size."""
    columns = max(len(experiment.groups) for experiment in experiments)
    figure, axes = panels(len(experiments), columns, 2.0, sharex="row", sharey="row")
    for row, experiment, numbers in zip(axes, experiments, found, strict=True):
        counts = np.asarray(experiment.baseline.class_counts)
        methods = list(experiment.groups)
        for panel, method in zip(row, methods, strict=False):
            _draw_gaps(panel, counts, numbers["classes"][method])
            panel.set_title(name_of(method), loc="left")
            panel.set_xlabel("training images")
        for unused in row[len(methods) :]:
            unused.remove()
        row[0].set_ylabel(f"{_short(experiment)}\ngap to held-out cosine")
        row[0].set_xscale("log")
        # Four panels in a row have room for a few labels each.
        steps = (1.0, 3.0) if counts.max() < 30 * counts.min() else (1.0,)
        style.plain_ticks(row[0].xaxis, steps, 8)
        row[0].margins(x=0.08)
    legend_below(figure, handle_length=1)
    return figure


def neural_collapse(experiments: Sequence[Experiment], found: Sequence[Numbers]) -> Figure:
    """Errors and NC1 to NC4 over epochs without SpA; a line where training error first is zero."""
    figure, axes = panels(2 * len(experiments), 3, 1.9, sharex=True)
    of_each = axes.reshape(len(experiments), len(_COLLAPSE))
    for of_one, experiment, numbers in zip(of_each, experiments, found, strict=True):
        zero = [values["zero_epoch"] for values in numbers["runs"][BASELINE]]
        for panel, (name, title) in zip(of_one, _COLLAPSE.items(), strict=True):
            for part, label, place in _PARTS:
                _draw_curve(panel, experiment.baseline, name.format(part=part), label, place)
            panel.set_title(title, loc="left")
            panel.set_xlabel("epoch" if panel in of_one[3:] else "")
            if panel.get_yscale() == "linear":
                panel.set_ylim(bottom=0)
            for epoch in (epoch for epoch in zero if epoch is not None):
                panel.axvline(epoch, linewidth=0.6, **_GREY)
    legend_below(figure)
    return figure


def _draw_measures(
    experiments: Sequence[Experiment], measures: Mapping[str, str], with_network: bool = False
) -> Figure:
    """A row for each data set, a panel for each measure, a curve over epochs for each method."""
    figure, axes = panels(len(experiments), len(measures), 1.9, sharex="row")
    for row, experiment in zip(axes, experiments, strict=True):
        for panel, (name, title) in zip(row, measures.items(), strict=True):
            for group in experiment.groups.values():
                _draw_curve(panel, group, name)
            panel.set_title(title, loc="left")
            if "nc2" in name:
                panel.set_ylim(bottom=0)
        network = f"\n{experiment.network}" if with_network else ""
        row[0].set_ylabel(_short(experiment) + network)
    legend_below(figure)
    return figure


def _draw_curve(
    axes: Axes, group: Group, name: str, label: str = "", place: int | None = None
) -> None:
    """A number over the epochs of a group's runs; NC1 falls by powers of ten."""
    values = np.array([curve(run, name) for run in group.runs])
    look = line_style(place_of(group.method) if place is None else place) | {"linewidth": 1.1}
    epochs = [line["epoch"] for line in group.runs[0].lines]
    logarithmic = name.endswith("nc1_over_c")
    label = label or name_of(group.method)
    style.draw_band_curve(axes, epochs, values.T, look, label, logarithmic)
    style.epoch_axis(axes)


def _draw_changes(axes: Axes, runs: Mapping[str, Sequence[Numbers]]) -> None:
    """A point a seed: change of final accuracy against change of final held-out cosine."""
    for method in [method for method in runs if method != BASELINE]:
        sides = (runs[method], runs[BASELINE])
        cosines, accuracies = (
            np.array([run[name] - base[name] for run, base in zip(*sides, strict=True)])
            for name in ("held_out_cosine", "accuracy")
        )
        place = place_of(method)
        look: Any = {"fillstyle": "none", "markersize": 4, "color": line_style(place)["color"]}
        look["label"] = f"{name_of(method)} \u2212 none"
        axes.plot(cosines, 100 * accuracies, style.marker_of(place), **look)
    axes.axhline(0, linewidth=0.8, **_GREY)
    axes.axvline(0, linewidth=0.8, **_GREY)
    axes.set_title("Change by seed", loc="left")
    axes.set(xlabel="held-out cosine", ylabel="accuracy, points")
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _draw_gaps(axes: Axes, counts: np.ndarray, classes: Sequence[Numbers]) -> None:
    """Means over seeds, with bars of one standard deviation; a little apart, not to overlap."""
    points: Any = {"linestyle": "none", "markersize": 3.5, "fillstyle": "none", "elinewidth": 0.7}
    for side, shift, look in _SIDES:
        gaps = np.array([np.subtract(run[side], run["held_out"], dtype=float) for run in classes])
        bars = gaps.std(axis=0, ddof=1) if len(gaps) > 1 else None
        axes.errorbar(shift * counts, gaps.mean(axis=0), yerr=bars, **points, **look)
    axes.axhline(0, linewidth=0.8, **_GREY)


def _short(experiment: Experiment) -> str:
    return experiment.title.split(",")[0]
