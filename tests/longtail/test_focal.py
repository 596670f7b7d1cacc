"""Focal loss between its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.longtail.focal import focal
from spa_jax.longtail.losses import cross_entropy
from tests.longtail import reference
from tests.longtail.made_methods import loss_of


def test_without_focusing_it_is_cross_entropy():
    logits, labels, mixed, _ = reference.problem(0)
    for targets in (labels, mixed):
        plain = cross_entropy(logits, targets)
        np.testing.assert_allclose(focal(logits, targets, 0.0), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 5.0])
def test_the_option_reaches_the_loss(gamma):
    logits, labels, _, counts = reference.problem(1)
    expected = reference.focal(logits, labels, gamma).mean()
    found = loss_of("focal", jnp.asarray(logits), jnp.asarray(labels), counts, gamma=gamma)
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_perfect_prediction_has_a_finite_gradient_for_a_root_too():
    """Where a root of 1 - p would have an infinite one, times a loss of zero."""
    logits = jnp.array([[200.0, 0.0], [0.0, 200.0]])
    labels = jnp.array([0, 0])
    value, gradient = jax.value_and_grad(lambda z: jnp.sum(focal(z, labels, 0.5)))(logits)
    assert float(value) == pytest.approx(200.0, rel=1e-6)
    np.testing.assert_allclose(gradient, [[0.0, 0.0], [-1.0, 1.0]], atol=1e-6)
