"""The figures of docs/theory.md: exponents against angles, and probabilities against noise."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spa_jax.dynamics.theory.exponents import error_exponents, exponent_bounds, optimal_exponent
from spa_jax.dynamics.theory.misalignment import rotated_exponents
from spa_jax.dynamics.theory.probabilities import error_probability
from spa_jax.reporting.figures.style import LOOSE_RC
from studies.theory.cases import CASES, DEGREE, SIGMAS, exact_log_error, last_class, rising, rotated

_RC: Any = LOOSE_RC | {"legend.fontsize": 8}
_CLASSES = 10
_BLACK: Any = {"color": "#000000", "linestyle": "-"}
_BLUE: Any = {"color": "#0072B2", "linestyle": "--"}
_ORANGE: Any = {"color": "#D55E00", "linestyle": ":"}
_GREEN: Any = {"color": "#009E73", "linestyle": "-."}

Curves = Mapping[str, tuple[np.ndarray, dict[str, Any]]]


def draw_exponents() -> Figure:
    """Where Theorem 5 is met, loose and wrong: equal angles, one class turned, rising angles."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    degrees = np.linspace(0, 90, 181)
    titles = {
        "all classes by one angle": ("angle of every class", _equal_angles(panels[0], degrees)),
        "one class turned": ("angle of the class", _profile(degrees, last_class)),
        "angles rising evenly from 0": ("largest angle", _profile(degrees, rising)),
    }
    for axes, (title, (angle, curves)) in zip(panels, titles.items(), strict=True):
        for label, (values, look) in curves.items():
            axes.plot(degrees, values, label=label, **look)
        axes.legend(loc="upper left", bbox_to_anchor=(-0.03, -0.16))
        axes.set_title(title, loc="left", fontsize=9)
        axes.set_xlabel(f"{angle}, degrees")
        axes.set_xticks([0, 30, 60, 90])
        axes.margins(x=0)
    panels[0].set_ylabel("exponent, share of the optimum")
    panels[0].set_ylim(0, 1.06)
    return figure


def _equal_angles(axes: Axes, degrees: np.ndarray) -> Curves:
    """By the directions in which the weights turn; shades what Theorem 5 leaves open."""
    best = optimal_exponent(_CLASSES)
    angles = [np.full(_CLASSES, angle) for angle in np.asarray(degrees * DEGREE, np.float32)]
    bounds = [exponent_bounds(same) for same in angles]
    lower = np.array([float(pair.lower[0]) for pair in bounds]) / best
    upper = np.array([float(pair.upper[0]) for pair in bounds]) / best
    axes.fill_between(degrees, lower, upper, color="0.88", linewidth=0)
    common, independent = (
        np.array([float(rotated_exponents(same, correlation)[0]) for same in angles]) / best
        for correlation in (1.0, 0.0)
    )
    common[-1] = np.nan  # all weights coincide
    return {
        "one common direction": (common, _GREEN),
        "independent directions": (independent, _BLUE),
        "simplex directions, Theorem 5": (upper, _BLACK),
        "lowest: frame turned in a plane": (lower, _ORANGE),
    }


def _profile(
    degrees: np.ndarray, profile: Callable[[float], Callable[[int], np.ndarray]]
) -> Curves:
    """Weights that turn to simplex directions, by an angle of their own each."""
    angles = np.array([profile(largest)(_CLASSES) for largest in degrees]) * DEGREE
    exponents = np.array([rotated_exponents(row, -1 / (_CLASSES - 1)) for row in angles])
    exponents /= optimal_exponent(_CLASSES)
    return {
        "Theorem 5 at the mean angle": (np.cos(angles.mean(axis=1)) ** 2, _BLUE),
        "first class, exact": (exponents[:, 0], _GREEN),
        "all classes, exact": (exponents.min(axis=1), _BLACK),
        "Theorem 5 at the largest angle": (np.cos(angles.max(axis=1)) ** 2, _ORANGE),
    }


def draw_decay() -> Figure:
    """Probabilities that decay with the noise: by simulation, exactly, and class by class."""
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    _draw_rates(panels[0])
    _draw_priors(panels[1])
    for axes in panels:
        axes.set_xlabel(r"$1 / \sigma^2$")
        axes.set_ylabel(r"$\log_{10}$ of the error probability")
    panels[0].legend(loc="lower left")
    panels[1].legend(loc="upper right")
    return figure


def _draw_rates(axes: Axes) -> None:
    inverse, places = np.linspace(4, 400, 60), 1 / np.square(SIGMAS)
    looks = ((CASES[0], _BLACK, "o"), (CASES[1], _BLUE, "s"), (CASES[4], _ORANGE, "^"))
    for case, look, marker in looks:
        means, weights = case.make(_CLASSES)
        exact = [exact_log_error(means, weights, one**-0.5) for one in inverse]
        label = case.name.removesuffix(", simplex directions")
        axes.plot(inverse, np.array(exact) / np.log(10), label=label, **look)
        sampled = [error_probability(means, weights, s).log_estimate for s in SIGMAS]
        marks = {"color": look["color"], "fillstyle": "none"}
        axes.plot(places, np.array(sampled) / np.log(10), marker, **marks)
    axes.set_title("sampled (marks) and exact (lines)", loc="left", fontsize=9)


def _draw_priors(axes: Axes) -> None:
    means, weights = rotated(last_class(45), None)(_CLASSES)
    priors = 100.0 ** -(np.arange(_CLASSES) / (_CLASSES - 1))
    priors /= priors.sum()
    last, inverse = np.eye(_CLASSES)[-1], np.linspace(4, 120, 30)
    parts = {
        "all classes": (priors, 1.0, {"color": "0.8", "linewidth": 5}),
        "nine aligned classes": (priors * (1 - last), 1 - priors[-1], _BLACK),
        "rarest class, turned by 45°": (last, priors[-1], _ORANGE | {"linestyle": "--"}),
    }
    for label, (part, share, look) in parts.items():
        found = [error_probability(means, weights, x**-0.5, priors=part) for x in inverse]
        logs = np.array([one.log_estimate for one in found]) + np.log(share)
        axes.plot(inverse, logs / np.log(10), label=label, **look)
    exponents = np.asarray(error_exponents(means, weights))
    crossing = np.log((1 - priors[-1]) / priors[-1]) / (exponents[0] - exponents[-1])
    axes.axvline(crossing, label="predicted crossing", **_BLUE | {"linestyle": ":"})
    axes.set_title("parts by class, imbalance factor 100", loc="left", fontsize=9)


FIGURES: Mapping[str, Callable[[], Figure]] = {"exponents": draw_exponents, "decay": draw_decay}
"""By the name of the file."""


def save_theory_figures(folder: Path) -> None:
    """Draws the figures as `folder/<name>.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        with rc_context(_RC):
            draw().savefig(folder / f"{name}.png", dpi=300)
