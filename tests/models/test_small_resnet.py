"""The small residual network: shapes, parameters, and what training mode changes."""

import jax
import numpy as np
import pytest

from spa_jax.models.classifier import Classifier
from spa_jax.models.heads import LinearHead
from spa_jax.models.residual import SmallOptions, make_small_resnet
from tests.models.backbone_checks import shapes_of

C = 7


def network(*options):
    return make_small_resnet(SmallOptions(*options))


def images(count=6, height=8, width=8, channels=1, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, height, width, channels)).astype(np.float32)


def paths(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.fixture(scope="module")
def model():
    return Classifier(network((4, 6)), LinearHead(C))


@pytest.fixture(scope="module")
def variables(model):
    """Random parameters; statistics and scales as they are at the start, but for some noise."""
    generator = np.random.default_rng(1)

    def fill(path, leaf):
        start = 1.0 if path[-1].key in ("scale", "var") else 0.0
        return (start + 0.2 * generator.uniform(size=leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes_of(model, images())[0])


@pytest.fixture(scope="module")
def apply(model):
    """Training or evaluation mode; both may change the batch statistics."""

    def run(variables, x, train):
        return model.apply(variables, x, train=train, mutable=["batch_stats"])

    return jax.jit(run, static_argnums=2)


@pytest.mark.parametrize(
    ("shape", "widths", "blocks", "stem_stride"),
    [((7, 5, 3), (8,), 2, 1), ((28, 28, 1), (32, 64), 1, 4), ((9, 9, 1), (4, 6, 9), 1, 2)],
)
def test_features_have_the_last_width_and_logits_one_value_a_class(
    shape, widths, blocks, stem_stride
):
    model = Classifier(network(widths, blocks, stem_stride), LinearHead(C))
    variables, (features, logits) = shapes_of(model, np.zeros((6, *shape), np.float32))
    assert features.shape == (6, widths[-1])
    assert logits.shape == (6, C)
    assert features.dtype == logits.dtype == np.float32
    assert variables["params"]["head"]["kernel"].shape == (widths[-1], C)


def test_every_stage_has_its_blocks_and_its_width():
    variables, _ = shapes_of(network((4, 6, 9), 2), images())
    kernels = [leaf for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim == 4]
    # A stem, two convolutions a block, and a shortcut where the width changes: twice.
    assert len(kernels) == 1 + 2 * 3 * 2 + 2
    assert {kernel.shape[-1] for kernel in kernels} == {4, 6, 9}


@pytest.mark.parametrize(("stem_stride", "window"), [(1, 3), (2, 3), (4, 5)])
def test_the_stem_sees_every_pixel(stem_stride, window):
    variables, _ = shapes_of(network((4,), 1, stem_stride), images())
    stem = variables["params"]["Conv_0"]["kernel"]
    assert stem.shape == (window, window, 1, 4)


def test_no_bias_stands_before_a_normalisation(variables):
    found = paths(variables["params"])
    convolutions = {path.rpartition("/")[0] for path, leaf in found.items() if leaf.ndim == 4}
    assert len(convolutions) == 6
    for convolution in convolutions:
        assert f"{convolution}/bias" not in found
    biased = {path.rpartition("/")[0] for path in found if path.endswith("/bias")}
    assert "head" in biased
    assert all(path == "head" or "BatchNorm" in path for path in biased)


def test_the_head_is_linear_in_the_features(variables, apply):
    (features, logits), _ = apply(variables, images(), False)
    head = variables["params"]["head"]
    expected = np.asarray(features) @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("train", [False, True])
def test_features_are_not_negative_and_not_all_zero(variables, apply, train):
    (features, _), _ = apply(variables, 10 * images(seed=3), train)
    assert (np.asarray(features) >= 0).all()
    assert (np.asarray(features) > 0).any()


def test_training_mode_moves_every_batch_statistic(variables, apply):
    _, mutated = apply(variables, 3 * images() + 1, True)
    before, after = paths(variables["batch_stats"]), paths(mutated["batch_stats"])
    assert before.keys() == after.keys()
    for path, value in before.items():
        assert not np.array_equal(value, after[path]), path


def test_evaluation_mode_leaves_the_batch_statistics_alone(variables, apply):
    _, mutated = apply(variables, 3 * images() + 1, False)
    for path, value in paths(variables["batch_stats"]).items():
        np.testing.assert_array_equal(value, paths(mutated["batch_stats"])[path])


def test_in_evaluation_mode_an_image_does_not_see_its_neighbours_and_in_training_it_does(
    variables, apply
):
    x = images()
    others = np.concatenate([x[:1], 5 * images(seed=9)[1:]])
    for train, sees in ((False, False), (True, True)):
        (features, _), _ = apply(variables, x, train)
        (changed, _), _ = apply(variables, others, train)
        assert np.allclose(features[0], changed[0], atol=1e-6) is not sees


def convolved(x, kernel):
    """A 3x3 convolution with zeros around the image."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("bhwcyx,yxck->bhwk", windows, kernel)


def test_a_statistic_moves_a_tenth_of_the_way_to_that_of_the_batch(variables, apply):
    x, backbone = images(seed=4), variables["params"]["backbone"]
    stem = convolved(x, backbone["Conv_0"]["kernel"])
    before = variables["batch_stats"]["backbone"]["BatchNorm_0"]
    after = apply(variables, x, True)[1]["batch_stats"]["backbone"]["BatchNorm_0"]
    for name, of_batch in (("mean", stem.mean((0, 1, 2))), ("var", stem.var((0, 1, 2)))):
        np.testing.assert_allclose(after[name], 0.9 * before[name] + 0.1 * of_batch, atol=1e-5)
