"""A classifier fixed as a simplex ETF, to which features are drawn by dot regression."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from spa_jax.longtail.dot_regression import dot_regression, rescaled_prototypes
from spa_jax.longtail.losses import Targets, batch_counts
from spa_jax.longtail.method import Method, Situation


def make_etf(options: Any) -> Method:
    """The method `etf`; `options.etf_rescaled` lengthens the prototypes of classes rare in a batch.

    Its published recipe mixes images too: `augment.mix=mixup` with `augment.mix_alpha=1`.

    Reference:
      Yang et al., "Inducing Neural Collapse in Imbalanced Learning: Do We Really Need a Learnable
      Classifier at the End of Deep Neural Network?", NeurIPS 2022.
    """

    def loss(outputs: Any, targets: Targets, situation: Situation) -> Float[Array, ""]:
        prototypes = outputs.kernel.T
        if options.etf_rescaled:
            num_classes = prototypes.shape[0]
            counts = batch_counts(situation.labels, num_classes, situation.axis_name)
            prototypes = rescaled_prototypes(prototypes, counts)
        return jnp.mean(dot_regression(outputs.features, targets, prototypes))

    def logits(outputs: Any) -> Float[Array, "B C"]:
        return outputs.logits

    return Method("etf", loss, logits=logits, fixed_kernel=True)
