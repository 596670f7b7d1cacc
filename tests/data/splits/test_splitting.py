"""From a source to a long-tailed data set: sizes, the chosen images, the record, refusals."""

import dataclasses
import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spa_jax.data.data_options import SplitOptions
from spa_jax.data.dataset import LabelledImages, Source
from spa_jax.data.splits.splitting import make_split, split_sizes
from tests.refusals import refusal

properties = settings(max_examples=60, deadline=None, derandomize=True)

SIZES = {
    "exponential": (40, 18, 8, 4),  # 40 * 10^(-r/3), rounded down
    "step": (40, 40, 4, 4),
    "pareto": (40, 16, 7, 4),  # 40 * (1 + r/3 (10^(1/6) - 1))^-6, rounded down
}
ORDERS = {"label": (0, 1, 2, 3), "reversed": (3, 2, 1, 0), "permuted": (2, 0, 1, 3)}


def examples_of(labels, first=0, names=None):
    """Images that hold their place in the set, so that it can be read off them."""
    places = first + np.arange(len(labels))
    images = np.stack([places // 256, places % 256], axis=-1).astype(np.uint8)[:, None, None]
    return LabelledImages(images, np.array(labels, np.int32), names)


def places_of(examples):
    return (examples.images[:, 0, 0].astype(int) @ [256, 1]).tolist()


def source_of(sizes, order="official", named=False):
    """A source of shuffled classes, with two test images a class."""
    labels = np.random.default_rng(4).permutation(np.repeat(np.arange(len(sizes)), sizes))
    test_labels = np.tile(np.arange(len(sizes)), 2)
    names = np.array([f"n{label}_{place}.jpg" for place, label in enumerate(labels)])
    test_names = np.array([f"val_{place}.jpg" for place in range(len(test_labels))])
    train = examples_of(labels, names=names if named else None)
    test = examples_of(test_labels, first=60_000, names=test_names if named else None)
    return Source("tiny", train, test, tuple("abcdefghij"[: len(sizes)]), order)


def selected(labels, counts, protocol, seed):
    """Places by the published definitions, from lists of plain integers."""
    generator = np.random.RandomState(seed)
    chosen = []
    for label, count in enumerate(counts):
        of_class = [place for place, found in enumerate(labels.tolist()) if found == label]
        if protocol == "ldam":
            generator.shuffle(of_class)
            chosen += of_class[:count]
        else:
            draws = generator.choice(len(of_class), count, replace=False)
            chosen += [of_class[draw] for draw in draws]
    return chosen


def checksum_of(*parts):
    content = b"".join(struct.pack(f"<{len(part)}q", *part) + b"|" for part in parts)
    return hashlib.sha256(content).hexdigest()


def checksum_of_content(*parts):
    """Of what trains where no protocol chose: labels, and file names if there are any."""
    content = b""
    for part in parts:
        content += struct.pack(f"<{len(part)}q", *part.labels.tolist())
        content += b"" if part.names is None else "\0".join(part.names).encode()
        content += b"|"
    return hashlib.sha256(content).hexdigest()


def write_list(path, examples, places):
    lines = [f"some/folder/{examples.names[i]} {examples.labels[i]}" for i in places]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("profile", SIZES)
def test_sizes_go_to_the_classes_in_their_order(profile, order):
    options = SplitOptions(
        profile=profile, imbalance_factor=10, class_order=order, class_order_seed=0
    )
    counts = split_sizes(np.array([40, 50, 60, 70]), options)
    assert [counts[label] for label in ORDERS[order]] == list(SIZES[profile])


@properties
@given(
    st.sampled_from(sorted(SIZES)),
    st.sampled_from(sorted(ORDERS)),
    st.integers(0, 1000),
    st.lists(st.integers(10, 90), min_size=2, max_size=12),
)
def test_every_order_gives_the_same_sizes_to_other_classes(profile, order, seed, sizes):
    options = SplitOptions(profile=profile, imbalance_factor=10, class_order_seed=seed)
    plain = split_sizes(np.array(sizes), options)
    other = split_sizes(np.array(sizes), dataclasses.replace(options, class_order=order))
    assert sorted(other, reverse=True) == list(plain)


def test_the_largest_class_has_what_the_smallest_of_the_source_has_unless_it_is_given():
    sizes = np.array([90, 30, 50])
    assert split_sizes(sizes, SplitOptions(imbalance_factor=9)) == (30, 10, 3)
    assert split_sizes(sizes, SplitOptions(imbalance_factor=9, n_max=18)) == (18, 6, 2)


def test_a_balanced_split_has_equal_classes():
    assert split_sizes(np.array([9, 7, 8]), SplitOptions(imbalance_factor=1)) == (7, 7, 7)


def test_the_natural_sizes_are_those_of_the_source():
    options = SplitOptions(profile="natural", n_max=5, class_order="reversed")
    assert split_sizes(np.array([9, 7, 1]), options) == (9, 7, 1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("profile", SIZES)
@pytest.mark.parametrize("protocol", ["ldam", "glmc"])
def test_a_split_has_the_images_of_the_protocol_and_the_whole_test_set(protocol, profile, order):
    source = source_of((60, 50, 45, 40))
    options = SplitOptions(profile, protocol, 40, 10.0, order, split_seed=6)
    data = make_split(source, options)
    counts = [0] * 4
    for label, size in zip(ORDERS[order], SIZES[profile], strict=True):
        counts[label] = size
    expected = selected(source.train.labels, counts, protocol, seed=6)
    assert places_of(data.train) == expected
    np.testing.assert_array_equal(data.train.labels, source.train.labels[expected], strict=True)
    assert data.class_counts == tuple(counts)
    assert data.validation is None
    assert data.test is source.test
    assert (data.name, data.class_names) == ("tiny", source.class_names)
    assert data.split == {
        "protocol": protocol,
        "profile": profile,
        "imbalance_factor": 10.0,
        "seed": 6,
        "class_order": order,
        "class_order_seed": 0,
        "class_counts": counts,
        "name": "tiny",
        "order": "official",
        "checksum": checksum_of(expected),
    }


def test_the_record_says_whether_the_order_is_the_published_one():
    for order in ("official", "stored"):
        split = make_split(source_of((9, 9), order), SplitOptions(imbalance_factor=3)).split
        assert split["order"] == order


def test_the_checksum_tells_splits_apart_and_is_the_same_for_the_same():
    source = source_of((60, 50, 45, 40))
    changes = [
        {},
        {"protocol": "glmc", "split_seed": 3407},
        {"imbalance_factor": 5.0},
        {"profile": "step"},
        {"profile": "natural"},
        {"n_max": 20},
        {"class_order": "reversed"},
        {"class_order": "permuted"},
        {"class_order": "permuted", "class_order_seed": 2},
        {"split_seed": 1},
        {"validation": True},
    ]
    checksums = [
        make_split(source, SplitOptions(**{"imbalance_factor": 10.0} | change)).split["checksum"]
        for change in changes
    ]
    assert len(set(checksums)) == len(changes)
    again = make_split(source, SplitOptions(imbalance_factor=10.0, class_order_seed=9))
    assert again.split["checksum"] == checksums[0]


def test_names_stay_with_their_images():
    data = make_split(source_of((20, 20), named=True), SplitOptions(imbalance_factor=4))
    expected = [
        f"n{label}_{place}.jpg"
        for place, label in zip(places_of(data.train), data.train.labels, strict=True)
    ]
    assert data.train.names.tolist() == expected


def test_the_natural_split_is_every_image_in_its_place():
    source = source_of((12, 3, 7))
    data = make_split(source, SplitOptions(profile="natural", imbalance_factor=100.0))
    assert places_of(data.train) == list(range(22))
    assert data.class_counts == (12, 3, 7)
    assert data.split["protocol"] == "all"
    assert data.split["profile"] == "natural"
    assert data.split["imbalance_factor"] == 4.0
    assert data.split["seed"] is None
    assert data.split["checksum"] == checksum_of_content(data.train)


def test_a_list_takes_the_place_of_profile_and_protocol(tmp_path):
    source = source_of((10, 10, 10), named=True)
    chosen = selected(source.train.labels, (8, 4, 2), "glmc", seed=1)
    path = write_list(tmp_path / "my_train.txt", source.train, chosen)
    options = SplitOptions(train_list=path, profile="step", protocol="ldam", n_max=3)
    data = make_split(source, options)
    assert places_of(data.train) == chosen
    assert data.test is source.test
    assert data.split == {
        "protocol": "list",
        "profile": "my_train.txt",
        "imbalance_factor": 4.0,
        "seed": None,
        "class_counts": [8, 4, 2],
        "name": "tiny",
        "order": "official",
        "checksum": checksum_of_content(source.train.take(np.array(chosen))),
    }


def test_a_list_of_test_images_chooses_them_and_leaves_the_training_set(tmp_path):
    source = source_of((10, 10), named=True)
    path = write_list(tmp_path / "test.txt", source.test, [3, 0])
    options = SplitOptions(imbalance_factor=5)
    data = make_split(source, dataclasses.replace(options, test_list=path))
    assert places_of(data.test) == [60_003, 60_000]
    assert data.split["test_checksum"] == checksum_of_content(data.test)
    plain = make_split(source, options)
    assert data.split["checksum"] == plain.split["checksum"]
    assert "test_checksum" not in plain.split


def test_the_source_is_left_as_it_was():
    source = source_of((30, 30, 30))
    labels = source.train.labels.copy()
    make_split(source, SplitOptions(imbalance_factor=5, validation=True))
    np.testing.assert_array_equal(source.train.labels, labels)
    assert places_of(source.train) == list(range(90))


@pytest.mark.parametrize("profile", ["exponential", "natural"])
def test_validation_is_a_tenth_of_each_class_of_what_was_chosen(profile):
    source = source_of((40, 40, 40, 40) if profile == "exponential" else (40, 18, 8, 4))
    options = SplitOptions(profile, imbalance_factor=10.0, split_seed=2)
    whole = make_split(source, options)
    data = make_split(source, dataclasses.replace(options, validation=True))
    held_out = places_of(data.validation)
    assert np.bincount(data.validation.labels, minlength=4).tolist() == [4, 1, 1, 0]
    assert data.class_counts == (36, 17, 7, 4)
    assert sorted(places_of(data.train) + held_out) == sorted(places_of(whole.train))
    np.testing.assert_array_equal(data.validation.labels, source.train.labels[held_out])
    assert data.test is source.test
    changed = {
        "validation_seed": 2,
        "validation_counts": [4, 1, 1, 0],
        "checksum": checksum_of(places_of(data.train), held_out)
        if profile == "exponential"
        else checksum_of_content(data.train, data.validation),
    }
    assert data.split == whole.split | changed
    assert data.split["class_counts"] == [40, 18, 8, 4]


def test_what_is_held_out_belongs_to_the_split_seed():
    source = source_of((50, 50))
    parts = [
        set(
            places_of(
                make_split(
                    source, SplitOptions("natural", split_seed=s, validation=True)
                ).validation
            )
        )
        for s in (0, 0, 1)
    ]
    assert parts[0] == parts[1] != parts[2]


def test_a_list_may_have_a_held_out_part(tmp_path):
    source = source_of((30, 30), named=True)
    chosen = selected(source.train.labels, (20, 5), "ldam", seed=0)
    path = write_list(tmp_path / "list.txt", source.train, chosen)
    data = make_split(source, SplitOptions(train_list=path, validation=True))
    assert data.split["validation_counts"] == [2, 1]
    assert sorted(places_of(data.train) + places_of(data.validation)) == sorted(chosen)


def test_options_cannot_change_after_a_split_was_made_from_them():
    options = SplitOptions()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.split_seed = 3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"profile": "linear"}, ("exponential, step, pareto, natural", "'linear'")),
        ({"protocol": "oltr"}, ("ldam, glmc", "'oltr'")),
        ({"class_order": "random"}, ("label, reversed, permuted", "'random'")),
        ({"imbalance_factor": 0.5}, ("imbalance_factor must be at least 1, got 0.5",)),
        ({"imbalance_factor": 41.0}, ("class 3 of 4", "largest that works is 40")),
        ({"n_max": 41}, ("class 0 has 40 of 41", "Lower config.data.n_max")),
        ({"n_max": -1}, ("n_max must be at least 0, got -1",)),
        ({"split_seed": -2}, ("split_seed must be at least -1 and at most 2", "got -2")),
        ({"class_order_seed": -2}, ("class_order_seed must be at least 0, got -2",)),
        ({"imbalance_factor": float("inf")}, ("imbalance_factor must be", "inf")),
        ({"train_list": "no_such_list.txt"}, ("no_such_list.txt", "cannot be read")),
        ({"test_list": "no_such_list.txt"}, ("no_such_list.txt", "cannot be read")),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options, expected):
    source = source_of((40, 50, 60, 70), named=True)

    def split():
        make_split(source, SplitOptions(**{"imbalance_factor": 10.0} | options))

    message = refusal(split)
    for part in expected:
        assert part in message


def test_the_largest_factor_that_a_refusal_names_works():
    source = source_of((40, 50, 60, 70))
    assert make_split(source, SplitOptions(imbalance_factor=40.0)).class_counts[-1] == 1


def test_a_class_order_may_ask_a_class_for_more_than_it_has():
    source = source_of((9, 20))
    assert make_split(source, SplitOptions(n_max=20, imbalance_factor=4, class_order="reversed"))
    message = refusal(make_split, source, SplitOptions(n_max=20, imbalance_factor=4))
    assert "class 0 has 9 of 20" in message
    assert "config.data.class_order" in message


@pytest.mark.parametrize("part", ["training", "test"])
def test_a_list_for_a_source_without_names_is_refused(tmp_path, part):
    path = tmp_path / "list.txt"
    path.write_text("a.jpg 0")
    options = {"training": {"train_list": str(path)}, "test": {"test_list": str(path)}}[part]
    message = refusal(make_split, source_of((9, 9)), SplitOptions(imbalance_factor=1, **options))
    assert f"tiny {part} set does not name its images" in message


def test_a_list_that_leaves_a_class_out_is_refused_with_the_class(tmp_path):
    source = source_of((9, 9, 9), named=True)
    chosen = selected(source.train.labels, (5, 0, 2), "ldam", seed=0)
    path = write_list(tmp_path / "list.txt", source.train, chosen)
    message = refusal(make_split, source, SplitOptions(train_list=path))
    assert "1 of the 3 classes" in message
    assert "b (1)" in message
    assert "tiny training set" in message


def test_a_source_that_lacks_a_class_is_refused_with_the_class():
    whole = source_of((9, 9, 9))
    without = whole.train.take(np.where(whole.train.labels != 1)[0])
    message = refusal(
        make_split, dataclasses.replace(whole, train=without), SplitOptions(profile="natural")
    )
    assert "1 of the 3 classes" in message
    assert "b (1)" in message


def test_classes_of_fewer_than_5_images_leave_nothing_to_hold_out():
    source = source_of((4, 4, 4))
    options = SplitOptions(imbalance_factor=1, validation=True)
    message = refusal(make_split, source, options)
    assert "config.data.validation" in message
    assert "no class has 5 images or more" in message
    assert "config.data.n_max" in message
    assert make_split(source_of((5, 4, 4)), SplitOptions("natural", validation=True)).validation


@pytest.mark.parametrize(("protocol", "published"), [("ldam", 0), ("glmc", 3407)])
def test_without_a_seed_a_protocol_has_the_one_it_was_published_with(protocol, published):
    source = source_of((40, 50, 60, 70))
    plain, seeded = (
        make_split(source, SplitOptions(imbalance_factor=10.0, protocol=protocol, split_seed=seed))
        for seed in (-1, published)
    )
    assert plain.split == seeded.split
    assert plain.split["seed"] == published


def test_a_class_that_a_source_does_not_have_is_named():
    source = source_of((40, 0, 60))
    message = refusal(make_split, source, SplitOptions(imbalance_factor=2.0))
    assert "1 of the 3 classes" in message
