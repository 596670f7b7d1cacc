"""ResNets for ImageNet: torchvision's parameters and numbers."""

import numpy as np
import pytest

from spa_jax.models.residual import ARCHITECTURES, make_imagenet_resnet
from tests.models.backbone_checks import assert_matches_record, parameter_count, shapes_of

# torchvision's, with a linear classifier of 1,000 classes.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
}


def network(name):
    return make_imagenet_resnet(ARCHITECTURES[name])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_network_and_a_linear_classifier_have_the_published_number_of_parameters(name):
    assert parameter_count(network(name), classes=1000) == PARAMETERS[name]


@pytest.mark.parametrize(("name", "dim"), [("resnet34", 512), ("resnext50_32x4d", 2048)])
def test_features_are_as_wide_as_the_last_stage_for_images_of_any_shape(name, dim):
    _, features = shapes_of(network(name), np.zeros((2, 65, 40, 1), np.float32))
    assert features.shape == (2, dim) == (2, network(name).dim)
    assert features.dtype == np.float32


@pytest.mark.thorough
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
    assert_matches_record(name, network(name))
