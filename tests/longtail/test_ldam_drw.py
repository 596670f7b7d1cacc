"""LDAM and its margins."""

import re

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spa_jax.longtail import ldam_drw
from tests.longtail import reference
from tests.refusals import refusal

properties = settings(max_examples=60, deadline=None, derandomize=True)
seeds = pytest.mark.parametrize("seed", range(4))
kinds = pytest.mark.parametrize("kind", ["labels", "soft"])
many_counts = st.lists(st.integers(1, 10**6), min_size=4, max_size=4).map(np.array)


def ldam_problem(seed, kind, num_classes=5):
    """Cosines, targets and margins."""
    logits, labels, mixed, counts = reference.problem(seed, num_classes=num_classes)
    cosines = np.tanh(logits / 3)
    return cosines, labels if kind == "labels" else mixed, reference.ldam_margins(counts)


@jax.jit
def ldam_and_gradient(cosines, targets, class_margins, cotangent, scale):
    value, pull = jax.vjp(lambda z: ldam_drw.ldam(z, targets, class_margins, scale), cosines)
    return value, *pull(cotangent)


@kinds
@seeds
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_ldam_and_its_gradient_are_those_of_the_equation(kind, seed, scale):
    cosines, targets, class_margins = ldam_problem(seed, kind)
    cotangent = np.cos(np.arange(6))
    value, gradient = ldam_and_gradient(
        cosines, targets, class_margins, np.float32(cotangent), scale
    )
    desired = reference.ldam(cosines, targets, class_margins, scale)
    np.testing.assert_allclose(value, desired, rtol=1e-5, atol=4e-6)
    desired = reference.central_differences(
        lambda z: cotangent @ reference.ldam(z, targets, class_margins, scale), cosines
    )
    np.testing.assert_allclose(gradient, desired, rtol=2e-5, atol=2e-6 * scale)


@kinds
def test_ldam_scales_by_thirty_unless_told_otherwise(kind):
    cosines, targets, class_margins = ldam_problem(4, kind)
    value = ldam_drw.ldam(cosines, targets, np.float32(class_margins))
    desired = reference.ldam(cosines, targets, class_margins, 30.0)
    np.testing.assert_allclose(value, desired, rtol=1e-5, atol=4e-6)


@seeds
def test_one_hot_targets_are_labels(seed):
    cosines, labels, class_margins = ldam_problem(seed, "labels")
    ones, rows = np.ones(6, np.float32), np.eye(5, dtype=np.float32)[labels]
    by_label = ldam_and_gradient(cosines, labels, class_margins, ones, 30.0)
    by_row = ldam_and_gradient(cosines, rows, class_margins, ones, 30.0)
    np.testing.assert_allclose(by_row[0], by_label[0], rtol=1e-5, atol=4e-6)
    np.testing.assert_allclose(by_row[1], by_label[1], rtol=1e-5, atol=1e-4)


@kinds
def test_zero_margins_give_cross_entropy_of_scaled_cosines(kind):
    cosines, targets, _ = ldam_problem(0, kind)
    value, _ = ldam_and_gradient(cosines, targets, np.zeros(5), np.ones(6, np.float32), 30.0)
    desired = reference.cross_entropy(30.0 * np.float64(cosines), targets)
    np.testing.assert_allclose(value, desired, rtol=1e-5, atol=4e-6)


@kinds
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_a_dominating_class_is_exact_and_extreme_logits_stay_finite(kind, scale):
    cosines, targets, class_margins = ldam_problem(1, kind)
    cosines = np.sign(cosines)
    value, gradient = ldam_and_gradient(
        cosines, targets, class_margins, np.ones(6, np.float32), scale
    )
    desired = reference.ldam(cosines, targets, class_margins, scale)
    np.testing.assert_allclose(value, desired, rtol=1e-5, atol=2e-3)
    assert np.all(np.isfinite(gradient))


def test_soft_targets_do_not_cancel_where_one_class_dominates():
    """The denominator without its largest exponential is 2e-13 of the whole."""
    cosines = np.array([[1.0, 0.0, -0.5]], np.float32)
    targets = np.array([[0.9, 0.1, 0.0]], np.float32)
    class_margins = np.array([0.5, 0.4, 0.3], np.float32)
    value = ldam_drw.ldam(cosines, targets, class_margins, 30.0)
    desired = reference.ldam(cosines, targets, class_margins, 30.0)
    np.testing.assert_allclose(value, desired, rtol=1e-5)
    alone = ldam_drw.ldam(cosines, np.array([[1.0, 0.0, 0.0]], np.float32), class_margins, 30.0)
    np.testing.assert_allclose(alone, np.exp(-15.0), rtol=1e-5)


@properties
@given(many_counts, st.floats(0.01, 1.0))
def test_margins_are_inverse_fourth_roots_with_the_given_largest(counts, largest):
    found = ldam_drw.ldam_margins(counts, largest)
    np.testing.assert_allclose(found, reference.ldam_margins(counts, largest), rtol=1e-5)
    assert float(found.max()) == pytest.approx(largest, rel=1e-6)
    assert np.argmax(found) == np.argmin(counts)


REFUSED = {
    "an empty class": (
        lambda: ldam_drw.ldam_margins(np.array([5, 0, 0])),
        r"2 of 3 .*class 1: 0, class 2: 0.*margin",
    ),
    "margins of other classes": (
        lambda: ldam_drw.ldam(np.zeros((2, 3), np.float32), np.zeros(2, int), np.ones(1)),
        r"margins must have shape \(3,\).*\(1,\)",
    ),
    "a label outside": (
        lambda: ldam_drw.ldam(np.zeros((1, 3), np.float32), np.array([3]), np.ones(3)),
        r"\[0, 3\).*\[3\]",
    ),
    "integer cosines": (
        lambda: ldam_drw.ldam(np.zeros((1, 3), int), np.array([0]), np.ones(3)),
        "cosines must be a floating matrix.*int64",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_wrong_input_is_refused_saying_what_and_what_to_do(what, untyped):
    call, says = REFUSED[what]
    assert re.search(says, refusal(call))
