"""LDAM, deferred re-weighting, and the weighted mean on one device and on eight."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from spa_jax.longtail import ldam_drw
from spa_jax.longtail.losses import cross_entropy
from tests.longtail import reference
from tests.refusals import refusal

properties = settings(max_examples=60, deadline=None, derandomize=True)
seeds = pytest.mark.parametrize("seed", range(4))
kinds = pytest.mark.parametrize("kind", ["labels", "soft"])
many_counts = st.lists(st.integers(1, 10**6), min_size=4, max_size=4).map(np.array)


def ldam_problem(seed, kind, num_classes=5):
    """Cosines, targets and margins."""
    logits, labels, mixed, counts = reference.problem(seed, num_classes=num_classes)
    cosines = np.tanh(logits / 3)
    return cosines, labels if kind == "labels" else mixed, reference.ldam_margins(counts)


@jax.jit
def ldam_and_gradient(cosines, targets, class_margins, cotangent, scale):
    value, pull = jax.vjp(lambda z: ldam_drw.ldam(z, targets, class_margins, scale), cosines)
    return value, *pull(cotangent)


@kinds
@seeds
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_ldam_and_its_gradient_are_those_of_the_equation(kind, seed, scale):
    cosines, targets, class_margins = ldam_problem(seed, kind)
    cotangent = np.cos(np.arange(6))
    value, gradient = ldam_and_gradient(
        cosines, targets, class_margins, np.float32(cotangent), scale
    )
    desired = reference.ldam(cosines, targets, class_margins, scale)
    np.testing.assert_allclose(value, desired, rtol=1e-5, atol=4e-6)
    desired = reference.central_differences(
        lambda z: cotangent @ reference.ldam(z, targets, class_margins, scale), cosines
    )
    np.testing.assert_allclose(gradient, desired, rtol=2e-5, atol=2e-6 * scale)


@kinds
def test_ldam_scales_by_thirty_unless_told_otherwise(kind):
    cosines, targets, class_margins = ldam_problem(4, kind)
    value = ldam_drw.ldam(cosines, targets, np.float32(class_margins))
    desired = reference.ldam(cosines, targets, class_margins, 30.0)
    np.testing.assert_allclose(value, desired, rtol=1e-5, atol=4e-6)


@seeds
def test_one_hot_targets_are_labels(seed):
    cosines, labels, class_margins = ldam_problem(seed, "labels")
    ones, rows = np.ones(6, np.float32), np.eye(5, dtype=np.float32)[labels]
    by_label = ldam_and_gradient(cosines, labels, class_margins, ones, 30.0)
    by_row = ldam_and_gradient(cosines, rows, class_margins, ones, 30.0)
    np.testing.assert_allclose(by_row[0], by_label[0], rtol=1e-5, atol=4e-6)
    np.testing.assert_allclose(by_row[1], by_label[1], rtol=1e-5, atol=1e-4)


@kinds
def test_zero_margins_give_cross_entropy_of_scaled_cosines(kind):
    cosines, targets, _ = ldam_problem(0, kind)
    value, _ = ldam_and_gradient(cosines, targets, np.zeros(5), np.ones(6, np.float32), 30.0)
    desired = reference.cross_entropy(30.0 * np.float64(cosines), targets)
    np.testing.assert_allclose(value, desired, rtol=1e-5, atol=4e-6)


@kinds
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_a_dominating_class_is_exact_and_extreme_logits_stay_finite(kind, scale):
    cosines, targets, class_margins = ldam_problem(1, kind)
    cosines = np.sign(cosines)
    value, gradient = ldam_and_gradient(
        cosines, targets, class_margins, np.ones(6, np.float32), scale
    )
    desired = reference.ldam(cosines, targets, class_margins, scale)
    np.testing.assert_allclose(value, desired, rtol=1e-5, atol=2e-3)
    assert np.all(np.isfinite(gradient))


def test_soft_targets_do_not_cancel_where_one_class_dominates():
    """The denominator without its largest exponential is 2e-13 of the whole."""
    cosines = np.array([[1.0, 0.0, -0.5]], np.float32)
    targets = np.array([[0.9, 0.1, 0.0]], np.float32)
    class_margins = np.array([0.5, 0.4, 0.3], np.float32)
    value = ldam_drw.ldam(cosines, targets, class_margins, 30.0)
    desired = reference.ldam(cosines, targets, class_margins, 30.0)
    np.testing.assert_allclose(value, desired, rtol=1e-5)
    alone = ldam_drw.ldam(cosines, np.array([[1.0, 0.0, 0.0]], np.float32), class_margins, 30.0)
    np.testing.assert_allclose(alone, np.exp(-15.0), rtol=1e-5)


@properties
@given(many_counts, st.floats(0.01, 1.0))
def test_margins_are_inverse_fourth_roots_with_the_given_largest(counts, largest):
    found = ldam_drw.ldam_margins(counts, largest)
    np.testing.assert_allclose(found, reference.ldam_margins(counts, largest), rtol=1e-5)
    assert float(found.max()) == pytest.approx(largest, rel=1e-6)
    assert np.argmax(found) == np.argmin(counts)


@properties
@given(many_counts, st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999]))
def test_effective_number_weights_are_those_of_the_equation(counts, beta):
    found = ldam_drw.effective_number_weights(counts, beta)
    desired = reference.effective_number_weights(counts, beta)
    np.testing.assert_allclose(found, desired, rtol=1e-5)
    assert float(found.sum()) == pytest.approx(4, rel=1e-5)


def test_effective_number_weights_at_the_ends_of_beta():
    counts = np.array([5000, 50, 5])
    np.testing.assert_allclose(ldam_drw.effective_number_weights(counts, 0.0), 1.0)
    nearly_one = ldam_drw.effective_number_weights(counts, 1 - 1e-12)
    np.testing.assert_allclose(nearly_one, 3 / counts / (1 / counts).sum(), rtol=1e-4)


def test_weights_are_ones_before_the_start_also_when_the_step_is_traced():
    weights = np.array([0.1, 2.9], np.float32)
    compiled = jax.jit(lambda step: ldam_drw.deferred(weights, step, 160))
    for function in (compiled, lambda step: ldam_drw.deferred(weights, step, 160)):
        for step, desired in ((0, [1, 1]), (159, [1, 1]), (160, weights), (161, weights)):
            np.testing.assert_allclose(function(step), desired)
    assert compiled(0).dtype == jnp.float32


def test_an_example_has_the_weight_of_its_class():
    _, labels, mixed, _ = reference.problem(0)
    weights = np.linspace(0.2, 1.8, 5, dtype=np.float32)
    np.testing.assert_array_equal(ldam_drw.example_weights(weights, labels), weights[labels])
    by_share = ldam_drw.example_weights(weights, mixed)
    np.testing.assert_allclose(by_share, reference.example_weights(weights, mixed), rtol=1e-5)
    outside = jax.jit(ldam_drw.example_weights)(weights, jnp.array([-1, 5, 1]))
    np.testing.assert_allclose(outside, [0.0, 0.0, weights[1]])


def test_the_weighted_mean_is_over_the_sum_of_weights():
    losses, weights = np.array([1.0, 5.0, 9.0]), np.array([3.0, 1.0, 0.0])
    assert float(ldam_drw.weighted_mean(np.float32(losses), weights)) == pytest.approx(2.0)
    assert float(ldam_drw.weighted_mean(np.float32(losses), weights > 0)) == pytest.approx(3.0)
    assert float(ldam_drw.weighted_mean(np.float32(losses), np.ones(3))) == pytest.approx(5.0)
    nothing = jax.value_and_grad(ldam_drw.weighted_mean)(jnp.float32(losses), jnp.zeros(3))
    assert float(nothing[0]) == 0
    assert not np.any(nothing[1])


def parallel_problem():
    """16 examples with weights that differ between eight devices; the third device has none."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 5)).astype(np.float32)
    features = rng.normal(size=(16, 3)).astype(np.float32)
    labels = np.sort(rng.integers(0, 5, 16))
    weights = np.array([0.1, 0.4, 1.0, 2.5, 9.0], np.float32)[labels]
    weights[4:6] = 0.0
    return kernel, features, labels, weights


def mean_of(kernel, features, labels, weights, axis_name=None):
    return ldam_drw.weighted_mean(cross_entropy(features @ kernel, labels), weights, axis_name)


def value_and_gradient_on_eight_devices(mode, function):
    """What a step has: the gradient of the local loss, then the mean over the devices."""
    kernel, *batch = parallel_problem()

    def step(kernel, *part):
        return jax.lax.pmean(jax.value_and_grad(function)(kernel, *part), "data")

    if mode == "pmap":
        parts = [array.reshape(8, 2, *array.shape[1:]) for array in batch]
        mapped = jax.pmap(step, "data", in_axes=(None, 0, 0, 0), out_axes=None)
        return mapped(kernel, *parts)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    specs = (P(), P("data"), P("data"), P("data"))
    mapped = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)
    return jax.jit(mapped)(kernel, *batch)


@pytest.fixture(scope="module")
def whole_batch():
    """Value and gradient of the weighted mean over the batch, in float64."""
    kernel, features, labels, weights = parallel_problem()

    def total(kernel):
        losses = reference.cross_entropy(features.astype(np.float64) @ kernel, labels)
        return reference.weighted_mean(losses, weights)

    kernel = kernel.astype(np.float64)
    return total(kernel), reference.central_differences(total, kernel)


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_eight_devices_give_the_weighted_mean_of_the_whole_batch(mode, whole_batch):
    function = functools.partial(mean_of, axis_name="data")
    value, gradient = value_and_gradient_on_eight_devices(mode, function)
    np.testing.assert_allclose(value, whole_batch[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, whole_batch[1], rtol=1e-5, atol=1e-6)


def test_one_device_gives_the_same(whole_batch):
    value, gradient = jax.jit(jax.value_and_grad(mean_of))(*parallel_problem())
    np.testing.assert_allclose(value, whole_batch[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, whole_batch[1], rtol=1e-5, atol=1e-6)


def test_means_over_the_devices_own_weights_would_differ(whole_batch):
    value, gradient = value_and_gradient_on_eight_devices("pmap", mean_of)
    assert abs(value / whole_batch[0] - 1) > 0.05
    assert np.abs(gradient - whole_batch[1]).max() > 0.01


def test_no_gradient_flows_to_the_weights():
    def total(weights):
        return ldam_drw.weighted_mean(jnp.array([1.0, 2.0]), weights)

    assert not np.any(jax.grad(total)(jnp.array([1.0, 3.0])))


REFUSED = {
    "an empty class": (
        lambda: ldam_drw.ldam_margins(np.array([5, 0, 0])),
        r"2 of 3 .*class 1: 0, class 2: 0.*margin",
    ),
    "an empty class to weigh": (
        lambda: ldam_drw.effective_number_weights(jnp.array([0, 4])),
        r"1 of 2 .*class 0: 0.*effective number",
    ),
    "beta of 1": (lambda: ldam_drw.effective_number_weights(np.ones(2), 1.0), r"\[0, 1\), got 1.0"),
    "beta below 0": (lambda: ldam_drw.effective_number_weights(np.ones(2), -0.1), "got -0.1"),
    "margins of other classes": (
        lambda: ldam_drw.ldam(np.zeros((2, 3), np.float32), np.zeros(2, int), np.ones(1)),
        r"margins must have shape \(3,\).*\(1,\)",
    ),
    "a label outside": (
        lambda: ldam_drw.ldam(np.zeros((1, 3), np.float32), np.array([3]), np.ones(3)),
        r"\[0, 3\).*\[3\]",
    ),
    "integer cosines": (
        lambda: ldam_drw.ldam(np.zeros((1, 3), int), np.array([0]), np.ones(3)),
        "cosines must be a floating matrix.*int64",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_wrong_input_is_refused_saying_what_and_what_to_do(what, untyped):
    call, says = REFUSED[what]
    assert re.search(says, refusal(call))
