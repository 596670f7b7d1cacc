"""Measures of predictions against scikit-learn, SciPy and loops over examples, in float64."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from spa_jax.dynamics.classification import (
    calibration_error,
    confusion_matrix,
    count_by_class,
    f1_scores,
    geometric_mean,
    harmonic_mean,
    recalls,
    reliability,
)

CLASSES = 7


def predictions(seed, absent=()):
    """Labels of long-tailed classes without the absent ones, and what two thirds of them keep."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.4, 300) - 1, CLASSES - 1)
    labels = labels[~np.isin(labels, absent)]
    noise = rng.integers(0, CLASSES, len(labels))
    return labels, np.where(rng.random(len(labels)) < 2 / 3, labels, noise)


@pytest.mark.parametrize("absent", [(), (2, 6)])
def test_confusion_recalls_and_f1_are_those_of_scikit_learn(absent):
    labels, predicted = predictions(0, absent)
    present = np.unique(labels)
    everything = np.arange(CLASSES)
    np.testing.assert_array_equal(
        confusion_matrix(labels, predicted, CLASSES),
        metrics.confusion_matrix(labels, predicted, labels=everything),
    )
    counts = count_by_class(labels, predicted, CLASSES)
    for found, reference in ((recalls, metrics.recall_score), (f1_scores, metrics.f1_score)):
        expected = np.full(CLASSES, np.nan)
        expected[present] = reference(
            labels, predicted, labels=present, average=None, zero_division=0.0
        )
        np.testing.assert_allclose(found(counts), expected, rtol=1e-14)
    macro = metrics.f1_score(labels, predicted, labels=present, average="macro", zero_division=0.0)
    np.testing.assert_allclose(np.nanmean(f1_scores(counts)), macro, rtol=1e-14)
    balanced = metrics.recall_score(labels, predicted, labels=present, average="macro")
    np.testing.assert_allclose(np.nanmean(recalls(counts)), balanced, rtol=1e-14)


def test_the_means_of_recalls_are_those_of_scipy():
    values = np.random.default_rng(1).uniform(0.01, 1, 50)
    known = np.append(values, np.nan)
    np.testing.assert_allclose(harmonic_mean(known), stats.hmean(values), rtol=1e-13)
    np.testing.assert_allclose(geometric_mean(known), stats.gmean(values), rtol=1e-13)
    for mean in (harmonic_mean, geometric_mean):
        assert mean(np.append(values, 0.0)) == 0
        assert np.isnan(mean(np.full(2, np.nan)))


def loop_over_equal_widths(confidences, correct, bins):
    """The definition of Guo et al., bin by bin: of each (m - 1)/M < p <= m/M, 0 in the first."""
    error = 0.0
    for m in range(bins):
        low, high = m / bins, (m + 1) / bins
        inside = [i for i, p in enumerate(confidences) if low < p <= high or (m == 0 and p == 0)]
        if inside:
            confidence = sum(confidences[i] for i in inside) / len(inside)
            accuracy = sum(bool(correct[i]) for i in inside) / len(inside)
            error += len(inside) / len(confidences) * abs(accuracy - confidence)
    return error


def loop_over_equal_numbers(confidences, correct, bins):
    """The sorted examples cut into bins of equally many."""
    order = sorted(range(len(confidences)), key=lambda i: confidences[i])
    size, error = len(order) // bins, 0.0
    for m in range(bins):
        inside = order[m * size : (m + 1) * size]
        gap = sum(bool(correct[i]) - confidences[i] for i in inside)
        error += abs(gap) / len(order)
    return error


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_errors_are_those_of_loops(bins):
    rng = np.random.default_rng(2)
    confidences = np.concatenate([rng.uniform(0.1, 1, 597), [0.25, 0.5, 1.0]])
    correct = rng.random(600) < confidences**2
    found = reliability(confidences, correct, bins=bins)
    assert found.count.sum() == 600
    np.testing.assert_allclose(
        calibration_error(found), loop_over_equal_widths(confidences, correct, bins), rtol=1e-12
    )
    found = reliability(confidences, correct, adaptive=True, bins=bins)
    assert found.count.tolist() == [600 // bins] * bins
    np.testing.assert_allclose(
        calibration_error(found), loop_over_equal_numbers(confidences, correct, bins), rtol=1e-12
    )
    assert (np.diff(found.confidence) > 0).all()


def test_bins_hold_their_upper_ends_and_few_examples_leave_some_empty():
    found = reliability(
        np.array([0.0, 0.25, 0.5, 1.0]), np.array([True, False, True, True]), bins=4
    )
    assert found.count.tolist() == [2, 1, 0, 1]
    assert np.isnan(found.accuracy[2]) and np.isnan(found.confidence[2])
    assert reliability(np.full(2, 0.5), np.array([True, False]), adaptive=True).count.sum() == 2
    nothing = reliability(np.empty(0), np.empty(0, bool))
    assert np.isnan(calibration_error(nothing))


def test_a_classifier_that_is_right_as_often_as_it_says_is_calibrated():
    confidences = np.repeat([0.25, 0.5, 0.75], 4)
    correct = np.array([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0], bool)
    assert calibration_error(reliability(confidences, correct)) == 0
