"""Networks, variants of SpA and long-tailed methods: one of each trains, and slowly all of all."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from spa_jax.alignment.kernels import find_kernels
from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.longtail.registry import METHODS
from spa_jax.models.networks import NETWORKS
from spa_jax.options import NoOptions
from spa_jax.training.variants import VARIANTS
from tests.training.small import deferral, small_config, small_program, take_steps

ON_FEATURES = ("identity", "adapter")
ON_IMAGES = {name: entry for name, entry in NETWORKS.items() if name not in ON_FEATURES}
OF_ANY_SIZE = [name for name, entry in ON_IMAGES.items() if entry.options is not NoOptions]
OF_FIXED_SIZE = [name for name in ON_IMAGES if name not in OF_ANY_SIZE]

SMALLEST = {
    "small": {"model__small__widths": (12,)},
    "vit": {"model__vit__width": 12, "model__vit__patch_size": 4},
    "convnext": {"model__convnext__widths": (12,), "model__convnext__patch_size": 2},
    "cifar_resnet": {"model__cifar_resnet__depth": 20},
}

# What makes each variant act, and what makes it do nothing.
ACTING = {"weight": 3.0, "alpha_max": 0.05, "threshold": 1.0, "gamma": 0.0}
WITHOUT = {"weight": 0.0, "alpha_max": 0.0, "gamma": 1.0}


def configuration(network="small", method="cross_entropy", variant="none"):
    return small_config(
        batch_size=8,
        model__name=network,
        method__name=method,
        spa__method=variant,
        augment__crop_padding=0,
        augment__flip=False,
        optimizer__learning_rate=0.02,
        **SMALLEST.get(network, {}),
        **deferral(method, 0),
    )


@functools.cache
def noise(side):
    """Ten classes of noise: what there is to learn is which image is which."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, side, side, 3), dtype=np.uint8)
    examples = LabelledImages(images, np.arange(40, dtype=np.int32) % 10)
    return LongTailedDataset("noise", examples, examples, tuple("abcdefghij"), {})


def three_steps(program, strengths):
    """Losses, and the kernel that SpA acts on before and after three steps on one batch.

    Each class has the opposite of its mean: a step turns weights towards features of their own
    class, so that there is much to project. The step has always the same number, the fourth: one
    coefficient mixes, and SLERP turns.
    """
    state = program.init_state(program.config)
    (_, first), _ = take_steps(program, state, 1, at=3)
    opposite = dataclasses.replace(first.class_means, mean=-first.class_means.mean)
    given = {name: strengths.get(name, x) for name, x in first.hyperparams.items()}
    fresh = program.init_state(program.config)
    state = fresh.replace(
        class_means=program.layout.replicate(opposite),
        hyperparams=program.layout.replicate(
            {name: np.asarray(x, np.float32) for name, x in given.items()}
        ),
    )
    states, metrics = take_steps(program, state, 3, at=3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states[3].params))
    losses = [float(values["loss"]) for values in metrics]
    return losses, *(kernel_of(states[i], program.method.aligned[0]) for i in (0, 3))


def kernel_of(state, path):
    (place,) = find_kernels(state.variables, path)
    return np.asarray(jax.tree.leaves(state.variables)[place])


def largest(difference):
    return np.abs(difference).max()


def assert_it_trains(network, method, variant, plain=None):
    """The loss falls, the head moves, and the variant changes how, unless its strength is nought.

    Returns:
      The kernel after three steps without a variant.
    """
    what = f"{network}, {method}, {variant}"
    program = small_program(configuration(network, method, variant), data=noise(16))
    losses, before, after = three_steps(program, ACTING)
    assert losses[2] < losses[0], what
    if program.method.fixed_kernel:
        np.testing.assert_array_equal(after, before)
        return after
    assert largest(after - before) > 1e-3, what
    if variant == "none":
        return after
    _, _, without = three_steps(program, WITHOUT)
    change = largest(after - without)
    assert change > 1e-3 * largest(without - before), what
    if plain is not None:
        assert change > 10 * largest(without - plain), what
    return without


def test_every_variant_of_spa_changes_what_the_head_does_unless_its_strength_is_nought():
    plain = assert_it_trains("small", "cross_entropy", "none")
    for variant in [name for name in VARIANTS if name != "none"]:
        assert_it_trains("small", "cross_entropy", variant, plain)


@pytest.mark.thorough
@pytest.mark.parametrize("network", [name for name in OF_ANY_SIZE if name != "small"])
def test_every_network_of_any_size_trains(network):
    assert_it_trains(network, "cross_entropy", "proj")


@pytest.mark.thorough
@pytest.mark.parametrize("network", OF_FIXED_SIZE)
def test_a_step_of_every_network_of_fixed_size_fits_together(network):
    """Traced alone: what comes out has the form of what goes in."""
    program = small_program(configuration(network, variant="proj"), data=noise(32))
    state = jax.eval_shape(lambda: program.init_state(program.config))
    inputs = jax.eval_shape(lambda state: next(program.batches(state, 0, 0)), state)
    after, totals = jax.eval_shape(program.train_step, state, program.zero_totals, inputs)
    for one, other in zip(
        jax.tree.leaves((state, program.zero_totals)),
        jax.tree.leaves((after, totals)),
        strict=True,
    ):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


@pytest.mark.slow
@pytest.mark.parametrize("network", [*OF_ANY_SIZE, "resnet18", "resnext50_32x4d"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_with_every_network_and_every_variant(method, network):
    plain = assert_it_trains(network, method, "none")
    fixed = METHODS[method].make(METHODS[method].options()).fixed_kernel
    for variant in [] if fixed else [name for name in VARIANTS if name != "none"]:
        assert_it_trains(network, method, variant, plain)
