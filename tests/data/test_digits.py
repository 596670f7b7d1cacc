"""The long-tailed digits: sizes, disjoint parts, and a split that belongs to its seed."""

import numpy as np
import pytest

from spa_jax.data.digits import load_digits_lt
from spa_jax.training.program import load_data
from tests.refusals import refusal
from tests.training.small import small_config


def load(n_max=110, factor=20.0, split_seed=0):
    return load_digits_lt(n_max, factor, split_seed)


def contents(examples):
    """Images with their labels as a set; no two of the 1,797 digits are the same image."""
    pairs = zip(examples.images, examples.labels.tolist(), strict=True)
    found = {(image.tobytes(), label) for image, label in pairs}
    assert len(found) == len(examples.labels)
    return found


def test_the_sizes_are_those_of_the_profile_and_60_test_images_a_class():
    data = load()
    assert data.class_counts == (110, 78, 56, 40, 29, 20, 14, 10, 7, 5)
    assert data.train.images.shape == (369, 8, 8, 1)
    assert data.test.images.shape == (600, 8, 8, 1)
    np.testing.assert_array_equal(np.bincount(data.test.labels), np.full(10, 60))
    assert data.class_names == tuple("0123456789")
    for examples in (data.train, data.test):
        assert examples.images.dtype == np.uint8
        assert (examples.images.min(), examples.images.max()) == (0, 16)


def test_the_images_are_scikit_learns_with_their_labels():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    known = {
        (x.astype(np.uint8).tobytes(), y) for x, y in zip(images, labels.tolist(), strict=True)
    }
    data = load()
    assert contents(data.train) | contents(data.test) < known


@pytest.mark.parametrize("split_seed", [0, 1])
def test_train_and_test_are_disjoint_even_with_every_candidate(split_seed):
    data = load(factor=1.0, split_seed=split_seed)
    assert data.class_counts == (110,) * 10
    assert not contents(data.train) & contents(data.test)


def test_the_split_is_the_same_whatever_the_run():
    changes = ({}, {"seed": 5}, {"spa__method": "proj"}, {"batch_size": 32})
    splits = [load_data(small_config(**change)) for change in changes]
    for data in splits[1:]:
        assert data.split == splits[0].split
        np.testing.assert_array_equal(data.train.images, splits[0].train.images)
        np.testing.assert_array_equal(data.test.labels, splits[0].test.labels)


def test_another_split_seed_gives_another_split_of_the_same_sizes():
    one, other = load(split_seed=0), load(split_seed=1)
    assert one.split["checksum"] != other.split["checksum"]
    assert one.class_counts == other.class_counts
    assert contents(one.test) != contents(other.test)


def test_the_record_says_how_the_split_was_made():
    data = load(factor=10.0, split_seed=3)
    assert data.split["imbalance_factor"] == 10.0
    assert data.split["seed"] == 3
    assert data.split["class_counts"] == list(data.class_counts)
    assert data.split["protocol"]


@pytest.mark.parametrize("settings", [{"factor": 50.0}, {"factor": 100.0}, {"n_max": 60}])
def test_a_smaller_split_takes_a_subset_and_has_the_same_test_set(settings):
    base, smaller = load(), load(**settings)
    assert contents(smaller.train) < contents(base.train)
    np.testing.assert_array_equal(base.test.images, smaller.test.images)
    assert base.split["checksum"] != smaller.split["checksum"]


@pytest.mark.parametrize("n_max", [111, 5000])
def test_more_images_than_there_are_candidates_are_refused(n_max):
    message = refusal(load, n_max=n_max, factor=1.0)
    assert f"n_max={n_max}" in message
    assert "110" in message
    assert "lower config.data.n_max" in message


def test_the_split_is_the_published_one():
    """Pinned: another permutation is another data set, and its numbers are not comparable."""
    split = load_digits_lt(110, 20.0, 0).split
    assert split["checksum"] == "61c09d4138af468cc4d89acd20d30e6f34fead81a7fba9ad2cd90cc075c7e8fd"
