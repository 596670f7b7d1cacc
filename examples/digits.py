"""The data of the examples: scikit-learn's digits with a long tail; put your own in their place."""

import numpy as np
from sklearn.datasets import load_digits


def long_tailed_digits(imbalance_factor=20):
    """Training and test set, each images (N, 64) in [0, 1] and labels (N,), rare classes last."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    # The place of each image among those of its class.
    place = np.array([np.sum(labels[:i] == label) for i, label in enumerate(labels)])
    sizes = 120 * imbalance_factor ** (-np.arange(10) / 9)
    train, test = place < sizes[labels], place >= 120
    return (images[train], labels[train]), (images[test], labels[test])
