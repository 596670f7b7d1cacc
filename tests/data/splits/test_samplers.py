"""How often each class is drawn, against the definitions of the samplers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spa_jax.data.data_options import DataOptions
from spa_jax.data.splits.samplers import SAMPLERS, class_probabilities, draw_probabilities
from tests.refusals import refusal

properties = settings(max_examples=50, deadline=None, derandomize=True)

DRAWING = tuple(sampler for sampler in SAMPLERS if sampler != "shuffle")
class_counts = st.lists(st.integers(1, 10_000), min_size=1, max_size=30)
powers = st.floats(-3, 3)


def labels_of(counts):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return np.random.default_rng(0).permutation(labels)


@properties
@given(class_counts)
def test_class_aware_shows_all_classes_alike(counts):
    expected = np.full(len(counts), 1 / len(counts))
    np.testing.assert_allclose(class_probabilities(counts, "class_aware"), expected, rtol=1e-12)


@properties
@given(class_counts)
def test_square_root_shows_a_class_by_the_root_of_its_images(counts):
    roots = np.sqrt(counts)
    found = class_probabilities(counts, "square_root")
    np.testing.assert_allclose(found, roots / roots.sum(), rtol=1e-12)


@properties
@given(class_counts)
def test_reversed_shows_a_class_by_the_inverse_of_its_images(counts):
    """Zhou et al.: w_c = n_max / n_c, P(c) = w_c / sum_j w_j."""
    weights = max(counts) / np.array(counts)
    found = class_probabilities(counts, "reversed")
    np.testing.assert_allclose(found, weights / weights.sum(), rtol=1e-12)


def test_reversed_swaps_the_shares_of_two_classes():
    np.testing.assert_allclose(class_probabilities([90, 10], "reversed"), [0.1, 0.9])


@properties
@given(class_counts, powers)
def test_power_draws_an_image_with_its_class_size_to_minus_k(counts, power):
    weights = np.array(counts) ** -power
    found = class_probabilities(counts, "power", power)
    in_classes = np.array(counts) * weights
    np.testing.assert_allclose(found, in_classes / in_classes.sum(), rtol=1e-9)


@pytest.mark.parametrize(
    ("sampler", "power"), [("square_root", 0.5), ("class_aware", 1.0), ("reversed", 2.0)]
)
def test_the_named_samplers_are_powers_and_do_not_read_the_power(sampler, power):
    counts = [500, 80, 3]
    expected = class_probabilities(counts, "power", power)
    np.testing.assert_allclose(class_probabilities(counts, sampler, 7.0), expected, rtol=1e-12)


def test_power_0_draws_all_images_alike_and_1_is_the_default():
    np.testing.assert_allclose(class_probabilities([6, 3, 1], "power", 0.0), [0.6, 0.3, 0.1])
    np.testing.assert_allclose(class_probabilities([6, 3, 1], "power"), np.full(3, 1 / 3))


@pytest.mark.parametrize("sampler", DRAWING)
@properties
@given(counts=class_counts, power=powers)
def test_probabilities_are_shares(sampler, counts, power):
    found = class_probabilities(counts, sampler, power)
    assert (found.shape, found.dtype) == ((len(counts),), np.float64)
    assert found.min() > 0
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-12)


@pytest.mark.parametrize("sampler", DRAWING)
@pytest.mark.parametrize("power", [0.5, 3.0])
def test_a_class_without_images_is_never_drawn(sampler, power):
    found = class_probabilities([40, 0, 10], sampler, power)
    assert found[1] == 0
    np.testing.assert_allclose(found[[0, 2]], class_probabilities([40, 10], sampler, power))


@pytest.mark.parametrize("sampler", DRAWING)
@properties
@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any), power=powers)
def test_examples_share_the_probability_of_their_class(sampler, counts, power):
    labels = labels_of(counts)
    weights = draw_probabilities(labels, sampler, power)
    assert (weights.shape, weights.dtype) == (labels.shape, np.float64)
    expected = class_probabilities(counts, sampler, power)
    np.testing.assert_allclose(
        np.bincount(labels, weights, minlength=len(counts)), expected, rtol=1e-9
    )
    for label in np.unique(labels):
        assert len(set(weights[labels == label].tolist())) == 1


@pytest.mark.parametrize(
    ("sampler", "power", "k"),
    [
        ("class_aware", 1.0, 1),
        ("square_root", 1.0, 0.5),
        ("reversed", 1.0, 2),
        ("power", 0.2, 0.2),
        ("power", -1.0, -1),
    ],
)
def test_an_examples_weight_is_its_class_size_to_minus_k(sampler, power, k):
    counts = (50, 7, 2)
    labels = labels_of(counts)
    expected = np.array(counts)[labels] ** -float(k)
    np.testing.assert_allclose(
        draw_probabilities(labels, sampler, power), expected / expected.sum()
    )


def test_shuffle_has_no_weights():
    assert draw_probabilities(labels_of([5, 2]), "shuffle") is None


@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
def test_another_sampler_has_no_class_probabilities(sampler):
    """Names are checked where options are made."""
    with pytest.raises(KeyError, match=sampler):
        class_probabilities([5, 2], sampler)
    assert "class_aware, square_root, reversed, power" in refusal(DataOptions, sampler="balanced")
