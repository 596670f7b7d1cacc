"""Which images a long-tailed split takes: the published protocols, and the held-out part."""

import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from spa_jax.data.dataset import LabelledImages
from spa_jax.errors import InputError

_HELD_OUT_STREAM = 0x48454C44  # apart from the generators of the protocols


def select_ldam(labels: np.ndarray, counts: Sequence[int], seed: int = 0) -> np.ndarray:
    """Chooses images as the LDAM-DRW benchmark does: one generator shuffles each class in turn.

    Args:
      labels: `(N,)` integers of the whole training set, in the data set's original order.
      counts: images to choose of each class, by label.
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
    for positions, count in _classes(labels, counts):
        generator.shuffle(positions)
        chosen.append(positions[:count])
    return np.concatenate(chosen)


def select_glmc(labels: np.ndarray, counts: Sequence[int], seed: int = 3407) -> np.ndarray:
    """Chooses images as GLMC's code does: one generator draws from each class without replacement.

    Args:
      labels: `(N,)` integers of the whole training set, in the data set's original order.
      counts: images to choose of each class, by label.
      seed: of NumPy's legacy generator; GLMC has 3407, the released SpA code 42.

    Returns:
      Positions in `labels`, class by class, in the order of the draws.

    Raises:
      InputError: a class with fewer images than asked for.

    Reference:
      Du et al., "Global and Local Mixture Consistency Cumulative Learning for Long-Tailed Visual
      Recognitions", CVPR 2023.
    """
    # NumPy's legacy generator, because the published split is defined by it.
    generator = np.random.RandomState(seed)
    return np.concatenate(
        [
            positions[generator.choice(len(positions), count, replace=False)]
            for positions, count in _classes(labels, counts)
        ]
    )


PROTOCOLS: dict[str, Callable[[np.ndarray, Sequence[int], int], np.ndarray]] = {
    "ldam": select_ldam,
    "glmc": select_glmc,
}


PUBLISHED_SEEDS = {"ldam": 0, "glmc": 3407}
"""The seed with which each protocol's split was published."""


def hold_out(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sets a tenth of each class aside for validation.

    Of each class :math:`\\lfloor n_c / 10 \\rfloor` examples are held out, but at least one where
    the class has five or more, and none where it has fewer.

    Args:
      labels: `(N,)` integers of the chosen training examples.
      seed: of the choice.

    Returns:
      `(kept, held_out)`: positions in `labels`, ascending, that together are all of them.

    Example:
      >>> kept, held_out = hold_out(np.repeat([0, 1, 2], [25, 5, 4]), seed=0)
      >>> np.repeat([0, 1, 2], [25, 5, 4])[held_out].tolist()
      [0, 0, 1]
    """
    generator = np.random.default_rng([_HELD_OUT_STREAM, seed])
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        positions = np.where(labels == label)[0]
        count = max(len(positions) // 10, 1 if len(positions) >= 5 else 0)
        chosen[generator.permutation(positions)[:count]] = True
    return np.where(~chosen)[0], np.where(chosen)[0]


def indices_checksum(*indices: np.ndarray) -> str:
    """SHA-256 of chosen positions (as little-endian int64), to tell one split from another."""
    return _checksum(np.asarray(part).astype("<i8").tobytes() for part in indices)


def examples_checksum(*parts: LabelledImages) -> str:
    """SHA-256 of labels and file names, for sets that no protocol chose by position."""
    named = (part.names if part.names is not None else np.array([], str) for part in parts)
    return _checksum(
        np.asarray(part.labels).astype("<i8").tobytes() + "\0".join(names.tolist()).encode()
        for part, names in zip(parts, named, strict=True)
    )


def _checksum(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(part + b"|" for part in parts)).hexdigest()


def _classes(labels: np.ndarray, counts: Sequence[int]) -> list[tuple[np.ndarray, int]]:
    """Positions of each class and how many to take, after a check that there are enough."""
    classes = [np.where(labels == label)[0] for label in range(len(counts))]
    short = [
        f"class {label} has {len(positions)} of {count}"
        for label, (positions, count) in enumerate(zip(classes, counts, strict=True))
        if len(positions) < count
    ]
    if short:
        raise InputError(
            f"{len(short)} of the classes have fewer images than the split asks for: "
            f"{'; '.join(short[:3])}. Lower config.data.n_max, or give the largest sizes to other "
            "classes with config.data.class_order."
        )
    return list(zip(classes, counts, strict=True))
