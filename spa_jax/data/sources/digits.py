"""Handwritten digits from scikit-learn: real images that are on any machine."""

import numpy as np

from spa_jax.data.data_options import SplitOptions
from spa_jax.data.dataset import LabelledImages, Source
from spa_jax.data.splits.protocols import indices_checksum
from spa_jax.errors import InputError

TEST_PER_CLASS = 60
CANDIDATES_PER_CLASS = 110


def read_digits(options: SplitOptions) -> Source:
    """The 1,797 handwritten 8x8 digits, of which a seed says which ones test and which may train.

    Of each class a seeded permutation gives 60 test images, then 110 training candidates, of which
    a split takes the first :math:`n_c`. Scans of one writer fall on both sides: the set does not
    say who wrote what.

    Args:
      options: a split of up to `n_max=110`; its seed is that of the permutation. There is no
        published protocol and no split list for digits.

    Returns:
      The data set: images `(N, 8, 8, 1)` uint8 in [0, 16], 600 of them test images.

    Raises:
      InputError: a split that does not fit.

    Reference:
      Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
      Repository, 1998.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    if options.n_max > CANDIDATES_PER_CLASS:
        raise InputError(
            f"Each class of digits has {CANDIDATES_PER_CLASS} training candidates, got n_max="
            f"{options.n_max}: lower config.data.n_max."
        )
    if options.train_list or options.test_list:
        raise InputError("The digits have no file names, so that no split list fits them.")
    images, labels = load_digits(return_X_y=True)
    digits = LabelledImages(images.reshape(-1, 8, 8, 1).astype(np.uint8), labels.astype(np.int32))
    names = tuple(str(digit) for digit in range(10))
    generator = np.random.default_rng(options.resolved_seed)
    shuffled = [generator.permutation(np.where(digits.labels == digit)[0]) for digit in range(10)]
    test = np.concatenate([positions[:TEST_PER_CLASS] for positions in shuffled])
    pools = tuple(positions[TEST_PER_CLASS:][:CANDIDATES_PER_CLASS] for positions in shuffled)
    record = {"test_checksum": indices_checksum(test)}
    return Source("digits", digits, digits.take(test), names, "official", pools, record)
