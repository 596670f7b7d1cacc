"""Long-tailed handwritten digits from scikit-learn: real images that are on any machine."""

import numpy as np

from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.data.longtail import exponential_profile, indices_checksum
from spa_jax.errors import InputError

TEST_PER_CLASS = 60
CANDIDATES_PER_CLASS = 110


def load_digits_lt(n_max: int, imbalance_factor: float, split_seed: int) -> LongTailedDataset:
    """The 1,797 handwritten 8x8 digits, split into a long-tailed training set and a test set.

    Of each class a seeded permutation gives 60 test images, then 110 training candidates, of which
    the first :math:`n_c` train. Scans of one writer fall on both sides: the set does not say who
    wrote what.

    Args:
      n_max: images of the largest class, up to 110.
      imbalance_factor: 1 or more.
      split_seed: of the permutation, apart from the run's seed.

    Returns:
      The data set: images `(N, 8, 8, 1)` uint8 in [0, 16], 600 of them test images.

    Raises:
      InputError: a split that does not fit.

    Reference:
      Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
      Repository, 1998.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    if n_max > CANDIDATES_PER_CLASS:
        raise InputError(
            f"Each class of digits has {CANDIDATES_PER_CLASS} training candidates, got n_max="
            f"{n_max}: lower config.data.n_max."
        )
    images, labels = load_digits(return_X_y=True)
    digits = LabelledImages(images.reshape(-1, 8, 8, 1).astype(np.uint8), labels.astype(np.int32))
    counts = exponential_profile(n_max, 10, imbalance_factor)
    generator = np.random.default_rng(split_seed)
    train, test = [], []
    for label, count in enumerate(counts):
        positions = generator.permutation(np.where(digits.labels == label)[0])
        test.append(positions[:TEST_PER_CLASS])
        train.append(positions[TEST_PER_CLASS : TEST_PER_CLASS + count])
    train, test = np.concatenate(train), np.concatenate(test)
    split = {
        "protocol": "digits",
        "profile": "exponential",
        "imbalance_factor": float(imbalance_factor),
        "seed": split_seed,
        "class_counts": list(counts),
        "checksum": indices_checksum(train, test),
    }
    names = tuple(str(digit) for digit in range(10))
    return LongTailedDataset("digits", digits.take(train), digits.take(test), names, split)
