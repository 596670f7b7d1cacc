"""The figures of docs/theory.md: exponents against angles, and probabilities against noise."""

from collections.abc import Callable
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
from studies.theory.cases import (
    CASES,
    DEGREE,
    SIGMAS,
    exact_log_error,
    last_class,
    rising,
    rotated,
)

_RC: Any = LOOSE_RC | {"legend.fontsize": 8}
_BLACK, _BLUE, _ORANGE, _GREEN = "#000000", "#0072B2", "#D55E00", "#009E73"


def plot_exponents(path: Path, num_classes: int = 10) -> None:
    """Where Theorem 5 is met, loose and wrong: equal angles, one class turned, rising angles."""
    with rc_context(_RC):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        degrees = np.linspace(0, 90, 181)
        _plot_equal(panels[0], degrees, num_classes)
        _plot_profile(panels[1], degrees, last_class, num_classes)
        _plot_profile(panels[2], degrees, rising, num_classes)
        titles = ("all classes by one angle", "one class turned", "angles rising evenly from 0")
        angles = ("angle of every class", "angle of the class", "largest angle")
        for axes, title, angle in zip(panels, titles, angles, strict=True):
            axes.set_title(title, loc="left", fontsize=9)
            axes.set_xlabel(f"{angle}, degrees")
            axes.set_xticks([0, 30, 60, 90])
            axes.margins(x=0)
        panels[0].set_ylabel("exponent, share of the optimum")
        panels[0].set_ylim(0, 1.06)
        figure.savefig(path, dpi=300)


def _plot_equal(axes: Axes, degrees: np.ndarray, num_classes: int) -> None:
    best = optimal_exponent(num_classes)
    radians = np.asarray(degrees * DEGREE, np.float32)
    lower, upper = (np.asarray(bound) for bound in _overall_bounds(radians, num_classes))
    axes.fill_between(degrees, lower / best, upper / best, color="0.88", linewidth=0)
    for correlation, label, color, style in (
        (1.0, "one common direction", _GREEN, "-."),
        (0.0, "independent directions", _BLUE, "--"),
    ):
        curve = [float(rotated_exponents(np.full(num_classes, a), correlation)[0]) for a in radians]
        curve[-1] = np.nan if correlation == 1.0 else curve[-1]  # all weights coincide
        axes.plot(degrees, np.array(curve) / best, color=color, linestyle=style, label=label)
    axes.plot(degrees, upper / best, color=_BLACK, label="simplex directions, Theorem 5")
    axes.plot(
        degrees, lower / best, color=_ORANGE, linestyle=":", label="lowest: frame turned in a plane"
    )
    axes.legend(loc="upper left", bbox_to_anchor=(-0.03, -0.16))


def _overall_bounds(radians: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = [exponent_bounds(np.full(num_classes, angle)) for angle in radians]
    return (
        np.array([float(pair.lower[0]) for pair in pairs]),
        np.array([float(pair.upper[0]) for pair in pairs]),
    )


def _plot_profile(
    axes: Axes,
    degrees: np.ndarray,
    profile: Callable[[float], Callable[[int], np.ndarray]],
    num_classes: int,
) -> None:
    best, correlation = optimal_exponent(num_classes), -1 / (num_classes - 1)
    angles = np.array([profile(largest)(num_classes) for largest in degrees]) * DEGREE
    exponents = np.array([rotated_exponents(a, correlation) for a in angles]) / best
    at_mean, at_largest = np.cos(angles.mean(axis=1)) ** 2, np.cos(angles.max(axis=1)) ** 2
    axes.plot(degrees, at_mean, color=_BLUE, linestyle="--", label="Theorem 5 at the mean angle")
    axes.plot(degrees, exponents[:, 0], color=_GREEN, linestyle="-.", label="first class, exact")
    axes.plot(degrees, exponents.min(axis=1), color=_BLACK, label="all classes, exact")
    axes.plot(
        degrees, at_largest, color=_ORANGE, linestyle=":", label="Theorem 5 at the largest angle"
    )
    axes.legend(loc="upper left", bbox_to_anchor=(-0.03, -0.16))


def plot_decay(path: Path, num_classes: int = 10) -> None:
    """Probabilities that decay with the noise: by simulation, exactly, and class by class."""
    with rc_context(_RC):
        figure = Figure(figsize=(8.6, 3.6), layout="constrained")
        panels = figure.subplots(1, 2)
        _plot_rates(panels[0], num_classes)
        _plot_priors(panels[1], num_classes)
        for axes in panels:
            axes.set_xlabel(r"$1 / \sigma^2$")
            axes.set_ylabel(r"$\log_{10}$ of the error probability")
        panels[0].legend(loc="lower left")
        panels[1].legend(loc="upper right")
        figure.savefig(path, dpi=300)


def _plot_rates(axes: Axes, num_classes: int) -> None:
    inverse = np.linspace(4, 400, 60)
    styles = ((_BLACK, "-", "o"), (_BLUE, "--", "s"), (_ORANGE, ":", "^"))
    chosen = [CASES[0], CASES[1], CASES[4]]
    for case, (color, style, marker) in zip(chosen, styles, strict=True):
        means, weights = case.make(num_classes)
        exact = [exact_log_error(means, weights, one**-0.5) for one in inverse]
        label = case.name.removesuffix(", simplex directions")
        axes.plot(inverse, np.array(exact) / np.log(10), color=color, linestyle=style, label=label)
        estimates = [error_probability(means, weights, s).log_estimate for s in SIGMAS]
        places = 1 / np.square(SIGMAS)
        axes.plot(places, np.array(estimates) / np.log(10), marker, color=color, fillstyle="none")
    axes.set_title("sampled (marks) and exact (lines)", loc="left", fontsize=9)


def _plot_priors(axes: Axes, num_classes: int) -> None:
    means, weights = rotated(last_class(45), None)(num_classes)
    priors = 100.0 ** -(np.arange(num_classes) / (num_classes - 1))
    priors /= priors.sum()
    inverse = np.linspace(4, 120, 30)
    parts = []
    for one in inverse:
        last = np.eye(num_classes)[-1]
        logs = [
            error_probability(means, weights, one**-0.5, priors=p).log_estimate
            for p in (priors * (1 - last), last, priors)
        ]
        parts.append(np.array(logs) + np.log([1 - priors[-1], priors[-1], 1.0]))
    others, rare, overall = np.array(parts).T / np.log(10)
    axes.plot(inverse, overall, color="0.8", linewidth=5, label="all classes")
    axes.plot(inverse, others, color=_BLACK, label="nine aligned classes")
    axes.plot(inverse, rare, color=_ORANGE, linestyle="--", label="rarest class, turned by 45°")
    exponents = np.asarray(error_exponents(means, weights))
    gap = exponents[0] - exponents[-1]
    crossing = np.log((1 - priors[-1]) / priors[-1]) / gap
    axes.axvline(crossing, color=_BLUE, linestyle=":", label="predicted crossing")
    axes.set_title("parts by class, imbalance factor 100", loc="left", fontsize=9)
