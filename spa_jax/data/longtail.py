"""Long-tailed class sizes, the published way to choose images, and many/medium/few-shot groups."""

import hashlib
from collections.abc import Sequence

import numpy as np

from spa_jax.errors import InputError


def exponential_profile(n_max: int, num_classes: int, imbalance_factor: float) -> tuple[int, ...]:
    r"""Class sizes that fall exponentially with the label.

    .. math:: n_c = \lfloor n_{\max} \, \text{IF}^{-c / (C - 1)} \rfloor

    Args:
      n_max: images of class 0, 1 or more.
      num_classes: C, 2 or more.
      imbalance_factor: IF >= 1, the ratio of the largest to the smallest class before rounding.

    Returns:
      C sizes, largest first.

    Raises:
      InputError: a number out of range, or an imbalance factor that leaves a class empty.

    Example:
      >>> exponential_profile(110, 10, 20)
      (110, 78, 56, 40, 29, 20, 14, 10, 7, 5)

    Reference:
      Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.
    """
    if num_classes < 2 or n_max < 1:
        raise InputError(
            f"A long-tailed split needs at least 2 classes and 1 image, got num_classes="
            f"{num_classes}, n_max={n_max}."
        )
    if not imbalance_factor >= 1:
        raise InputError(f"imbalance_factor must be 1 or more, got {imbalance_factor}.")
    shares = (imbalance_factor ** (c / (num_classes - 1.0)) for c in range(num_classes))
    counts = tuple(int(n_max / share) for share in shares)
    if counts[-1] == 0:
        raise InputError(
            f"imbalance_factor={imbalance_factor} leaves class {counts.index(0)} of "
            f"{num_classes} without an image: with n_max={n_max} the largest that works is {n_max}."
        )
    return counts


def select_ldam(labels: np.ndarray, counts: Sequence[int], seed: int = 0) -> np.ndarray:
    """Chooses images as the LDAM-DRW benchmark does: one generator shuffles each class in turn.

    Args:
      labels: `(N,)` integers of the whole training set, in the data set's original order.
      counts: images to choose of each class.
      seed: of NumPy's legacy generator; the published split has 0.

    Returns:
      Positions in `labels`, class by class.

    Raises:
      InputError: a class with fewer images than asked for.

    Reference:
      Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
      NeurIPS 2019.
    """
    # NumPy's legacy generator, because the published split is defined by it.
    generator = np.random.RandomState(seed)
    chosen = []
    for label, count in enumerate(counts):
        positions = np.where(labels == label)[0]
        if len(positions) < count:
            raise InputError(
                f"Class {label} has {len(positions)} images, but the split asks for {count}: lower "
                "n_max."
            )
        generator.shuffle(positions)
        chosen.append(positions[:count])
    return np.concatenate(chosen)


def indices_checksum(*indices: np.ndarray) -> str:
    """SHA-256 of chosen positions (as little-endian int64), to tell one split from another."""
    digest = hashlib.sha256()
    for part in indices:
        digest.update(np.asarray(part).astype("<i8").tobytes())
        digest.update(b"|")
    return digest.hexdigest()


def shot_groups(counts: Sequence[int]) -> dict[str, list[int]]:
    """Classes by how many training images they have: many, medium and few.

    With 10 classes or fewer: the k largest, the rest, the k smallest, k = max(1, floor(0.3 C)),
    ties by label. Otherwise more than 100, 20 to 100, fewer than 20 training images.

    Args:
      counts: training images of each class.

    Returns:
      `{"many": labels, "medium": labels, "few": labels}`; a group may be empty.

    Example:
      >>> shot_groups([50, 40, 30, 20])
      {'many': [0], 'medium': [1, 2], 'few': [3]}
    """
    sizes = np.asarray(counts)
    num_classes = len(sizes)
    if num_classes <= 10:
        k = max(1, int(0.3 * num_classes))
        order = np.argsort(-sizes, kind="stable").tolist()
        few_from = num_classes - k
        groups = {"many": order[:k], "medium": order[k:few_from], "few": order[few_from:]}
    else:
        groups = {
            "many": np.where(sizes > 100)[0].tolist(),
            "medium": np.where((sizes >= 20) & (sizes <= 100))[0].tolist(),
            "few": np.where(sizes < 20)[0].tolist(),
        }
    return {name: sorted(labels) for name, labels in groups.items()}


def shot_group_rule(num_classes: int) -> str:
    """The rule of :func:`shot_groups` in words, for the run's record."""
    if num_classes <= 10:
        k = max(1, int(0.3 * num_classes))
        return f"the {k} largest classes / the rest / the {k} smallest, by training images"
    return "more than 100 / 20 to 100 / fewer than 20 training images"
