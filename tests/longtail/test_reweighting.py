"""Class weights, deferred re-weighting, and the weighted mean on one device and on eight."""

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

from spa_jax.longtail import reweighting
from spa_jax.longtail.losses import cross_entropy
from tests.longtail import reference
from tests.longtail.made_methods import loss_of, method
from tests.refusals import refusal

properties = settings(max_examples=60, deadline=None, derandomize=True)
many_counts = st.lists(st.integers(1, 10**6), min_size=4, max_size=4).map(np.array)


@properties
@given(many_counts, st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999]))
def test_effective_number_weights_are_those_of_the_equation(counts, beta):
    found = reweighting.effective_number_weights(counts, beta)
    desired = reference.effective_number_weights(counts, beta)
    np.testing.assert_allclose(found, desired, rtol=1e-5)
    assert float(found.sum()) == pytest.approx(4, rel=1e-5)


def test_effective_number_weights_at_the_ends_of_beta():
    counts = np.array([5000, 50, 5])
    np.testing.assert_allclose(reweighting.effective_number_weights(counts, 0.0), 1.0)
    nearly_one = reweighting.effective_number_weights(counts, 1 - 1e-12)
    np.testing.assert_allclose(nearly_one, 3 / counts / (1 / counts).sum(), rtol=1e-4)


def test_weights_are_ones_before_the_start_also_when_the_step_is_traced():
    weights = np.array([0.1, 2.9], np.float32)
    compiled = jax.jit(lambda step: reweighting.deferred(weights, step, 160))
    for function in (compiled, lambda step: reweighting.deferred(weights, step, 160)):
        for step, desired in ((0, [1, 1]), (159, [1, 1]), (160, weights), (161, weights)):
            np.testing.assert_allclose(function(step), desired)
    assert compiled(0).dtype == jnp.float32


def test_an_example_has_the_weight_of_its_class():
    _, labels, mixed, _ = reference.problem(0)
    weights = np.linspace(0.2, 1.8, 5, dtype=np.float32)
    np.testing.assert_array_equal(reweighting.example_weights(weights, labels), weights[labels])
    by_share = reweighting.example_weights(weights, mixed)
    np.testing.assert_allclose(by_share, reference.example_weights(weights, mixed), rtol=1e-5)
    outside = jax.jit(reweighting.example_weights)(weights, jnp.array([-1, 5, 1]))
    np.testing.assert_allclose(outside, [0.0, 0.0, weights[1]])


def test_the_weighted_mean_is_over_the_sum_of_weights():
    losses, weights = np.array([1.0, 5.0, 9.0]), np.array([3.0, 1.0, 0.0])
    assert float(reweighting.weighted_mean(np.float32(losses), weights)) == pytest.approx(2.0)
    assert float(reweighting.weighted_mean(np.float32(losses), weights > 0)) == pytest.approx(3.0)
    assert float(reweighting.weighted_mean(np.float32(losses), np.ones(3))) == pytest.approx(5.0)
    nothing = jax.value_and_grad(reweighting.weighted_mean)(jnp.float32(losses), jnp.zeros(3))
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
    return reweighting.weighted_mean(cross_entropy(features @ kernel, labels), weights, axis_name)


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
        return reweighting.weighted_mean(jnp.array([1.0, 2.0]), weights)

    assert not np.any(jax.grad(total)(jnp.array([1.0, 3.0])))


@pytest.mark.parametrize("soft", [False, True])
def test_every_weighted_loss_is_that_of_the_equation(soft):
    logits, labels, mixed, counts = reference.problem(0)
    targets = mixed if soft else labels
    losses = reference.cross_entropy(logits, targets)

    def expected(weights, total=None):
        examples = reference.example_weights(weights, targets)
        if total is None:
            return reference.weighted_mean(losses, examples)
        return reference.cross_entropy(logits, soft_rows * weights).sum() / total

    soft_rows = np.float64(mixed) if soft else np.eye(5)[labels]
    problem = (jnp.asarray(logits), jnp.asarray(targets), counts)
    for power in (1.0, 0.5):
        found = loss_of("weighted_cross_entropy", *problem, power=power)
        weights = reference.power_weights(counts, power)
        assert found == pytest.approx(expected(weights), rel=1e-5)
    weights = reference.effective_number_weights(counts, 0.99)
    assert loss_of("class_balanced", *problem, beta=0.99) == pytest.approx(
        expected(weights, total=6), rel=1e-5
    )
    # The loss is that of epoch 3.
    for epoch, value in ((3, expected(weights)), (4, losses.mean())):
        found = loss_of("ce_drw", *problem, beta=0.99, epoch=epoch)
        assert found == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("name", ["ldam_drw", "ce_drw", "ride"])
def test_class_weights_that_begin_after_the_run_are_refused(name):
    made = method(name, epoch=3)
    made.check(4)
    message = refusal(made.check, 3)
    assert f"config.method.{name}.epoch=3" in message
    assert "config.epochs=3" in message
    assert "set it lower" in message


REFUSED = {
    "an empty class to weigh": (
        lambda: reweighting.effective_number_weights(jnp.array([0, 4])),
        r"1 of 2 .*class 0: 0.*effective number",
    ),
    "beta of 1": (
        lambda: reweighting.effective_number_weights(np.ones(2), 1.0),
        r"\[0, 1\), got 1.0",
    ),
    "beta below 0": (lambda: reweighting.effective_number_weights(np.ones(2), -0.1), "got -0.1"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_wrong_input_is_refused_saying_what_and_what_to_do(what, untyped):
    call, says = REFUSED[what]
    assert re.search(says, refusal(call))
