"""ResNets for CIFAR: published sizes, PyTorch's numbers, and depths that do not exist."""

import numpy as np
import pytest

from spa_jax.models.residual import CifarResNetOptions, make_cifar_resnet
from tests.models.backbone_checks import assert_matches_record, parameter_count, shapes_of
from tests.refusals import refusal

# With a linear classifier of ten classes the literature gives 0.27, 0.46, 0.66 and 0.85 M, and
# GLMC's network has 7.39 M.
PARAMETERS = {
    (20, 1): 269_722,
    (32, 1): 464_154,
    (44, 1): 658_586,
    (56, 1): 853_018,
    (32, 4): 7_386_186,
}


def network(depth, width_factor=1):
    return make_cifar_resnet(CifarResNetOptions(depth, width_factor))


@pytest.mark.parametrize(("depth", "width_factor"), PARAMETERS)
def test_the_network_and_a_linear_classifier_have_the_published_number_of_parameters(
    depth, width_factor
):
    found = parameter_count(network(depth, width_factor), classes=10)
    assert found == PARAMETERS[depth, width_factor]


def test_images_of_any_shape_are_taken():
    backbone = network(8, width_factor=2)
    _, features = shapes_of(backbone, np.zeros((5, 9, 7, 1), np.float32))
    assert features.shape == (5, 128) == (5, backbone.dim)
    assert features.dtype == np.float32


@pytest.mark.parametrize("depth", [-4, 2, 18, 31, 33])
def test_a_depth_that_no_network_has_is_refused_with_those_that_exist(depth):
    message = refusal(network, depth)
    assert f"depth={depth}" in message
    assert "6 n + 2" in message
    assert "20, 32, 44, 56" in message


@pytest.mark.parametrize(
    ("depth", "width_factor"),
    [
        (20, 1),
        (32, 1),
        pytest.param(32, 4, marks=pytest.mark.thorough),
        pytest.param(32, 2, marks=pytest.mark.slow),
    ],
)
def test_features_and_statistics_are_those_of_pytorch(depth, width_factor):
    assert_matches_record(f"cifar_resnet{depth}_{width_factor}x", network(depth, width_factor))
