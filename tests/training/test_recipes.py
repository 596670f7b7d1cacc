"""The published recipes, value by value and rate by rate, and the files that are made of them."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.models.networks import build_classifier
from spa_jax.training import recipes
from spa_jax.training.config import default_config, flatten_config, resolve
from spa_jax.training.optimizer import learning_rate_multiple
from tests.models.backbone_checks import shapes_of
from tests.refusals import refusal

DEFAULTS = flatten_config(default_config().to_dict())

# ResNet-32, batches of 128, SGD with momentum 0.9, rate 0.1 with a warm-up of 5 epochs and falls to
# a hundredth after epochs 160 and 180, weight decay 2e-4, random crops and flips.
STANDARD = {
    "epochs": 200,
    "batch_size": 128,
    "data.protocol": "ldam",
    "data.split_seed": -1,
    "data.sampler": "shuffle",
    "data.drop_last": False,
    "augment.crop_padding": 4,
    "augment.flip": True,
    "augment.policy": "none",
    "augment.cutout": 0,
    "augment.mix": "none",
    "model.name": "cifar_resnet",
    "model.cifar_resnet.depth": 32,
    "model.cifar_resnet.width_factor": 1,
    "method.name": "cross_entropy",
    "method.ldam_drw.epoch": 160,
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
    "data.drop_last": True,
    "data.protocol": "glmc",
    "augment.mix_alpha": 1.0,
    "model.cifar_resnet.width_factor": 4,
    "method.name": "glmc",
    "method.glmc.projection_dim": 128,
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
GLMC_FIELDS = ("sampler_power", "label_power", "similarity_weight")

SPA = GLMC | {
    "data.split_seed": 42,
    "method.glmc.sampler_power": 0.0,
    "method.glmc.label_power": 1.1,
    "method.glmc.similarity_weight": 4.0,
    "optimizer.schedule": "spa_released",
    "spa.method": "proj",
    "spa.proj.gamma": 0.6,
    "spa.proj.radial": "scale",
    "spa.proj.acts_on": "gradients",
    "spa.decay": 0.9,
    "spa.center": True,
    "spa.means_from": "auto",  # of unmixed images
}

# 24 batches of 512 are in an epoch of CIFAR-10-LT at IF 100: 541.7 epochs have 13,000 of them.
BALMS = STANDARD | {
    "data.drop_last": True,
    "epochs": 542,
    "batch_size": 512,
    "augment.policy": "autoaugment_cifar",
    "augment.cutout": 16,
    "method.name": "balanced_softmax",
    "optimizer.warmup_epochs": 800 / 24,
    "optimizer.schedule": "cosine",
    "optimizer.per_epoch": False,
    "optimizer.weight_decay": 5e-4,
}

# The classifier alone, on the features of a first run and on draws of all classes alike.
CRT = STANDARD | {
    "data.drop_last": True,
    "epochs": 10,
    "data.sampler": "class_aware",
    "init.run": "runs/first",
    "init.parts": "backbone",
    "optimizer.train_only": "head",
    "optimizer.warmup_epochs": 0.0,
    "optimizer.schedule": "cosine",
    "optimizer.per_epoch": False,
}

LWS = CRT | {"init.parts": "all", "optimizer.train_only": "scales"}

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
        "method.glmc.sampler_power": 0.2,
        "method.glmc.label_power": 1.0,
        "method.glmc.similarity_weight": 10.0,
        "method.glmc.projection_dim": 256,
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


def assert_recipe(config, expected, of_data_set):
    """The expected values, and the defaults in all other fields but those of the data set."""
    resolve(config)
    found = flatten_config(config.to_dict())
    assert {field: found[field] for field in expected} == expected
    changed = {field for field, value in found.items() if value != DEFAULTS[field]}
    assert changed - expected.keys() <= of_data_set


def assert_cifar_recipe(name, recipe, imbalance_factor, expected):
    config = getattr(recipes, f"{name}_lt")(imbalance_factor, recipe)
    assert (config.data.name, config.data.imbalance_factor) == (name, imbalance_factor)
    assert_recipe(config, expected, {"eval_batch_size", "data.name", "data.imbalance_factor"})


@pytest.mark.parametrize("imbalance_factor", [10.0, 100.0, 500.0])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_published_recipe_of_cifar_is_the_same_for_every_imbalance(name, imbalance_factor):
    """But for GLMC's, which where no strengths are published has those of imbalance factor 100."""
    for recipe, expected in (("standard", STANDARD), ("spa", SPA)):
        assert_cifar_recipe(name, recipe, imbalance_factor, expected)


@pytest.mark.parametrize("imbalance_factor", [10.0, 50.0, 100.0, 200.0, 10.5])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_recipe_of_glmcs_code_has_its_strengths_for_each_imbalance(name, imbalance_factor):
    strengths = GLMC_STRENGTHS.get((name, imbalance_factor), GLMC_STRENGTHS[name, 100.0])
    fields = [f"method.glmc.{field}" for field in GLMC_FIELDS]
    expected = GLMC | dict(zip(fields, strengths, strict=True))
    assert_cifar_recipe(name, "glmc", imbalance_factor, expected)


def test_balanced_meta_softmaxs_recipe_has_thirteen_thousand_steps_to_half_an_epoch():
    assert_cifar_recipe("cifar10", "balms", 100.0, BALMS)
    # 11,203 and 9,502 training images.
    for name, epochs, steps in (("cifar10", 619, 21), ("cifar100", 722, 18)):
        config = getattr(recipes, f"{name}_lt")(200.0, "balms")
        assert config.epochs == epochs
        assert abs(epochs * steps - 13_000) <= steps / 2
        assert config.optimizer.warmup_epochs * steps == pytest.approx(800)


def second_stage(name="cifar10", recipe="crt", **arguments):
    """A second stage after a run, which a recipe cannot know."""
    config = getattr(recipes, f"{name}_lt")(recipe=recipe, **arguments)
    assert "config.init.run" in refusal(resolve, config)
    config.init.run = "runs/first"
    return config


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize(("recipe", "expected"), [("crt", CRT), ("lws", LWS)])
def test_the_recipe_of_a_second_stage_needs_a_first_run(name, recipe, expected):
    of_data_set = {"eval_batch_size", "data.name", "data.imbalance_factor"}
    assert_recipe(second_stage(name, recipe, imbalance_factor=50.0), expected, of_data_set)


@pytest.mark.parametrize("epochs", IMAGENET_LT_BY_EPOCHS)
def test_each_recipe_of_imagenet_lt_has_its_published_values(epochs):
    expected = IMAGENET_LT | IMAGENET_LT_BY_EPOCHS[epochs] | {"epochs": epochs}
    of_data_set = {"eval_batch_size", "data.name", "loader.workers"}
    assert_recipe(recipes.imagenet_lt(epochs), expected, of_data_set)


# From ImageNet weights, the network too; the second stages are on the classifier.
PLACES = IMAGENET_LT | {
    "epochs": 90,
    "batch_size": 256,
    "model.name": "resnet152",
    "method.name": "cross_entropy",
    "augment.mix": "mixup",
    "augment.mix_alpha": 0.2,
    "optimizer.learning_rate": 0.01,
    "optimizer.weight_decay": 5e-4,
}
SECOND = PLACES | {
    "augment.mix": "none",
    "augment.mix_alpha": 1.0,
    "data.sampler": "class_aware",
    "init.run": "runs/first",
    "optimizer.learning_rate": 0.1,
    "optimizer.per_epoch": False,
}
PLACES_BY_RECIPE = {
    "mixup": PLACES,
    "crt": SECOND | {"epochs": 10, "init.parts": "backbone", "optimizer.train_only": "head"},
    "lws": SECOND | {"epochs": 5, "init.parts": "all", "optimizer.train_only": "scales"},
}


@pytest.mark.parametrize("recipe", PLACES_BY_RECIPE)
def test_each_recipe_of_places_lt_has_its_published_values(recipe):
    config = recipes.places_lt(recipe)
    if recipe != "mixup":
        assert "config.init.run" in refusal(resolve, config)
        config.init.run = "runs/first"
    of_data_set = {"eval_batch_size", "data.name", "loader.workers"}
    assert_recipe(config, PLACES_BY_RECIPE[recipe], of_data_set)


@pytest.mark.parametrize("model", ["vit_s16", "convnext_tiny"])
def test_networks_without_batch_normalisation_decay_kernels_alone_on_imagenet_lt(model):
    expected = IMAGENET_LT | IMAGENET_LT_BY_EPOCHS[90]
    expected |= {
        "batch_size": 1024,
        "model.name": model,
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 1e-3,
        "optimizer.weight_decay": 0.05,
        "optimizer.decayed": "kernels",
        "optimizer.warmup_epochs": 9.0,
        "optimizer.per_epoch": False,
    }
    of_data_set = {"epochs", "eval_batch_size", "data.name", "loader.workers"}
    assert_recipe(recipes.imagenet_lt(model=model), expected, of_data_set)


SPE = 7  # steps of an epoch


def half_cosine(number):
    return (1 + np.cos(np.pi * np.arange(number) / number)) / 2


def rising(number):
    return (1 + np.arange(number)) / number


def cosine_by_step(epochs, warmup):
    """After a warm-up from one step's share of the peak to the whole of it."""
    steps = round(warmup * SPE)
    rise = 1 / steps + (1 - 1 / steps) * np.arange(steps) / steps
    return np.concatenate([rise, half_cosine(epochs * SPE - steps)])


def by_epoch(*parts):
    return np.repeat(np.concatenate(parts), SPE)


def released():
    """SpA's code: a warm-up of ten epochs that goes on for one more, then a cosine from epoch 9."""
    epochs = np.arange(200)
    fall = (1 + np.cos(np.pi * (epochs - 9) / (200 - 9))) / 2
    return by_epoch(np.where(epochs <= 10, (epochs + 1) / 10, fall))


RATES = {
    "standard": (
        recipes.cifar10_lt(recipe="standard"),
        0.1 * by_epoch(rising(5), np.ones(155), np.full(20, 1e-2), np.full(20, 1e-4)),
    ),
    "glmc": (recipes.cifar100_lt(recipe="glmc"), 0.01 * by_epoch(half_cosine(200))),
    "spa": (recipes.cifar10_lt(recipe="spa"), 0.01 * released()),
    "balms": (recipes.cifar10_lt(recipe="balms"), 0.1 * cosine_by_step(542, 800 / 24)),
    "crt": (second_stage(), 0.1 * half_cosine(10 * SPE)),
    "imagenet90": (recipes.imagenet_lt(90), 0.1 * by_epoch(half_cosine(90))),
    "imagenet135": (recipes.imagenet_lt(135), 0.1 * by_epoch(rising(10), half_cosine(125))),
    "imagenet180": (recipes.imagenet_lt(180), 0.1 * by_epoch(half_cosine(180))),
    "digits": (recipes.digits_lt(), 0.1 * cosine_by_step(60, 2)),
    "digits_vit": (recipes.digits_lt("vit"), 1e-3 * cosine_by_step(200, 20)),
    "digits_convnext": (recipes.digits_lt("convnext"), 1e-3 * cosine_by_step(60, 6)),
    "balanced": (recipes.digits_balanced(), 0.1 * cosine_by_step(200, 2)),
    "fashion": (recipes.fashion_mnist_lt(), 0.1 * cosine_by_step(30, 1)),
    "fashion_vit": (recipes.fashion_mnist_lt(model="vit"), 1e-3 * cosine_by_step(30, 3)),
    "cifar_small": (recipes.cifar10_lt(recipe="small"), 0.1 * cosine_by_step(10, 1)),
    "places": (recipes.places_lt(), 0.01 * by_epoch(half_cosine(90))),
    "inat": (recipes.inaturalist2018(), 0.2 * cosine_by_step(90, 5)),
}


@pytest.mark.parametrize("name", RATES)
def test_the_rate_of_every_step_is_the_published_one(name):
    config, expected = RATES[name]
    schedule = learning_rate_multiple(resolve(config).optimizer, config.epochs, SPE)
    peak = config.optimizer.learning_rate
    found = peak * np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(config.epochs * SPE)))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * peak)


@pytest.mark.parametrize(
    ("config", "classes", "millions"),
    [(recipes.cifar10_lt(), 10, 0.46), (recipes.cifar100_lt(recipe="spa"), 100, 7.48)],
)
def test_the_network_of_a_recipe_has_the_published_size(config, classes, millions):
    options = resolve(config)
    model = build_classifier(
        options.model.name,
        options.network,
        options.longtail.head,
        options.longtail.head_options,
        classes,
    )
    variables, _ = shapes_of(model, np.zeros((1, 32, 32, 3), np.float32))
    found = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert round(found / 1e6, 2) == millions


# What files in configs/ build for what follows their colon.
FILES = {
    ("digits_lt", ""): recipes.digits_lt(),
    ("digits_lt", "model=vit"): recipes.digits_lt("vit"),
    ("digits_balanced", None): recipes.digits_balanced(),
    ("features", ""): recipes.features(),
    ("features", "imbalance_factor=100,model=adapter"): recipes.features(100.0, "adapter"),
    ("inaturalist2018", None): recipes.inaturalist2018(),
    ("cifar10_lt", ""): recipes.cifar10_lt(100.0, "standard"),
    ("cifar10_lt", "recipe=small,imbalance_factor=200"): recipes.cifar10_lt(200.0, "small"),
    ("cifar100_lt", ""): recipes.cifar100_lt(100.0, "standard"),
    ("cifar100_lt", "recipe=balms"): recipes.cifar100_lt(100.0, "balms"),
    ("fashion_mnist_lt", ""): recipes.fashion_mnist_lt(100.0, "label", "small"),
    ("fashion_mnist_lt", "model=vit"): recipes.fashion_mnist_lt(model="vit"),
    ("fashion_mnist_lt", "class_order=reversed,imbalance_factor=50"): recipes.fashion_mnist_lt(
        50.0, "reversed"
    ),
    ("imagenet_lt", ""): recipes.imagenet_lt(90),
    ("imagenet_lt", "epochs=180"): recipes.imagenet_lt(180),
    ("imagenet_lt", "model=vit_s16"): recipes.imagenet_lt(90, "vit_s16"),
    ("places_lt", ""): recipes.places_lt("mixup"),
}


def config_of(file, argument):
    """What a file in `configs/` builds, which has to pass all checks that need no data."""
    module = importlib.import_module(f"configs.{file}")
    config = module.get_config() if argument is None else module.get_config(argument)
    resolve(config)
    return config


def test_every_configuration_file_is_tried():
    folder = Path(__file__).parents[2] / "configs"
    assert {file for file, _ in FILES} == {path.stem for path in folder.glob("*.py")}


@pytest.mark.parametrize(("file", "argument"), FILES)
def test_a_configuration_file_builds_what_its_argument_says(file, argument):
    assert config_of(file, argument).to_dict() == FILES[file, argument].to_dict()


@pytest.mark.parametrize(
    ("file", "argument", "parts"),
    [
        (
            "cifar10_lt",
            "recipe=ldam",
            ("of small, standard, glmc, spa, balms, crt, lws:", "got 'ldam'"),
        ),
        (
            "cifar100_lt",
            "recipe=small",
            ("one of standard, glmc, spa, balms, crt, lws:", "got 'small'"),
        ),
        ("cifar10_lt", "recipes=glmc", ("imbalance_factor=VALUE, recipe=VALUE", "'recipes=glmc'")),
        ("cifar10_lt", "glmc", ("recipe=VALUE", "'glmc'")),
        ("cifar100_lt", "imbalance_factor=many", ("imbalance_factor", "'many'")),
        ("digits_lt", "model=resnet18", ("one of small, vit, convnext:", "'resnet18'")),
        ("fashion_mnist_lt", "model=convnext", ("one of small, vit:", "'convnext'")),
        ("fashion_mnist_lt", "class_order=backwards", ("label, reversed", "'backwards'")),
        ("imagenet_lt", "epochs=100", ("90, 135 or 180 epochs", "got 100")),
        ("imagenet_lt", "model=resnet50", ("one of resnet, vit_s16,", "got 'resnet50'")),
        ("places_lt", "recipe=glmc", ("one of mixup, crt, lws:", "got 'glmc'")),
        (
            "imagenet_lt",
            "epochs=long",
            ("epochs takes values of type int", "got 'long'"),
        ),
    ],
)
def test_an_argument_that_a_file_does_not_know_is_refused_with_those_it_does(file, argument, parts):
    message = refusal(config_of, file, argument)
    for part in parts:
        assert part in message


def test_a_recipe_changes_a_configuration_of_another_data_set_too():
    """With the strengths that CIFAR-100 and factor 100 have."""
    for recipe in recipes.CIFAR_RECIPES.values():
        config = default_config()
        recipe(config)
        second = recipe in (recipes.crt_recipe, recipes.lws_recipe)
        config.init.run = "runs/first" if second else ""
        resolve(config)
        assert (config.data.name, config.model.name) == ("digits", "cifar_resnet")
    config = default_config()
    recipes.glmc_recipe(config)
    found = [config.method.glmc[field] for field in GLMC_FIELDS]
    assert found == [0.0, 1.2, 4.0]
