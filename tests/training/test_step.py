"""One step, taken apart: what each method changes against `none`, and in which order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spa_jax
from spa_jax.training.program import Program
from spa_jax.training.state import hyperparams_from
from spa_jax.training.step import Batch, make_train_step
from tests.training.small import small_config

pytestmark = pytest.mark.usefixtures("quick_compilation")

OPTIONS = {"optimizer__learning_rate": 0.5, "spa__alpha_max": 0.9, "spa__threshold": 1.0}


class Setting:
    """A program's pure step, its first state and batch, all in the global view on one device."""

    def __init__(self, **changes):
        self.config = small_config(**(OPTIONS | changes))
        self.program = Program(self.config, devices=jax.devices()[:1])
        data = self.program.data.train
        chosen = np.random.default_rng(0).permutation(len(data.labels))[:64]
        self.batch = Batch(
            jnp.asarray(data.images[chosen]), jnp.asarray(data.labels[chosen]), jnp.arange(64)
        )
        self.step = make_train_step(
            self.program._model,
            self.program.method,
            self.config,
            self.program.feed.normalize,
            self.program._class_counts,
            steps_per_epoch=5,
        )
        self.state = self.program.init_state(self.config)

    def after(self, steps):
        """States and metrics after 0, 1, ... steps on the same batch."""
        states, metrics = [self.state], []
        take = jax.jit(self.step)
        for _ in range(steps):
            state, values = take(states[-1], self.batch)
            states.append(state)
            metrics.append(values)
        return states, metrics


@pytest.fixture(scope="module")
def plain():
    return Setting().after(2)


def head(state):
    return np.asarray(state.params["head"]["kernel"])


def test_metrics_see_the_updated_params_and_the_updated_means(plain):
    states, metrics = plain
    seen = np.asarray(states[1].class_means.seen)

    def mean_cosine(params, means):
        return np.asarray(spa_jax.class_cosines(params, means))[seen].mean()

    reported = float(metrics[0]["mean_cosine"])
    assert reported == pytest.approx(mean_cosine(states[1].params, states[1].class_means), abs=1e-6)
    assert abs(reported - mean_cosine(states[0].params, states[1].class_means)) > 1e-4
    assert abs(reported - mean_cosine(states[1].params, states[2].class_means)) > 1e-4


def test_reg_adds_its_weighted_term_on_the_old_params_and_the_updated_means(plain):
    states, metrics = Setting(spa__method="reg", spa__weight=3.0).after(1)
    term = spa_jax.spa_reg(states[0].params, states[1].class_means)
    difference = float(metrics[0]["loss"]) - float(plain[1][0]["loss"])
    assert difference == pytest.approx(3.0 * float(term), rel=1e-5)
    assert float(term) > 0.1


def test_reg_leaves_the_backbone_alone_in_the_first_step(plain):
    states, _ = Setting(spa__method="reg", spa__weight=3.0).after(1)
    for one, other in zip(
        jax.tree.leaves(states[1].params["backbone"]),
        jax.tree.leaves(plain[0][1].params["backbone"]),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.abs(head(states[1]) - head(plain[0][1])).max() > 1e-3


def test_slerp_does_nothing_at_step_zero_and_turns_the_applied_step_after_it(plain):
    states, _ = Setting(spa__method="slerp").after(2)
    np.testing.assert_allclose(head(states[1]), head(plain[0][1]), atol=1e-6)
    alpha = spa_jax.slerp_schedule(0.9, total_steps=10)(1)
    unturned = plain[0][2]
    expected = spa_jax.spa_slerp(unturned.params, unturned.class_means, alpha, 1.0)
    np.testing.assert_allclose(head(states[2]), expected["head"]["kernel"], atol=1e-5)
    assert np.abs(head(states[2]) - head(unturned)).max() > 1e-3


@pytest.mark.parametrize("acts_on", ["gradients", "updates"])
def test_proj_changes_the_head_kernel_only(plain, acts_on):
    states, metrics = Setting(spa__method="proj", spa__gamma=0.0, spa__acts_on=acts_on).after(1)
    assert float(metrics[0]["corrected_share"]) > 0
    assert np.abs(head(states[1]) - head(plain[0][1])).max() > 1e-4
    np.testing.assert_allclose(
        states[1].params["head"]["bias"], plain[0][1].params["head"]["bias"], atol=1e-7
    )


def test_class_means_come_from_the_features_of_the_batch(plain):
    states, _ = plain
    assert not states[0].class_means.seen.any()
    present = np.isin(np.arange(10), np.asarray(Setting().batch.labels))
    np.testing.assert_array_equal(states[1].class_means.seen, present)


def test_one_vmapped_program_trains_several_strengths():
    setting = Setting(spa__method="proj")
    strengths = (0.0, 0.5, 1.0)
    alone = []
    for gamma in strengths:
        member = small_config(**OPTIONS, spa__method="proj", spa__gamma=gamma)
        state = setting.state.replace(
            hyperparams=jax.tree.map(jnp.asarray, hyperparams_from(member))
        )
        alone.append(state)
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    vmapped, _ = jax.jit(jax.vmap(setting.step, in_axes=(0, None)))(together, setting.batch)
    take = jax.jit(setting.step)
    for i, state in enumerate(alone):
        expected, _ = take(state, setting.batch)
        np.testing.assert_allclose(vmapped.params["head"]["kernel"][i], head(expected), atol=1e-5)
    kernels = np.asarray(vmapped.params["head"]["kernel"])
    assert np.abs(kernels[0] - kernels[2]).max() > 1e-4
