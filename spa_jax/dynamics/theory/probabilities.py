"""Error probabilities of a linear classifier at a finite noise level, however small they are.

Everything is in the log domain and in NumPy's float64: the logarithm of a probability like 1e-1000
has to be right to a small difference, which float32 does not hold.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from scipy.special import log_ndtr, logsumexp, ndtri_exp

from spa_jax.dynamics.theory import exponents
from spa_jax.dynamics.theory.exponents import Bias, Priors, Rows
from spa_jax.errors import InputError

_BATCH = 4096  # samples at a time, to bound memory


class ErrorProbability(NamedTuple):
    """Natural logarithms of an error probability and of what is known about it.

    Attributes:
      log_estimate: of the unbiased estimate.
      log_lower: of the lower end of its confidence interval; minus infinite for 0.
      log_upper: of the upper end of its confidence interval.
      log_pairwise: of the sum over the classes of the largest pairwise error; never above the true
        value.
      log_union: of the union bound, the sum of all pairwise errors; never below the true value.
    """

    log_estimate: float
    log_lower: float
    log_upper: float
    log_pairwise: float
    log_union: float


class ExponentFit(NamedTuple):
    """Coefficients of log P = -exponent / sigma^2 + power * log(sigma) + constant."""

    exponent: float
    power: float
    constant: float


def error_probability(
    means: Rows,
    weights: Rows,
    sigma: float,
    bias: Bias | None = None,
    priors: Priors | None = None,
    *,
    num_samples: int = 20_000,
    confidence: float = 0.99,
    seed: int = 0,
) -> ErrorProbability:
    r"""Probability of error under Gaussian noise, by importance sampling that reaches any rarity.

    .. math:: P = \sum_c \pi_c P(\text{error} \mid c) = U \, \mathbb{E}[1 / S], \quad
       U = \sum_c \pi_c \sum_{j \ne c} Q(d_{cj} / \sigma)

    A class and a rival are drawn with probability proportional to their term of the union bound U,
    then an example of the class that loses to this rival, exactly; S is the number of rivals that
    it loses to. As 1 / S lies between 1 / (C - 1) and 1, the relative error does not grow as P
    vanishes. The interval is the empirical Bernstein bound, which holds at any sample size.

    Args:
      means: `(C, D)` floating, the class means.
      weights: `(C, D)` floating; the transpose of a Flax kernel.
      sigma: standard deviation of the noise in every direction, > 0.
      bias: `(C,)` floating; None is no bias.
      priors: `(C,)` >= 0, shares or counts of the classes; None is equal shares. For the error of
        one class alone, 1 for this class and 0 for the others.
      num_samples: 2 or more.
      confidence: of the interval, in (0, 1).
      seed: of the samples; one seed gives the same numbers again.

    Returns:
      Logarithms of the estimate, of the ends of its interval, and of the exact bounds.

    Raises:
      InputError: a number out of range, or input as in
        :func:`spa_jax.dynamics.theory.exponents.boundary_distances`.

    Example:
      >>> means = spa_jax.simplex_etf(2, 1)
      >>> found = error_probability(means, means, sigma=0.05, num_samples=100)
      >>> round(found.log_estimate, 3)  # the logarithm of Q(20)
      -203.917

    Reference:
      Owen, Maximov and Chertkov, "Importance sampling the union of rare events with an application
      to power systems analysis", Electronic Journal of Statistics 13, 2019; Maurer and Pontil,
      "Empirical Bernstein Bounds and Sample Variance Penalization", COLT 2009.
    """
    exponents.check_classifier(means, weights, bias)
    _check_sigma(sigma)
    if num_samples < 2:
        raise InputError(f"num_samples must be 2 or more, got {num_samples}: 20,000 is usual.")
    if not 0 < confidence < 1:
        raise InputError(f"confidence must be in (0, 1), got {confidence}: 0.99 is usual.")
    centres, rows = np.asarray(means, np.float64), np.asarray(weights, np.float64)
    shift = np.zeros(len(rows)) if bias is None else np.asarray(bias, np.float64)
    with jax.enable_x64(True):
        distances = np.asarray(exponents.boundary_distances(centres, rows, shift))
    shares = np.ones(len(rows)) if priors is None else np.asarray(priors, np.float64)
    exponents.check_priors(shares, len(rows))
    with np.errstate(divide="ignore"):
        log_tails = np.log(shares / shares.sum())[:, None] + log_ndtr(-distances / sigma)
    log_union, log_pairwise = _log_sum(log_tails), _log_sum(log_tails.max(axis=1))
    if log_union == -np.inf:  # no rival can win
        return ErrorProbability(*[-np.inf] * 5)
    rng = np.random.default_rng(seed)
    cumulative = np.cumsum(np.exp(log_tails - log_union))
    lost = []
    for start in range(0, num_samples, _BATCH):
        places = rng.random(min(_BATCH, num_samples - start)) * cumulative[-1]
        pairs = np.searchsorted(cumulative, places, side="right")
        classes, rivals = np.divmod(pairs, len(rows))
        reached = distances[classes, rivals] / sigma
        noise = _noise_beyond(reached, rows[classes] - rows[rivals], rng)
        scores = (centres[classes] + sigma * noise) @ rows.T + shift[None]
        samples = np.arange(len(scores))
        loses = scores >= scores[samples, classes][:, None]
        loses[samples, classes] = False
        loses[samples, rivals] = True  # by construction, whatever the rounding
        lost.append(loses.sum(axis=1))
    values = 1.0 / np.concatenate(lost)
    interval = _bernstein_interval(values, 1.0 - 1.0 / (len(rows) - 1), confidence)
    with np.errstate(divide="ignore"):
        estimate, low, high = (log_union + np.log([values.mean(), *interval])).tolist()
    return ErrorProbability(estimate, low, high, log_pairwise, log_union)


def equiangular_log_error(distances: Float[Array | np.ndarray, " J"], sigma: float) -> float:
    r"""Exact logarithm of the error probability of one class, for equiangular weights.

    .. math:: P(\text{error} \mid c) = \int \varphi(t)
       \Bigl(1 - \prod_{j \ne c} \Phi\bigl(t + \sqrt{2} \, d_{cj} / \sigma\bigr)\Bigr) dt

    It holds where all weights have one norm and every two of them one inner product, or differ
    from that by a common shift: for a simplex ETF in any orientation, with any means and biases.
    The integral is a trapezoidal sum, which for such an integrand is exact to rounding.

    Args:
      distances: `(C - 1,)` floating, finite: the entries of a row of
        :func:`spa_jax.dynamics.theory.exponents.boundary_distances` off the diagonal.
      sigma: standard deviation of the noise in every direction, > 0.

    Returns:
      The natural logarithm of the probability.

    Raises:
      InputError: no distance, a distance that is not finite, or `sigma` not above 0.

    Example:
      >>> round(equiangular_log_error(jnp.array([1.0]), sigma=0.05), 3)  # the logarithm of Q(20)
      -203.917
    """
    _check_sigma(sigma)
    apart = np.asarray(distances, np.float64)
    if not len(apart) or not np.all(np.isfinite(apart)):
        raise InputError(
            "distances must be one or more finite numbers, those of a row of boundary_distances "
            f"off the diagonal, got {apart[:3].tolist()} of {len(apart)}."
        )
    shifts = np.sqrt(2.0) * apart / sigma
    # The largest term peaks between -min(shifts) / 2 and 0, and falls like a Gaussian beyond.
    step = 0.05
    t = np.arange(min(-shifts.min() / 2, 0.0) - 12.0, 12.0, step)
    log_hazard = np.full_like(t, -np.inf)  # of minus the logarithm of the product
    for shift in shifts:
        # log(-log Phi(x)), where x is far that of Q(x), since Phi(x) rounds to 1 there.
        x = t + shift
        near = np.log(-log_ndtr(np.minimum(x, 8.0)))
        log_hazard = np.logaddexp(log_hazard, np.where(x > 8, log_ndtr(-x), near))
    # 1 - exp(-h) is h where h is too small for the difference.
    log_error = np.where(
        log_hazard < -40, log_hazard, np.log(-np.expm1(-np.exp(np.maximum(log_hazard, -40))))
    )
    log_terms = log_error - t**2 / 2
    return _log_sum(log_terms) + float(np.log(step) - np.log(2 * np.pi) / 2)


def fit_exponent(
    sigmas: Sequence[float] | np.ndarray, log_probabilities: Sequence[float] | np.ndarray
) -> ExponentFit:
    r"""Fits the error exponent to error probabilities at several noise levels.

    .. math:: \log P(\sigma) = -\beta / \sigma^2 + b \log \sigma + c

    The prefactor :math:`\sigma^b` belongs to it: the tail of a Gaussian has b = 1, and without it
    the exponent comes out too large.

    Args:
      sigmas: three or more different noise levels, > 0.
      log_probabilities: natural logarithms, as many.

    Returns:
      The least-squares coefficients.

    Raises:
      InputError: too few noise levels, noise levels not above 0, or values that are not finite.

    Example:
      >>> sigmas = [0.05, 0.06, 0.08, 0.1]
      >>> logs = [equiangular_log_error(jnp.array([1.0]), sigma) for sigma in sigmas]
      >>> round(fit_exponent(sigmas, logs).exponent, 3)
      0.5
    """
    levels, logs = np.asarray(sigmas, np.float64), np.asarray(log_probabilities, np.float64)
    if levels.shape != logs.shape or len(np.unique(levels)) < 3:
        raise InputError(
            "A fit of three coefficients needs 3 or more different noise levels and a probability "
            f"for each, got {len(np.unique(levels))} different of {len(levels)} noise levels and "
            f"{len(logs)} probabilities."
        )
    for level in levels:
        _check_sigma(level)
    if not np.all(np.isfinite(logs)):
        raise InputError(f"log_probabilities must be finite, got {logs[:3].tolist()}...")
    terms = np.stack([-1.0 / levels**2, np.log(levels), np.ones_like(levels)], axis=1)
    return ExponentFit(*np.linalg.lstsq(terms, logs)[0].tolist())


def _log_sum(logs: np.ndarray) -> float:
    return float(np.asarray(logsumexp(logs)))


def _noise_beyond(
    reached: np.ndarray, differences: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Standard normal noise whose part against a difference of weights is `reached` or more."""
    lengths = np.linalg.norm(differences, axis=1, keepdims=True)
    normals = differences / np.where(lengths > 0, lengths, 1.0)
    # The logarithm of a uniform number is minus an exponential one.
    beyond = -ndtri_exp(log_ndtr(-reached) - rng.standard_exponential(len(reached)))
    noise = rng.standard_normal(differences.shape)
    along = np.sum(noise * normals, axis=1) + beyond
    return noise - along[:, None] * normals


def _bernstein_interval(
    values: np.ndarray, spread: float, confidence: float
) -> tuple[float, float]:
    """Confidence interval of the mean of values between 1 - `spread` and 1."""
    log_odds = np.log(4.0 / (1.0 - confidence))
    width = np.sqrt(2.0 * values.var(ddof=1) * log_odds / len(values))
    width += 7.0 * spread * log_odds / (3.0 * (len(values) - 1))
    mean = values.mean()
    return max(mean - width, 1.0 - spread), min(mean + width, 1.0)


def _check_sigma(sigma: float) -> None:
    if not 0 < sigma < np.inf:
        raise InputError(f"sigma must be above 0 and finite, got {sigma}.")
