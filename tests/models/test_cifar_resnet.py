"""ResNets for CIFAR: published sizes, PyTorch's numbers, and the shortcut without parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.models.cifar_resnet import BasicBlock, CifarResNet, identity_shortcut
from tests.models.backbone_checks import (
    apply,
    assert_batch_norm_is_global_or_per_device,
    assert_bfloat16_is_close,
    assert_gradients_are_finite,
    assert_matches_record,
    parameter_count,
    shapes_of,
)
from tests.models.peer_weights import images, peer_variables
from tests.refusals import refusal


# With a linear classifier of ten classes the literature gives 0.27, 0.46, 0.66 and 0.85 M, and
# GLMC's network has 7.39 M.
@pytest.mark.parametrize(
    ("depth", "width_factor", "expected"),
    [
        (20, 1, 269_722),
        (32, 1, 464_154),
        (44, 1, 658_586),
        (56, 1, 853_018),
        (32, 4, 7_386_186),
    ],
)
def test_the_network_and_a_linear_classifier_have_the_published_number_of_parameters(
    depth, width_factor, expected
):
    backbone = CifarResNet(depth, width_factor)
    assert parameter_count(backbone) + (backbone.dim + 1) * 10 == expected


@pytest.mark.parametrize("width_factor", [1, 2, 4])
@pytest.mark.parametrize("shape", [(32, 32, 3), (9, 7, 1)])
def test_features_have_64_channels_times_the_factor(width_factor, shape):
    backbone = CifarResNet(20, width_factor)
    _, features = shapes_of(backbone, np.zeros((5, *shape), np.float32))
    assert features.shape == (5, 64 * width_factor) == (5, backbone.dim)
    assert features.dtype == np.float32


@pytest.mark.parametrize("depth", [-4, 2, 18, 31, 33])
def test_a_depth_that_no_network_has_is_refused_with_those_that_exist(depth):
    message = refusal(CifarResNet, depth)
    assert f"depth={depth}" in message
    assert "6 n + 2" in message
    assert "20, 32, 44, 56" in message


@pytest.mark.parametrize("width_factor", [0, -1])
def test_a_width_factor_below_one_is_refused(width_factor):
    message = refusal(CifarResNet, 32, width_factor)
    assert f"width_factor={width_factor}" in message
    assert "1 or more" in message


@pytest.mark.parametrize(
    ("depth", "width_factor"),
    [(20, 1), (32, 1), (32, 4), pytest.param(32, 2, marks=pytest.mark.slow)],
)
def test_features_and_statistics_are_those_of_pytorch(depth, width_factor):
    name = f"cifar_resnet{depth}_{width_factor}x"
    assert_matches_record(name, CifarResNet(depth, width_factor))


@pytest.mark.parametrize(
    ("height", "width", "inner", "channels", "stride"),
    [(4, 4, 2, 4, 2), (5, 3, 4, 8, 2), (3, 2, 6, 6, 1), (7, 4, 2, 8, 3), (1, 1, 2, 6, 2)],
)
def test_the_shortcut_takes_every_other_pixel_and_puts_zeros_on_both_sides(
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
    block, x = BasicBlock(8, stride=2), images("block", 2, 16)[..., :2]
    variables = peer_variables(shapes_of(block, x)[0])
    variables["params"]["bn2"] = jax.tree.map(np.zeros_like, variables["params"]["bn2"])
    y, _ = apply(block, variables, x, True)
    expected = np.zeros((2, 8, 8, 8), np.float32)
    expected[..., 3:5] = np.maximum(x[:, ::2, ::2], 0)
    np.testing.assert_array_equal(y, expected)


def test_convolutions_start_normal_with_the_variance_two_by_fan_in():
    block, x = BasicBlock(64), jnp.zeros((1, 8, 8, 32))
    params = jax.jit(lambda key: block.init(key, x, train=False))(jax.random.key(0))["params"]
    for kernel, fan_in in (
        (params["conv1"]["kernel"], 9 * 32),
        (params["conv2"]["kernel"], 9 * 64),
    ):
        standard = np.asarray(kernel) / np.sqrt(2 / fan_in)
        assert abs(standard.std() - 1) < 0.03
        assert abs(standard.mean()) < 0.03
        # A truncated normal of this variance ends at 2.3.
        assert 0.005 < (np.abs(standard) > 2.5).mean() < 0.02
    np.testing.assert_array_equal(params["bn2"]["scale"], np.ones(64))
    np.testing.assert_array_equal(params["bn2"]["bias"], np.zeros(64))


def test_bfloat16_computes_nearly_the_same_features_from_float32_parameters():
    half = CifarResNet(8, dtype=jnp.bfloat16)
    assert_bfloat16_is_close(CifarResNet(8), half, images("bfloat16", 8, 16), 0.02)


def test_gradients_are_finite_even_for_images_without_variance():
    constant = (
        np.ones((4, 16, 16, 3), np.float32) * np.arange(4, dtype=np.float32)[:, None, None, None]
    )
    for x in (images("gradients", 4, 16), constant):
        assert_gradients_are_finite(CifarResNet(8), x)


def test_batch_norm_takes_the_batch_of_all_devices_or_of_each():
    x = images("devices", 16, 16)
    assert_batch_norm_is_global_or_per_device(CifarResNet(8), CifarResNet(8, axis_name="data"), x)
