"""Cross-entropy, which does not know that classes are imbalanced: the baseline, and mixup."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from spa_jax.longtail.losses import Logits, Targets, cross_entropy
from spa_jax.longtail.method import LossContext, Method, Views
from spa_jax.options import NoOptions


def mean_cross_entropy(logits: Logits, targets: Targets, context: LossContext) -> Float[Array, ""]:
    """The loss of every method that trains with plain cross-entropy."""
    del context
    return jnp.mean(cross_entropy(logits, targets))


def make_cross_entropy(options: NoOptions) -> Method:
    """The method `cross_entropy`."""
    del options
    return Method("linear", mean_cross_entropy)


def make_mixup(options: NoOptions) -> Method:
    """The method `mixup`: cross-entropy on mixed images; the config's `augment.mix_alpha` is alpha.

    Reference:
      Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    del options
    return Method("linear", mean_cross_entropy, views=Views(mix="mixup"))
