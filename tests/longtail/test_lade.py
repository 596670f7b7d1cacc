"""LADE's bound: against its equation, and what it is least for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.longtail import losses
from spa_jax.longtail.lade import lade_bound
from tests.longtail import reference
from tests.longtail.made_methods import loss_of
from tests.refusals import refusal

bound_and_gradient = jax.jit(jax.value_and_grad(lade_bound))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_the_bound_and_its_gradient_are_those_of_the_equation(seed, soft):
    """Six examples of five classes, so that the batch does not have all."""
    logits, labels, mixed, counts = reference.problem(seed)
    targets = mixed if soft else labels
    assert soft or len({*labels}) < 5
    value, gradient = bound_and_gradient(logits, targets, losses.log_prior(counts), 0.3)
    assert float(value) == pytest.approx(
        reference.lade_bound(logits, targets, counts, 0.3), rel=1e-5, abs=1e-5
    )
    desired = reference.central_differences(
        lambda z: reference.lade_bound(z, targets, counts, 0.3), np.float64(logits)
    )
    np.testing.assert_allclose(gradient, desired, rtol=1e-5, atol=2e-6)


def test_the_bound_is_least_where_logits_are_log_density_ratios_under_balanced_classes():
    """Two letters that the classes write with other probabilities, and a batch as the prior is."""
    written = np.array([[0.8, 0.2], [0.25, 0.75]])  # of each letter, by class
    pairs = [(0, 0)] * 12 + [(0, 1)] * 3 + [(1, 0)] * 1 + [(1, 1)] * 3  # class, letter
    counts = np.array([15, 4])
    ratios = np.log(written / written.mean(axis=0)).T  # by letter and class
    labels = np.array([c for c, _ in pairs])
    at = np.array([x for _, x in pairs])

    @jax.jit
    @jax.grad
    def gradient_at(table):
        return lade_bound(table[at], jnp.asarray(labels), losses.log_prior(counts), 0.5)

    np.testing.assert_allclose(gradient_at(np.float32(ratios)), 0.0, atol=1e-6)
    assert np.abs(gradient_at(np.zeros((2, 2), np.float32))).max() > 0.05


def test_the_loss_is_balanced_softmax_and_the_bound_by_its_weight():
    logits, labels, _, counts = reference.problem(2)
    plain = reference.balanced_softmax(logits, labels, counts).mean()
    bound = reference.lade_bound(logits, labels, counts, 0.2)
    found = loss_of(
        "lade", jnp.asarray(logits), jnp.asarray(labels), counts, weight=0.7, penalty=0.2
    )
    assert found == pytest.approx(plain + 0.7 * bound, rel=1e-5)


def test_a_prior_of_other_classes_is_refused(untyped):
    logits, labels, _, _ = reference.problem(0)
    assert "log_prior must have shape (5,)" in refusal(
        lambda: lade_bound(logits, labels, np.zeros(3, np.float32))
    )
