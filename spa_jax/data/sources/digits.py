"""Long-tailed handwritten digits from scikit-learn: real images that are on any machine."""

import numpy as np

from spa_jax.data.dataset import LabelledImages, LongTailedDataset, Source
from spa_jax.data.splits.protocols import indices_checksum
from spa_jax.data.splits.splitting import NATURAL, SplitOptions, dataset_of, split_sizes
from spa_jax.errors import InputError

TEST_PER_CLASS = 60
CANDIDATES_PER_CLASS = 110


def load_digits_lt(options: SplitOptions) -> LongTailedDataset:
    """The 1,797 handwritten 8x8 digits, split into a long-tailed training set and a test set.

    Of each class a seeded permutation gives 60 test images, then 110 training candidates, of which
    the first :math:`n_c` train. Scans of one writer fall on both sides: the set does not say who
    wrote what.

    Args:
      options: the profile, up to `n_max=110`; its seed is that of the permutation. There is no
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
    counts = split_sizes(np.full(10, CANDIDATES_PER_CLASS), options)
    generator = np.random.default_rng(options.resolved_seed)
    train, test = [], []
    for label, count in enumerate(counts):
        positions = generator.permutation(np.where(digits.labels == label)[0])
        test.append(positions[:TEST_PER_CLASS])
        train.append(positions[TEST_PER_CLASS : TEST_PER_CLASS + count])
    train, test = np.concatenate(train), np.concatenate(test)
    record = {
        "protocol": "digits",
        "profile": options.profile,
        "imbalance_factor": max(counts) / min(counts)
        if options.profile == NATURAL
        else float(options.imbalance_factor),
        "seed": options.resolved_seed,
        "class_order": options.class_order,
        "class_order_seed": options.class_order_seed,
        "test_checksum": indices_checksum(test),
    }
    names = tuple(str(digit) for digit in range(10))
    whole = Source("digits", digits, digits.take(test), names, order="official")
    return dataset_of(whole, train, whole.test, record, options)
