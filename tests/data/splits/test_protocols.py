"""Both published protocols bit for bit, the held-out part, and the checksum."""

import hashlib
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spa_jax.data.splits.profiles import exponential_profile
from spa_jax.data.splits.protocols import (
    PROTOCOLS,
    hold_out,
    indices_checksum,
    select_glmc,
    select_ldam,
)
from tests.refusals import refusal

properties = settings(max_examples=60, deadline=None, derandomize=True)

# First five positions within a class at IF 100: protocol, seed, C and n_max, then by class.
GOLDEN = {
    ("ldam", 0, 10, 5000): {
        0: [398, 3833, 4836, 4572, 636],
        1: [597, 332, 521, 3935, 4800],
        9: [2204, 3816, 2206, 2507, 1926],
    },
    ("ldam", 0, 100, 500): {
        0: [90, 254, 283, 445, 461],
        1: [277, 307, 436, 88, 261],
        99: [348, 153, 363, 361, 299],
    },
    ("glmc", 3407, 10, 5000): {
        0: [3855, 4849, 4388, 2008, 3828],
        1: [4735, 4972, 3273, 1242, 2080],
        9: [1252, 1985, 4774, 3599, 4462],
    },
    ("glmc", 3407, 100, 500): {
        0: [336, 19, 426, 428, 468],
        1: [420, 473, 229, 106, 367],
        99: [281, 392, 476, 478, 443],
    },
    ("glmc", 42, 10, 5000): {
        0: [1501, 2586, 2653, 1055, 705],
        1: [1078, 2889, 2303, 2301, 107],
        9: [530, 4448, 997, 3309, 2091],
    },
    ("glmc", 42, 100, 500): {
        0: [361, 73, 374, 155, 104],
        1: [306, 449, 123, 194, 66],
        99: [63, 461, 331, 32, 233],
    },
}
# The splits of the real data at IF 100: protocol and seed, first positions, checksum.
CIFAR = {
    "cifar10": {
        ("ldam", 0): (
            [4030, 38518, 48266, 45556, 6312],
            "276ca08c0d2cd9f26dddc3bae188d6c2c1a90d56b523e86fcf7da7b0255c925c",
        ),
        ("glmc", 3407): (
            [38670, 48363, 43993, 20217, 38433],
            "eba53edf37c10045892fba8f62ac94778e580373b5fef9e10e47a73b83b313d7",
        ),
        ("glmc", 42): (
            [14958, 25814, 26522, 10513, 7183],
            "4108b2e6d96c2101bb03db128217f915b9d647fc1833825b6f520681700ffa13",
        ),
    },
    "cifar100": {
        ("ldam", 0): (
            [9470, 27272, 30172, 43691, 45171],
            "114a1cc5e4079d03cc3a4e7430aa0a69e53b706763fbb5a2bef5b606d0ef6c05",
        ),
        ("glmc", 3407): (
            [34254, 2500, 42162, 42441, 45682],
            "97ce1c04d38701ddc555c5198a0df49bf83e6906759909dcac076bec68e66ef1",
        ),
        ("glmc", 42): (
            [36323, 7923, 37402, 16356, 11264],
            "c1223ce9256d9a85ede94529fc4c0419ab11244ec93da977db6e91a4c6579f66",
        ),
    },
}
FOLDER = os.environ.get("SPA_JAX_CIFAR", "")


def ldam_reference(labels, counts, seed):
    """Lists of plain integers, one generator that runs on from class to class."""
    generator = np.random.RandomState(seed)
    chosen = []
    for label, count in enumerate(counts):
        of_class = [place for place, found in enumerate(labels.tolist()) if found == label]
        generator.shuffle(of_class)
        chosen += of_class[:count]
    return chosen


def glmc_reference(labels, counts, seed):
    """Draws from the examples sorted by class, where a class is one block."""
    generator = np.random.RandomState(seed)
    by_class = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=len(counts)).tolist()
    chosen, start = [], 0
    for size, count in zip(sizes, counts, strict=False):
        block = by_class[start : start + size]
        chosen += block[generator.choice(np.arange(size), count, replace=False)].tolist()
        start += size
    return chosen


REFERENCES = {"ldam": ldam_reference, "glmc": glmc_reference}


@st.composite
def selections(draw):
    """Labels in any order, and a number of images to take of each class, 1 or more."""
    sizes = draw(st.lists(st.integers(1, 30), min_size=1, max_size=8))
    counts = [draw(st.integers(1, size)) for size in sizes]
    labels = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.random.default_rng(draw(st.integers(0, 10_000))).permutation(labels)
    return labels.astype(draw(st.sampled_from([np.int32, np.int64]))), counts


def label_orders(num_classes, per_class):
    labels = np.repeat(np.arange(num_classes), per_class)
    return {"sorted": labels, "shuffled": np.random.default_rng(7).permutation(labels)}


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_a_selection_is_the_published_one(case, order):
    protocol, seed, num_classes, n_max = case
    labels = label_orders(num_classes, n_max)[order]
    counts = exponential_profile(n_max, num_classes, 100)
    chosen = PROTOCOLS[protocol](labels, counts, seed)
    np.testing.assert_array_equal(labels[chosen], np.repeat(np.arange(num_classes), counts))
    assert len(np.unique(chosen)) == sum(counts)
    starts = np.cumsum((0, *counts))
    for label, first in GOLDEN[case].items():
        of_class = np.where(labels == label)[0]
        positions = np.searchsorted(of_class, chosen[starts[label] : starts[label + 1]])
        assert positions[:5].tolist() == first


@pytest.mark.parametrize(("select", "published"), [(select_ldam, 0), (select_glmc, 3407)])
def test_without_a_seed_the_published_one_is_taken(select, published):
    labels = label_orders(5, 40)["shuffled"]
    counts = exponential_profile(40, 5, 10)
    np.testing.assert_array_equal(select(labels, counts), select(labels, counts, published))
    assert set(select(labels, counts)) != set(select(labels, counts, published + 1))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@properties
@given(selection=selections(), seed=st.integers(0, 2**32 - 1))
def test_a_selection_is_that_of_the_definition(protocol, selection, seed):
    labels, counts = selection
    untouched = labels.copy()
    chosen = PROTOCOLS[protocol](labels, counts, seed)
    assert chosen.tolist() == REFERENCES[protocol](labels, counts, seed)
    np.testing.assert_array_equal(labels, untouched)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@properties
@given(selection=selections(), seed=st.integers(0, 1000))
def test_a_selection_has_the_counts_of_each_class_and_no_image_twice(protocol, selection, seed):
    labels, counts = selection
    chosen = PROTOCOLS[protocol](labels, counts, seed)
    np.testing.assert_array_equal(labels[chosen], np.repeat(np.arange(len(counts)), counts))
    assert len(np.unique(chosen)) == sum(counts)


@properties
@given(selection=selections(), seed=st.integers(0, 1000))
def test_under_one_seed_both_protocols_choose_the_same_images(selection, seed):
    """NumPy's draw without replacement is the head of a shuffle; their seeds tell them apart."""
    np.testing.assert_array_equal(select_ldam(*selection, seed), select_glmc(*selection, seed))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_larger_imbalance_takes_a_subset(protocol):
    labels = label_orders(10, 300)["shuffled"]
    small, large = (
        PROTOCOLS[protocol](labels, exponential_profile(300, 10, factor), 0) for factor in (100, 2)
    )
    assert set(small.tolist()) < set(large.tolist())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_counts_by_label_may_rise(protocol):
    """As with a reversed class order: the classes are still gone through by label."""
    labels = label_orders(4, 50)["shuffled"]
    counts = exponential_profile(50, 4, 10)[::-1]
    chosen = PROTOCOLS[protocol](labels, counts, 5)
    assert chosen.tolist() == REFERENCES[protocol](labels, counts, 5)
    np.testing.assert_array_equal(np.bincount(labels[chosen]), counts)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_selection_belongs_to_the_seed_alone(protocol):
    labels = label_orders(10, 40)["shuffled"]
    counts = exponential_profile(40, 10, 10)
    first, again, other = (PROTOCOLS[protocol](labels, counts, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("counts", [(9, 4), (1, 1)])
def test_a_class_may_give_all_its_images_or_a_single_one(protocol, counts):
    labels = np.array([0] * 9 + [1] * 4)
    chosen = PROTOCOLS[protocol](labels, counts, 0)
    np.testing.assert_array_equal(np.bincount(labels[chosen]), counts)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_class_with_too_few_images_is_refused_with_both_numbers(protocol):
    labels = np.array([0] * 9 + [1] * 4)
    message = refusal(PROTOCOLS[protocol], labels, (9, 5), 0)
    assert "class 1 has 4 of 5" in message
    assert "class 0" not in message
    assert "Lower config.data.n_max" in message
    assert "config.data.class_order" in message


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_of_many_classes_with_too_few_images_the_number_and_three_are_named(protocol):
    labels = np.repeat(np.arange(6), [9, 1, 9, 2, 3, 4])
    message = refusal(PROTOCOLS[protocol], labels, (8,) * 6, 0)
    assert message.startswith("4 of the classes ")
    named = re.findall(r"class (\d) has (\d) of (\d)", message)
    assert named == [("1", "1", "8"), ("3", "2", "8"), ("4", "3", "8")]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_class_without_any_image_is_refused(protocol):
    message = refusal(PROTOCOLS[protocol], np.array([0, 0, 2]), (1, 1, 1), 0)
    assert "class 1 has 0 of 1" in message


@pytest.mark.skipif(not FOLDER, reason="SPA_JAX_CIFAR names no folder with the real CIFAR")
@pytest.mark.parametrize("name", CIFAR)
def test_the_splits_of_the_real_cifar_are_the_published_ones(name):
    with np.load(Path(FOLDER) / name / "train.npz") as archive:
        labels = archive["label"]
    num_classes, n_max = (10, 5000) if name == "cifar10" else (100, 500)
    counts = exponential_profile(n_max, num_classes, 100)
    for (protocol, seed), (first, checksum) in CIFAR[name].items():
        chosen = PROTOCOLS[protocol](labels, counts, seed)
        assert chosen.tolist() == REFERENCES[protocol](labels, counts, seed)
        assert chosen[:5].tolist() == first
        within = np.searchsorted(np.where(labels == 0)[0], chosen[:5])
        assert within.tolist() == GOLDEN[protocol, seed, num_classes, n_max][0]
        assert indices_checksum(chosen) == checksum


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, 0), (4, 0), (5, 1), (6, 1), (9, 1), (10, 1), (19, 1), (20, 2), (29, 2), (5000, 500)],
)
def test_a_tenth_is_held_out_but_one_of_5_to_9_and_none_of_fewer(size, expected):
    kept, held_out = hold_out(np.zeros(size, np.int32), seed=0)
    assert (len(kept), len(held_out)) == (size - expected, expected)


@properties
@given(selections(), st.integers(0, 1000))
def test_kept_and_held_out_are_all_examples_once(selection, seed):
    labels, _ = selection
    kept, held_out = hold_out(labels, seed)
    assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(len(labels)))
    assert kept.tolist() == sorted(kept.tolist())
    assert held_out.tolist() == sorted(held_out.tolist())
    sizes = np.bincount(labels)
    expected = [size // 10 if size >= 10 else int(size >= 5) for size in sizes.tolist()]
    assert np.bincount(labels[held_out], minlength=len(sizes)).tolist() == expected


def test_what_is_held_out_belongs_to_the_seed():
    labels = label_orders(3, 40)["shuffled"]
    parts = [hold_out(labels, seed)[1].tolist() for seed in range(5)]
    assert hold_out(labels, 0)[1].tolist() == parts[0]
    assert len({tuple(part) for part in parts}) == 5


def test_every_example_is_held_out_under_some_seed():
    """The choice favours no place in a class: 20 examples, 2 a seed, 400 seeds."""
    labels = np.repeat([0, 1], 20)
    times = np.bincount(
        np.concatenate([hold_out(labels, seed)[1] for seed in range(400)]), minlength=40
    )
    # Binomial, mean 40 and deviation 6.
    assert times.min() > 40 - 5 * 6
    assert times.max() < 40 + 5 * 6


def test_what_a_seed_holds_out_never_changes():
    """Pinned: a checkpoint chosen on other examples is another result."""
    labels = np.repeat([0, 1, 2], [30, 20, 7])
    assert hold_out(labels, 0)[1].tolist() == [5, 12, 16, 31, 46, 56]
    assert hold_out(labels, 1)[1].tolist() == [1, 4, 15, 43, 45, 52]


def test_the_checksum_is_sha256_of_little_endian_integers_with_a_bar_after_each_part():
    one, two = [3, 2**40, 0], [7]
    content = struct.pack("<3q", *one) + b"|" + struct.pack("<q", *two) + b"|"
    checksum = indices_checksum(np.array(one), np.array(two))
    assert checksum == hashlib.sha256(content).hexdigest()


def test_the_checksum_changes_with_any_index_and_with_their_order():
    indices = np.array([5, 0, 3, 9, 1])
    changed = [indices + (np.arange(5) == i) * 10 for i in range(5)]
    swapped = [indices[[1, 0, 2, 3, 4]], indices[::-1], np.sort(indices)]
    lengths = [indices[:-1], np.append(indices, 0), indices[:0]]
    checksums = {indices_checksum(x) for x in [indices, *changed, *swapped, *lengths]}
    assert len(checksums) == 12


@properties
@given(
    st.lists(st.integers(0, 2**31), min_size=1, max_size=20),
    st.integers(0, 19),
    st.integers(1, 2**20),
)
def test_the_checksum_changes_with_an_index_wherever_it_stands(indices, place, difference):
    changed = np.array(indices)
    changed[place % len(indices)] += difference
    assert indices_checksum(changed) != indices_checksum(np.array(indices))


def test_the_checksum_tells_the_parts_of_a_split_apart():
    one, two, three = np.array([1]), np.array([2]), np.array([1, 2])
    parts = [(one, two), (two, one), (three,), (three, three[:0]), (three[:0], three)]
    assert len({indices_checksum(*part) for part in parts}) == len(parts)


def test_the_checksum_does_not_depend_on_the_integer_type_or_the_memory_layout():
    indices = np.array([5, 0, 3])
    types = (np.int32, np.int64, np.uint16, np.dtype(">i8"))
    strided = np.array([5, 9, 0, 9, 3, 9])[::2]
    checksums = {indices_checksum(indices.astype(kind)) for kind in types}
    assert checksums == {indices_checksum(strided)}
