"""Measures of a classifier's predictions in NumPy float64: of classes, over them, and calibration.

A class without an example has no value (NaN), and means over classes pass over it. Nothing is drawn
or trained here.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

BINS = 15
"""Of a reliability diagram and of calibration errors, as in the papers that introduced them."""


class ClassCounts(NamedTuple):
    """Numbers of examples by class, `(C,)` integers each.

    Attributes:
      examples: of the class.
      predictions: that were taken for the class.
      hits: both.
    """

    examples: Int[np.ndarray, " C"]
    predictions: Int[np.ndarray, " C"]
    hits: Int[np.ndarray, " C"]


class Reliability(NamedTuple):
    """Confidence and accuracy in bins of examples, `(B,)` each.

    Attributes:
      count: examples in each bin.
      confidence: their mean confidence; NaN in an empty bin.
      accuracy: the share of them that is right; NaN in an empty bin.
    """

    count: Int[np.ndarray, " B"]
    confidence: Float[np.ndarray, " B"]
    accuracy: Float[np.ndarray, " B"]


def count_by_class(
    labels: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"], num_classes: int
) -> ClassCounts:
    """What recalls and F1 scores are made of.

    Args:
      labels: `(N,)` integers in [0, C).
      predicted: `(N,)` integers in [0, C).
      num_classes: C.

    Example:
      >>> count_by_class(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).hits.tolist()
      [1, 1]
    """
    chosen = (labels, predicted, labels[labels == predicted])
    return ClassCounts(*(np.bincount(part, minlength=num_classes) for part in chosen))


def confusion_matrix(
    labels: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"], num_classes: int
) -> Int[np.ndarray, "C C"]:
    r"""Examples by their class (row) and by the class that they were taken for (column).

    .. math:: M_{cj} = |\{i : y_i = c,\ \hat y_i = j\}|

    Args:
      labels: `(N,)` integers in [0, C).
      predicted: `(N,)` integers in [0, C).
      num_classes: C.

    Returns:
      `(C, C)` integers.

    Example:
      >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
      [[1, 1], [0, 1]]
    """
    cells = labels.astype(np.int64) * num_classes + predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def recalls(counts: ClassCounts) -> Float[np.ndarray, " C"]:
    r"""The share of each class's examples that is classified right.

    .. math:: r_c = M_{cc} / \sum_j M_{cj}

    Args:
      counts: from :func:`count_by_class`.

    Returns:
      `(C,)`; NaN for a class without an example.

    Example:
      >>> recalls(count_by_class(np.array([0, 0, 1]), np.array([0, 1, 1]), 3)).tolist()
      [0.5, 1.0, nan]
    """
    return _ratio(counts.hits, counts.examples)


def f1_scores(counts: ClassCounts) -> Float[np.ndarray, " C"]:
    r"""The harmonic mean of precision and recall of each class; their mean is macro-F1.

    .. math:: F_c = 2 M_{cc} / \bigl(\sum_j M_{cj} + \sum_j M_{jc}\bigr)

    Args:
      counts: from :func:`count_by_class`.

    Returns:
      `(C,)`; NaN for a class without an example.

    Example:
      >>> f1_scores(count_by_class(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 2)).round(3)
      array([0.8  , 0.667])

    Reference:
      van Rijsbergen, "Information Retrieval", 2nd edition, 1979.
    """
    scores = _ratio(2 * counts.hits, counts.examples + counts.predictions)
    return np.where(counts.examples > 0, scores, np.nan)


def harmonic_mean(recalls: Float[np.ndarray, " C"]) -> float:
    r"""Harmonic mean of the recalls, which the lowest ones pull down most.

    .. math:: \Bigl(\frac1C \sum_c r_c^{-1}\Bigr)^{-1}

    Args:
      recalls: `(C,)` in [0, 1]; NaN is passed over.

    Returns:
      A number in [0, 1], 0 if a recall is 0; NaN if there is none.

    Example:
      >>> harmonic_mean(np.array([0.5, 1.0, np.nan])), harmonic_mean(np.array([0.0, 1.0]))
      (0.6666666666666666, 0.0)

    Reference:
      Du and Wu, "No One Left Behind: Improving the Worst Categories in Long-Tailed Learning", CVPR
      2023.
    """
    known = recalls[~np.isnan(recalls)]
    with np.errstate(divide="ignore"):
        return float(len(known) / np.sum(1 / known)) if len(known) else np.nan


def geometric_mean(recalls: Float[np.ndarray, " C"]) -> float:
    r"""Geometric mean of the recalls.

    .. math:: \Bigl(\prod_c r_c\Bigr)^{1/C}

    Args:
      recalls: `(C,)` in [0, 1]; NaN is passed over.

    Returns:
      A number in [0, 1], 0 if a recall is 0; NaN if there is none.

    Example:
      >>> geometric_mean(np.array([0.25, 1.0, np.nan])), geometric_mean(np.array([0.0, 1.0]))
      (0.5, 0.0)

    Reference:
      Kubat and Matwin, "Addressing the Curse of Imbalanced Training Sets: One-Sided Selection",
      ICML 1997.
    """
    known = recalls[~np.isnan(recalls)]
    with np.errstate(divide="ignore"):
        return float(np.exp(np.mean(np.log(known)))) if len(known) else np.nan


def reliability(
    confidences: Float[np.ndarray, " N"],
    correct: Bool[np.ndarray, " N"],
    adaptive: bool = False,
    bins: int = BINS,
) -> Reliability:
    r"""Mean confidence and accuracy of examples in bins of like confidence.

    .. math:: B_m = \{i : (m - 1)/M < p_i \le m/M\}, \quad m = 1, \dots, M

    Args:
      confidences: `(N,)` in [0, 1], the probability of the class that was predicted.
      correct: `(N,)`, whether that was right.
      adaptive: the bins hold equally many examples, to one, in place of equal widths.
      bins: M.

    Returns:
      M bins, by ascending confidence.

    Example:
      >>> found = reliability(np.array([0.5, 0.25, 1.0]), np.array([True, False, True]), bins=2)
      >>> found.count.tolist(), found.confidence.tolist(), found.accuracy.tolist()
      ([2, 1], [0.375, 1.0], [0.5, 1.0])

    Reference:
      Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; adaptive: Nguyen and
      O'Connor, "Posterior calibration and exploratory analysis for natural language processing
      models", EMNLP 2015.
    """
    if adaptive:
        ranks = np.argsort(np.argsort(confidences, kind="stable"), kind="stable")
        places = ranks * bins // max(len(ranks), 1)
    else:
        places = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidences, side="left")
    count = np.bincount(places, minlength=bins)
    sums = (np.bincount(places, weights=part, minlength=bins) for part in (confidences, correct))
    return Reliability(count, *(_ratio(total, count) for total in sums))


def calibration_error(found: Reliability) -> float:
    r"""Expected calibration error (ECE); of adaptive bins the adaptive ECE.

    .. math:: \sum_m \frac{|B_m|}{N} \bigl|\mathrm{acc}(B_m) - \mathrm{conf}(B_m)\bigr|

    Args:
      found: from :func:`reliability`.

    Returns:
      A number in [0, 1]; NaN without an example.

    Example:
      >>> found = reliability(np.array([0.5, 0.25, 1.0]), np.array([True, False, True]), bins=2)
      >>> round(calibration_error(found), 4)
      0.0833

    Reference:
      As :func:`reliability`.
    """
    total = found.count.sum()
    gaps = np.nansum(found.count * np.abs(found.accuracy - found.confidence))
    return float(gaps / total) if total else np.nan


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Their quotient; NaN where the whole is 0."""
    return np.divide(part, whole, where=whole > 0, out=np.full(len(whole), np.nan))
