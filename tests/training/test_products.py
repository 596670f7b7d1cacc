"""Backbones, long-tailed methods and SpA variants together: every combination trains."""

import statistics
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.alignment import ClassMeans
from spa_jax.alignment.kernels import find_kernels
from spa_jax.longtail.registry import METHODS
from spa_jax.reproduction.cells import Cell
from spa_jax.reproduction.tables import TABLES
from spa_jax.training.build import build_model
from spa_jax.training.config import check_config
from spa_jax.training.config_limits import SPA_METHODS
from spa_jax.training.feeds.batch import Batch
from spa_jax.training.loop import run
from spa_jax.training.method import build_method, check_method, spa_options, views_of
from spa_jax.training.optimizer import build_optimizer
from spa_jax.training.program import Program
from spa_jax.training.state import TrainState, hyperparams_from
from spa_jax.training.step import make_train_step
from tests.training.small import small_config

NUM_CLASSES, BATCH, SIDE = 10, 8, 16
CLASS_COUNTS = np.array([110, 78, 56, 40, 29, 20, 14, 10, 7, 5], np.float32)

BACKBONES = {
    "small": {"model__widths": (12,)},
    "vit": {"model__widths": (12,), "model__stem_stride": 4},
    "convnext": {"model__widths": (12,), "model__stem_stride": 2},
    "cifar_resnet": {"model__depth": 20},
    "resnet18": {},
    "resnext50_32x4d": {},
}

# Class weights from the first epoch on.
METHOD_SETTINGS = {"ldam_drw": {"method__drw_epoch": 0}}

# What makes each variant act, and what makes it do nothing.
ACTING = {"weight": 3.0, "alpha_max": 0.05, "threshold": 1.0, "gamma": 0.0}
WITHOUT = {"weight": 0.0, "alpha_max": 0.0, "gamma": 1.0}

# Compiling well takes longer than these few steps.
QUICK = {"xla_backend_optimization_level": 0}


def configuration(backbone, method, variant):
    config = small_config(
        batch_size=BATCH,
        model__name=backbone,
        method__name=method,
        spa__method=variant,
        augment__crop_padding=0,
        augment__flip=False,
        optimizer__learning_rate=0.02,
        **BACKBONES[backbone],
        **METHOD_SETTINGS.get(method, {}),
        **{f"spa__{name}": value for name, value in ACTING.items()},
    )
    check_config(config)
    check_method(config)
    return config


def examples(seed):
    """A batch of noise, of five classes: what there is to learn is which image is which."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (BATCH, SIDE, SIDE, 3), dtype=np.uint8)
    labels = generator.integers(0, 5, BATCH).astype(np.int32)
    return Batch(images, labels, np.arange(BATCH, dtype=np.int32))


def normalize(images):
    return (images.astype(jnp.float32) - 127.5) / 74.0


class Trained:
    """The combinations of one backbone and one method, which begin with the same variables."""

    def __init__(self, backbone, method):
        self.backbone, self.method = backbone, method
        config = configuration(backbone, method, "none")
        model = build_model(config, build_method(config), NUM_CLASSES, None)
        self.dim = model.backbone.dim

        def init(key, images):
            return model.init_with_output(key, normalize(images), train=True)

        batch = examples(seed=0)
        started = jax.jit(init, compiler_options=QUICK)(jax.random.key(0), batch.images)
        (self.features, _), self.variables = started

    def state(self, config):
        """Before the first step, but each class has the mean of the features of another.

        A step turns weights towards features of their own class, so that there is much to project.
        """
        hyperparams = jax.tree.map(jnp.asarray, hyperparams_from(config))
        params = self.variables["params"]
        means = ClassMeans.create(NUM_CLASSES, self.dim, config.spa.decay)
        others = (examples(seed=0).labels + 1) % 5
        return TrainState(
            step=jnp.int32(0),
            params=params,
            batch_stats=self.variables.get("batch_stats", {}),
            constants=self.variables.get("constants", {}),
            opt_state=build_optimizer(config, hyperparams, 5).init(params),
            class_means=means.update(self.features, others),
            rng=jax.random.key(0),
            hyperparams=hyperparams,
        )

    def compiled(self, variant):
        """The configuration of a variant, and its step on one batch."""
        config = configuration(self.backbone, self.method, variant)
        method = build_method(config)
        model = build_model(config, method, NUM_CLASSES, None)
        step = make_train_step(model, method, config, normalize, CLASS_COUNTS, 5)
        batch = examples(seed=0)
        if views_of(config).mix != "none":
            partner = examples(seed=1)
            batch = batch.replace(partner=partner.replace(positions=BATCH + partner.positions))
        take = jax.jit(step, compiler_options=QUICK)
        return config, lambda state: take(state, batch)

    def three_steps(self, config, take, **strengths):
        """Losses, and the kernel that SpA acts on before and after.

        The step has always the same number, the fourth: one coefficient mixes, and SLERP turns.
        """
        state, losses = self.state(config), []
        hyperparams = state.hyperparams | {k: jnp.float32(v) for k, v in strengths.items()}
        state = state.replace(hyperparams=hyperparams)
        before = kernel_of(state, config)
        for _ in range(3):
            state, metrics = take(state.replace(step=jnp.int32(3)))
            losses.append(float(metrics["loss"]))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
        return losses, before, kernel_of(state, config)


def kernel_of(state, config):
    tree = {"params": state.params, "constants": state.constants}
    (place,) = find_kernels(tree, spa_options(config)["classifier"])
    return np.asarray(jax.tree.leaves(tree)[place])


def largest(difference):
    return np.abs(difference).max()


def assert_every_variant_trains(backbone, method):
    """The loss falls, the head moves, and a variant changes how, unless its strength is nought."""
    trained = Trained(backbone, method)
    fixed = build_method(configuration(backbone, method, "none")).fixed_kernel
    plain = None
    for variant in SPA_METHODS[:1] if fixed else SPA_METHODS:
        what = f"{backbone}, {method}, {variant}"
        config, take = trained.compiled(variant)
        losses, before, after = trained.three_steps(config, take)
        assert losses[2] < losses[0], what
        if fixed:
            np.testing.assert_array_equal(after, before)
            continue
        assert largest(after - before) > 1e-3, what
        plain = after if plain is None else plain
        if variant != "none":
            _, _, without = trained.three_steps(config, take, **WITHOUT)
            change = largest(after - plain)
            assert change > 1e-3 * largest(plain - before), what
            assert change > 10 * largest(without - plain), what


@pytest.mark.parametrize(
    "backbone",
    [
        "small",
        "vit",
        "convnext",
        "cifar_resnet",
        "resnet18",
        pytest.param("resnext50_32x4d", marks=pytest.mark.slow),
    ],
)
def test_every_variant_trains_every_backbone(backbone):
    assert_every_variant_trains(backbone, "cross_entropy")


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_with_every_backbone_and_every_variant(method, backbone):
    assert_every_variant_trains(backbone, method)


@pytest.fixture(scope="module")
def fashion_accuracy(tmp_path_factory):
    """A function that gives a method's last test accuracy, the mean of three seeds."""
    known = {}

    def config_of(method, seed):
        cell = Cell("final", method, "none", 100.0, seed, "reversed")
        config = TABLES["fashion_mnist"].config(cell)
        config.checkpoint.every_epochs = 0
        config.logging.tensorboard = config.logging.plots = False
        return config

    def get(method):
        if method not in known:
            first = config_of(method, 0)
            if not Path(first.data.folder).is_dir():
                pytest.skip("Fashion-MNIST is not installed: apt-get install dataset-fashion-mnist")
            assert first.epochs == 30
            program = Program(first, devices=jax.devices()[:1])
            accuracies = []
            for seed in range(3):
                workdir = tmp_path_factory.mktemp(f"{method}_{seed}")
                summary = run(config_of(method, seed), workdir, program, lambda line: None)
                accuracies.append(summary["test_accuracy"]["last"])
            known[method] = statistics.mean(accuracies)
        return known[method]

    return get


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in METHODS if name != "cross_entropy"])
def test_no_method_falls_behind_cross_entropy_on_fashion_mnist(method, fashion_accuracy):
    """Rare classes that are hard, 30 epochs, three seeds; three points are for chance."""
    assert fashion_accuracy(method) >= fashion_accuracy("cross_entropy") - 0.03
