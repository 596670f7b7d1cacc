"""What the predictions of a run come to, as JSON can hold it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import softmax

from spa_jax.dynamics import classification
from spa_jax.training.metrics import accuracy, mean_class_accuracy, number

_MOST_CELLS = 100
"""On a side of the confusion matrix; more classes share cells."""


def prediction_measures(
    logits: Float[np.ndarray, "N C"],
    labels: Int[np.ndarray, " N"],
    class_counts: Sequence[int],
    groups: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """Accuracies, F1 scores, means of the recalls, calibration and confusion of predictions.

    Args:
      logits: `(N, C)`, the largest of which is predicted.
      labels: `(N,)` integers in [0, C).
      class_counts: training examples of each class, by which `confusion` is ordered.
      groups: the classes of each shot group.

    Returns:
      `accuracy` over examples and `class_accuracy` over classes, `calibration` of the predicted
      class, each by group and for `all` classes, null where there is no example. `confusion` has
      the largest class first; of more than 100 classes, neighbours in size share its cells.

    Example:
      >>> found = prediction_measures(
      ...     np.eye(3)[[0, 1, 1]], np.array([0, 1, 2]), [9, 5, 2], {"few": [2]}
      ... )
      >>> found["accuracy"]["few"], found["lowest_recall"], found["confusion"]
      (0.0, 0.0, [[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    """
    num_classes = logits.shape[1]
    groups = {"all": range(num_classes), **groups}
    predicted = np.argmax(logits, axis=1)
    confidences = softmax(logits.astype(np.float64), axis=1).max(axis=1)
    counts = classification.count_by_class(labels, predicted, num_classes)
    recalls, scores = classification.recalls(counts), classification.f1_scores(counts)
    members = {name: np.isin(labels, list(classes)) for name, classes in groups.items()}
    cells = min(num_classes, _MOST_CELLS)
    ranks = np.argsort(np.argsort(-np.asarray(class_counts), kind="stable"))
    cell_of = ranks * cells // num_classes
    confusion = classification.confusion_matrix(cell_of[labels], cell_of[predicted], cells)
    return {
        "examples": len(labels),
        "balanced": bool(np.ptp(counts.examples) == 0),
        **_accuracies(counts, groups),
        "macro_f1": number(np.nanmean(scores)),
        "harmonic_mean_recall": number(classification.harmonic_mean(recalls)),
        "geometric_mean_recall": number(classification.geometric_mean(recalls)),
        "lowest_recall": number(np.nanmin(recalls)),
        "calibration": {
            name: _calibration(confidences[own], (labels == predicted)[own])
            for name, own in members.items()
        },
        "per_class": {
            "examples": counts.examples.tolist(),
            "recall": list(map(number, recalls)),
            "f1": list(map(number, scores)),
        },
        "confusion": confusion.tolist(),
    }


def tau_sweep(
    adjust: Callable[[Any, float], Any],
    logits: Float[np.ndarray, "N C"],
    labels: Int[np.ndarray, " N"],
    taus: Sequence[float],
) -> dict[str, dict[str, float | None]]:
    """Accuracy of logits that are adjusted after training, on top of what the run does itself.

    Args:
      adjust: `(logits, tau)` -> `(N, C)`.
      logits: `(N, C)`.
      labels: `(N,)` integers in [0, C).
      taus: the strengths.

    Returns:
      `accuracy`, over examples, and `class_accuracy`, over classes, by tau as text.

    Example:
      >>> logits = np.array([[0.5, 0.0], [1.0, 0.0]], np.float32)
      >>> adjust = lambda logits, tau: logits - tau * np.array([1.0, 0.0])
      >>> tau_sweep(adjust, logits, np.array([1, 0]), [0, 0.75])["accuracy"]
      {'0': 0.5, '0.75': 1.0}
    """
    num_classes = logits.shape[1]
    found: dict[str, dict[str, float | None]] = {"accuracy": {}, "class_accuracy": {}}
    for tau in taus:
        predicted = np.asarray(jnp.argmax(adjust(logits, tau), axis=1))
        counts = classification.count_by_class(labels, predicted, num_classes)
        for name, by_group in _accuracies(counts, {"all": range(num_classes)}).items():
            found[name][f"{tau:g}"] = by_group["all"]
    return found


def _accuracies(
    counts: classification.ClassCounts, groups: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, float | None]]:
    """Over examples and over classes, by group."""
    of_group = {
        name: (counts.hits[list(classes)], counts.examples[list(classes)])
        for name, classes in groups.items()
    }
    return {
        "accuracy": {name: accuracy(*own) for name, own in of_group.items()},
        "class_accuracy": {
            name: mean_class_accuracy(*own) if own[1].any() else None
            for name, own in of_group.items()
        },
    }


def _calibration(
    confidences: Float[np.ndarray, " N"], correct: Bool[np.ndarray, " N"]
) -> dict[str, Any] | None:
    """Of the examples of a group; None without any."""
    if not len(correct):
        return None
    bins, adaptive = (
        classification.reliability(confidences, correct, adaptive) for adaptive in (False, True)
    )
    return {
        "ece": classification.calibration_error(bins),
        "adaptive_ece": classification.calibration_error(adaptive),
        "bins": {
            "count": bins.count.tolist(),
            "confidence": list(map(number, bins.confidence)),
            "accuracy": list(map(number, bins.accuracy)),
        },
    }
