"""The vision transformer and ConvNeXt: torchvision's numbers, precision, gradients, devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.models.convnext import STAGES, ConvNeXt, ConvNeXtOptions, Stages, make_convnext
from spa_jax.models.vision_transformer import SIZES, VisionTransformer, VitOptions
from tests.models.backbone_checks import apply, on_eight_devices, shapes_of
from tests.models.peer_weights import RECORDED, images
from tests.models.transformer_peers import convnext_name, peer_params, vit_name
from tests.refusals import refusal

SMALL_VIT = VitOptions(patch_size=8, width=32, layers=2, heads=4)
SMALL_CONVNEXT = Stages(patch_size=2, widths=(16, 32), blocks=(1, 2))
# Class, what tells the sizes apart, torchvision's names of the layers.
VIT = (VisionTransformer, SMALL_VIT, vit_name)
CONVNEXT = (ConvNeXt, SMALL_CONVNEXT, convnext_name)
BOTH = pytest.mark.parametrize(("network", "size", "names"), [VIT, CONVNEXT], ids=["vit", "cnx"])


def variables_of(module, x, names):
    return {"params": peer_params(shapes_of(module, x)[0]["params"], names)}


@pytest.mark.parametrize(
    ("name", "network", "sizes", "names"),
    [
        ("vit_s16", VisionTransformer, SIZES, vit_name),
        ("convnext_tiny", ConvNeXt, STAGES, convnext_name),
    ],
)
def test_features_are_those_that_torchvision_computed(name, network, sizes, names):
    with np.load(RECORDED / f"{name}.npz") as file:
        record = dict(file)
    module, x = network(sizes[name]), images(name, len(record["features"]), 64)
    variables = variables_of(module, x, names)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == record["parameters"]
    features, _ = apply(module, variables, x, False)
    assert features.shape == (4, module.dim)
    np.testing.assert_allclose(features, record["features"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("module", "parameters"),
    [
        (VisionTransformer(SIZES["vit_b16"]), 86_567_656),
        (ConvNeXt(STAGES["convnext_tiny"]), 28_589_128),
        (ConvNeXt(STAGES["convnext_small"]), 50_223_688),
    ],
)
def test_the_network_and_a_linear_classifier_have_the_published_number_of_parameters(
    module, parameters
):
    variables, features = shapes_of(module, np.zeros((2, 224, 224, 3), np.float32))
    assert features.shape == (2, module.dim)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count + (module.dim + 1) * 1000 == parameters


@BOTH
def test_layers_compute_in_bfloat16_and_parameters_and_features_stay_float32(network, size, names):
    x = jnp.asarray(images("half", 4, 32))
    half = network(size, dtype=jnp.bfloat16)
    variables = variables_of(half, x, names)

    @jax.jit
    def run(variables):
        return half.apply(variables, x, train=True, capture_intermediates=True, mutable=True)

    features, changed = run(variables)
    assert features.dtype == np.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(changed["params"])} == {np.dtype(np.float32)}
    layers = [leaf for leaf in jax.tree.leaves(changed["intermediates"]) if leaf.ndim > 2]
    assert {leaf.dtype for leaf in layers} == {np.dtype(jnp.bfloat16)}
    assert len(layers) > 10
    exact, _ = apply(network(size), variables, x, True)
    error = np.linalg.norm(features - exact) / np.linalg.norm(exact)
    assert 1e-5 < error < 0.05


@BOTH
def test_every_parameter_has_a_finite_gradient(network, size, names):
    x = jnp.asarray(images("gradients", 4, 32))
    module = network(size)
    params = variables_of(module, x, names)["params"]

    def loss(params):
        return (module.apply({"params": params}, x, train=True) ** 3).mean()

    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        assert np.isfinite(leaf).all(), path
        # What all keys share adds the same to every score, which a softmax does not see.
        shared = jax.tree_util.keystr(path).endswith("['key']['bias']")
        assert (np.abs(leaf).max() > 1e-6) != shared, path


@BOTH
def test_eight_devices_compute_what_one_does(network, size, names):
    x = images("devices", 16, 32)
    module = network(size)
    variables = variables_of(module, x, names)
    one, _ = apply(module, variables, x, True)
    eight, _ = on_eight_devices(module, variables, x)
    np.testing.assert_allclose(eight, one, rtol=1e-5, atol=1e-5)


@BOTH
def test_a_single_channel_and_images_that_are_not_square_are_taken(network, size, names):
    del names
    _, features = shapes_of(network(size), np.zeros((2, 40, 16, 1), np.float32))
    assert features.shape == (2, 32)


def test_the_order_of_patches_matters_to_a_transformer_through_its_positions():
    x = images("order", 2, 32)
    module = VisionTransformer(SMALL_VIT)
    variables = variables_of(module, x, vit_name)
    swapped = np.concatenate([x[:, 16:], x[:, :16]], axis=1)
    with_positions = [apply(module, variables, batch, False)[0] for batch in (x, swapped)]
    assert np.abs(with_positions[0] - with_positions[1]).max() > 1e-2
    positions = np.zeros_like(variables["params"]["positions"])
    variables = {"params": variables["params"] | {"positions": positions}}
    without = [apply(module, variables, batch, False)[0] for batch in (x, swapped)]
    np.testing.assert_allclose(*without, rtol=1e-4, atol=1e-5)


def test_fresh_convnext_blocks_of_a_scale_near_zero_are_their_input():
    """So that the published start, near zero, is that of the stem and the reductions alone."""
    x = jnp.asarray(images("start", 2, 32))
    nothing = ConvNeXt(SMALL_CONVNEXT._replace(scale_init=1e-30))
    no_blocks = ConvNeXt(SMALL_CONVNEXT._replace(blocks=(0, 0)))
    params = jax.jit(lambda key: nothing.init(key, x, train=False))(jax.random.key(0))["params"]
    kept = {name: leaf for name, leaf in params.items() if "block" not in name}
    scales = [leaf["scale"] for name, leaf in params.items() if "block" in name]
    assert [(np.asarray(scale) == np.float32(1e-30)).all() for scale in scales] == [True] * 3
    features, _ = apply(nothing, {"params": params}, x, False)
    expected, _ = apply(no_blocks, {"params": kept}, x, False)
    np.testing.assert_allclose(features, expected, rtol=1e-6, atol=1e-6)


def test_convnexts_scales_start_as_published_and_at_one_in_the_network_of_any_size():
    assert {stages.scale_init for stages in STAGES.values()} == {1e-6}
    assert make_convnext(ConvNeXtOptions()).stages.scale_init == 1.0


def test_what_does_not_fit_is_refused_with_what_would():
    message = refusal(VisionTransformer, VitOptions(8, 32, 2, 5))
    assert "5 heads for a width of 32" in message
    message = refusal(shapes_of, VisionTransformer(SMALL_VIT), np.zeros((1, 28, 32, 3), np.float32))
    assert "8 x 8 pixels do not tile images of 28 x 32" in message
    message = refusal(shapes_of, ConvNeXt(SMALL_CONVNEXT), np.zeros((1, 3, 32, 3), np.float32))
    assert "needs images of 4 x 4 or more, got 3 x 32" in message
