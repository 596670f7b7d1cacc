"""EfficientNet-Lite: layers, precision, gradients, devices; features: test_import_weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.models.efficientnet_lite import EfficientNetLite, Stage, depthwise_convolution
from tests.models.backbone_checks import (
    apply,
    assert_batch_norm_is_global_or_per_device,
    assert_bfloat16_is_close,
    assert_gradients_are_finite,
    parameter_count,
    shapes_of,
)
from tests.models.peer_weights import images, peer_variables, uniform

STAGES = (Stage(8, 3, 1, 1), Stage(12, 5, 2, 2))


def small(**settings):
    return EfficientNetLite(STAGES, stem=8, dim=16, **settings)


def test_the_network_and_a_linear_classifier_have_the_published_number_of_parameters():
    assert parameter_count(EfficientNetLite(), classes=1000) == 4_652_008


@pytest.mark.parametrize("window", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("sides", [(8, 8), (7, 10)])
def test_a_depthwise_convolution_pads_as_tensorflow_does(window, stride, sides):
    x = uniform("x", (2, *sides, 3), -1, 1).astype(np.float64)
    kernel = uniform("kernel", (window, window, 1, 3), -1, 1).astype(np.float64)
    out = [-(-side // stride) for side in sides]
    margins = [
        max((many - 1) * stride + window - side, 0) for many, side in zip(out, sides, strict=True)
    ]
    pads = [(0, 0), *((margin // 2, margin - margin // 2) for margin in margins), (0, 0)]
    padded, expected = np.pad(x, pads), np.zeros((2, *out, 3))
    for row in range(out[0]):
        for column in range(out[1]):
            seen = padded[:, row * stride :, column * stride :][:, :window, :window]
            expected[:, row, column] = (seen * kernel[:, :, 0]).sum((1, 2))
    found = depthwise_convolution(jnp.float32(x), jnp.float32(kernel), stride)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_statistics_move_by_a_hundredth():
    x = images("moves", 4, 32)
    variables = peer_variables(shapes_of(small(), x)[0])
    kernel = variables["params"]["stem"]["kernel"]
    stem = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    _, changed = apply(small(), variables, x, True)
    before = variables["batch_stats"]["stem_norm"]
    after = changed["batch_stats"]["stem_norm"]
    for name, of_batch in (("mean", stem.mean((0, 1, 2))), ("var", stem.var((0, 1, 2)))):
        expected = 0.99 * before[name] + 0.01 * of_batch
        np.testing.assert_allclose(after[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_layers_compute_in_bfloat16_and_parameters_and_features_stay_float32():
    half = small(dtype=jnp.bfloat16)
    assert_bfloat16_is_close(small(), half, images("half", 8, 32), tolerance=0.1)


def test_every_parameter_has_a_finite_gradient():
    assert_gradients_are_finite(small(), images("gradients", 8, 32))


@pytest.mark.thorough
def test_statistics_are_of_the_global_batch_or_of_a_devices_part():
    x = images("devices", 16, 32)
    assert_batch_norm_is_global_or_per_device(small(), small(axis_name="data"), x)
