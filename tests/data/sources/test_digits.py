"""The long-tailed digits: sizes, disjoint parts, and a split that belongs to its seed."""

import numpy as np
import pytest

from spa_jax.data.data_options import DataOptions
from spa_jax.data.sources.opening import load_data
from spa_jax.data.splits.protocols import indices_checksum
from tests.refusals import refusal


def load(n_max=110, factor=20.0, split_seed=0, **options):
    return load_data(
        DataOptions(n_max=n_max, imbalance_factor=factor, split_seed=split_seed, **options)
    )


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


@pytest.mark.parametrize("settings", [{"n_max": -1}, {"factor": 111.0}, {"profile": "linear"}])
def test_a_split_that_does_not_fit_is_refused(settings):
    message = refusal(load, **settings)
    parts = {
        "n_max": "config.data.n_max must be at least 0, got -1",
        "factor": "largest that works is 110",
        "profile": "'linear'",
    }
    for name in settings:
        assert parts[name] in message


@pytest.mark.parametrize("kind", ["train_list", "test_list"])
def test_a_split_list_is_refused(kind):
    message = refusal(load, **{kind: "list.txt"})
    assert "digits have no file names" in message
    assert "split list" in message


@pytest.mark.parametrize(
    ("profile", "counts"),
    [
        ("step", (110,) * 5 + (5,) * 5),
        ("pareto", (110, 72, 49, 34, 24, 17, 12, 9, 7, 5)),
    ],
)
def test_another_profile_has_other_sizes_and_the_same_test_set(profile, counts):
    """Pareto: 110 (1 + r/9 (20^(1/6) - 1))^-6, rounded down."""
    base, data = load(), load(profile=profile)
    assert data.class_counts == counts
    assert data.split["profile"] == profile
    np.testing.assert_array_equal(base.test.images, data.test.images)


def test_without_n_max_the_largest_class_has_every_candidate():
    assert load(n_max=0).split == load(n_max=110).split


@pytest.mark.parametrize(
    ("order", "seed", "ranked"),
    [
        ("label", 1, range(10)),
        ("reversed", 1, range(9, -1, -1)),
        ("permuted", 0, (4, 6, 2, 7, 3, 5, 9, 0, 8, 1)),
    ],
)
def test_the_class_order_says_which_digits_are_many(order, seed, ranked):
    base, data = load(), load(class_order=order, class_order_seed=seed)
    assert [data.class_counts[label] for label in ranked] == list(base.class_counts)
    assert data.split["class_order"] == order
    assert data.split["class_order_seed"] == seed
    np.testing.assert_array_equal(base.test.images, data.test.images)
    # Each class takes the head of the same permutation, however many it takes.
    assert contents(data.train) < contents(load(factor=1.0).train)


def test_validation_holds_a_tenth_of_each_class_out():
    base, data = load(), load(validation=True)
    held_out = (11, 7, 5, 4, 2, 2, 1, 1, 1, 1)
    assert tuple(np.bincount(data.validation.labels)) == held_out
    assert data.split["validation_counts"] == list(held_out)
    assert data.class_counts == (99, 71, 51, 36, 27, 18, 13, 9, 6, 4)
    assert not contents(data.train) & contents(data.validation)
    assert contents(data.train) | contents(data.validation) == contents(base.train)
    np.testing.assert_array_equal(base.test.images, data.test.images)
    assert data.split["checksum"] != base.split["checksum"]
    assert data.split["test_checksum"] == base.split["test_checksum"]


def test_without_validation_nothing_is_held_out():
    data = load()
    assert data.validation is None
    assert "validation_counts" not in data.split


def test_the_split_is_that_of_the_definition():
    """For each class one permutation: 60 test images, then those that train."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    generator = np.random.default_rng(3)
    data = load(split_seed=3)
    train, test = [], []
    for label, count in enumerate(data.class_counts):
        permuted = generator.permutation(np.where(labels == label)[0]).tolist()
        test += permuted[:60]
        train += permuted[60 : 60 + count]
    for examples, places in ((data.train, train), (data.test, test)):
        np.testing.assert_array_equal(examples.images.reshape(-1, 64), images[places])
        np.testing.assert_array_equal(examples.labels, labels[places])
    assert data.split["checksum"] == indices_checksum(np.array(train))
    assert data.split["test_checksum"] == indices_checksum(np.array(test))


def test_the_split_never_changes():
    """Pinned: another permutation is another data set, and its numbers are not comparable."""
    split = load().split
    train = "8f656dd180b83133a650b6837ae1c0722983373c8416baad44c0018ad0cd5400"
    test = "e963a10c4494347ad620db92c8ed36246910193360fceef079b29b91d20ca716"
    assert (split["checksum"], split["test_checksum"]) == (train, test)


def test_a_folder_is_refused_with_what_to_do(tmp_path):
    message = refusal(load, folder=str(tmp_path))
    assert f"takes no folder, and config.data.folder is {tmp_path}" in message
    assert "config.data.name" in message
