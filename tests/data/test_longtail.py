"""Class sizes, the published selection, its checksum, and shot groups, against known values."""

import re

import numpy as np
import pytest

from spa_jax.data.longtail import (
    exponential_profile,
    indices_checksum,
    select_ldam,
    shot_group_rule,
    shot_groups,
)
from tests.refusals import refusal

# Counts of CIFAR-10-LT, n_max 5000.
TEN_CLASSES = {
    10: (5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500),
    20: (5000, 3584, 2569, 1842, 1320, 946, 678, 486, 348, 250),
    50: (5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100),
    100: (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50),
    200: (5000, 2775, 1540, 854, 474, 263, 146, 81, 45, 25),
    500: (5000, 2506, 1256, 629, 315, 158, 79, 39, 19, 10),
}
TEN_TOTALS = {10: 20431, 20: 17023, 50: 13996, 100: 12406, 200: 11203, 500: 10011}
# CIFAR-100-LT, n_max 500: total, last class, sizes of the many, medium and few-shot groups.
HUNDRED_CLASSES = {
    10: (19573, 50, (69, 31, 0)),
    20: (15907, 25, (53, 47, 0)),
    50: (12608, 10, (41, 41, 18)),
    100: (10847, 5, (35, 35, 30)),
    200: (9502, 2, (30, 31, 39)),
    500: (8155, 1, (26, 26, 48)),
}
# The LDAM-DRW selection with seed 0: C, n_max, first positions within a class, by class.
LDAM_GOLDEN = [
    (
        10,
        5000,
        {
            0: [398, 3833, 4836, 4572, 636],
            1: [597, 332, 521, 3935, 4800],
            9: [2204, 3816, 2206, 2507, 1926],
        },
    ),
    (
        100,
        500,
        {
            0: [90, 254, 283, 445, 461],
            1: [277, 307, 436, 88, 261],
            99: [348, 153, 363, 361, 299],
        },
    ),
]


@pytest.mark.parametrize("factor", TEN_CLASSES)
def test_ten_classes_have_the_published_sizes(factor):
    counts = exponential_profile(5000, 10, factor)
    assert counts == TEN_CLASSES[factor]
    assert sum(counts) == TEN_TOTALS[factor]


@pytest.mark.parametrize("factor", HUNDRED_CLASSES)
def test_a_hundred_classes_have_the_published_sizes_and_shot_groups(factor):
    counts = exponential_profile(500, 100, factor)
    total, last, group_sizes = HUNDRED_CLASSES[factor]
    assert (sum(counts), counts[0], counts[-1]) == (total, 500, last)
    groups = shot_groups(counts)
    assert tuple(len(groups[name]) for name in ("many", "medium", "few")) == group_sizes


def test_digits_and_fashion_mnist_have_their_sizes():
    assert exponential_profile(110, 10, 20) == (110, 78, 56, 40, 29, 20, 14, 10, 7, 5)
    assert sum(exponential_profile(110, 10, 20)) == 369
    assert sum(exponential_profile(6000, 10, 100)) == 14_886


def test_without_imbalance_every_class_has_the_same_size():
    assert exponential_profile(30, 4, 1) == (30, 30, 30, 30)


@pytest.mark.parametrize("factor", [0.99, 0, -1, float("nan")])
def test_an_imbalance_factor_below_one_is_refused(factor):
    message = refusal(exponential_profile, 100, 10, factor)
    assert "imbalance_factor must be 1 or more" in message
    assert str(factor) in message


@pytest.mark.parametrize(("n_max", "num_classes"), [(100, 1), (0, 10), (-5, 10)])
def test_too_few_classes_or_images_are_refused_with_both_numbers(n_max, num_classes):
    message = refusal(exponential_profile, n_max, num_classes, 10)
    assert f"num_classes={num_classes}" in message
    assert f"n_max={n_max}" in message


@pytest.mark.parametrize(
    ("n_max", "num_classes", "factor", "first_empty"),
    [
        (110, 10, 200, 8),  # 110 * 200^(-8/9) = 0.99
        (110, 10, 1e6, 4),
        (5, 2, 6, 1),
        (500, 100, 501, 99),
        (49, 10, 60, 9),  # 49 * (1 / 49) is below 1 in floating point
        (98, 3, 1e9, 1),
        (103, 100, 104, 99),
    ],
)
def test_an_empty_class_is_refused_with_the_largest_factor_that_works(
    n_max, num_classes, factor, first_empty
):
    message = refusal(exponential_profile, n_max, num_classes, factor)
    assert f"class {first_empty} of {num_classes} without an image" in message
    named = re.search(r"largest that works is (\d+(?:\.\d+)?)", message)
    assert named, message
    largest = float(named[1])
    assert exponential_profile(n_max, num_classes, largest)[-1] == 1
    refusal(exponential_profile, n_max, num_classes, largest * 1.001)


def label_orders(num_classes, per_class):
    labels = np.repeat(np.arange(num_classes), per_class)
    return {"sorted": labels, "shuffled": np.random.default_rng(7).permutation(labels)}


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
@pytest.mark.parametrize(("num_classes", "n_max", "golden"), LDAM_GOLDEN, ids=["C=10", "C=100"])
def test_the_ldam_selection_is_the_published_one(num_classes, n_max, golden, order):
    labels = label_orders(num_classes, n_max)[order]
    counts = exponential_profile(n_max, num_classes, 100)
    chosen = select_ldam(labels, counts)
    np.testing.assert_array_equal(labels[chosen], np.repeat(np.arange(num_classes), counts))
    assert len(np.unique(chosen)) == sum(counts)
    starts = np.cumsum((0, *counts))
    for label, first in golden.items():
        of_class = np.where(labels == label)[0]
        positions = np.searchsorted(of_class, chosen[starts[label] : starts[label + 1]])
        assert positions[:5].tolist() == first


def test_the_selection_belongs_to_the_seed_alone():
    labels = label_orders(10, 40)["shuffled"]
    counts = exponential_profile(40, 10, 10)
    first, again, other = (select_ldam(labels, counts, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


def test_a_class_with_too_few_images_is_refused_with_both_numbers():
    labels = np.array([0] * 9 + [1] * 4)
    message = refusal(select_ldam, labels, (9, 5))
    assert "Class 1 has 4 images" in message
    assert "asks for 5" in message
    assert "lower n_max" in message.replace("config.data.", "")


def test_the_checksum_changes_with_any_index_and_with_their_order():
    indices = np.array([5, 0, 3, 9, 1])
    changed = [indices + (np.arange(5) == i) * 10 for i in range(5)]
    swapped = [indices[[1, 0, 2, 3, 4]], indices[::-1], np.sort(indices)]
    lengths = [indices[:-1], np.append(indices, 0), indices[:0]]
    checksums = {indices_checksum(x) for x in [indices, *changed, *swapped, *lengths]}
    assert len(checksums) == 12


def test_the_checksum_tells_the_parts_of_a_split_apart():
    one, two, three = np.array([1]), np.array([2]), np.array([1, 2])
    parts = [(one, two), (two, one), (three,), (three, three[:0]), (three[:0], three)]
    assert len({indices_checksum(*part) for part in parts}) == len(parts)


def test_the_checksum_does_not_depend_on_the_integer_type():
    indices = np.array([5, 0, 3])
    types = (np.int32, np.int64, np.uint16, np.dtype(">i8"))
    assert len({indices_checksum(indices.astype(kind)) for kind in types}) == 1


@pytest.mark.parametrize(
    ("counts", "many", "medium", "few"),
    [
        (TEN_CLASSES[100], [0, 1, 2], [3, 4, 5, 6], [7, 8, 9]),
        ([5, 50], [1], [], [0]),
        ([8, 8], [0], [], [1]),
        ([7, 9, 8], [1], [2], [0]),
        ([5, 100, 7, 100, 50], [1], [2, 3, 4], [0]),
        ([6] * 4, [0], [1, 2], [3]),
        ([6] * 7, [0, 1], [2, 3, 4], [5, 6]),
        ([6] * 10, [0, 1, 2], [3, 4, 5, 6], [7, 8, 9]),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [7, 8, 9], [3, 4, 5, 6], [0, 1, 2]),
        ([101, 100, 20, 19, 5000, 1, 50, 50, 50, 50, 50], [0, 4], [1, 2, 6, 7, 8, 9, 10], [3, 5]),
        ([30] * 11, [], list(range(11)), []),
    ],
)
def test_shot_groups_follow_the_rule(counts, many, medium, few):
    assert shot_groups(counts) == {"many": many, "medium": medium, "few": few}


@pytest.mark.parametrize("num_classes", range(2, 11))
def test_up_to_ten_classes_the_outer_groups_have_three_tenths_each_and_at_least_one(num_classes):
    k = max(1, 3 * num_classes // 10)
    groups = shot_groups(range(num_classes, 0, -1))
    assert groups["many"] == list(range(k))
    assert groups["few"] == list(range(num_classes - k, num_classes))
    assert f"the {k} largest" in shot_group_rule(num_classes)
    assert f"the {k} smallest" in shot_group_rule(num_classes)


def test_the_rule_for_many_classes_is_put_in_words():
    assert shot_group_rule(11) == "more than 100 / 20 to 100 / fewer than 20 training images"
