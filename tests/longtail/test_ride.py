"""RIDE: the distance between experts and their mean, and the loss of all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.longtail.ride import class_temperatures, diversity
from tests.longtail import reference
from tests.longtail.made_methods import loss_of, method

TEMPERATURES = np.array([1.0, 0.9, 0.7, 0.6, 0.5], np.float32)


def experts_of(seed):
    """Cosines of three experts, `(6, 3, 5)`."""
    each = [reference.problem(3 * seed + expert)[0] for expert in range(3)]
    return np.tanh(np.stack(each, axis=1) / 3).astype(np.float32)


@pytest.mark.parametrize("seed", range(2))
def test_the_distance_and_its_gradient_are_those_of_the_equation(seed):
    logits = 4 * experts_of(seed)
    found = diversity(logits, TEMPERATURES)
    np.testing.assert_allclose(found, reference.diversity(logits, TEMPERATURES), rtol=1e-5)
    gradient = jax.grad(lambda z: jnp.sum(diversity(z, TEMPERATURES)))(logits)
    means = np.float64(logits).mean(axis=1)
    desired = reference.central_differences(
        lambda z: reference.diversity(z, TEMPERATURES, means).sum(), np.float64(logits)
    )
    np.testing.assert_allclose(gradient, desired, rtol=1e-5, atol=2e-6)


def test_equal_experts_are_not_apart_and_have_no_reason_to_part():
    one = np.repeat(experts_of(0)[:, :1], 3, axis=1)
    value, gradient = jax.value_and_grad(lambda z: jnp.sum(diversity(z, TEMPERATURES)))(one)
    np.testing.assert_allclose(value, 0.0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_temperatures_go_with_the_sizes_of_classes():
    counts = np.array([5000, 387, 50])
    found = class_temperatures(counts, 0.05)
    np.testing.assert_allclose(found, reference.class_temperatures(counts, 0.05), rtol=1e-5)
    assert found[0] == 1 and found[1] > found[2] > 0.85
    np.testing.assert_allclose(class_temperatures(counts, 0.0), 1.0, rtol=1e-6)


@pytest.mark.parametrize("epoch", [3, 4])
def test_the_loss_is_that_of_all_experts_less_what_they_are_apart(epoch):
    """In epoch 3, which either is the first with class weights or is not."""
    cosines = experts_of(0)
    _, labels, mixed, counts = reference.problem(0)
    options = {"diversity": 0.4, "tilt": 0.3, "margin": 0.3, "scale": 10.0, "beta": 0.99}
    margins = reference.ldam_margins(counts, 0.3)
    for targets in (labels, mixed):
        weights, temperatures = np.ones(6), np.ones(5)
        if epoch == 3:
            of_class = reference.effective_number_weights(counts, 0.99)
            weights = reference.example_weights(of_class, targets)
            temperatures = reference.class_temperatures(counts, 0.3)
        learned = [
            reference.weighted_mean(reference.ldam(cosines[:, e], targets, margins, 10.0), weights)
            for e in range(3)
        ]
        apart = reference.diversity(10.0 * cosines, temperatures).mean()
        problem = (jnp.asarray(cosines), jnp.asarray(targets), counts)
        found = loss_of("ride", *problem, labels=labels, epoch=epoch, **options)
        assert found == pytest.approx(sum(learned) - 0.4 * apart, rel=1e-5)


def test_the_mean_of_all_experts_classifies():
    made = method("ride", experts=4, scale=8.0)
    cosines = jnp.asarray(np.concatenate([experts_of(0), experts_of(1)[:, :1]], axis=1))
    logits = made.test_logits(made.logits(cosines), jnp.ones(5))
    np.testing.assert_allclose(logits, 8 * np.asarray(cosines).mean(axis=1), rtol=1e-5)
    assert made.kernels == made.tested == made.aligned
    assert made.kernels == tuple(f"expert_{i}/kernel" for i in range(4))
