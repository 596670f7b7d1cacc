"""Smoothed labels, and how much of a class's labels is spread."""

import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.longtail.label_smoothing import label_aware_shares, smooth_targets
from tests.longtail import reference
from tests.longtail.made_methods import loss_of, method
from tests.refusals import refusal


def test_smoothed_labels_keep_their_sum_and_spread_a_share_over_all_classes():
    _, labels, mixed, _ = reference.problem(0)
    shares = np.linspace(0.4, 0.0, 5, dtype=np.float32)
    rows = np.asarray(smooth_targets(labels, shares))
    for row, label in zip(rows, labels, strict=True):
        expected = np.full(5, shares[label] / 5)
        expected[label] += 1 - shares[label]
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-7)
    twice = np.asarray(smooth_targets(2 * mixed, shares))
    np.testing.assert_allclose(twice.sum(axis=1), 2.0, rtol=1e-5)


def test_larger_classes_are_smoothed_more_from_tail_to_head():
    counts = np.array([5000, 387, 50])
    shares = np.asarray(label_aware_shares(counts, 0.4, 0.1))
    expected = reference.label_aware_shares(counts, 0.4, 0.1)
    np.testing.assert_allclose(shares, expected, rtol=1e-5)
    assert shares[0] > shares[1] > shares[2] == pytest.approx(0.1)
    np.testing.assert_allclose(label_aware_shares(np.array([7, 7]), 0.4, 0.1), 0.4, rtol=1e-6)


def test_options_reach_the_losses():
    logits, labels, _, counts = reference.problem(1)
    problem = (jnp.asarray(logits), jnp.asarray(labels), counts)
    alike = reference.smoothed(logits, labels, np.full(5, 0.3)).mean()
    assert loss_of("label_smoothing", *problem, smoothing=0.3) == pytest.approx(alike, rel=1e-5)
    shares = reference.label_aware_shares(counts, 0.5, 0.2)
    expected = reference.smoothed(logits, labels, shares).mean()
    found = loss_of("label_aware_smoothing", *problem, head=0.5, tail=0.2)
    assert found == pytest.approx(expected, rel=1e-5)


def test_smoothing_the_tail_more_than_the_head_is_refused():
    message = refusal(lambda: method("label_aware_smoothing", head=0.1, tail=0.2))
    assert "config.method.label_aware_smoothing.tail=0.2" in message and "head=0.1" in message
