"""Simplex-ETF classifiers turned away from their class means in ways with known exponents."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

import spa_jax
from spa_jax.dynamics.theory.exponents import boundary_distances
from spa_jax.dynamics.theory.misalignment import rotate_in_plane, rotated_weights
from spa_jax.dynamics.theory.probabilities import equiangular_log_error

SIGMAS = (0.05, 0.06, 0.07, 0.08, 0.09, 0.1)
"""Noise levels of a fit."""

_SMALL_SIGMAS = (0.01, 0.012, 0.014, 0.016, 0.018, 0.02)
DEGREE = np.pi / 180


@dataclasses.dataclass(frozen=True)
class Case:
    """A way to turn the weights of a simplex ETF.

    Attributes:
      name: in the table.
      make: number of classes -> means and weights.
      exact: whether the weights are equiangular, so that the error is an integral.
      sigmas: noise levels of the fit.
    """

    name: str
    make: Callable[[int], tuple[jax.Array, jax.Array]]
    exact: bool
    sigmas: tuple[float, ...] = SIGMAS


def rotated(profile: Callable[[int], np.ndarray], correlation: float | None) -> Callable:
    """Weights turned by a profile of degrees; None stands for directions that are a simplex."""

    def make(num_classes: int) -> tuple[jax.Array, jax.Array]:
        means = spa_jax.simplex_etf(num_classes, 2 * num_classes)
        rho = -1 / (num_classes - 1) if correlation is None else correlation
        angles = np.asarray(profile(num_classes) * DEGREE, np.float32)
        return means, rotated_weights(means, angles, rho)

    return make


def turned(degrees: float) -> Callable:
    """The whole frame turned in the plane of its first two members."""

    def make(num_classes: int) -> tuple[jax.Array, jax.Array]:
        means = spa_jax.simplex_etf(num_classes, num_classes)
        return means, rotate_in_plane(means, 0, 1, degrees * DEGREE)

    return make


def equal(degrees: float) -> Callable[[int], np.ndarray]:
    """The same angle for every class."""
    return lambda num_classes: np.full(num_classes, degrees)


def rising(degrees: float, power: float = 1.0) -> Callable[[int], np.ndarray]:
    """Angles from 0 for the first class up to the last."""
    return lambda num_classes: degrees * np.linspace(0, 1, num_classes) ** power


def last_class(degrees: float) -> Callable[[int], np.ndarray]:
    """An angle for the last class alone."""
    return lambda num_classes: degrees * (np.arange(num_classes) == num_classes - 1)


CASES = (
    Case("aligned", rotated(equal(0), None), True),
    Case("all by 30°, simplex directions", rotated(equal(30), None), True),
    Case("all by 30°, independent directions", rotated(equal(30), 0.0), True),
    Case("all by 30°, one common direction", rotated(equal(30), 1.0), True),
    Case("frame turned by 20° in a plane", turned(20), True),
    Case("rising from 0° to 45°, simplex directions", rotated(rising(45), None), False),
    Case("last class by 45°, independent directions", rotated(last_class(45), 0.0), False),
    Case("rising as a 4th power to 60°, independent", rotated(rising(60, 4), 0.0), False),
    Case("the same, noise from .01 to .02", rotated(rising(60, 4), 0.0), False, _SMALL_SIGMAS),
)


def exact_log_error(means: jax.Array, weights: jax.Array, sigma: float) -> float:
    """Logarithm of the mean error over the classes, of equiangular weights."""
    distances = np.asarray(boundary_distances(means, weights), np.float64)
    off_diagonal = ~np.eye(len(distances), dtype=bool)
    rows = distances[off_diagonal].reshape(len(distances), -1)
    logs = np.array([equiangular_log_error(row, sigma) for row in rows])
    return float(np.logaddexp.reduce(logs) - np.log(len(logs)))
