"""The learning rate over a run, and the steps that the optimiser makes with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.options import NoOptions
from spa_jax.training.optimizer import OptimizerOptions, build_optimizer, learning_rate_multiple
from spa_jax.training.variants import make_none
from tests.refusals import refusal

EPOCHS, STEPS_PER_EPOCH = 10, 4


def multiples(steps=EPOCHS * STEPS_PER_EPOCH, **options):
    """The rate at each step as a multiple of its peak."""
    schedule = learning_rate_multiple(OptimizerOptions(**options), EPOCHS, STEPS_PER_EPOCH)
    return np.asarray(jax.vmap(schedule)(jnp.arange(steps)))


@pytest.mark.parametrize("warmup", [0.0, 2.0])
def test_a_rate_in_steps_falls_after_each_epoch_that_is_named(warmup):
    found = multiples(schedule="steps", step_epochs=(5, 8), step_factor=0.1, warmup_epochs=warmup)
    expected = []
    for step in range(EPOCHS * STEPS_PER_EPOCH):
        epoch = step // STEPS_PER_EPOCH
        rate = 1.0 if epoch < 5 else 0.1 if epoch < 8 else 0.01
        if step < warmup * STEPS_PER_EPOCH:
            rate *= 1 / 8 + (1 - 1 / 8) * step / 8
        expected.append(rate)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_cosine_ends_at_zero():
    expected = (1 + np.cos(np.pi * np.arange(41) / 40)) / 2
    np.testing.assert_allclose(multiples(41), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("warmup", [0, 3])
def test_a_rate_by_epoch_is_one_for_all_steps_of_an_epoch(warmup):
    falling = [(1 + np.cos(np.pi * e / (10 - warmup))) / 2 for e in range(10 - warmup)]
    by_epoch = [(e + 1) / 3 for e in range(warmup)] + falling
    found = multiples(per_epoch=True, warmup_epochs=float(warmup))
    np.testing.assert_allclose(found, np.repeat(by_epoch, STEPS_PER_EPOCH), rtol=1e-5)


def first_updates(gradient=1.0, steps=3, **options):
    """What is added to a weight that begins at 2 and gets the same gradient at each step."""
    settings = OptimizerOptions(**options)
    strengths = {"learning_rate": 0.5, "weight_decay": 0.1}
    tx = build_optimizer(
        settings, make_none(NoOptions()), {}, strengths, epochs=EPOCHS, steps_per_epoch=100
    )
    params = {"w": jnp.full((), 2.0)}
    state, found = tx.init(params), []
    for _ in range(steps):
        updates, state = tx.update({"w": jnp.full((), gradient)}, state, params)
        found.append(float(updates["w"]))
    return np.array(found)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_takes_rate_and_decay_from_what_the_state_holds(nesterov):
    """Not from its options; decay is a part of the gradient, and nesterov looks a step ahead."""
    rates = 0.5 * (1 + np.cos(np.pi * np.arange(3) / 1000)) / 2
    traces = 1.2 * np.array([1.0, 1.9, 2.71])
    steps = 1.2 + 0.9 * traces if nesterov else traces
    found = first_updates(nesterov=nesterov, learning_rate=7.0, weight_decay=7.0)
    np.testing.assert_allclose(found, -rates * steps, rtol=1e-5)


def test_adamw_decays_weights_apart_from_the_gradient():
    """The first step of a gradient of any size is the rate, and the decay comes on top."""
    for gradient in (1.0, 100.0):
        found = first_updates(gradient, steps=1, name="adamw")
        np.testing.assert_allclose(found, [-0.5 * (1 + 0.1 * 2.0)], rtol=1e-5)


def check(epochs=EPOCHS, **options):
    OptimizerOptions(**options).check(epochs)


def test_the_released_schedule_needs_more_epochs_than_its_warm_up_and_no_other():
    assert "config.epochs=10" in refusal(check, schedule="spa_released")
    check(11, schedule="spa_released")
    message = refusal(check, 11, schedule="spa_released", warmup_epochs=1.0)
    assert "warm-up of its own" in message


def test_a_warm_up_of_half_an_epoch_is_refused_where_the_rate_changes_between_epochs():
    assert "warmup_epochs=1.5 must be whole" in refusal(check, per_epoch=True, warmup_epochs=1.5)
    check(warmup_epochs=1.5)


@pytest.mark.parametrize("step_epochs", [(), (5, 5), (8, 5)])
def test_steps_must_ascend(step_epochs):
    message = refusal(check, step_epochs=step_epochs)
    assert "config.optimizer.step_epochs must be positive integers that ascend" in message
