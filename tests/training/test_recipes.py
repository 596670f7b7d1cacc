"""The published recipes, value by value, and the configuration files that use them."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.training.build import build_model
from spa_jax.training.config import check_config, default_config
from spa_jax.training.method import build_method, check_method
from spa_jax.training.optimizer import build_optimizer
from spa_jax.training.recipes import CIFAR_RECIPES, imagenet_lt_recipe
from spa_jax.training.rundir.workdir import flatten_config
from tests.models.backbone_checks import parameter_count
from tests.refusals import refusal

DEFAULTS = flatten_config(default_config().to_dict())
IMBALANCE_FACTORS = (10.0, 20.0, 50.0, 100.0, 200.0, 500.0)

# ResNet-32, batches of 128, SGD with momentum 0.9, rate 0.1 with a warm-up of 5 epochs and falls to
# a hundredth after epochs 160 and 180, weight decay 2e-4, random crops and flips.
STANDARD = {
    "epochs": 200,
    "batch_size": 128,
    "data.protocol": "ldam",
    "data.split_seed": -1,
    "data.sampler": "shuffle",
    "augment.crop_padding": 4,
    "augment.flip": True,
    "augment.policy": "none",
    "augment.cutout": 0,
    "augment.mix": "none",
    "model.name": "cifar_resnet",
    "model.depth": 32,
    "model.width_factor": 1,
    "method.name": "cross_entropy",
    "method.drw_epoch": 160,
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.1,
    "optimizer.warmup_epochs": 5.0,
    "optimizer.schedule": "steps",
    "optimizer.per_epoch": True,
    "optimizer.step_epochs": [160, 180],
    "optimizer.step_factor": 0.01,
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": False,
    "optimizer.weight_decay": 2e-4,
    "spa.method": "none",
}

# The same network four times as wide, batches of 64, rate 0.01 along a cosine from the first epoch
# on, weight decay 5e-3; mixing coefficients are uniform, the projector has 128 outputs, and nothing
# is shown unmixed.
GLMC = STANDARD | {
    "batch_size": 64,
    "data.protocol": "glmc",
    "augment.mix_alpha": 1.0,
    "model.width_factor": 4,
    "method.name": "glmc",
    "method.glmc_projection_dim": 128,
    "spa.means_from": "training",
    "optimizer.learning_rate": 0.01,
    "optimizer.warmup_epochs": 0.0,
    "optimizer.schedule": "cosine",
    "optimizer.weight_decay": 5e-3,
}

# Power of the sampler, power of the class weights, weight of the consistency.
GLMC_STRENGTHS = {
    ("cifar10", 10.0): (0.2, 1.0, 2.0),
    ("cifar10", 50.0): (0.0, 1.2, 1.0),
    ("cifar10", 100.0): (0.0, 1.2, 1.0),
    ("cifar100", 10.0): (0.2, 1.2, 4.0),
    ("cifar100", 50.0): (0.2, 1.2, 6.0),
    ("cifar100", 100.0): (0.0, 1.2, 4.0),
}

SPA = GLMC | {
    "data.split_seed": 42,
    "method.glmc_sampler_power": 0.0,
    "method.glmc_label_power": 1.1,
    "method.glmc_similarity_weight": 4.0,
    "optimizer.schedule": "spa_released",
    "spa.method": "proj",
    "spa.gamma": 0.6,
    "spa.radial": "scale",
    "spa.acts_on": "gradients",
    "spa.decay": 0.9,
    "spa.center": True,
    "spa.means_from": "auto",  # of unmixed images
}

# Random-resized crops of 224 pixels, flips, colour jitter; the rate changes between epochs.
IMAGENET_LT = {
    "data.profile": "natural",
    "data.sampler": "shuffle",
    "data.feed": "stream",
    "augment.flip": True,
    "augment.crop_padding": 0,
    "augment.image_size": 224,
    "augment.resize": 256,
    "augment.min_area": 0.08,
    "augment.color_jitter": 0.4,
    "augment.policy": "none",
    "model.dtype": "bfloat16",
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.1,
    "optimizer.schedule": "cosine",
    "optimizer.per_epoch": True,
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": False,
    "spa.method": "none",
}
IMAGENET_LT_BY_EPOCHS = {
    90: {
        "batch_size": 256,
        "model.name": "resnext50_32x4d",
        "method.name": "cross_entropy",
        "augment.mix": "none",
        "augment.grey": 0.0,
        "augment.blur": 0.0,
        "optimizer.warmup_epochs": 0.0,
        "optimizer.weight_decay": 5e-4,
    },
    135: {
        "batch_size": 120,
        "model.name": "resnext50_32x4d",
        "method.name": "glmc",
        "method.glmc_sampler_power": 0.2,
        "method.glmc_label_power": 1.0,
        "method.glmc_similarity_weight": 10.0,
        "method.glmc_projection_dim": 256,
        "spa.means_from": "training",
        "augment.mix_alpha": 1.0,
        "augment.grey": 0.2,
        "augment.blur": 0.5,
        "optimizer.warmup_epochs": 10.0,
        "optimizer.weight_decay": 2e-4,
    },
    180: {
        "batch_size": 256,
        "model.name": "resnet50",
        "method.name": "cross_entropy",
        "augment.mix": "mixup",
        "augment.mix_alpha": 0.2,
        "augment.grey": 0.0,
        "augment.blur": 0.0,
        "optimizer.warmup_epochs": 0.0,
        "optimizer.weight_decay": 5e-4,
    },
}


def config_of(file, argument=None):
    """What a file in `configs/` builds, which has to pass all checks that need no data."""
    module = importlib.import_module(f"configs.{file}")
    config = module.get_config() if argument is None else module.get_config(argument)
    check_config(config)
    check_method(config)
    return config


def assert_recipe(config, expected, of_file):
    """The expected values, and the defaults in every other field that the file does not set."""
    found = flatten_config(config.to_dict())
    assert {field: found[field] for field in expected} == expected
    changed = {field for field, value in found.items() if value != DEFAULTS[field]}
    assert changed - expected.keys() <= of_file


OF_CIFAR_FILES = {"eval_batch_size", "data.name", "data.imbalance_factor"}


def cifar(name, recipe, imbalance_factor):
    argument = f"imbalance_factor={imbalance_factor:g},recipe={recipe}"
    config = config_of(f"{name}_lt", argument)
    assert config.data.name == name
    assert config.data.imbalance_factor == imbalance_factor
    return config


@pytest.mark.parametrize("imbalance_factor", IMBALANCE_FACTORS)
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_recipe_that_most_codes_share_is_the_same_for_every_imbalance(name, imbalance_factor):
    assert_recipe(cifar(name, "standard", imbalance_factor), STANDARD, OF_CIFAR_FILES)


@pytest.mark.parametrize("imbalance_factor", (*IMBALANCE_FACTORS, 10.5, 50.9))
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_recipe_of_glmcs_code_has_its_strengths_for_each_imbalance(name, imbalance_factor):
    """Where none are published, those of imbalance factor 100."""
    strengths = GLMC_STRENGTHS.get((name, imbalance_factor), GLMC_STRENGTHS[name, 100.0])
    fields = ("glmc_sampler_power", "glmc_label_power", "glmc_similarity_weight")
    expected = {f"method.{field}": s for field, s in zip(fields, strengths, strict=True)}
    assert_recipe(cifar(name, "glmc", imbalance_factor), GLMC | expected, OF_CIFAR_FILES)


@pytest.mark.parametrize("imbalance_factor", IMBALANCE_FACTORS)
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_recipe_of_spas_released_code_is_the_same_for_every_imbalance(name, imbalance_factor):
    assert_recipe(cifar(name, "spa", imbalance_factor), SPA, OF_CIFAR_FILES)


@pytest.mark.parametrize("epochs", IMAGENET_LT_BY_EPOCHS)
def test_each_recipe_of_imagenet_lt_has_its_published_values(epochs):
    expected = IMAGENET_LT | IMAGENET_LT_BY_EPOCHS[epochs] | {"epochs": epochs}
    of_file = {"eval_batch_size", "data.name", "loader.workers"}
    assert_recipe(config_of("imagenet_lt", f"epochs={epochs}"), expected, of_file)


def rates(config):
    """The learning rate of each epoch, which SGD of one step an epoch multiplies gradients by."""
    config.optimizer.momentum, config.spa.method = 0.0, "none"
    hyperparams = {"learning_rate": config.optimizer.learning_rate, "weight_decay": 0.0}
    tx = build_optimizer(config, hyperparams, steps_per_epoch=1)
    params = {"w": jnp.zeros(())}

    def step(state, _):
        updates, state = tx.update({"w": jnp.ones(())}, state, params)
        return state, -jax.tree.leaves(updates)[0]

    _, found = jax.lax.scan(step, tx.init(params), length=config.epochs)
    return np.asarray(found)


def half_cosine(peak, epochs):
    return peak / 2 * (1 + np.cos(np.pi * np.arange(epochs) / epochs))


def rising(peak, epochs):
    return peak * (1 + np.arange(epochs)) / epochs


def released_rate(epoch):
    if epoch <= 10:
        return 0.01 * (epoch + 1) / 10
    return 0.01 * 0.5 * (1 + np.cos(np.pi * (epoch - 9) / (200 - 9)))


SCHEDULES = {
    ("cifar10_lt", "recipe=standard"): np.concatenate(
        [rising(0.1, 5), np.full(155, 0.1), np.full(20, 1e-3), np.full(20, 1e-5)]
    ),
    ("cifar100_lt", "recipe=glmc"): half_cosine(0.01, 200),
    ("cifar10_lt", "recipe=spa"): np.array([released_rate(epoch) for epoch in range(200)]),
    ("imagenet_lt", "epochs=90"): half_cosine(0.1, 90),
    ("imagenet_lt", "epochs=135"): np.concatenate([rising(0.1, 10), half_cosine(0.1, 125)]),
    ("imagenet_lt", "epochs=180"): half_cosine(0.1, 180),
}


@pytest.mark.parametrize(("file", "argument"), SCHEDULES)
def test_the_rate_of_every_epoch_is_the_published_one(file, argument):
    found = rates(config_of(file, argument))
    np.testing.assert_allclose(found, SCHEDULES[file, argument], rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("file", "argument", "classes", "millions"),
    [("cifar10_lt", "recipe=standard", 10, 0.46), ("cifar100_lt", "recipe=spa", 100, 7.48)],
)
def test_the_network_of_a_recipe_has_the_published_size(file, argument, classes, millions):
    config = config_of(file, argument)
    model = build_model(config, build_method(config), classes, None)
    assert round(parameter_count(model) / 1e6, 2) == millions


# Files and what may follow their colon, besides the imbalance factors and recipes above.
ARGUMENTS = [
    ("digits_lt", None),
    ("digits_lt", "model=vit"),
    ("digits_lt", "model=convnext"),
    ("digits_balanced", None),
    ("inaturalist2018", None),
    ("cifar10_lt", ""),
    ("cifar10_lt", "recipe=small"),
    ("cifar10_lt", "recipe=small,imbalance_factor=200"),
    ("cifar100_lt", ""),
    ("fashion_mnist_lt", ""),
    ("fashion_mnist_lt", "class_order=reversed"),
    ("fashion_mnist_lt", "imbalance_factor=50,model=vit"),
    *(("fashion_mnist_lt", f"imbalance_factor={factor:g}") for factor in IMBALANCE_FACTORS),
    ("imagenet_lt", ""),
]


def test_every_configuration_file_is_tried():
    folder = Path(__file__).parents[2] / "configs"
    assert {file for file, _ in ARGUMENTS} == {path.stem for path in folder.glob("*.py")}


@pytest.mark.parametrize(("file", "argument"), ARGUMENTS)
def test_every_configuration_file_builds_with_each_argument(file, argument):
    config = config_of(file, argument)
    for part in filter(None, (argument or "").split(",")):
        name, _, value = part.partition("=")
        if name == "model":
            assert config.model.name == value
        elif name != "recipe":
            assert config.data[name] == type(DEFAULTS[f"data.{name}"])(value)


def test_a_file_without_an_argument_takes_the_first_that_it_names():
    for file, argument in (
        ("cifar10_lt", "imbalance_factor=100,recipe=standard"),
        ("cifar100_lt", "imbalance_factor=100,recipe=standard"),
        ("fashion_mnist_lt", "imbalance_factor=100,class_order=label,model=small"),
        ("digits_lt", "model=small"),
        ("imagenet_lt", "epochs=90"),
    ):
        assert config_of(file, "").to_dict() == config_of(file, argument).to_dict()


@pytest.mark.parametrize(
    ("file", "argument", "parts"),
    [
        ("cifar10_lt", "recipe=ldam", ("small, standard, glmc, spa", "got ldam")),
        ("cifar100_lt", "recipe=small", ("one of standard, glmc, spa", "got small")),
        ("cifar10_lt", "recipes=glmc", ("imbalance_factor=VALUE, recipe=VALUE", "'recipes=glmc'")),
        ("cifar10_lt", "glmc", ("recipe=VALUE", "'glmc'")),
        ("cifar100_lt", "imbalance_factor=many", ("imbalance_factor", "'many'")),
        ("digits_lt", "model=resnet18", ("small, vit or convnext", "'resnet18'")),
        ("fashion_mnist_lt", "model=convnext", ("small or vit", "'convnext'")),
        ("fashion_mnist_lt", "class_order=backwards", ("label, reversed", "'backwards'")),
        ("imagenet_lt", "epochs=100", ("90, 135 or 180 epochs", "got 100")),
        ("imagenet_lt", "epochs=long", ("epochs must be like 90", "'long'")),
    ],
)
def test_an_argument_that_a_file_does_not_know_is_refused_with_those_it_does(file, argument, parts):
    message = refusal(config_of, file, argument)
    for part in parts:
        assert part in message


def test_a_recipe_changes_a_configuration_of_another_data_set_too():
    """With the strengths that CIFAR-100 and factor 100 have."""
    for name, recipe in CIFAR_RECIPES.items():
        config = default_config()
        recipe(config)
        check_config(config)
        check_method(config)
        assert config.data.name == "digits"
        assert config.epochs == 200, name
    config = default_config()
    CIFAR_RECIPES["glmc"](config)
    found = [config.method[f"glmc_{name}"] for name in ("sampler_power", "label_power")]
    assert found == [0.0, 1.2]
    assert config.method.glmc_similarity_weight == 4.0


def test_a_refused_number_of_epochs_leaves_the_configuration_as_it_was():
    config = default_config()
    message = refusal(imagenet_lt_recipe, config, 91)
    assert "90, 135 or 180" in message
    assert config.to_dict() == default_config().to_dict()
