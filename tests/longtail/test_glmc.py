"""GLMC: class weights, re-weighted labels, the cumulative weight, similarity, the whole loss."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spa_jax.longtail import glmc
from spa_jax.longtail.losses import cross_entropy, mix_targets, weighted_targets
from tests.longtail import reference
from tests.refusals import refusal

properties = settings(max_examples=60, deadline=None, derandomize=True)
seeds = pytest.mark.parametrize("seed", range(3))
kinds = pytest.mark.parametrize("kind", ["labels", "soft"])
many_counts = st.lists(st.integers(1, 10**6), min_size=4, max_size=4).map(np.array)


def draw_views(seed):
    """Two views of 6 examples: logits of 5 classes twice, and embeddings of width 3 twice."""
    rng = np.random.default_rng(seed)
    shapes = ((6, 5), (6, 5), (6, 3), (6, 3))
    return [tuple(rng.normal(size=s).astype(np.float32) for s in shapes) for _ in range(2)]


@properties
@given(many_counts, st.sampled_from([0.0, 0.2, 1.0, 1.1, 1.2, 2.0]))
def test_class_weights_are_inverse_powers_of_mean_one(counts, power):
    found = glmc.class_weights(counts, power)
    np.testing.assert_allclose(found, reference.power_weights(counts, power), rtol=1e-5)
    assert float(found.sum()) == pytest.approx(4, rel=1e-5)


def test_reweighted_labels_are_mixed_after_weighting_and_not_renormalised():
    _, labels, _, counts = reference.problem(0)
    _, partners, _, _ = reference.problem(1)
    weights = np.asarray(glmc.class_weights(counts, 1.2))
    found = weighted_targets(mix_targets(labels, partners, 0.3, 5), weights)
    desired = 0.3 * np.diag(weights)[labels] + 0.7 * np.diag(weights)[partners]
    np.testing.assert_allclose(found, desired, rtol=1e-5)
    assert np.abs(found.sum(axis=1) - 1).max() > 0.1
    by_label = weighted_targets(labels, weights)
    np.testing.assert_array_equal(by_label, np.diag(weights)[labels])
    logits = draw_views(0)[0][0]
    desired = -np.sum(found * jax.nn.log_softmax(logits), axis=1)
    np.testing.assert_allclose(cross_entropy(logits, found), desired, rtol=1e-5)


def test_the_cumulative_weight_falls_from_one_as_a_parabola():
    found = [glmc.cumulative_weight(epoch, 200).item() for epoch in range(200)]
    desired = 1 - (np.arange(200) / 200) ** 2
    np.testing.assert_allclose(found, desired, rtol=1e-6, atol=1e-7)
    traced = jax.jit(lambda epoch: glmc.cumulative_weight(epoch, 200))
    assert float(traced(150)) == pytest.approx(0.4375)
    assert float(traced(jnp.float32(150.5))) == pytest.approx(1 - 0.7525**2)


@seeds
def test_similarity_crosses_the_views(seed):
    (_, _, z_g, p_g), (_, _, z_l, p_l) = draw_views(seed)
    found = glmc.similarity(p_g, z_l, p_l, z_g)
    np.testing.assert_allclose(found, reference.similarity(p_g, z_l, p_l, z_g), rtol=1e-5)


@seeds
def test_similarity_moves_predictions_only(seed):
    (_, _, z_g, p_g), (_, _, z_l, p_l) = draw_views(seed)
    arguments = (p_g, z_l, p_l, z_g)
    total = jax.jit(lambda *arrays: glmc.similarity(*arrays).sum())
    to_p_g, to_z_l, to_p_l, to_z_g = jax.grad(total, argnums=(0, 1, 2, 3))(*arguments)
    assert not np.any(to_z_l)
    assert not np.any(to_z_g)
    for gradient, place in ((to_p_g, 0), (to_p_l, 2)):

        def equation(p, place=place):
            changed = [*arguments[:place], p, *arguments[place + 1 :]]
            return reference.similarity(*changed).sum()

        desired = reference.central_differences(equation, arguments[place])
        np.testing.assert_allclose(gradient, desired, rtol=1e-5, atol=1e-6)


def test_similarity_of_parallel_opposite_and_zero_vectors():
    ones, zeros = jnp.ones((1, 3)), jnp.zeros((1, 3))
    assert float(glmc.similarity(2 * ones, ones, 3 * ones, ones)[0]) == pytest.approx(-2)
    assert float(glmc.similarity(-ones, ones, -ones, ones)[0]) == pytest.approx(2)
    of_zeros = jax.jit(lambda p: glmc.similarity(p, ones, p, ones)[0])
    value, gradient = jax.value_and_grad(of_zeros)(zeros)
    assert float(value) == 0
    assert np.all(np.isfinite(gradient))


@kinds
@seeds
@pytest.mark.parametrize("alpha", [1.0, 0.36, 0.0])
def test_the_loss_and_its_parts_are_those_of_the_equation(kind, seed, alpha):
    _, labels, mixed, counts = reference.problem(seed)
    targets = labels if kind == "labels" else mixed
    views, weights = draw_views(seed), reference.power_weights(counts, 1.2)
    outputs = [glmc.ViewOutputs(*view) for view in views]
    found = glmc.glmc_loss(*outputs, targets, np.float32(weights), alpha, 4.0)
    desired = reference.glmc(views, targets, weights, alpha, 4.0)
    assert found._fields == ("total", "plain", "rebalanced", "similarity")
    for value, wanted in zip(found, desired, strict=True):
        assert value.shape == (6,)
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)


def test_gradients_of_the_loss_reach_each_output_with_its_weight():
    _, _, mixed, counts = reference.problem(0)
    views, weights = draw_views(0), reference.power_weights(counts, 1.0)

    def total(*views):
        losses = glmc.glmc_loss(*views, mixed, np.float32(weights), 0.75, 4.0)
        return losses.total.sum()

    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))(*(glmc.ViewOutputs(*v) for v in views))
    for v, gradient in enumerate(gradients):
        assert not np.any(gradient.projection)
        for k in (0, 1, 3):

            def equation(x, v=v, k=k):
                changed = [list(view) for view in views]
                changed[v][k] = x
                return reference.glmc(changed, mixed, weights, 0.75, 4.0)[0].sum()

            desired = reference.central_differences(equation, views[v][k])
            np.testing.assert_allclose(gradient[k], desired, rtol=1e-5, atol=2e-6)


REFUSED = {
    "an empty class": (
        lambda: glmc.class_weights(np.array([0, 3]), 1.2),
        r"1 of 2 .*class 0: 0.*inverse power",
    ),
    "no epoch": (lambda: glmc.cumulative_weight(0, 0), "epochs must be 1 or more, got 0"),
    "a label outside": (
        lambda: weighted_targets(np.array([2, -1]), np.ones(3)),
        r"\[0, 3\).*\[-1\]",
    ),
    "weights of other classes": (
        lambda: weighted_targets(np.ones((2, 4), np.float32), np.ones(3)),
        r"\(2, 3\).*\(2, 4\)",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_wrong_input_is_refused_saying_what(what, untyped):
    call, says = REFUSED[what]
    assert re.search(says, refusal(call))
