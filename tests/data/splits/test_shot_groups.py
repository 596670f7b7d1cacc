"""Many-, medium- and few-shot classes by each published rule."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spa_jax.data.data_options import DataOptions
from spa_jax.data.splits.profiles import exponential_profile
from spa_jax.data.splits.shot_groups import (
    SHOT_GROUP_RULES,
    check_shot_group_rule,
    shot_group_rule,
    shot_groups,
)
from tests.refusals import refusal

properties = settings(max_examples=50, deadline=None, derandomize=True)

GROUPS = ("many", "medium", "few")
# CIFAR-100-LT by imbalance factor: > 100 / 20 to 100 / < 20, and > 100 / 21 to 100 / <= 20.
HUNDRED_CLASSES = {
    10: ((69, 31, 0), (69, 31, 0)),
    20: ((53, 47, 0), (53, 47, 0)),
    50: ((41, 41, 18), (41, 40, 19)),
    100: ((35, 35, 30), (35, 34, 31)),
    200: ((30, 31, 39), (30, 30, 40)),
    500: ((26, 26, 48), (26, 25, 49)),
}
TEN_CLASSES_100 = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
# Whether a class of n images is of many or few shots, as in the code that each rule comes from.
THRESHOLDS = {
    "above_100_below_20": (lambda n: n > 100, lambda n: n < 20),
    "oltr": (lambda n: n >= 100, lambda n: n <= 20),
    "glmc": (lambda n: n > 100, lambda n: n <= 20),
}
# Index ranges of MiSLAS, by number of classes that are sorted by their size.
MISLAS = {10: (0, 3, 7, 10), 100: (0, 36, 71, 100), 1000: (0, 390, 835, 1000)}


def sizes_of(groups):
    return tuple(len(groups[name]) for name in GROUPS)


def imagenet_lt():
    """1000 made-up class sizes with the ends and the groups of ImageNet-LT, in mixed order.

    385 classes are above 100, 479 within 20 and 100 (6 of them at 100, 9 at 20) and 136 below 20.
    """
    many = np.linspace(101, 360, 384).astype(int).tolist()
    medium = [100] * 6 + np.linspace(21, 99, 464).astype(int).tolist() + [20] * 9
    few = np.linspace(5, 19, 136).astype(int).tolist()
    sizes = [1280, *many, *medium, *few]
    return np.random.default_rng(0).permutation(sizes).tolist()


@pytest.mark.parametrize("factor", HUNDRED_CLASSES)
def test_cifar_100_has_the_published_group_sizes(factor):
    counts = exponential_profile(500, 100, factor)
    usual, glmc = HUNDRED_CLASSES[factor]
    assert sizes_of(shot_groups(counts)) == usual
    assert sizes_of(shot_groups(counts, "above_100_below_20")) == usual
    assert sizes_of(shot_groups(counts, "glmc")) == glmc
    assert sizes_of(shot_groups(counts, "mislas")) == (36, 35, 29)


def test_imagenet_lt_has_the_published_group_sizes():
    counts = imagenet_lt()
    assert (len(counts), max(counts), min(counts)) == (1000, 1280, 5)
    assert sizes_of(shot_groups(counts)) == (385, 479, 136)
    assert sizes_of(shot_groups(counts, "glmc")) == (385, 479 - 9, 136 + 9)
    assert sizes_of(shot_groups(counts, "oltr")) == (385 + 6, 479 - 6 - 9, 136 + 9)
    assert sizes_of(shot_groups(counts, "mislas")) == (390, 445, 165)


@pytest.mark.parametrize("rule", [*THRESHOLDS, "auto"])
@properties
@given(st.lists(st.integers(0, 130), min_size=11, max_size=40))
def test_groups_by_thresholds_are_those_of_the_definition(rule, counts):
    many, few = THRESHOLDS["above_100_below_20" if rule == "auto" else rule]
    groups = shot_groups(counts, rule)
    assert groups["many"] == [label for label, n in enumerate(counts) if many(n)]
    assert groups["few"] == [label for label, n in enumerate(counts) if few(n)]
    rest = set(range(len(counts))) - {*groups["many"], *groups["few"]}
    assert groups["medium"] == sorted(rest)


@pytest.mark.parametrize(
    ("rule", "many", "medium", "few"),
    [
        ("above_100_below_20", [0], [1, 2, 3, 4], [5]),
        ("oltr", [0, 1], [2, 3], [4, 5]),
        ("glmc", [0], [1, 2, 3], [4, 5]),
    ],
)
def test_the_sizes_at_the_thresholds(rule, many, medium, few):
    groups = shot_groups([101, 100, 99, 21, 20, 19], rule)
    assert groups == {"many": many, "medium": medium, "few": few}


@pytest.mark.parametrize(
    ("counts", "many", "medium", "few"),
    [
        (TEN_CLASSES_100, [0, 1, 2], [3, 4, 5, 6], [7, 8, 9]),
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
def test_shot_groups_follow_the_usual_rule(counts, many, medium, few):
    assert shot_groups(counts) == {"many": many, "medium": medium, "few": few}


@pytest.mark.parametrize("num_classes", range(2, 11))
def test_up_to_ten_classes_the_outer_groups_have_three_tenths_each_and_at_least_one(num_classes):
    k = max(1, 3 * num_classes // 10)
    groups = shot_groups(range(num_classes, 0, -1))
    assert groups["many"] == list(range(k))
    assert groups["few"] == list(range(num_classes - k, num_classes))
    assert f"the {k} largest" in shot_group_rule(num_classes)
    assert f"the {k} smallest" in shot_group_rule(num_classes)


def test_thirds_may_be_asked_for_with_any_number_of_classes():
    for num_classes in (*range(2, 200), 1000, 8142):
        k = max(1, 3 * num_classes // 10)
        assert sizes_of(shot_groups([7] * num_classes, "thirds")) == (k, num_classes - 2 * k, k)


@pytest.mark.parametrize("num_classes", MISLAS)
def test_the_rule_of_mislas_goes_by_rank_alone(num_classes):
    ranked = np.random.default_rng(1).permutation(num_classes)
    counts = np.empty(num_classes, int)
    counts[ranked] = np.arange(num_classes + 500, 500, -1)
    bounds = MISLAS[num_classes]
    groups = shot_groups(counts.tolist(), "mislas")
    for name, (start, end) in zip(GROUPS, itertools.pairwise(bounds), strict=True):
        assert groups[name] == sorted(ranked[start:end].tolist())
    equal = shot_groups([9] * num_classes, "mislas")
    assert [label for name in GROUPS for label in equal[name]] == list(range(num_classes))


@pytest.mark.parametrize("rule", SHOT_GROUP_RULES)
@properties
@given(st.lists(st.integers(0, 200), min_size=10, max_size=10))
def test_every_class_is_in_one_group_and_no_smaller_class_in_a_larger_one(rule, counts):
    groups = shot_groups(counts, rule)
    assert tuple(groups) == GROUPS
    assert sorted(label for labels in groups.values() for label in labels) == list(range(10))
    sizes = [[counts[label] for label in groups[name]] for name in GROUPS if groups[name]]
    for larger, smaller in itertools.pairwise(sizes):
        assert min(larger) >= max(smaller)


@pytest.mark.parametrize(
    ("num_classes", "rule", "numbers"),
    [
        (11, "auto", ("100", "20", "20", "100")),
        (11, "oltr", ("100", "21", "99", "20")),
        (11, "glmc", ("100", "21", "100", "20")),
        (100, "mislas", ("36", "71")),
        (10, "auto", ("3 largest", "3 smallest")),
        (20, "thirds", ("6 largest", "6 smallest")),
    ],
)
def test_the_rule_is_put_in_words(num_classes, rule, numbers):
    words = shot_group_rule(num_classes, rule)
    for number in numbers:
        assert number in words
    assert "training images" in words


def test_the_rule_for_many_classes_is_put_in_words():
    assert shot_group_rule(11) == "more than 100 / 20 to 100 / fewer than 20 training images"


def test_an_unknown_rule_is_refused_with_the_known_ones():
    message = refusal(DataOptions, shot_groups="halves")
    assert "'halves'" in message
    assert ", ".join(SHOT_GROUP_RULES) in message
    with pytest.raises(KeyError, match="halves"):
        shot_groups([5] * 10, "halves")


def test_mislas_is_refused_for_other_numbers_of_classes():
    message = refusal(shot_groups, [5] * 37, "mislas")
    assert "10, 100 and 1000 classes" in message
    assert "not for 37" in message
    assert "another rule" in message
    assert refusal(check_shot_group_rule, "mislas", 37) == message


@pytest.mark.parametrize("rule", SHOT_GROUP_RULES)
def test_a_rule_that_fits_passes_the_check(rule):
    for num_classes in MISLAS:
        check_shot_group_rule(rule, num_classes)
