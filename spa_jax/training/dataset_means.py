"""Class means over the whole training set, where no step moves the features."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from spa_jax.alignment import ClassMeans
from spa_jax.data.dataset import LabelledImages
from spa_jax.models.classifier import Classifier

_BLOCK = 4096


def dataset_means(model: Classifier, examples: LabelledImages, num_classes: int) -> ClassMeans:
    r"""The mean of each class over all examples, summed in float64.

    .. math:: \mu_c = \frac{1}{n_c} \sum_{i : y_i = c} f(x_i)

    Args:
      model: whose backbone f has no variables.
      examples: with features in place of images.
      num_classes: C.

    Returns:
      Class means `(C, D)` float32, on the host; a class without examples is unseen.
    """
    images: Any = examples.images
    sums, backbone = 0.0, model.backbone.bind({})
    counts = np.bincount(examples.labels, minlength=num_classes)
    for start in range(0, len(examples), _BLOCK):
        part = slice(start, start + _BLOCK)
        features = backbone(jnp.asarray(images[part], jnp.float32), train=False)
        order = np.argsort(examples.labels[part], kind="stable")
        present, first = np.unique(examples.labels[part][order], return_index=True)
        of_block = np.zeros((num_classes, features.shape[1]))
        of_block[present] = np.add.reduceat(np.asarray(features, np.float64)[order], first)
        sums = sums + of_block
    mean = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    return ClassMeans(mean, counts > 0)
