"""Residual networks as tables: blocks, shortcuts, precision, gradients, and eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.models.residual import (
    ARCHITECTURES,
    Architecture,
    CifarResNetOptions,
    Convolution,
    Layers,
    ResidualBlock,
    ResNet,
    basic_block,
    identity_shortcut,
    make_cifar_resnet,
    make_imagenet_resnet,
    stages_of,
)
from tests.models.backbone_checks import (
    apply,
    assert_batch_norm_is_global_or_per_device,
    assert_bfloat16_is_close,
    assert_gradients_are_finite,
    shapes_of,
)
from tests.models.peer_weights import images, peer_variables

CIFAR = make_cifar_resnet(CifarResNetOptions(depth=8))
GROUPED = Architecture((1, 1, 1, 1), bottleneck=True, groups=2, width_per_group=16)
INIT = jax.nn.initializers.he_normal()


def tiny(dtype=jnp.float32):
    """A pool, grouped bottlenecks and shortcuts with convolutions, as ImageNet's networks have."""
    stages = stages_of(GROUPED.block, (8, 16), (1, 1))
    return ResNet(Convolution(8, 7, 2), stages, Layers(INIT, dtype=dtype), pool=True)


@pytest.mark.parametrize(
    ("height", "width", "inner", "channels", "stride"),
    [(4, 4, 2, 4, 2), (5, 3, 4, 8, 2), (3, 2, 6, 6, 1), (7, 4, 2, 8, 3), (1, 1, 2, 6, 2)],
)
def test_the_identity_shortcut_takes_every_other_pixel_and_puts_zeros_on_both_sides(
    height, width, inner, channels, stride
):
    x = np.random.default_rng(0).normal(size=(3, height, width, inner)).astype(np.float32)
    expected = np.zeros((3, -(-height // stride), -(-width // stride), channels), np.float32)
    for row in range(expected.shape[1]):
        for column in range(expected.shape[2]):
            for channel in range(inner):
                expected[:, row, column, channel + (channels - inner) // 2] = x[
                    :, row * stride, column * stride, channel
                ]
    np.testing.assert_array_equal(identity_shortcut(jnp.asarray(x), channels, stride), expected)


def test_a_block_whose_last_scale_and_shift_are_zero_is_its_shortcut():
    block, x = ResidualBlock(basic_block(8, 2), CIFAR.layers), images("block", 2, 16)[..., :2]
    variables = peer_variables(shapes_of(block, x)[0])
    variables["params"]["bn2"] = jax.tree.map(np.zeros_like, variables["params"]["bn2"])
    y, _ = apply(block, variables, x, True)
    expected = np.zeros((2, 8, 8, 8), np.float32)
    expected[..., 3:5] = np.maximum(x[:, ::2, ::2], 0)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("architecture", [ARCHITECTURES["resnet18"], GROUPED])
def test_a_block_has_a_shortcut_convolution_only_where_the_shape_changes(architecture, stride):
    for inner in (8, 16):
        convolutions = architecture.block(8, stride)
        channels = convolutions[-1].channels
        block, x = ResidualBlock(convolutions, Layers(INIT)), np.zeros((1, 9, 6, inner), np.float32)
        variables, y = shapes_of(block, x)
        assert y.shape == (1, -(-9 // stride), 6 // stride, channels)
        changes = stride == 2 or inner != channels
        assert ("downsample_0" in variables["params"]) is changes


@pytest.mark.parametrize(
    ("family", "convolutions", "fans"),
    [
        (CIFAR, basic_block(64), {"conv1": 9 * 32, "conv2": 9 * 64}),
        (
            make_imagenet_resnet(ARCHITECTURES["resnet18"]),
            (Convolution(64, 1), Convolution(64, 3, groups=8), Convolution(96, 1)),
            {"conv1": 64, "conv2": 9 * 64, "conv3": 96, "downsample_0": 96},
        ),
    ],
    ids=["fan_in", "fan_out"],
)
def test_convolutions_start_normal_with_the_variance_two_by_the_fan(family, convolutions, fans):
    block, x = ResidualBlock(convolutions, family.layers), jnp.zeros((1, 8, 8, 32))
    params = jax.jit(lambda key: block.init(key, x, train=False))(jax.random.key(0))["params"]
    for name, fan in fans.items():
        standard = np.asarray(params[name]["kernel"]) / np.sqrt(2 / fan)
        assert abs(standard.std() - 1) < 0.06
        assert abs(standard.mean()) < 0.06
        # A truncated normal of this variance ends at 2.3.
        assert 0.003 < (np.abs(standard) > 2.5).mean() < 0.025
    scales = {name: leaf["scale"] for name, leaf in params.items() if "scale" in leaf}
    last = f"bn{len(convolutions)}"
    assert {*np.asarray(scales.pop(last))} == {family.layers.last_scale}
    assert all((scale == 1).all() for scale in scales.values())
    assert not any(leaf["bias"].any() for leaf in params.values() if "bias" in leaf)


def test_bfloat16_computes_nearly_the_same_features_from_float32_parameters():
    half = make_cifar_resnet(CifarResNetOptions(depth=8), jnp.bfloat16)
    assert_bfloat16_is_close(CIFAR, half, images("bfloat16", 8, 16), 0.02)
    assert_bfloat16_is_close(tiny(), tiny(jnp.bfloat16), images("bfloat16", 8, 32), 0.05)


@pytest.mark.parametrize("module", [CIFAR, tiny()], ids=["cifar", "tiny"])
def test_gradients_are_finite_even_for_images_without_variance(module):
    constant = np.ones((4, 32, 32, 3), np.float32)
    constant *= np.arange(4, dtype=np.float32)[:, None, None, None]
    assert_gradients_are_finite(module, images("gradients", 4, 32), constant)


def test_batch_norm_takes_the_batch_of_all_devices_or_of_each():
    x = images("devices", 16, 16).repeat(2, axis=-1)
    block, whole = (
        ResidualBlock(GROUPED.block(8, 2), Layers(INIT, axis_name=name)) for name in (None, "data")
    )
    assert_batch_norm_is_global_or_per_device(block, whole, x)
