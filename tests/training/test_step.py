"""One step, taken apart: what each variant changes against `none`, and in which order."""

import functools

import jax
import numpy as np
import pytest

import spa_jax
from tests.training.small import small_config, small_program, take_steps


@functools.cache
def steps_of(variant, steps=2, **changes):
    """Host states and metrics of some steps, all of them on one batch."""
    config = small_config(
        augment__flip=False,
        augment__crop_padding=0,
        optimizer__learning_rate=0.5,
        spa__method=variant,
        **changes,
    )
    program = small_program(config)
    inputs = next(program.batches(program.init_state(config), seed=0, epoch=0))
    labels = np.asarray(program.feed.batch(program.init_state(config), inputs).labels)
    return *take_steps(program, program.init_state(config), steps, measured=True), labels


def plain():
    return steps_of("none")


def with_reg():
    return steps_of("reg", spa__reg__weight=3.0)


def head(state):
    return np.asarray(state.params["head"]["kernel"])


def test_metrics_see_the_updated_params_and_the_updated_means():
    states, metrics, _ = plain()
    seen = np.asarray(states[1].class_means.seen)

    def mean_cosine(params, means):
        return np.asarray(spa_jax.class_cosines(params, means))[seen].mean()

    reported = float(metrics[0]["mean_cosine"])
    assert reported == pytest.approx(mean_cosine(states[1].params, states[1].class_means), abs=1e-6)
    assert abs(reported - mean_cosine(states[0].params, states[1].class_means)) > 1e-4
    assert abs(reported - mean_cosine(states[1].params, states[2].class_means)) > 1e-4


def test_reg_adds_its_weighted_term_on_the_old_params_and_the_updated_means():
    states, metrics, _ = with_reg()
    term = spa_jax.spa_reg(states[0].params, states[1].class_means)
    difference = float(metrics[0]["loss"]) - float(plain()[1][0]["loss"])
    assert difference == pytest.approx(3.0 * float(term), rel=1e-5)
    assert float(term) > 0.1


def test_reg_leaves_the_backbone_alone_in_the_first_step():
    (_, after, _), _, _ = with_reg()
    (_, expected, _), _, _ = plain()
    for one, other in zip(
        jax.tree.leaves(after.params["backbone"]),
        jax.tree.leaves(expected.params["backbone"]),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.abs(head(after) - head(expected)).max() > 1e-3


def test_slerp_does_nothing_at_step_zero_and_turns_the_applied_step_after_it():
    strengths = {"spa__slerp__alpha_max": 0.9, "spa__slerp__threshold": 1.0}
    (_, first, second), _, _ = steps_of("slerp", **strengths)
    (_, plain_first, unturned), _, _ = plain()
    np.testing.assert_allclose(head(first), head(plain_first), atol=1e-6)
    alpha = spa_jax.slerp_schedule(0.9, total_steps=10)(1)
    expected = spa_jax.spa_slerp(unturned.params, unturned.class_means, alpha, 1.0)
    np.testing.assert_allclose(head(second), expected["head"]["kernel"], atol=1e-5)
    assert np.abs(head(second) - head(unturned)).max() > 1e-3


@pytest.mark.parametrize("acts_on", ["gradients", "updates"])
def test_proj_changes_the_head_kernel_only(acts_on):
    (_, after), metrics, _ = steps_of("proj", 1, spa__proj__gamma=0.0, spa__proj__acts_on=acts_on)
    (_, expected, _), _, _ = plain()
    assert float(metrics[0]["corrected_share"]) > 0
    assert np.abs(head(after) - head(expected)).max() > 1e-4
    for part in ("backbone", "head"):
        for one, other in zip(
            jax.tree.leaves(after.params[part] | {"kernel": 0}),
            jax.tree.leaves(expected.params[part] | {"kernel": 0}),
            strict=True,
        ):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_class_means_come_from_the_features_of_the_batch():
    (before, after, _), _, labels = plain()
    assert not before.class_means.seen.any()
    np.testing.assert_array_equal(after.class_means.seen, np.isin(np.arange(10), labels))
