"""ARB: classes absent from the batch, the clamp, and the counts of the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from spa_jax.longtail.arb import arb
from spa_jax.longtail.losses import batch_counts
from tests.longtail import reference

kinds = pytest.mark.parametrize("kind", ["labels", "soft"])


@jax.jit
def value_and_gradient(logits, targets, counts, cotangent):
    """The losses, and the gradient in the logits of their sum with the cotangent."""
    value, pull = jax.vjp(lambda z: arb(z, targets, counts), logits)
    return value, *pull(cotangent)


def assert_value_and_gradient(logits, targets, counts):
    """The loss and its gradient in the logits are those of the float64 equation."""
    cotangent = np.cos(np.arange(6))
    value, gradient = value_and_gradient(logits, targets, counts, np.float32(cotangent))
    desired = reference.arb(logits, targets, counts)
    np.testing.assert_allclose(value, desired, rtol=1e-5, atol=2e-6)
    desired = reference.central_differences(
        lambda z: cotangent @ reference.arb(z, targets, counts), logits
    )
    np.testing.assert_allclose(gradient, desired, rtol=1e-5, atol=2e-6)


@kinds
def test_arb_leaves_classes_out_that_are_absent_from_the_batch(kind):
    logits, labels, _, _ = reference.problem(4)
    labels = labels % 3  # classes 3 and 4 are absent
    mixed = 0.3 * np.eye(5)[labels] + 0.7 * np.eye(5)[labels[::-1]]
    counts = batch_counts(labels, 5)
    targets = labels if kind == "labels" else mixed
    assert_value_and_gradient(logits, targets, counts)
    value, gradient = value_and_gradient(logits, targets, counts, np.ones(6, np.float32))
    present = targets if kind == "labels" else targets[:, :3]
    without = reference.balanced_softmax(logits[:, :3], present, np.asarray(counts[:3]))
    np.testing.assert_allclose(value, without, rtol=1e-5)
    assert not np.any(gradient[:, 3:])


@kinds
def test_arb_counts_an_absent_target_class_once(kind):
    logits, labels, mixed, _ = reference.problem(5)
    counts = np.array([4, 0, 2, 0, 0])
    assert set(labels) & {1, 3, 4}
    assert_value_and_gradient(logits, labels if kind == "labels" else mixed, counts)


def test_arb_is_finite_for_traced_counts_that_are_all_zero():
    logits, labels, _, _ = reference.problem(6)
    targets = np.append(labels[:-1], -1)  # the last example has no class either
    ones = np.ones(6, np.float32)
    value, gradient = value_and_gradient(logits, targets, jnp.zeros(5), ones)
    assert not np.any(value)  # each target class is the only one in its sum
    assert not np.any(gradient)


def test_the_arb_clamp_has_the_gradient_of_a_clamp_that_includes_its_limits():
    logits = jnp.array([[30.0, 0.0, -30.0], [30.5, 0.0, -31.0], [2.0, 28.0, 0.0]])
    targets, counts = jnp.array([1, 1, 1]), jnp.array([2.0, 1.0, 3.0])
    _, gradient = value_and_gradient(logits, targets, counts, jnp.ones(3))
    clamped = np.clip(np.asarray(logits, np.float64), -30, 30)
    inside = reference.central_differences(
        lambda z: reference.balanced_softmax(z, targets, counts).sum(), clamped
    )
    beyond = np.abs(logits) > 30
    np.testing.assert_array_equal(gradient[beyond], 0.0)
    np.testing.assert_allclose(gradient[~beyond], inside[~beyond], rtol=1e-5, atol=1e-6)
    assert gradient[0, 0] > 0.9  # at the limit, with a share of nearly 1


def test_batch_counts_count_every_class():
    counts = batch_counts(np.array([3, 0, 3, 3]), 5)
    np.testing.assert_array_equal(counts, np.array([1, 0, 0, 3, 0], np.float32), strict=True)


def test_batch_counts_and_arb_are_those_of_the_whole_batch_on_eight_devices():
    logits, labels, _, _ = reference.problem(7, batch=16)
    labels = np.sort(labels)  # the devices hold different classes

    def part(z, y):
        counts = batch_counts(y, 5, axis_name="data")
        return counts, arb(z, y, counts)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    run = jax.shard_map(
        part, mesh=mesh, in_specs=P("data"), out_specs=(P(), P("data")), check_vma=False
    )
    counts, values = jax.jit(run)(logits, labels)
    desired = np.bincount(labels, minlength=5)
    np.testing.assert_array_equal(counts, desired)
    whole = reference.arb(logits, labels, desired)
    np.testing.assert_allclose(np.ravel(values), whole, rtol=1e-5, atol=2e-6)
