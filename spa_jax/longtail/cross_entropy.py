"""Cross-entropy: the baseline, which does not know that the classes are imbalanced."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from spa_jax.longtail.losses import Logits, Targets, cross_entropy
from spa_jax.longtail.method import Method, Situation


def make_cross_entropy(options: Any) -> Method:
    """The method `cross_entropy`; it has no options."""
    del options

    def loss(logits: Logits, targets: Targets, situation: Situation) -> Float[Array, ""]:
        del situation
        return jnp.mean(cross_entropy(logits, targets))

    return Method("linear", loss)
