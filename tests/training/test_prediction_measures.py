"""What predictions come to: by group, null where there is nothing, and under logit adjustment."""

import json

import numpy as np
import pytest

from spa_jax.longtail.losses import adjust_logits, tau_normalised
from spa_jax.training.prediction_measures import prediction_measures, tau_sweep

COUNTS = [100, 30, 10, 3]
GROUPS = {"many": [0], "medium": [1, 2], "few": [3]}


def made(number=200, num_classes=4, seed=0):
    """Logits that are right more often than not, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, number)
    logits = rng.normal(size=(number, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    return logits.astype(np.float32), labels


def test_accuracies_are_over_examples_and_over_classes_by_group():
    logits, labels = made()
    labels = np.where(labels == 2, 1, labels)  # which leaves a class without examples
    found = prediction_measures(logits, labels, COUNTS, GROUPS)
    right = logits.argmax(axis=1) == labels
    assert found["accuracy"]["all"] == pytest.approx(right.mean(), rel=1e-12)
    assert not found["balanced"]
    of_classes = {c: right[labels == c].mean() for c in (0, 1, 3)}
    assert found["class_accuracy"]["all"] == pytest.approx(np.mean([*of_classes.values()]))
    assert found["class_accuracy"]["medium"] == pytest.approx(of_classes[1])
    assert found["lowest_recall"] == pytest.approx(min(of_classes.values()))
    assert found["per_class"]["recall"][2] is None
    counts = [found["calibration"][group]["bins"]["count"] for group in GROUPS]
    assert np.sum(counts, axis=0).tolist() == found["calibration"]["all"]["bins"]["count"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_group_without_examples_is_null():
    logits, labels = made()
    seen = labels != 3
    found = prediction_measures(logits[seen], labels[seen], COUNTS, GROUPS)
    for name in ("accuracy", "class_accuracy", "calibration"):
        assert found[name]["few"] is None


def test_the_confusion_matrix_has_the_largest_class_first_and_many_classes_share_cells():
    labels = np.array([0, 1, 1, 2])
    logits = np.eye(3)[[0, 2, 1, 2]]
    found = prediction_measures(logits, labels, [5, 50, 20], {})
    assert found["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    labels = np.arange(250)
    found = prediction_measures(np.eye(250), labels, (250 - labels).tolist(), {})
    assert np.shape(found["confusion"]) == (100, 100)
    assert np.trace(found["confusion"]) == 250
    assert {*np.diag(found["confusion"])} == {2, 3}


def test_a_sweep_is_the_accuracy_of_adjusted_logits():
    logits, labels = made(seed=1)
    prior = np.log(np.array(COUNTS) / sum(COUNTS))

    def adjust(logits, tau):
        return adjust_logits(logits, prior.astype(np.float32), tau)

    found = tau_sweep(adjust, logits, labels, (0, 0.5, 2.0))
    assert [*found["accuracy"]] == ["0", "0.5", "2"]
    for tau, value in found["class_accuracy"].items():
        predicted = (logits - float(tau) * prior).argmax(axis=1)
        expected = [np.mean(predicted[labels == c] == c) for c in range(4)]
        assert value == pytest.approx(np.mean(expected))
        assert found["accuracy"][tau] == pytest.approx(np.mean(predicted == labels))


@pytest.mark.parametrize("tau", [0, 0.7, 1.0])
def test_tau_normalised_logits_are_those_of_weights_over_a_power_of_their_lengths(tau):
    generator = np.random.default_rng(3)
    features, weights = generator.normal(size=(9, 6)), generator.normal(size=(4, 6))
    weights *= np.array([[5.0], [1.0], [0.2], [0.0]])
    lengths = np.linalg.norm(weights, axis=1)
    powers = np.where(lengths > 0, lengths, 1) ** tau
    expected = features @ (weights / powers[:, None]).T
    found = tau_normalised((features @ weights.T).astype(np.float32), lengths, tau)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
