"""Exponents against nearest errors, their bounds, where these are reached, and where they fail."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spa_jax
from spa_jax.dynamics.theory import misalignment as turned
from spa_jax.dynamics.theory.exponents import (
    boundary_distances,
    error_exponents,
    exponent_bounds,
    optimal_exponent,
    overall_exponent,
)
from tests.parameters import first
from tests.refusals import refusal

properties = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
frame_sizes = st.sampled_from([(2, 2), (3, 2), (3, 5), (10, 9), (10, 24)])
class_numbers = pytest.mark.parametrize("num_classes", first(2, [2, 3, 100]))
DEGREE = np.pi / 180


def draw_classifier(seed, num_classes, dim):
    """Means, weights near them, and biases, so that most classes get their own mean right."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(num_classes, dim))
    weights = 3 * means + rng.uniform(0, 3) * rng.normal(size=(num_classes, dim))
    bias = rng.normal(size=num_classes)
    return tuple(np.asarray(a, np.float32) for a in (means, weights, bias))


def draw_frame(rng, num_classes, dim):
    """A simplex ETF of a random orientation, in float64."""
    centred = np.eye(num_classes) - 1 / num_classes
    axes = np.linalg.svd(centred)[2][:-1]  # of the hyperplane orthogonal to the ones
    orientation = np.linalg.qr(rng.normal(size=(dim, dim)))[0][: num_classes - 1]
    return np.sqrt(num_classes / (num_classes - 1)) * centred @ axes.T @ orientation


def angles_between(a, b):
    cosines = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return np.arccos(np.clip(cosines, -1, 1))


def smallest_errors(means, weights, bias):
    """Squared norm of the smallest noise that makes each class lose to, or tie with, a rival."""
    means, weights, bias = (np.asarray(a, np.float64) for a in (means, weights, bias))
    found = np.full(len(means), np.inf)
    for c, mean in enumerate(means):
        scores = weights @ mean + bias
        for j in range(len(means)):
            if j != c:
                # lstsq gives the shortest solution of <w_j - w_c, noise> = margin.
                gap, margin = weights[[j]] - weights[[c]], scores[c] - scores[j]
                noise = np.linalg.lstsq(gap, [max(margin, 0)])[0]
                found[c] = min(found[c], noise @ noise)
    return found


def turned_classifier(num_classes, angles, correlation, key=None):
    means = spa_jax.simplex_etf(num_classes, 2 * num_classes, key)
    return means, turned.rotated_weights(means, np.float32(angles), correlation)


@properties
@given(seeds, st.sampled_from([(2, 1), (2, 4), (5, 3), (7, 20)]))
def test_the_exponent_is_half_the_squared_size_of_the_smallest_noise_that_errs(seed, shape):
    classifier = draw_classifier(seed, *shape)
    found, desired = error_exponents(*classifier), smallest_errors(*classifier) / 2
    np.testing.assert_allclose(found, desired, rtol=1e-3, atol=1e-6)


@properties
@given(seeds)
def test_no_noise_shorter_than_the_exponent_says_changes_the_prediction(seed):
    means, weights, bias = draw_classifier(seed, 6, 4)
    reach = np.sqrt(2 * np.asarray(error_exponents(means, weights, bias)))
    noise = np.random.default_rng(seed).normal(size=(200, 6, 4))
    noise *= 0.999 * reach[None, :, None] / np.linalg.norm(noise, axis=2, keepdims=True)
    predicted = np.argmax((means[None] + noise) @ weights.T + bias, axis=2)
    right = np.argmax(means @ weights.T + bias, axis=1) == np.arange(6)
    assert right.any()
    assert np.all(predicted[:, right] == np.arange(6)[right][None])
    np.testing.assert_array_equal(reach > 0, right)


@properties
@given(seeds, st.floats(0.1, 10))
def test_exponents_see_neither_scale_shift_nor_orientation_of_the_weights(seed, scale):
    means, weights, bias = draw_classifier(seed, 5, 4)
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0].astype(np.float32)
    shift = rng.normal(size=(1, 4)).astype(np.float32)
    found = error_exponents(means @ rotation, scale * (weights + shift) @ rotation, None)
    np.testing.assert_allclose(found, error_exponents(means, weights), rtol=2e-3, atol=1e-5)
    found = error_exponents(scale * means, weights, np.float32(scale) * bias)
    desired = scale**2 * error_exponents(means, weights, bias)
    np.testing.assert_allclose(found, desired, rtol=2e-3, atol=1e-5)


@class_numbers
def test_the_aligned_simplex_reaches_the_optimum(num_classes):
    means = spa_jax.simplex_etf(num_classes, num_classes + 3, jax.random.key(0))
    desired = num_classes / (4 * (num_classes - 1))
    assert optimal_exponent(num_classes) == pytest.approx(desired)
    np.testing.assert_allclose(error_exponents(means, 5 * means + 1), desired, rtol=1e-4)


@properties
@given(seeds)
def test_no_classifier_beats_half_the_distance_of_its_closest_means(seed):
    means, weights, bias = draw_classifier(seed, 6, 4)
    gaps = np.linalg.norm(means[:, None] - means[None], axis=2) + np.diag(np.full(6, np.inf))
    overall = float(overall_exponent(error_exponents(means, weights, bias)))
    assert overall <= gaps.min() ** 2 / 8 * (1 + 1e-5)
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    assert float(overall_exponent(error_exponents(unit, unit))) <= optimal_exponent(6)


@properties
@given(seeds, frame_sizes, st.floats(0, 1.5))
def test_the_bounds_hold_for_simplex_weights_and_any_unit_means(seed, size, spread):
    rng = np.random.default_rng(seed)
    weights = draw_frame(rng, *size)
    means = weights + spread * rng.normal(size=size) / np.sqrt(size[1])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    bounds = exponent_bounds(np.float32(angles_between(means, weights)))
    moved = 4 * weights + rng.normal(size=(1, size[1]))
    exponents = np.asarray(error_exponents(np.float32(means), np.float32(moved)))
    assert np.all(exponents <= np.asarray(bounds.upper) + 1e-5)
    assert np.all(exponents >= np.asarray(bounds.lower) - 1e-5)


@class_numbers
def test_directions_that_are_a_simplex_themselves_reach_the_upper_bound(num_classes):
    angle = 40 * DEGREE
    angles = np.full(num_classes, angle, np.float32)
    means, weights = turned_classifier(num_classes, angles, -1 / (num_classes - 1))
    exponents = error_exponents(means, weights)
    np.testing.assert_allclose(exponents, exponent_bounds(angles).upper, rtol=1e-4)
    desired = np.cos(angle) ** 2 * num_classes / (4 * (num_classes - 1))
    np.testing.assert_allclose(exponents, desired, rtol=1e-4)


@pytest.mark.parametrize("num_classes", [3, 30])
@pytest.mark.parametrize("degrees", [10, 50, 80])
def test_turning_the_frame_in_the_plane_of_two_means_reaches_the_lower_bound(num_classes, degrees):
    means = spa_jax.simplex_etf(num_classes, num_classes, jax.random.key(1))
    weights = turned.rotate_in_plane(means, 1, 0, degrees * DEGREE)
    angles = spa_jax.row_angles(means, weights)
    np.testing.assert_allclose(angles[:2], degrees * DEGREE, rtol=1e-4)
    assert float(angles[2:].max()) < degrees * DEGREE or num_classes == 3
    bounds, exponents = exponent_bounds(angles), error_exponents(means, weights)
    np.testing.assert_allclose(exponents[0], bounds.lower[0], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(
        overall_exponent(exponents), jnp.min(bounds.lower), rtol=1e-3, atol=1e-6
    )
    # The angle to the boundary at perfect alignment, written out.
    aligned = np.arccos(np.sqrt(num_classes / (2 * num_classes - 2)))
    desired = np.cos(min(aligned + degrees * DEGREE, np.pi / 2)) ** 2 / 2
    np.testing.assert_allclose(bounds.lower[0], desired, rtol=1e-4, atol=1e-7)
    if num_classes == 3:
        np.testing.assert_allclose(exponents, bounds.lower, rtol=1e-3, atol=1e-6)


@class_numbers
def test_weights_that_are_no_simplex_can_exceed_the_bound_of_theorem_5(num_classes):
    angle = 60 * DEGREE
    bound = np.cos(angle) ** 2 * optimal_exponent(num_classes)
    angles = np.full(num_classes, angle)
    independent = error_exponents(*turned_classifier(num_classes, angles, 0.0))
    excess = num_classes / (num_classes - 1 + np.cos(angle) ** 2)
    np.testing.assert_allclose(independent, excess * bound, rtol=1e-4)
    common = error_exponents(*turned_classifier(num_classes, angles, 1.0))
    np.testing.assert_allclose(common, optimal_exponent(num_classes), rtol=1e-4)


@properties
@given(seeds, frame_sizes)
def test_with_biases_the_mean_cosine_bounds_the_overall_exponent(seed, size):
    rng = np.random.default_rng(seed)
    weights = draw_frame(rng, *size)
    means = weights + 0.3 * rng.normal(size=size) / np.sqrt(size[1])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    bias = 0.1 * rng.normal(size=size[0])
    exponents = error_exponents(*(np.float32(a) for a in (means, weights, bias)))
    bound = np.mean(np.sum(means * weights, axis=1)) ** 2 * optimal_exponent(size[0])
    assert float(overall_exponent(exponents)) <= bound * (1 + 1e-5)


def test_a_bias_lifts_one_class_above_its_bound_at_the_cost_of_another():
    means = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
    exponents = error_exponents(means, means, np.array([0.5, 0.0], np.float32))
    np.testing.assert_allclose(exponents, [1.25**2 / 2, 0.75**2 / 2], rtol=1e-6)


def test_classes_that_share_their_weights_tie_or_differ_by_their_bias():
    means, weights = np.eye(3, dtype=np.float32), np.ones((3, 3), np.float32)
    distances = boundary_distances(means, weights, np.array([1.0, 0.0, 0.0], np.float32))
    infinite = [[np.inf, np.inf, np.inf], [-np.inf, np.inf, -np.inf], [-np.inf, -np.inf, np.inf]]
    np.testing.assert_array_equal(distances, infinite)
    bias = jnp.array([1.0, 0.0, 0.0])
    np.testing.assert_array_equal(error_exponents(means, weights, bias), [np.inf, 0, 0])


def test_priors_take_classes_out_only_where_they_are_zero():
    exponents = jnp.array([0.3, 0.2, 0.1])
    for priors, desired in (([1, 1, 1], 0.1), ([10**6, 1, 0], 0.2), ([0.5, 0.0, 1e-9], 0.1)):
        found = jax.jit(overall_exponent)(exponents, np.array(priors))
        assert float(found) == pytest.approx(desired)
        assert float(overall_exponent(exponents, np.array(priors))) == float(found)


def test_exponents_compile_vectorise_and_have_finite_gradients():
    means, weights, bias = draw_classifier(3, 5, 4)
    weights[1] = weights[0]
    compiled = jax.jit(error_exponents)(means, weights, bias)
    np.testing.assert_allclose(compiled, error_exponents(means, weights, bias), rtol=1e-6)
    stacked = jnp.stack([weights, weights[::-1]])
    both = jax.vmap(error_exponents, in_axes=(None, 0))(means, stacked)
    np.testing.assert_allclose(both[1], error_exponents(means, weights[::-1]), rtol=1e-6)
    gradient = jax.grad(lambda w: jnp.sum(error_exponents(means, w, bias)))(jnp.asarray(weights))
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient != 0)


ONES = np.ones((3, 4), np.float32)
NOT_FINITE = np.where(np.arange(3)[:, None] == 1, np.nan, ONES).astype(np.float32)
REFUSED = {
    "a Flax kernel": (
        lambda: error_exponents(ONES, ONES.T),
        r"weights must be floating of shape \(3, 4\), got shape \(4, 3\).*pass kernel.T",
    ),
    "one class": (lambda: error_exponents(ONES[:1], ONES[:1]), "2 classes or more"),
    "a short bias": (
        lambda: error_exponents(ONES, ONES, np.ones(2, np.float32)),
        r"\(3,\).*\(2,\)",
    ),
    "a NaN": (
        lambda: error_exponents(ONES, NOT_FINITE),
        r"weights must be finite.*1 of 3 classes, first \[1\]",
    ),
    "one class alone": (lambda: optimal_exponent(1), "2 classes or more, got num_classes=1"),
    "degrees": (
        lambda: exponent_bounds(np.array([10.0, 3.0, 45.0], np.float32)),
        r"angles must be in \[0, pi\].*2 of 3 classes, first \[0, 2\].*pass radians",
    ),
    "a negative prior": (
        lambda: overall_exponent(np.ones(2, np.float32), np.array([1, -1])),
        r"priors must be finite and >= 0.*1 of 2 classes, first \[1\]",
    ),
    "no prior": (
        lambda: overall_exponent(np.ones(2, np.float32), np.zeros(2)),
        "All priors are 0",
    ),
    "too many priors": (
        lambda: overall_exponent(np.ones(2, np.float32), np.ones(3)),
        r"priors must be numbers of shape \(2,\).*\(3,\)",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_wrong_input_is_refused_saying_what(what, untyped):
    call, says = REFUSED[what]
    assert re.search(says, refusal(call))
