"""ARB: attraction and repulsion of class weights balanced by the counts of each batch."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from spa_jax.longtail.losses import Logits, Targets, arb, batch_counts
from spa_jax.longtail.method import Method, Situation


def make_arb(options: Any) -> Method:
    """The method `arb`; `options.arb_counts` is "batch" or "global"."""

    def loss(logits: Logits, targets: Targets, situation: Situation) -> Float[Array, ""]:
        counts = situation.class_counts
        if options.arb_counts == "batch":
            num_classes = logits.shape[1]
            counts = batch_counts(situation.labels, num_classes, situation.axis_name)
        return jnp.mean(arb(logits, targets, counts))

    return Method("linear", loss)
