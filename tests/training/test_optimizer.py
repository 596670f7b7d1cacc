"""The learning rate over a run, read off the steps that the optimiser makes."""

import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.training.optimizer import build_optimizer
from tests.training.small import small_config

STEPS_PER_EPOCH = 4


def rates(config, steps):
    """What plain SGD multiplies the gradient by at each step."""
    hyperparams = {"learning_rate": config.optimizer.learning_rate, "weight_decay": 0.0}
    tx = build_optimizer(config, hyperparams, STEPS_PER_EPOCH)
    params = {"w": jnp.zeros(())}
    state, found = tx.init(params), []
    for _ in range(steps):
        updates, state = tx.update({"w": jnp.ones(())}, state, params)
        found.append(-float(updates["w"]))
    return np.array(found)


def config_of(**changes):
    return small_config(optimizer__momentum=0.0, optimizer__learning_rate=0.5, epochs=10, **changes)


@pytest.mark.parametrize("warmup", [0.0, 2.0])
def test_a_rate_in_steps_falls_after_each_epoch_that_is_named(warmup):
    config = config_of(
        optimizer__schedule="steps",
        optimizer__step_epochs=(5, 8),
        optimizer__step_factor=0.1,
        optimizer__warmup_epochs=warmup,
    )
    expected = []
    for step in range(40):
        epoch = step // STEPS_PER_EPOCH
        rate = 0.5 * (1.0 if epoch < 5 else 0.1 if epoch < 8 else 0.01)
        if step < warmup * STEPS_PER_EPOCH:
            rate *= 1 / 8 + (1 - 1 / 8) * step / 8
        expected.append(rate)
    np.testing.assert_allclose(rates(config, 40), expected, rtol=1e-5)


def test_a_cosine_ends_at_zero():
    expected = 0.5 * (1 + np.cos(np.pi * np.arange(41) / 40)) / 2
    np.testing.assert_allclose(rates(config_of(), 41), expected, rtol=1e-5, atol=1e-7)


def by_epoch(config, epochs):
    """The rate of each epoch, which must not change within it."""
    found = rates(config, epochs * STEPS_PER_EPOCH).reshape(epochs, STEPS_PER_EPOCH)
    np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1], found.shape))
    return found[:, 0]


@pytest.mark.parametrize("warmup", [0, 3])
def test_a_cosine_by_epoch_is_that_of_glmcs_code(warmup):
    config = config_of(optimizer__per_epoch=True, optimizer__warmup_epochs=float(warmup))
    falling = [0.25 * (1 + np.cos(np.pi * e / (10 - warmup))) for e in range(10 - warmup)]
    expected = [0.5 * (e + 1) / 3 for e in range(warmup)] + falling
    np.testing.assert_allclose(by_epoch(config, 10), expected, rtol=1e-5)


def test_a_rate_in_steps_by_epoch_is_that_of_ldam_drws_code():
    """There the rates of epochs 1, 2 ... are r/5, 2r/5 ... r, then r; r/100 after 160."""
    config = config_of(
        optimizer__per_epoch=True,
        optimizer__warmup_epochs=5.0,
        optimizer__schedule="steps",
        optimizer__step_epochs=(6, 8),
        optimizer__step_factor=0.01,
    )
    expected = 0.5 * np.array([0.2, 0.4, 0.6, 0.8, 1, 1, 1e-2, 1e-2, 1e-4, 1e-4])
    np.testing.assert_allclose(by_epoch(config, 10), expected, rtol=1e-5)


def test_the_schedule_of_spas_released_code_overshoots_in_its_warm_up():
    config = small_config(
        optimizer__momentum=0.0,
        optimizer__learning_rate=0.01,
        optimizer__schedule="spa_released",
        epochs=20,
    )
    expected = [0.01 * (e + 1) / 10 for e in range(11)]
    expected += [0.005 * (1 + np.cos(np.pi * (e - 9) / 11)) for e in range(11, 20)]
    assert expected[10] == pytest.approx(0.011)
    np.testing.assert_allclose(by_epoch(config, 20), expected, rtol=1e-5)


def test_nesterov_takes_the_gradient_a_step_ahead():
    hyperparams = {"learning_rate": 0.5, "weight_decay": 0.0}
    for nesterov in (False, True):
        config = small_config(optimizer__nesterov=nesterov, epochs=10_000)
        tx = build_optimizer(config, hyperparams, STEPS_PER_EPOCH)
        params = {"w": jnp.zeros(())}
        updates, _ = tx.update({"w": jnp.ones(())}, tx.init(params), params)
        assert float(updates["w"]) == pytest.approx(-0.5 * (1.9 if nesterov else 1.0), rel=1e-4)
