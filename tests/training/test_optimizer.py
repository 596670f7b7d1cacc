"""The learning rate over a run, and the steps that the optimiser makes with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.alignment import ClassMeans
from spa_jax.alignment.kernels import path_names
from spa_jax.models.networks import build_classifier
from spa_jax.models.vision_transformer import VitOptions
from spa_jax.options import NoOptions
from spa_jax.training.optimizer import OptimizerOptions, build_optimizer, learning_rate_multiple
from spa_jax.training.variants import ProjOptions, make_none, make_proj
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


def norm(*arrays):
    return np.sqrt(sum(np.sum(np.square(array)) for array in arrays))


@pytest.mark.parametrize("clip_norm", [0.0, 0.5, 4.0, 50.0])
def test_what_alignment_has_left_of_a_gradient_is_clipped_before_it_is_decayed(clip_norm):
    """Its norm is 13 before and about 3 after Proj has taken out what turns weights away."""
    generator = np.random.default_rng(0)
    kernel, means = generator.normal(size=(2, 6, 4))
    centred = means - means.mean(axis=1, keepdims=True)
    units = kernel / np.linalg.norm(kernel, axis=0)
    towards = centred / np.linalg.norm(centred, axis=0)
    tangent = towards - units * np.sum(units * towards, axis=0)
    tangent /= np.linalg.norm(tangent, axis=0)
    small = 0.5 * generator.normal(size=(6, 4))
    small -= tangent * np.sum(tangent * small, axis=0)
    params = {"head": {"kernel": kernel.astype(np.float32), "bias": np.ones(4, np.float32)}}
    gradient = {
        "kernel": (small + 6 * tangent).astype(np.float32),
        "bias": np.array([0.5, -1.0, 1.5, 1.0], np.float32),
    }
    tx = build_optimizer(
        OptimizerOptions(clip_norm=clip_norm, momentum=0.0),
        make_proj(ProjOptions()),
        {"classifier": "head/kernel", "center": True},
        {"learning_rate": 0.5, "weight_decay": 0.1, "gamma": 0.0},
        epochs=EPOCHS,
        steps_per_epoch=STEPS_PER_EPOCH,
    )
    seen = ClassMeans.create(4, 6).update(means.T.astype(np.float32), np.arange(4))
    state = tx.init(params)
    updates, _ = tx.update({"head": gradient}, state, params, class_means=seen)
    left = norm(small, gradient["bias"])
    assert left < 4 < norm(*gradient.values())
    factor = min(1.0, clip_norm / left) if clip_norm else 1.0
    expected = -0.5 * (factor * small + 0.1 * kernel)
    np.testing.assert_allclose(updates["head"]["kernel"], expected, atol=1e-5)
    expected = -0.5 * (factor * gradient["bias"] + 0.1)
    np.testing.assert_allclose(updates["head"]["bias"], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("decayed", ["all", "kernels"])
def test_decay_is_on_all_parameters_or_on_kernels_alone(name, decayed):
    """Of the vision transformer, whose attention has biases of two axes."""
    model = build_classifier("vit", VitOptions(width=4, heads=2), "cosine", {"scale": 2.0}, 3)
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)), train=False)
    )
    others = {"depthwise": jnp.zeros((3, 3, 1, 4))}  # a kernel of another name
    params = jax.tree.map(
        lambda leaf: np.full(leaf.shape, 2, np.float32), variables["params"] | others
    )
    tx = build_optimizer(
        OptimizerOptions(name=name, decayed=decayed),
        make_none(NoOptions()),
        {},
        {"learning_rate": 0.5, "weight_decay": 0.1},
        epochs=EPOCHS,
        steps_per_epoch=STEPS_PER_EPOCH,
    )
    zeros = jax.tree.map(np.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    found = {
        path_names(path)[0]: leaf for path, leaf in jax.tree_util.tree_leaves_with_path(updates)
    }
    kernels = {path for path in found if path.endswith(("/kernel", "depthwise"))}
    assert len(kernels) == 9 and len(found) == 25
    for path, leaf in found.items():
        expected = -0.1 if decayed == "all" or path in kernels else 0.0
        np.testing.assert_allclose(leaf, expected, atol=1e-7, err_msg=path)


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
