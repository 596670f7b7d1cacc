"""Remix: whose label a mixed image gets."""

import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.longtail.losses import mix_targets
from spa_jax.longtail.remix import remix_targets
from tests.longtail import reference
from tests.longtail.made_methods import loss_of

COUNTS = np.array([90, 30, 29, 10])
PAIRS = np.array([(a, b) for a in range(4) for b in range(4)])


def expected_targets(share, kappa=3.0, tau=0.5):
    rows = np.zeros((16, 4))
    for row, (a, b) in zip(rows, PAIRS, strict=True):
        own = reference.remix_share(share, COUNTS[a], COUNTS[b], kappa, tau)
        row[a] += own
        row[b] += 1 - own
    return rows


def found_targets(share, **options):
    mixed = mix_targets(PAIRS[:, 0], PAIRS[:, 1], share, 4)
    return remix_targets(PAIRS[:, 0], mixed, COUNTS, **options)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.499, 0.5, 0.501, 0.9, 1.0])
def test_labels_go_to_the_smaller_class_where_sizes_differ_and_its_share_is_large(share):
    np.testing.assert_allclose(found_targets(share), expected_targets(share), atol=1e-6)


def test_where_the_larger_class_gives_its_label_up():
    """Among all pairs of classes: 90 and 30 differ enough, 30 and 29 do not."""
    changed = np.abs(found_targets(0.2) - expected_targets(0.2, kappa=1e6)).max(axis=1) > 1e-6
    larger_first = [(0, 1), (0, 2), (0, 3), (1, 3)]  # of which the image has a fifth
    assert [tuple(pair) for pair in PAIRS[changed].tolist()] == larger_first


def test_options_reach_the_targets():
    wider = found_targets(0.4, kappa=1.0, tau=1.0)
    np.testing.assert_allclose(wider, expected_targets(0.4, 1.0, 1.0), atol=1e-6)
    assert np.all(np.isin(wider, [0.0, 1.0]) | (PAIRS[:, :1] == PAIRS[:, 1:]))
    np.testing.assert_allclose(found_targets(0.4, tau=0.0), expected_targets(0.4, tau=0.0))


def test_the_loss_is_cross_entropy_with_these_targets():
    logits = reference.problem(0, batch=16, num_classes=4)[0]
    mixed = mix_targets(PAIRS[:, 0], PAIRS[:, 1], 0.3, 4)
    found = loss_of("remix", jnp.asarray(logits), mixed, COUNTS, labels=PAIRS[:, 0])
    expected = reference.cross_entropy(logits, expected_targets(np.float32(0.3))).mean()
    assert found == pytest.approx(expected, rel=1e-5)


def test_labels_of_images_that_are_not_mixed_stay_as_they_are():
    labels = np.array([0, 3])
    np.testing.assert_array_equal(remix_targets(labels, labels, COUNTS), np.eye(4)[labels])
