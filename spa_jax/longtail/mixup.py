"""Mixup: cross-entropy on images and labels that are mixed with those of another example."""

from typing import Any

from spa_jax.longtail.cross_entropy import make_cross_entropy
from spa_jax.longtail.method import Method, Views


def make_mixup(options: Any) -> Method:
    """The method `mixup`: cross-entropy on mixed images; the config's `augment.mix_alpha` is alpha.

    Reference:
      Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    return Method("linear", make_cross_entropy(options).loss, views=Views(mix="mixup"))
