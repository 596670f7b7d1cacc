"""Losses on logits: against float64 equations, their identities, extreme and wrong inputs."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spa_jax.longtail import losses
from spa_jax.longtail.arb import arb
from spa_jax.longtail.focal import focal
from spa_jax.longtail.label_smoothing import label_aware_shares, smooth_targets
from tests.longtail import reference
from tests.refusals import refusal

properties = settings(max_examples=60, deadline=None, derandomize=True)
seeds = pytest.mark.parametrize("seed", range(4))
kinds = pytest.mark.parametrize("kind", ["labels", "soft"])
# Shapes are few, since each costs a compilation.
problems = st.builds(
    reference.problem,
    seed=st.integers(0, 2**32 - 1),
    batch=st.just(4),
    num_classes=st.sampled_from([2, 7]),
    scale=st.sampled_from([0.1, 3.0, 12.0]),
    imbalance=st.floats(1.0, 500.0),
)


def adjusted(logits, targets, counts):
    return losses.logit_adjusted(logits, targets, losses.log_prior(counts), 1.5)


def smoothed(logits, targets, counts):
    return losses.cross_entropy(
        logits, smooth_targets(targets, label_aware_shares(counts, 0.4, 0.1))
    )


# Each loss, and its equation, as functions of logits, targets and counts.
LOSSES = {
    "cross_entropy": (
        lambda z, t, n: losses.cross_entropy(z, t),
        lambda z, t, n: reference.cross_entropy(z, t),
    ),
    "logit_adjusted": (adjusted, lambda z, t, n: reference.logit_adjusted(z, t, n, 1.5)),
    "arb": (arb, reference.arb),
    "focal": (lambda z, t, n: focal(z, t, 2.0), lambda z, t, n: reference.focal(z, t, 2.0)),
    "label_aware": (
        smoothed,
        lambda z, t, n: reference.smoothed(z, t, reference.label_aware_shares(n, 0.4, 0.1)),
    ),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradient(name, logits, targets, counts, cotangent):
    """The losses, and the gradient in the logits of their sum with the cotangent."""
    value, pull = jax.vjp(lambda z: LOSSES[name][0](z, targets, counts), logits)
    return value, *pull(cotangent)


def assert_value_and_gradient(name, logits, targets, counts):
    """The loss and its gradient in the logits are those of the float64 equation."""
    _, equation = LOSSES[name]
    cotangent = np.cos(np.arange(len(logits)))
    value, gradient = value_and_gradient(name, logits, targets, counts, np.float32(cotangent))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, equation(logits, targets, counts), rtol=1e-5, atol=2e-6)
    desired = reference.central_differences(
        lambda z: cotangent @ equation(z, targets, counts), logits.astype(np.float64)
    )
    np.testing.assert_allclose(gradient, desired, rtol=1e-5, atol=2e-6)


@every_loss
@kinds
@seeds
def test_a_loss_and_its_gradient_are_those_of_the_equation(name, kind, seed):
    logits, labels, mixed, counts = reference.problem(seed)
    assert_value_and_gradient(name, logits, labels if kind == "labels" else mixed, counts)


@every_loss
@properties
@given(drawn=problems, soft=st.booleans())
def test_values_agree_over_scales_and_imbalances(name, drawn, soft):
    logits, labels, mixed, counts = drawn
    targets = mixed if soft else labels
    value, _ = value_and_gradient(name, logits, targets, counts, np.ones(4, np.float32))
    desired = LOSSES[name][1](logits, targets, counts)
    np.testing.assert_allclose(value, desired, rtol=1e-5, atol=5e-6)


@every_loss
@kinds
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extreme_logits_give_finite_values_and_gradients(name, kind, scale):
    logits, labels, mixed, counts = reference.problem(0)
    logits = scale * np.sign(logits)
    logits[0] = scale
    targets = labels if kind == "labels" else mixed
    value, gradient = value_and_gradient(name, logits, targets, counts, np.ones(6, np.float32))
    desired = LOSSES[name][1](logits, targets, counts)
    # A prior of size 1 is rounded when it is added to a logit of size 1e4.
    atol = 2e-3 if name == "logit_adjusted" else 1e-6
    np.testing.assert_allclose(value, desired, rtol=1e-5, atol=atol)
    assert np.all(np.isfinite(gradient))


@every_loss
@kinds
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_logits_are_widened_first(name, kind, dtype):
    logits, labels, mixed, counts = reference.problem(1)
    targets, (loss, _) = labels if kind == "labels" else mixed, LOSSES[name]
    short = jnp.asarray(logits, dtype)
    value = loss(short, targets, counts)
    assert value.dtype == jnp.float32
    np.testing.assert_array_equal(value, loss(short.astype(jnp.float32), targets, counts))


@every_loss
def test_one_hot_targets_are_labels_and_the_loss_is_linear_in_targets(name):
    logits, labels, mixed, counts = reference.problem(2)
    loss, _ = LOSSES[name]
    rows = np.eye(5, dtype=np.float32)[labels]
    by_label = loss(logits, labels, counts)
    np.testing.assert_allclose(loss(logits, rows, counts), by_label, rtol=1e-6)
    twice = loss(logits, 2 * mixed, counts)
    np.testing.assert_allclose(twice, 2 * loss(logits, mixed, counts), rtol=1e-6)


@every_loss
def test_a_loss_is_the_same_without_compilation(name):
    logits, labels, mixed, counts = reference.problem(3)
    for targets in (labels, mixed):
        value, _ = value_and_gradient(name, logits, targets, counts, np.ones(6, np.float32))
        eager = LOSSES[name][0](logits, targets, counts)
        np.testing.assert_allclose(eager, value, rtol=1e-5, atol=1e-6)


@kinds
@seeds
def test_balanced_softmax_is_logit_adjustment_and_arb_with_global_counts(kind, seed):
    logits, labels, mixed, counts = reference.problem(seed)
    targets = labels if kind == "labels" else mixed
    desired = reference.balanced_softmax(logits, targets, counts)
    assert np.abs(desired - reference.cross_entropy(logits, targets)).max() > 0.1
    by_share = losses.logit_adjusted(logits, targets, losses.log_prior(counts))
    by_count = losses.logit_adjusted(logits, targets, np.log(counts))
    by_ratio = arb(logits, targets, counts)
    for value in (by_share, by_count, by_ratio):
        np.testing.assert_allclose(value, desired, rtol=1e-5, atol=2e-6)


def test_the_log_prior_is_the_logarithm_of_the_shares():
    counts = np.array([5000, 500, 50, 5])
    prior = losses.log_prior(counts)
    np.testing.assert_allclose(prior, np.log(counts / 5555), rtol=1e-6)
    assert np.exp(prior).sum() == pytest.approx(1.0, rel=1e-6)


def test_post_hoc_adjustment_takes_off_what_the_loss_adds():
    logits, labels, _, counts = reference.problem(0)
    prior = losses.log_prior(counts)
    adjusted_logits = losses.adjust_logits(logits, prior, 0.7)
    desired = logits - 0.7 * np.log(counts / counts.sum())
    np.testing.assert_allclose(adjusted_logits, desired, rtol=1e-5)
    back = losses.logit_adjusted(adjusted_logits, labels, prior, jnp.float32(0.7))
    np.testing.assert_allclose(back, reference.cross_entropy(logits, labels), rtol=1e-5, atol=1e-6)


def test_a_class_taken_out_by_minus_infinity_leaves_a_finite_loss():
    logits = jnp.array([[1.0, -jnp.inf, 2.0]])
    loss = jax.jit(lambda z: losses.cross_entropy(z, jnp.array([0]))[0])
    value, gradient = jax.value_and_grad(loss)(logits)
    without = reference.cross_entropy(np.array([[1.0, 2.0]]), [0])[0]
    assert float(value) == pytest.approx(without, rel=1e-6)
    share = np.exp(-without)
    np.testing.assert_allclose(gradient, [[share - 1, 0.0, 1 - share]], atol=1e-6)


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0, np.float32(0.25), np.linspace(0, 1, 6)])
def test_mixed_targets_are_both_labels_with_their_shares(lam):
    _, labels, _, _ = reference.problem(0)
    _, partners, _, _ = reference.problem(1)
    share = jnp.asarray(lam, jnp.float32)
    targets = np.asarray(losses.mix_targets(labels, partners, share, 5))
    desired = np.zeros((6, 5))
    for i, (a, b, s) in enumerate(zip(labels, partners, np.broadcast_to(lam, 6), strict=True)):
        desired[i, a] += s
        desired[i, b] += 1 - s
    np.testing.assert_allclose(targets, desired, rtol=1e-6, atol=1e-7)
    logits = reference.problem(2)[0]
    mixed = np.broadcast_to(lam, 6) * reference.cross_entropy(logits, labels)
    mixed += (1 - np.broadcast_to(lam, 6)) * reference.cross_entropy(logits, partners)
    np.testing.assert_allclose(losses.cross_entropy(logits, targets), mixed, rtol=1e-5)


@every_loss
@pytest.mark.parametrize("label", [-1, 5])
def test_a_traced_label_outside_the_classes_has_loss_zero(name, label):
    logits, labels, _, counts = reference.problem(3)
    labels[2] = label
    value, gradient = value_and_gradient(name, logits, labels, counts, np.ones(6, np.float32))
    kept = np.arange(6) != 2
    desired = LOSSES[name][1](logits[kept], labels[kept], counts)
    np.testing.assert_allclose(value[kept], desired, rtol=1e-5, atol=1e-6)
    assert float(value[2]) == 0
    assert not np.any(gradient[2])


LOGITS = np.zeros((2, 3), np.float32)
ONES = np.ones(3, np.float32)
REFUSED = {
    "a label below": (lambda: losses.cross_entropy(LOGITS, np.array([0, -1])), r"\[0, 3\).*\[-1\]"),
    "a label above": (lambda: arb(LOGITS, np.array([3, 0]), ONES), r"\[0, 3\).*\[3\]"),
    "too few labels": (lambda: losses.cross_entropy(LOGITS, np.array([0])), r"\(2,\).*\(1,\)"),
    "float labels": (lambda: losses.cross_entropy(LOGITS, np.zeros(2)), "float64"),
    "soft targets below 0": (lambda: losses.cross_entropy(LOGITS, LOGITS - 1), ">= 0"),
    "soft targets of other classes": (
        lambda: losses.cross_entropy(LOGITS, np.ones((2, 4), np.float32)),
        r"\(2, 3\).*\(2, 4\)",
    ),
    "integer logits": (lambda: losses.cross_entropy(LOGITS.astype(int), np.zeros(2, int)), "int64"),
    "logits of one axis": (lambda: losses.cross_entropy(ONES, np.zeros(3, int)), r"\(3,\)"),
    "no example": (lambda: losses.cross_entropy(LOGITS[:0], np.zeros(0, int)), "no example"),
    "an empty class": (
        lambda: losses.log_prior(np.array([9, 0, 3, 0, -2, 0])),
        r"4 of 6 .*\(class 1: 0, class 3: 0, class 4: -2\).*training set",
    ),
    "a count that is no number": (lambda: losses.log_prior(ONES * np.nan), "class 0: nan"),
    "a prior of other classes": (
        lambda: losses.logit_adjusted(LOGITS, np.zeros(2, int), ONES[:1]),
        r"log_prior must have shape \(3,\).*\(1,\)",
    ),
    "a prior of other classes, post hoc": (
        lambda: losses.adjust_logits(LOGITS, np.ones(4, np.float32)),
        r"log_prior must have shape \(3,\).*\(4,\)",
    ),
    "counts of other classes": (
        lambda: arb(LOGITS, np.zeros(2, int), np.ones(1)),
        r"counts must have shape \(3,\).*\(1,\)",
    ),
    "no count": (lambda: arb(LOGITS, np.zeros(2, int), 0 * ONES), "not all 0.*batch_counts"),
    "a negative count": (
        lambda: arb(LOGITS, np.zeros(2, int), np.array([1, -1, 1])),
        r">= 0.*\[1, -1, 1\]",
    ),
    "a share above 1": (
        lambda: losses.mix_targets(np.zeros(2, int), np.zeros(2, int), 1.5, 3),
        r"\[0, 1\], got 1.5",
    ),
    "a label to count": (lambda: losses.batch_counts(np.array([7]), 3), r"\[0, 3\).*\[7\]"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_wrong_input_is_refused_saying_what_and_what_to_do(what, untyped):
    call, says = REFUSED[what]
    assert re.search(says, refusal(call))


def test_a_label_of_eight_bits_is_its_class_in_every_encoding():
    labels, num_classes = np.array([5, 200], np.uint8), 300
    counts = losses.batch_counts(labels, num_classes)
    assert np.flatnonzero(counts).tolist() == [5, 200]
    mixed = losses.mix_targets(labels, labels[::-1].copy(), 0.75, num_classes)
    assert np.flatnonzero(mixed[0]).tolist() == [5, 200] and mixed.sum() == 2
    logits = jnp.zeros((2, num_classes))
    wide = losses.cross_entropy(logits, labels.astype(np.int32))
    np.testing.assert_array_equal(losses.cross_entropy(logits, labels), wide)
