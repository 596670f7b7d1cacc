"""Networks and heads by name: each is built, and what does not go together is refused."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.models.classifier import Classifier
from spa_jax.models.convnext import STAGES, ConvNeXt
from spa_jax.models.networks import HEADS, NETWORKS, build_classifier
from spa_jax.models.residual import ARCHITECTURES, make_imagenet_resnet
from spa_jax.models.vision_transformer import SIZES, VisionTransformer
from spa_jax.options import NoOptions, defaults_of, read_options
from tests.models.backbone_checks import shapes_of
from tests.refusals import refusal

IMAGES = np.zeros((2, 32, 32, 3), np.float32)
ON_FEATURES = ("identity", "adapter")
FIXED = {
    **dict.fromkeys(ARCHITECTURES, (make_imagenet_resnet, ARCHITECTURES)),
    **dict.fromkeys(SIZES, (VisionTransformer, SIZES)),
    **dict.fromkeys(STAGES, (ConvNeXt, STAGES)),
}


def classifier(name, head="linear", dtype="float32", axis_name=None, **options):
    entry = NETWORKS[name]
    return build_classifier(name, entry.options(**options), head, {}, 5, dtype, axis_name)


@pytest.mark.parametrize("name", [x for x in NETWORKS if x not in (*FIXED, *ON_FEATURES)])
def test_every_network_of_any_size_gives_float32_features_of_its_width_and_logits(name):
    model = classifier(name)
    variables, (features, logits) = shapes_of(model, IMAGES)
    assert features.shape == (2, model.backbone.dim)
    assert logits.shape == (2, 5)
    assert features.dtype == logits.dtype == np.float32
    assert variables["params"]["head"]["kernel"].shape == (model.backbone.dim, 5)


@pytest.mark.parametrize("name", ON_FEATURES)
def test_a_network_on_features_starts_as_one_that_hands_them_on(name):
    model, features = classifier(name), jnp.arange(12.0).reshape(2, 6)
    (found, logits), variables = model.init_with_output(jax.random.key(0), features, train=True)
    np.testing.assert_array_equal(found, features)
    assert logits.shape == (2, 5)
    assert model.backbone.takes_features and model.backbone.dim is None
    assert ("backbone" in variables["params"]) == (name == "adapter")


@pytest.mark.parametrize("name", FIXED)
def test_a_network_of_fixed_size_has_no_options_and_takes_the_dtype(name):
    make, sizes = FIXED[name]
    assert NETWORKS[name].options is NoOptions
    assert classifier(name, dtype="bfloat16").backbone == make(sizes[name], jnp.dtype("bfloat16"))


@pytest.mark.parametrize("head", HEADS)
def test_every_head_takes_the_features_of_a_network(head):
    _, (features, outputs) = shapes_of(classifier("small", head), IMAGES)
    assert features.shape == (2, 32)
    # Experts have an axis of their own between.
    assert (2, 5) in [(leaf.shape[0], leaf.shape[-1]) for leaf in jax.tree.leaves(outputs)]


class Outputs(NamedTuple):
    logits: object
    features: object


def test_features_are_the_backbones_or_those_that_the_head_gives():
    images = jnp.asarray(np.random.default_rng(0).normal(size=IMAGES.shape), jnp.float32)
    expected = images.mean(axis=(1, 2))
    for head, factor in ((lambda f, _: f, 1), (lambda f, _: Outputs(f, 2 * f), 2)):
        model = Classifier(lambda images, train: images.mean(axis=(1, 2)), head)
        features, outputs = model.apply({}, images, False)
        np.testing.assert_array_equal(features, factor * expected)
        np.testing.assert_array_equal(getattr(outputs, "logits", outputs), expected)


@pytest.mark.parametrize(("name", "head"), [("small", "etf"), ("cifar_resnet", "linear")])
def test_the_axis_name_reaches_every_normalisation(name, head):
    found = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, nn.BatchNorm):
            found.append(context.module.axis_name)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        variables, _ = shapes_of(classifier(name, head, axis_name="data"), IMAGES)
    assert found == ["data"] * (len(jax.tree.leaves(variables["batch_stats"])) // 2)


@pytest.mark.parametrize("name", ["vit", "convnext", "cifar_resnet"])
def test_the_dtype_reaches_the_layers_and_features_stay_float32(name):
    model = classifier(name, dtype="bfloat16")

    def run(x):
        variables = model.init(jax.random.key(0), x, train=False)
        return model.apply(variables, x, train=False, capture_intermediates=True)

    (features, _), changed = jax.eval_shape(run, IMAGES)
    layers = [leaf for leaf in jax.tree.leaves(changed["intermediates"]) if leaf.ndim > 2]
    assert len(layers) > 5
    assert {str(leaf.dtype) for leaf in layers} == {"bfloat16"}
    assert features.dtype == np.float32


def test_the_small_network_computes_in_float32_only():
    message = refusal(classifier, "small", dtype="bfloat16")
    assert "config.model.name" in message
    assert "config.model.dtype=bfloat16" in message


@pytest.mark.parametrize("name", ["small", "convnext"])
def test_a_network_without_stages_is_refused(name):
    options = NETWORKS[name].options
    group = defaults_of(options) | {"widths": ()}
    message = refusal(read_options, options, group, f"config.model.{name}")
    assert f"config.model.{name}.widths" in message


BLOCKS = {
    "small": {"widths": (4, 6, 8)},
    "cifar_resnet": {"depth": 8},
    "vit": {"width": 8, "layers": 2},
    "convnext": {"widths": (4, 4, 8)},
}


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("small", 3),
        pytest.param("vit", 2, marks=pytest.mark.thorough),
        pytest.param("cifar_resnet", 3, marks=pytest.mark.thorough),
        pytest.param("convnext", 3, marks=pytest.mark.thorough),
    ],
)
@pytest.mark.thorough
def test_blocks_that_are_computed_again_have_the_same_parameters_values_and_gradients(name, blocks):
    entry, images = (
        NETWORKS[name],
        jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 1)), jnp.float32),
    )
    options = entry.options(**BLOCKS[name])
    plain, again = (
        build_classifier(name, options, "linear", {}, 5, remat=remat) for remat in (False, True)
    )
    variables = jax.jit(plain.init, static_argnames="train")(jax.random.key(0), images, train=False)
    structure = jax.tree.map(jnp.shape, variables)
    assert jax.tree.map(jnp.shape, shapes_of(again, images)[0]) == structure

    def gradient(model):
        def loss(params):
            (_, logits), changed = model.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            return jnp.mean(jnp.square(logits - 1)), changed

        return jax.value_and_grad(loss, has_aux=True)

    one, other = (jax.jit(gradient(model))(variables["params"]) for model in (plain, again))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(a).max()))
    programs = [
        str(jax.make_jaxpr(gradient(model))(variables["params"])) for model in (plain, again)
    ]
    assert [text.count("prevent_cse=True") for text in programs] == [0, blocks]


def test_a_network_without_blocks_computes_none_again():
    message = refusal(build_classifier, "identity", NoOptions(), "linear", {}, 5, remat=True)
    assert "config.model.remat" in message and "identity has none" in message
