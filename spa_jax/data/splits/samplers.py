"""How often an epoch shows each class: shuffled, or drawn by class with replacement."""

from collections.abc import Sequence

import numpy as np

_POWERS = {"class_aware": 1.0, "square_root": 0.5, "reversed": 2.0}
SAMPLERS = ("shuffle", *_POWERS, "power")


def class_probabilities(counts: Sequence[int], sampler: str, power: float = 1.0) -> np.ndarray:
    r"""Probability that a draw shows each class.

    .. math:: P(c) \propto n_c^{1 - k}

    so that each image of class c is drawn with weight :math:`n_c^{-k}`: k = 1 for `class_aware`
    (all classes alike), 1/2 for `square_root`, 2 for `reversed` (rare classes most often), and
    the given power for `power`; 0 draws all images alike, with replacement.

    Args:
      counts: `(C,)` training images of each class, not all 0.
      sampler: one of `SAMPLERS` but "shuffle", which draws nothing.
      power: k of the sampler "power".

    Returns:
      `(C,)` float64 that sum to 1; 0 for a class without images.

    Example:
      >>> class_probabilities([80, 20], "reversed").tolist()
      [0.2, 0.8]

    Reference:
      Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR
      2020; Zhou et al., "BBN: Bilateral-Branch Network", CVPR 2020 (reversed).
    """
    sizes = np.asarray(counts, np.float64)
    exponent = 1.0 - {**_POWERS, "power": power}[sampler]
    weights = np.where(sizes > 0, np.maximum(sizes, 1.0) ** exponent, 0.0)
    return weights / weights.sum()


def draw_probabilities(labels: np.ndarray, sampler: str, power: float = 1.0) -> np.ndarray | None:
    """Probability of each example at a draw, `(N,)` float64; None for "shuffle", which has none."""
    if sampler == "shuffle":
        return None
    counts = np.bincount(labels)
    share = class_probabilities(counts.tolist(), sampler, power) / np.maximum(counts, 1)
    return share[labels]
