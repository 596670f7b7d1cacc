"""ResNets for ImageNet: torchvision's parameters and numbers, and blocks that start as nothing."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.models.imagenet_resnet import ARCHITECTURES, BasicBlock, Bottleneck, ImageNetResNet
from tests.models.backbone_checks import (
    apply,
    assert_batch_norm_is_global_or_per_device,
    assert_bfloat16_is_close,
    assert_gradients_are_finite,
    assert_matches_record,
    parameter_count,
    shapes_of,
)
from tests.models.peer_weights import images
from tests.refusals import refusal

# torchvision's, with a linear classifier of 1,000 classes.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnext50_32x4d": 25_028_904,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_network_and_a_linear_classifier_have_the_published_number_of_parameters(name):
    backbone = ImageNetResNet(name)
    assert parameter_count(backbone) + (backbone.dim + 1) * 1000 == PARAMETERS[name]


def test_every_architecture_has_a_published_number_of_parameters():
    assert set(ARCHITECTURES) == set(PARAMETERS)


@pytest.mark.parametrize(("name", "dim"), [("resnet34", 512), ("resnext50_32x4d", 2048)])
@pytest.mark.parametrize("shape", [(224, 224, 3), (65, 40, 1)])
def test_features_are_as_wide_as_the_last_stage(name, dim, shape):
    backbone = ImageNetResNet(name)
    _, features = shapes_of(backbone, np.zeros((2, *shape), np.float32))
    assert features.shape == (2, dim) == (2, backbone.dim)
    assert features.dtype == np.float32


def test_an_unknown_network_is_refused_with_those_that_exist():
    message = refusal(ImageNetResNet, "resnet51")
    assert "'resnet51'" in message
    assert "resnet18, resnet34, resnet50, resnet101, resnext50_32x4d" in message


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50",
        "resnext50_32x4d",
        pytest.param("resnet34", marks=pytest.mark.slow),
        pytest.param("resnet101", marks=pytest.mark.slow),
    ],
)
def test_features_and_statistics_are_those_of_pytorch(name):
    assert_matches_record(name, ImageNetResNet(name))


def initial(module, x):
    """Variables as they start."""
    return jax.jit(lambda key, x: module.init(key, x, train=False))(jax.random.key(0), x)


@pytest.mark.parametrize(
    "block", [BasicBlock(8), Bottleneck(width=8, channels=8, groups=4)], ids=["basic", "bottleneck"]
)
def test_a_new_block_is_its_shortcut(block):
    x = images("block", 2, 16).repeat(3, axis=-1)[..., :8]
    y, _ = apply(block, initial(block, x), x, True)
    np.testing.assert_array_equal(y, np.maximum(x, 0))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_has_a_shortcut_convolution_only_where_the_shape_changes(stride):
    def has_convolution(block):
        variables, y = shapes_of(block, np.zeros((1, 9, 6, 8), np.float32))
        assert y.shape == (1, -(-9 // stride), 6 // stride, block.channels)
        return "downsample_0" in variables["params"]

    for channels in (8, 16):
        changes = stride == 2 or channels == 16
        assert has_convolution(BasicBlock(channels, stride)) is changes
        assert has_convolution(Bottleneck(4, channels, stride)) is changes


def test_convolutions_start_normal_with_the_variance_two_by_fan_out():
    block = Bottleneck(width=64, channels=96, groups=8)
    params = initial(block, images("initial", 1, 16).repeat(8, axis=-1))["params"]
    for name, shape in (
        ("conv1", (1, 1, 24, 64)),
        ("conv2", (3, 3, 8, 64)),
        ("conv3", (1, 1, 64, 96)),
        ("downsample_0", (1, 1, 24, 96)),
    ):
        kernel = np.asarray(params[name]["kernel"])
        assert kernel.shape == shape
        standard = kernel / np.sqrt(2 / (shape[0] * shape[1] * shape[3]))
        assert abs(standard.std() - 1) < 0.06
        # A truncated normal of this variance ends at 2.3.
        assert 0.003 < (np.abs(standard) > 2.5).mean() < 0.025
    zeros = [name for name in params if name.startswith("bn") and not params[name]["scale"].any()]
    assert zeros == ["bn3"]
    assert (params["downsample_1"]["scale"] == 1).all()


def test_bfloat16_computes_nearly_the_same_features_from_float32_parameters():
    half = ImageNetResNet("resnet18", dtype=jnp.bfloat16)
    assert_bfloat16_is_close(ImageNetResNet("resnet18"), half, images("bfloat16", 8, 64), 0.05)


def test_gradients_are_finite():
    assert_gradients_are_finite(ImageNetResNet("resnet18"), images("gradients", 4, 32))


@pytest.mark.parametrize(
    ("block", "fields"),
    [(BasicBlock, {"channels": 8}), (Bottleneck, {"width": 8, "channels": 16, "groups": 2})],
)
def test_batch_norm_takes_the_batch_of_all_devices_or_of_each(block, fields):
    x = images("devices", 16, 16).repeat(2, axis=-1)
    assert_batch_norm_is_global_or_per_device(block(**fields), block(**fields, axis_name="data"), x)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_network_hands_its_axis_name_to_every_normalisation(name):
    found = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, nn.BatchNorm):
            found.append(context.module.axis_name)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        variables, _ = shapes_of(ImageNetResNet(name, axis_name="data"), images(name, 1, 32))
    assert found == ["data"] * (len(jax.tree.leaves(variables["batch_stats"])) // 2)
