"""Error probabilities against exact values, bounds and plain simulation, down to 1e-90."""

import re

import jax
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import log_ndtr, logsumexp
from scipy.stats import multivariate_normal, norm

import spa_jax
from spa_jax.dynamics.theory import misalignment as turned
from spa_jax.dynamics.theory.exponents import error_exponents, overall_exponent
from spa_jax.dynamics.theory.probabilities import (
    equiangular_log_error,
    error_probability,
    fit_exponent,
)
from tests.parameters import first
from tests.refusals import refusal

SIGMAS = (0.05, 0.06, 0.07, 0.08, 0.09, 0.1)
DEGREE = np.pi / 180
ROUNDING = 5e-5  # of log P, since frames are simplex ETFs to float32's rounding only
class_numbers = pytest.mark.parametrize("num_classes", first(1, [3, 100]))


def draw_classifier(seed, num_classes, dim):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(num_classes, dim))
    weights = means + 0.3 * rng.normal(size=(num_classes, dim))
    bias = 0.3 * rng.normal(size=num_classes)
    return tuple(np.asarray(a, np.float32) for a in (means, weights, bias))


def boundaries(means, weights, bias=None):
    """Distances of each mean to its boundaries, `(C, C - 1)` in float64."""
    means, weights = np.asarray(means, np.float64), np.asarray(weights, np.float64)
    bias = np.zeros(len(means)) if bias is None else np.asarray(bias, np.float64)
    rows = []
    for c, mean in enumerate(means):
        rivals = [j for j in range(len(means)) if j != c]
        gaps = weights[c] - weights[rivals]
        rows.append((gaps @ mean + bias[c] - bias[rivals]) / np.linalg.norm(gaps, axis=1))
    return np.array(rows)


def exact_overall(distances, sigma):
    """Logarithm of the mean error over classes, for equiangular weights."""
    distinct, repeats = np.unique(np.sort(distances, axis=1).round(7), axis=0, return_counts=True)
    logs = [equiangular_log_error(row, sigma) for row in distinct]
    return logsumexp(logs, b=repeats / len(distances))


def equal_angles(num_classes):
    means = spa_jax.simplex_etf(num_classes, 2 * num_classes)
    angles = np.full(num_classes, 30 * DEGREE, np.float32)
    return means, turned.rotated_weights(means, angles, -1 / (num_classes - 1))


def rising_angles(num_classes):
    means = spa_jax.simplex_etf(num_classes, 2 * num_classes)
    angles = np.linspace(0, 45 * DEGREE, num_classes, dtype=np.float32)
    return means, turned.rotated_weights(means, angles, -1 / (num_classes - 1))


def turned_frame(num_classes):
    means = spa_jax.simplex_etf(num_classes, num_classes)
    return means, turned.rotate_in_plane(means, 1, 0, 20 * DEGREE)


@class_numbers
@pytest.mark.parametrize(
    ("make", "exact"), [(equal_angles, True), (rising_angles, False), (turned_frame, True)]
)
def test_samples_agree_with_exact_values_and_decay_at_the_rate_of_the_exponent(
    make, exact, num_classes
):
    means, weights = make(num_classes)
    distances, logs = boundaries(means, weights), []
    for sigma in SIGMAS:
        found = error_probability(means, weights, sigma)
        assert found.log_lower <= found.log_estimate <= found.log_upper
        if exact:
            value = exact_overall(distances, sigma)
            assert found.log_lower - ROUNDING <= value <= found.log_upper + ROUNDING
        tails = log_ndtr(-distances / sigma)
        union = logsumexp(tails) - np.log(num_classes)
        pairwise = logsumexp(tails.max(axis=1)) - np.log(num_classes)
        assert found.log_union == pytest.approx(union, abs=1e-6)
        assert found.log_pairwise == pytest.approx(pairwise, abs=1e-6)
        assert found.log_lower - ROUNDING <= union
        assert found.log_upper + ROUNDING >= pairwise
        assert found.log_upper - found.log_lower < 0.03
        logs.append(found.log_estimate)
    desired = float(overall_exponent(error_exponents(means, weights)))
    assert fit_exponent(SIGMAS, logs).exponent == pytest.approx(desired, rel=0.01)


@pytest.mark.parametrize("sigma", [2.0, 0.3, 0.05, 0.005])
def test_two_classes_have_the_error_of_one_gaussian_tail(sigma):
    means, weights, _ = draw_classifier(0, 2, 3)
    bias = np.array([0.2, 0.0], np.float32)
    found = error_probability(means, weights, sigma, bias, priors=np.array([3, 1]))
    (first,), (second,) = boundaries(means, weights, bias)
    desired = np.logaddexp(
        np.log(0.75) + log_ndtr(-first / sigma), np.log(0.25) + log_ndtr(-second / sigma)
    )
    for value in found:
        assert value == pytest.approx(desired, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sigma", [0.4, 1.5])
def test_three_classes_agree_with_bivariate_normal_probabilities(seed, sigma):
    means, weights, bias = draw_classifier(seed, 3, 4)
    for c in range(3):
        found = error_probability(means, weights, sigma, bias, priors=np.eye(3)[c], seed=seed)
        gaps = np.delete(weights[c] - np.float64(weights), c, axis=0)
        normals = gaps / np.linalg.norm(gaps, axis=1, keepdims=True)
        limits = boundaries(means, weights, bias)[c] / sigma
        correct = multivariate_normal.cdf(limits, cov=normals @ normals.T, abseps=1e-9)
        assert found.log_lower <= np.log1p(-correct) <= found.log_upper


@pytest.mark.parametrize("seed", range(2))
def test_many_classes_agree_with_plain_simulation(seed):
    means, weights, bias = draw_classifier(seed, 8, 3)
    priors = np.array([100, 50, 20, 10, 5, 2, 1, 0])
    found = error_probability(means, weights, 0.5, bias, priors, seed=seed)
    rng, count = np.random.default_rng(seed + 10), 200_000
    classes = rng.choice(8, count, p=priors / priors.sum())
    scores = (means[classes] + 0.5 * rng.normal(size=(count, 3))) @ weights.T + bias
    share = np.mean(np.argmax(scores, axis=1) != classes)
    slack = 3 * np.sqrt(share * (1 - share) / count)
    assert np.exp(found.log_lower) - slack <= share <= np.exp(found.log_upper) + slack


def test_intervals_cover_the_exact_value_and_estimates_have_no_bias():
    means = spa_jax.simplex_etf(10, 9)
    desired = np.exp(exact_overall(boundaries(means, means), 0.6))
    found = [error_probability(means, means, 0.6, num_samples=2000, seed=s) for s in range(100)]
    covered = [np.exp(f.log_lower) <= desired <= np.exp(f.log_upper) for f in found]
    assert sum(covered) >= 99
    estimates = np.exp([f.log_estimate for f in found])
    error = estimates.std(ddof=1) / np.sqrt(len(found))
    assert abs(estimates.mean() - desired) < 3.5 * error
    narrow = [np.exp(f.log_upper) - np.exp(f.log_lower) for f in found]
    assert np.mean(narrow) < 0.15 * desired


def test_intervals_hold_when_all_samples_are_equal_by_chance():
    means = spa_jax.simplex_etf(10, 9)
    desired = exact_overall(boundaries(means, means), 0.2)
    found = [error_probability(means, means, 0.2, num_samples=3, seed=s) for s in range(50)]
    assert sum(f.log_estimate == f.log_union for f in found) > 10
    assert all(f.log_lower <= desired <= f.log_upper for f in found)


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_the_integral_agrees_with_adaptive_quadrature(sigma):
    distances = np.array([0.7, 0.2, -0.1, 1.3])

    def integrand(t):
        return norm.pdf(t) * (1 - np.prod(norm.cdf(t + np.sqrt(2) * distances / sigma)))

    desired = np.log(quad(integrand, -12, 12, epsabs=1e-13)[0])
    assert equiangular_log_error(distances, sigma) == pytest.approx(desired, abs=1e-9)


@pytest.mark.parametrize("sigma", [3.0, 0.1, 0.01, 0.001])
def test_the_integral_is_the_gaussian_tail_at_one_rival_and_keeps_its_bounds_at_many(sigma):
    for distance in (1.0, 0.3, -0.4):
        found = equiangular_log_error(np.array([distance]), sigma)
        assert found == pytest.approx(log_ndtr(-distance / sigma), rel=1e-9, abs=1e-12)
    distances = np.array([0.5, 0.5001, 0.7, 0.9])
    found, tails = equiangular_log_error(distances, sigma), log_ndtr(-distances / sigma)
    assert tails.max() - 1e-9 <= found <= logsumexp(tails) + 1e-9


def test_priors_weigh_the_classes():
    means, weights, bias = draw_classifier(1, 3, 4)
    priors = np.array([6, 3, 1])
    together = error_probability(means, weights, 0.3, bias, priors)
    alone = [error_probability(means, weights, 0.3, bias, np.eye(3)[c]) for c in range(3)]
    for k in (3, 4):  # the exact bounds
        desired = logsumexp([one[k] for one in alone], b=priors / 10)
        assert together[k] == pytest.approx(desired, abs=1e-9)
    low = logsumexp([one.log_lower for one in alone], b=priors / 10)
    high = logsumexp([one.log_upper for one in alone], b=priors / 10)
    assert low < together.log_upper
    assert high > together.log_lower


@pytest.mark.parametrize("sigma", [0.15, 0.5])
def test_the_log_prior_times_the_variance_is_the_best_bias_and_leaves_the_exponent(sigma):
    means = spa_jax.simplex_etf(10, 9)
    priors = 100.0 ** -(np.arange(10) / 9)
    bias = np.float32(sigma**2 * np.log(priors))
    best = error_probability(means, means, sigma, bias, priors)
    assert best.log_upper < error_probability(means, means, sigma, None, priors).log_lower
    assert best.log_upper < error_probability(means, means, sigma, 2 * bias, priors).log_lower
    exponents = [error_exponents(means, means, np.float32(s**2 * np.log(priors))) for s in (0.01,)]
    np.testing.assert_allclose(exponents[0], 10 / 36, rtol=2e-3)


def test_certain_and_impossible_errors():
    means, weights = np.eye(3, dtype=np.float32), np.ones((3, 3), np.float32)
    bias = np.array([1.0, 0.0, 0.0], np.float32)
    first, others = np.array([1, 0, 0]), np.array([0, 1, 1])
    assert set(error_probability(means, weights, 0.1, bias, first)) == {-np.inf}
    certain = error_probability(means, weights, 0.1, bias, others)
    assert certain.log_estimate == pytest.approx(0, abs=1e-12)
    swapped = error_probability(means, means[[1, 0, 2]], 0.1, num_samples=5000)
    assert swapped.log_lower <= np.log(2 / 3) <= swapped.log_upper


def test_one_seed_gives_the_same_numbers_and_another_others():
    means = spa_jax.simplex_etf(5, 4)
    one, again, other = (
        error_probability(means, means, 0.5, num_samples=5000, seed=seed) for seed in (1, 1, 2)
    )
    assert one == again
    assert one.log_estimate != other.log_estimate


def test_more_samples_and_less_confidence_narrow_the_interval():
    means = spa_jax.simplex_etf(5, 4)

    def width(**options):
        found = error_probability(means, means, 0.5, **options)
        return found.log_upper - found.log_lower

    assert width(num_samples=9000) < 0.7 * width(num_samples=3000)
    assert width(num_samples=3000, confidence=0.9) < width(num_samples=3000)


def test_the_float64_switch_is_left_as_it_was():
    means = spa_jax.simplex_etf(3, 2)
    error_probability(means, means, 0.5, num_samples=10)
    assert not jax.config.read("jax_enable_x64")


def test_a_fit_returns_the_coefficients_that_made_the_values():
    sigmas = np.array([0.05, 0.07, 0.1])
    logs = -0.3 / sigmas**2 + 1.5 * np.log(sigmas) - 2
    assert fit_exponent(sigmas, logs) == pytest.approx((0.3, 1.5, -2), rel=1e-6)


ONES = np.ones((3, 4), np.float32)
REFUSED = {
    "no noise": (lambda: error_probability(ONES, ONES, 0.0), "sigma must be above 0.*got 0"),
    "a Flax kernel": (lambda: error_probability(ONES, ONES.T, 0.1), "pass kernel.T"),
    "one sample": (
        lambda: error_probability(ONES, ONES, 0.1, num_samples=1),
        "num_samples must be 2 or more, got 1",
    ),
    "certainty": (
        lambda: error_probability(ONES, ONES, 0.1, confidence=1.0),
        r"confidence must be in \(0, 1\), got 1",
    ),
    "priors of others": (
        lambda: error_probability(ONES, ONES, 0.1, priors=np.ones(4)),
        r"shape \(3,\).*\(4,\)",
    ),
    "the diagonal": (
        lambda: equiangular_log_error(np.array([1.0, np.inf]), 0.1),
        r"finite numbers.*\[1.0, inf\] of 2",
    ),
    "two noise levels": (
        lambda: fit_exponent([0.1, 0.2, 0.2], [-1.0, -2.0, -2.0]),
        "3 or more different.*2 different of 3.*3 probabilities",
    ),
    "an impossible error": (
        lambda: fit_exponent([0.1, 0.2, 0.3], [-np.inf, -2.0, -1.0]),
        "must be finite",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_wrong_input_is_refused_saying_what(what, untyped):
    call, says = REFUSED[what]
    assert re.search(says, refusal(call))
