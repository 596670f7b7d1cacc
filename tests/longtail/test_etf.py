"""Dot regression: its equation, its gradient with lengths held, zero features, and rescaling."""

import re

import jax
import numpy as np
import pytest

import spa_jax
from spa_jax.longtail.etf import dot_regression, rescaled_prototypes
from spa_jax.longtail.losses import batch_counts
from tests.longtail import reference
from tests.refusals import refusal

seeds = pytest.mark.parametrize("seed", range(4))
kinds = pytest.mark.parametrize("kind", ["labels", "soft"])


def problem(seed, kind, rescaled=True):
    """Features (6, 7), targets and prototypes of unequal lengths."""
    _, labels, mixed, _ = reference.problem(seed)
    features = np.random.default_rng(seed).normal(size=(6, 7)).astype(np.float32)
    etf = np.asarray(spa_jax.simplex_etf(5, 7, jax.random.key(seed)))
    prototypes = reference.rescaled_prototypes(etf, labels) if rescaled else etf
    return features, labels if kind == "labels" else mixed, prototypes.astype(np.float32)


@jax.jit
def loss_and_gradient(features, targets, prototypes, cotangent):
    value, pull = jax.vjp(lambda h: dot_regression(h, targets, prototypes), features)
    return value, *pull(cotangent)


@kinds
@seeds
def test_value_and_gradient_are_those_of_the_equation_with_lengths_held(kind, seed):
    features, targets, prototypes = problem(seed, kind)
    cotangent = np.cos(np.arange(6))
    value, gradient = loss_and_gradient(features, targets, prototypes, np.float32(cotangent))
    desired = reference.dot_regression(features, targets, prototypes)
    np.testing.assert_allclose(value, desired, rtol=1e-5, atol=1e-6)
    lengths = np.linalg.norm(features.astype(np.float64), axis=1)
    desired = reference.central_differences(
        lambda h: cotangent @ reference.dot_regression(h, targets, prototypes, lengths), features
    )
    np.testing.assert_allclose(gradient, desired, rtol=1e-5, atol=2e-6)


@seeds
def test_the_gradient_is_one_minus_the_cosine_along_the_prototype(seed):
    features, labels, etf = problem(seed, "labels", rescaled=False)
    _, gradient = loss_and_gradient(features, labels, etf, np.ones(6, np.float32))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = np.sum(unit * etf[labels], axis=1, keepdims=True)
    np.testing.assert_allclose(gradient, -(1 - cosines) * etf[labels], rtol=1e-5, atol=1e-6)


def test_a_feature_along_its_prototype_has_loss_and_gradient_zero():
    etf = np.asarray(spa_jax.simplex_etf(4, 3))
    lengths = np.array([[0.1], [1.0], [7.0], [100.0]], np.float32)
    value, gradient = loss_and_gradient(lengths * etf, np.arange(4), etf, np.ones(4, np.float32))
    np.testing.assert_allclose(value, 0.0, atol=1e-10)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


@kinds
@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-10, 1e19, 1e30])
def test_values_and_gradients_are_finite_for_features_of_any_length(kind, length):
    features, targets, prototypes = problem(0, kind)
    ones = np.ones(6, np.float32)
    value, gradient = loss_and_gradient(np.float32(length) * features, targets, prototypes, ones)
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(gradient))
    assert np.all(value <= 2 * max(length, 1e-8) * 100)
    if length > 1:
        usual = loss_and_gradient(features, targets, prototypes, ones)
        np.testing.assert_allclose(value / length, usual[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(gradient, usual[1], rtol=1e-4, atol=1e-5)


def test_a_zero_feature_is_pulled_along_its_prototype():
    etf = np.asarray(spa_jax.simplex_etf(3, 4))
    _, gradient = loss_and_gradient(
        np.zeros((3, 4), np.float32), np.arange(3), etf, np.ones(3, np.float32)
    )
    np.testing.assert_allclose(gradient, -etf, rtol=1e-5, atol=1e-7)


def test_no_gradient_flows_to_the_prototypes():
    features, labels, prototypes = problem(1, "labels")
    total = jax.jit(lambda m: dot_regression(features, labels, m).sum())
    gradient = jax.grad(total)(prototypes)
    assert not np.any(gradient)


@seeds
def test_prototypes_are_rescaled_by_the_counts_of_the_batch(seed):
    _, labels, _, _ = reference.problem(seed)
    labels = labels % 4  # class 4 is absent
    etf = spa_jax.simplex_etf(5, 6)
    found = rescaled_prototypes(etf, batch_counts(labels, 5))
    np.testing.assert_allclose(found, reference.rescaled_prototypes(etf, labels), rtol=1e-5)
    np.testing.assert_array_equal(found[4], etf[4])


def test_a_balanced_batch_and_an_empty_one_leave_the_prototypes():
    etf = spa_jax.simplex_etf(3, 3)
    for counts in (np.array([4, 4, 4]), np.zeros(3), np.array([0, 7, 0])):
        np.testing.assert_allclose(rescaled_prototypes(etf, counts), etf, rtol=1e-6)


FEATURES, ETF = np.ones((2, 3), np.float32), np.eye(4, 3, dtype=np.float32)
REFUSED = {
    "a label outside": (
        lambda: dot_regression(FEATURES, np.array([0, 4]), ETF),
        r"\[0, 4\).*\[4\]",
    ),
    "integer features": (
        lambda: dot_regression(FEATURES.astype(int), np.array([0, 1]), ETF),
        "features must be a floating matrix.*int64",
    ),
    "counts of other classes": (
        lambda: rescaled_prototypes(ETF, np.ones(3)),
        r"counts must have shape \(4,\).*\(3,\)",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_wrong_input_is_refused_saying_what(what, untyped):
    call, says = REFUSED[what]
    assert re.search(says, refusal(call))
