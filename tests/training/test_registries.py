"""A variant, a method and a network from outside the package: by registration alone they train."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spa_jax.longtail.losses import cross_entropy
from spa_jax.longtail.method import Method
from spa_jax.longtail.registry import METHODS
from spa_jax.models.networks import HEADS, NETWORKS
from spa_jax.options import Entry, option
from spa_jax.training.checking import check_run
from spa_jax.training.config import default_config
from spa_jax.training.variants import VARIANTS, Variant
from tests.refusals import refusal
from tests.training.small import small_config, small_program, take_steps


@dataclasses.dataclass(frozen=True)
class PullOptions:
    """Of the toy variant."""

    pull: float = option(0.25, "share of the kernel that is taken away", low=0, high=1)
    bonus: float = option(2.0, "constant that is added to the loss", low=0)


def make_pull(options):
    """Shortens the head's kernel after each step, adds a constant to the loss, and counts."""

    def shorten(strengths, aligned, total_steps):
        assert aligned == {"classifier": "head/kernel", "center": True}
        assert total_steps == 10

        def update(updates, state, params, **extra):
            kernel = updates["head"]["kernel"] - strengths["pull"] * params["head"]["kernel"]
            head = updates["head"] | {"kernel": kernel}
            return updates | {"head": head}, state + 1

        def init(params):
            del params
            return jnp.zeros((), jnp.int32)

        return optax.GradientTransformationExtraArgs(init, update)

    return Variant(
        loss_term=lambda params, means, strengths, aligned: jnp.float32(options.bonus),
        last_link=shorten,
        traced=("pull",),
        metrics={"links": lambda state: jnp.float32(state[-1])},
    )


@dataclasses.dataclass(frozen=True)
class DoubledOptions:
    """Of the toy method."""

    factor: float = option(2.0, "what cross-entropy is multiplied by", above=0)


def make_doubled(options):
    """A multiple of cross-entropy, and a head that the package has not either."""

    def loss(logits, targets, context):
        return options.factor * jnp.mean(cross_entropy(logits, targets))

    return Method("toy_head", loss, head_options={"use_bias": False})


class ToyHead(nn.Module):
    """A linear head that may do without a bias."""

    num_classes: int
    use_bias: bool

    @nn.compact
    def __call__(self, features, train):
        del train
        kernel = self.param(
            "kernel", nn.initializers.normal(0.1), (features.shape[-1], self.num_classes)
        )
        return features @ kernel


@dataclasses.dataclass(frozen=True)
class FlatOptions:
    """Of the toy network."""

    width: int = option(6, "the feature width D", low=1)


class Flat(nn.Module):
    """One layer on all pixels."""

    dim: int

    @nn.compact
    def __call__(self, images, train):
        del train
        kernel = self.param("kernel", nn.initializers.normal(0.1), (images[0].size, self.dim))
        return jax.nn.relu(images.reshape(len(images), -1) @ kernel)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(VARIANTS, "pull", Entry(make_pull, PullOptions))
    monkeypatch.setitem(METHODS, "doubled", Entry(make_doubled, DoubledOptions))
    monkeypatch.setitem(HEADS, "toy_head", lambda classes, axis, **rest: ToyHead(classes, **rest))
    monkeypatch.setitem(
        NETWORKS, "flat", Entry(lambda options, dtype, axis: Flat(options.width), FlatOptions)
    )


def two_steps(**changes):
    config = small_config(optimizer__learning_rate=0.02, **changes)
    check_run(config)
    program = small_program(config)
    states, metrics = take_steps(program, program.init_state(config), 2, measured=True)
    assert all(np.isfinite(value) for step in metrics for value in step.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states[2].params))
    return states, metrics


def test_what_is_registered_has_its_group_with_its_defaults():
    config = default_config()
    assert config.spa.pull.to_dict() == {"pull": 0.25, "bonus": 2.0}
    assert config.method.doubled.to_dict() == {"factor": 2.0}
    assert config.model.flat.to_dict() == {"width": 6}


def test_options_of_what_is_registered_are_checked_as_all_are():
    for field, value, part in (
        ("spa__pull__pull", 1.5, "config.spa.pull.pull must be at least 0 and at most 1"),
        ("method__doubled__factor", 0.0, "config.method.doubled.factor must be above 0"),
        ("model__flat__width", 0, "config.model.flat.width must be at least 1"),
    ):
        group = field.split("__")[0]
        chooser = "spa__method" if group == "spa" else f"{group}__name"
        changes = {chooser: field.split("__")[1], field: value}
        assert part in refusal(check_run, small_config(**changes))


def test_a_variant_trains():
    states, metrics = two_steps(spa__method="pull", model__name="flat")
    plain_states, plain = two_steps(model__name="flat")
    assert metrics[0]["loss"] == pytest.approx(plain[0]["loss"] + 2.0, rel=1e-5)
    assert [float(step["links"]) for step in metrics] == [1, 2]
    # Its strength is in the state, and its link is the last one.
    assert float(states[0].hyperparams["pull"]) == 0.25
    shorter = plain_states[1].params["head"]["kernel"] - 0.25 * states[0].params["head"]["kernel"]
    np.testing.assert_allclose(states[1].params["head"]["kernel"], shorter, atol=1e-6)


def test_a_method_trains_with_a_head_of_its_own():
    states, metrics = two_steps(method__name="doubled", method__doubled__factor=3.0)
    assert set(states[2].params["head"]) == {"kernel"}
    # At the first step logits are small, so that the loss is close to three times log 10.
    assert metrics[0]["loss"] == pytest.approx(3 * np.log(10), rel=0.2)
    assert np.abs(states[2].params["head"]["kernel"] - states[0].params["head"]["kernel"]).max() > 0


def test_a_network_trains():
    states, _ = two_steps(model__name="flat", model__flat__width=5)
    assert states[0].params["backbone"]["kernel"].shape == (64, 5)
    assert states[0].params["head"]["kernel"].shape == (5, 10)
    moved = states[2].params["backbone"]["kernel"] - states[0].params["backbone"]["kernel"]
    assert np.abs(moved).max() > 1e-5
