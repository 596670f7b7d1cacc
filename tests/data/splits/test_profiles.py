"""Class sizes of each profile and the order of the classes, against their definitions."""

import re
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spa_jax.data.data_options import SplitOptions
from spa_jax.data.splits.profiles import (
    CLASS_ORDERS,
    PROFILES,
    exponential_profile,
    pareto_profile,
    ranked_classes,
    step_profile,
)
from spa_jax.data.splits.splitting import split_sizes
from tests.refusals import refusal

properties = settings(max_examples=100, deadline=None, derandomize=True)

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
# CIFAR-100-LT, n_max 500: total and last class.
HUNDRED_CLASSES = {
    10: (19573, 50),
    20: (15907, 25),
    50: (12608, 10),
    100: (10847, 5),
    200: (9502, 2),
    500: (8155, 1),
}


@st.composite
def profile_arguments(draw, largest=6000):
    """n_max, C and a whole imbalance factor that leaves no class empty."""
    n_max = draw(st.integers(1, largest))
    return n_max, draw(st.integers(2, 120)), draw(st.integers(1, n_max))


@pytest.mark.parametrize("factor", TEN_CLASSES)
def test_ten_classes_have_the_published_sizes(factor):
    counts = exponential_profile(5000, 10, factor)
    assert counts == TEN_CLASSES[factor]
    assert sum(counts) == TEN_TOTALS[factor]


@pytest.mark.parametrize("factor", HUNDRED_CLASSES)
def test_a_hundred_classes_have_the_published_sizes(factor):
    counts = exponential_profile(500, 100, factor)
    assert (sum(counts), counts[-1]) == HUNDRED_CLASSES[factor]
    assert (counts[0], len(counts)) == (500, 100)


@pytest.mark.parametrize("factor", TEN_CLASSES)
@pytest.mark.parametrize(("n_max", "num_classes"), [(5000, 10), (500, 100)])
def test_the_sizes_are_those_of_the_published_formula_in_its_own_arithmetic(
    n_max, num_classes, factor
):
    """Published code multiplies by a power of the ratio 1 / IF."""
    shares = [(1 / factor) ** (label / (num_classes - 1.0)) for label in range(num_classes)]
    expected = tuple(int(n_max * share) for share in shares)
    assert exponential_profile(n_max, num_classes, factor) == expected


def test_digits_and_fashion_mnist_have_their_sizes():
    assert exponential_profile(110, 10, 20) == (110, 78, 56, 40, 29, 20, 14, 10, 7, 5)
    assert sum(exponential_profile(110, 10, 20)) == 369
    assert sum(exponential_profile(6000, 10, 100)) == 14_886


@properties
@given(profile_arguments())
def test_exponential_sizes_are_the_whole_part_of_the_formula(arguments):
    """In whole numbers: n <= n_max IF^(-r / (C-1)) is n^(C-1) IF^r <= n_max^(C-1)."""
    n_max, num_classes, factor = arguments
    power = num_classes - 1
    for rank, size in enumerate(exponential_profile(n_max, num_classes, factor)):
        assert size**power * factor**rank <= n_max**power
        # Only where the formula gives a whole number, floating point may fall below it.
        assert (size + 1) ** power * factor**rank >= n_max**power


@properties
@given(profile_arguments())
def test_step_sizes_are_large_for_the_first_half_and_small_for_the_rest(arguments):
    n_max, num_classes, factor = arguments
    sizes = step_profile(n_max, num_classes, factor)
    for rank, size in enumerate(sizes):
        assert size == (n_max if 2 * (rank + 1) <= num_classes else n_max // factor)
    assert len(sizes) == num_classes


def test_step_sizes_of_cifar():
    assert step_profile(5000, 10, 100) == (5000,) * 5 + (50,) * 5
    assert step_profile(500, 100, 10) == (500,) * 50 + (50,) * 50
    assert step_profile(9, 3, 4) == (9, 2, 2)


def pareto_reference(n_max, num_classes, factor, alpha):
    """Sizes before rounding: the tail P(X > x) = x^-alpha at evenly spaced points, by Decimal."""
    with localcontext() as context:
        context.prec = 50
        last = Decimal(factor) ** (1 / Decimal(alpha))  # where the tail is 1 / IF
        step = (last - 1) / (num_classes - 1)
        return [n_max * (1 + rank * step) ** -Decimal(alpha) for rank in range(num_classes)]


@properties
@given(profile_arguments(), st.sampled_from([1, 2, 6, 10]))
def test_pareto_sizes_are_the_whole_part_of_the_tail_at_even_steps(arguments, alpha):
    exact = pareto_reference(*arguments, alpha)
    for size, real in zip(pareto_profile(*arguments, float(alpha)), exact, strict=True):
        assert size in (int(real + Decimal("1e-9")), int(real - Decimal("1e-9")))


def test_the_power_of_the_pareto_profile_is_6():
    expected = tuple(int(size) for size in pareto_reference(1280, 7, 100, alpha=6))
    assert pareto_profile(1280, 7, 100) == PROFILES["pareto"](1280, 7, 100) == expected
    assert pareto_profile(1280, 7, 100, 5.0) != expected


def test_pareto_sizes_with_the_ends_of_imagenet_lt():
    sizes = pareto_profile(1280, 1000, 256)
    assert (sizes[0], sizes[-1], len(sizes)) == (1280, 5, 1000)
    # Steeper at the head than an exponential profile of the same ends, flatter at the tail.
    exponential = exponential_profile(1280, 1000, 256)
    assert sizes[300] < exponential[300]
    assert sum(sizes) < sum(exponential)


@pytest.mark.parametrize("profile", PROFILES)
@properties
@given(arguments=profile_arguments())
def test_every_profile_falls_from_n_max_to_n_max_by_the_factor(profile, arguments):
    n_max, num_classes, factor = arguments
    sizes = PROFILES[profile](n_max, num_classes, factor)
    assert len(sizes) == num_classes
    assert all(type(size) is int for size in sizes)
    assert (sizes[0], sizes[-1]) == (n_max, n_max // factor)
    assert list(sizes) == sorted(sizes, reverse=True)


@pytest.mark.parametrize("profile", PROFILES)
def test_without_imbalance_every_class_has_the_same_size(profile):
    assert PROFILES[profile](30, 4, 1) == (30, 30, 30, 30)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("factor", [0.99, 0, -1, float("nan")])
def test_an_imbalance_factor_below_one_is_refused(profile, factor):
    message = refusal(PROFILES[profile], 100, 10, factor)
    assert "imbalance_factor must be 1 or more" in message
    assert str(factor) in message


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("n_max", "num_classes"), [(100, 1), (0, 10), (-5, 10)])
def test_too_few_classes_or_images_are_refused_with_both_numbers(profile, n_max, num_classes):
    message = refusal(PROFILES[profile], n_max, num_classes, 10)
    assert f"num_classes={num_classes}" in message
    assert f"n_max={n_max}" in message


@pytest.mark.parametrize("alpha", [0.0, -6.0, float("nan")])
def test_a_pareto_power_that_is_not_above_0_is_refused(alpha):
    message = refusal(pareto_profile, 100, 10, 10, alpha)
    assert "alpha of the Pareto profile must be 0.1 or more" in message
    assert str(alpha) in message


@pytest.mark.parametrize(
    ("profile", "n_max", "num_classes", "factor", "first_empty"),
    [
        ("exponential", 110, 10, 200, 8),  # 110 * 200^(-8/9) = 0.99
        ("exponential", 110, 10, 1e6, 4),
        ("exponential", 5, 2, 6, 1),
        ("exponential", 500, 100, 501, 99),
        ("exponential", 49, 10, 60, 9),  # 49 * (1 / 49) is below 1 in floating point
        ("exponential", 98, 3, 1e9, 1),
        ("exponential", 103, 100, 104, 99),
        ("step", 110, 10, 111, 5),
        ("step", 49, 5, 49.5, 2),
        ("pareto", 1280, 1000, 1281, 999),
        ("pareto", 49, 10, 60, 9),
        ("pareto", 100, 3, 1e6, 1),  # x = 5.5 at the middle, 100 * 5.5^-6 = 0.004
    ],
)
def test_an_empty_class_is_refused_with_the_largest_factor_that_works(
    profile, n_max, num_classes, factor, first_empty
):
    sizes_of = PROFILES[profile]
    message = refusal(sizes_of, n_max, num_classes, factor)
    assert f"imbalance_factor={factor:g} " in message
    assert f"class {first_empty} of {num_classes} without an image" in message
    named = re.search(r"largest that works is (\d+(?:\.\d+)?)", message)
    assert named, message
    largest = float(named[1])
    assert sizes_of(n_max, num_classes, largest)[-1] == 1
    refusal(sizes_of, n_max, num_classes, largest * 1.001)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_largest_factor_of_any_n_max_leaves_one_image(profile):
    for n_max in range(1, 400):
        assert PROFILES[profile](n_max, 10, n_max)[-1] == 1


@pytest.mark.parametrize("order", CLASS_ORDERS)
@properties
@given(num_classes=st.integers(1, 200), seed=st.integers(0, 2**31 - 1))
def test_a_class_order_has_every_class_once(order, num_classes, seed):
    ranked = ranked_classes(num_classes, order, seed)
    assert sorted(ranked.tolist()) == list(range(num_classes))
    np.testing.assert_array_equal(ranked, ranked_classes(num_classes, order, seed))


def test_the_order_is_by_label_reversed_or_a_permutation_of_its_own_for_each_seed():
    assert ranked_classes(5, "label", seed=3).tolist() == [0, 1, 2, 3, 4]
    assert ranked_classes(5, "reversed", seed=3).tolist() == [4, 3, 2, 1, 0]
    permutations = {tuple(ranked_classes(10, "permuted", seed).tolist()) for seed in range(20)}
    assert len(permutations) == 20
    assert not permutations & {tuple(range(10)), tuple(range(9, -1, -1))}


def test_the_permutation_of_a_seed_never_changes():
    """Pinned: another permutation makes other classes rare, under the same options."""
    assert ranked_classes(10, "permuted").tolist() == [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]
    assert ranked_classes(10, "permuted", 1).tolist() == [8, 4, 7, 0, 1, 2, 5, 9, 6, 3]


@properties
@given(arguments=profile_arguments(), seed=st.integers(0, 100))
def test_counts_by_label_give_each_class_the_size_of_its_rank(arguments, seed):
    n_max, _, factor = arguments
    sizes = exponential_profile(n_max, 12, factor)
    options = SplitOptions(
        n_max=n_max, imbalance_factor=factor, class_order="permuted", class_order_seed=seed
    )
    counts = split_sizes(np.full(12, n_max), options)
    assert [counts[label] for label in ranked_classes(12, "permuted", seed)] == list(sizes)
