"""Balanced contrastive learning: its loss, and the method's head and views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.longtail.bcl import balanced_contrastive
from spa_jax.models.heads import BclOutputs
from tests.longtail import reference
from tests.longtail.made_methods import loss_of

contrastive = jax.jit(balanced_contrastive)
contrastive_and_gradient = jax.jit(
    jax.value_and_grad(lambda z, p, y, t: jnp.mean(balanced_contrastive(z, y, p, t)), (0, 1))
)


def problem(seed, size=7, classes=4):
    """Embeddings, labels of which class 3 has none, and prototypes."""
    generator = np.random.default_rng(seed)
    embeddings = generator.normal(size=(size, 5)).astype(np.float32)
    labels = generator.integers(0, classes - 1, size)
    labels[:2] = 0, 1  # of which class 2 has the rest or none
    return embeddings, labels, generator.normal(size=(classes, 5)).astype(np.float32)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("seed", range(2))
def test_the_loss_and_its_gradients_are_those_of_the_equation(seed, temperature):
    embeddings, labels, prototypes = problem(seed)
    value, gradients = contrastive_and_gradient(embeddings, prototypes, labels, temperature)

    def mean(z, p):
        return reference.balanced_contrastive(z, labels, p, temperature).mean()

    assert float(value) == pytest.approx(mean(embeddings, prototypes), rel=1e-5)
    wide = np.float64(embeddings), np.float64(prototypes)
    desired = (
        reference.central_differences(lambda z: mean(z, wide[1]), wide[0]),
        reference.central_differences(lambda p: mean(wide[0], p), wide[1]),
    )
    for found, expected in zip(gradients, desired, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=5e-6)


def test_a_class_counts_alike_however_many_of_its_examples_the_batch_has():
    """One example and a prototype like it, or six: the average over the class is the same."""
    embeddings, labels, prototypes = problem(0)
    of_one = labels == 1
    prototypes[1] = embeddings[of_one][0]
    losses = []
    for copies in (1, 6):
        rows = np.concatenate([embeddings[~of_one], np.repeat(prototypes[1:2], copies, axis=0)])
        of_rows = np.concatenate([labels[~of_one], np.ones(copies, int)])
        losses.append(contrastive(rows, of_rows, prototypes)[: np.sum(~of_one)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_a_traced_label_outside_the_classes_is_left_out():
    embeddings, labels, prototypes = problem(1)
    outside = labels.copy()
    outside[2] = 9
    value = contrastive(embeddings, outside, prototypes)
    kept = np.arange(len(labels)) != 2
    desired = reference.balanced_contrastive(embeddings[kept], labels[kept], prototypes, 0.1)
    np.testing.assert_allclose(value[kept], desired, rtol=1e-5)
    assert float(value[2]) == 0


def test_the_methods_loss_is_that_of_both_views_with_their_weights():
    logits, labels, _, counts = reference.problem(0)
    cosines = np.tanh([logits / 3, logits[::-1] / 3]).astype(np.float32)
    generator = np.random.default_rng(0)
    projected = generator.normal(size=(2, 6, 3)).astype(np.float32)
    prototypes = generator.normal(size=(5, 3)).astype(np.float32)
    outputs = tuple(
        BclOutputs(*map(jnp.asarray, (cosines[v], projected[v], prototypes))) for v in range(2)
    )
    options = {"weight": 0.6, "temperature": 0.2, "scale": 16.0}
    found = loss_of("bcl", outputs, jnp.asarray(labels), counts, **options)
    adjusted = [reference.logit_adjusted(16 * c, labels, counts, 1.0).mean() for c in cosines]
    contrasted = reference.balanced_contrastive(
        projected.reshape(12, 3), np.tile(labels, 2), prototypes, 0.2
    )
    assert found == pytest.approx(np.mean(adjusted) + 0.6 * contrasted.mean(), rel=1e-5)
