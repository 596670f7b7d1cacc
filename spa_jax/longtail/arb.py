"""ARB: attraction and repulsion of class weights balanced by the counts of each batch."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spa_jax.alignment.checks import is_known
from spa_jax.errors import InputError
from spa_jax.longtail.losses import (
    Counts,
    Logits,
    Targets,
    batch_counts,
    class_row,
    cross_entropy,
    logits_and_weights,
)
from spa_jax.longtail.method import LossContext, Method
from spa_jax.options import option

LOG_ABSENT = -1e9
"""Stands for the logarithm of the count 0: its exponential is 0, and sums of it stay finite."""


@dataclasses.dataclass(frozen=True)
class ArbOptions:
    """Options of `arb`."""

    counts: str = option(
        "batch", "class counts of each batch, or of the training set", choices=("batch", "global")
    )


def make_arb(options: ArbOptions) -> Method:
    """The method `arb`."""

    def loss(logits: Logits, targets: Targets, context: LossContext) -> Float[Array, ""]:
        counts = context.class_counts
        if options.counts == "batch":
            counts = batch_counts(context.batch_labels, logits.shape[1], context.axis_name)
        return jnp.mean(arb(logits, targets, counts))

    return Method("linear", loss)


def arb(
    logits: Logits, targets: Targets, counts: Counts, limit: float = 30.0
) -> Float[Array, " B"]:
    r"""Attraction-repulsion-balanced (ARB) loss.

    .. math:: L = -\sum_c t_c \log \frac{e^{z_c}}{\sum_j (n_j / n_c) e^{z_j}}

    with logits clamped to [-`limit`, `limit`]; the gradient is 0 beyond. With the counts of the
    whole training set it is balanced softmax on clamped logits.

    Args:
      logits: `(B, C)` floating.
      targets: `(B,)` integer labels or `(B, C)` soft targets.
      counts: `(C,)`, >= 0, examples of each class in the whole batch, before mixing
        (:func:`spa_jax.longtail.losses.batch_counts`), or in the training set. A class of count 0
        drops out of the sum; for an example that has it as a target, its count is 1, so that the
        loss stays finite.
      limit: largest absolute logit.

    Returns:
      `(B,)` float32.

    Raises:
      InputError: as :func:`spa_jax.longtail.losses.cross_entropy`; known counts that are below 0 or
        all 0.

    Example:
      >>> loss = arb(jnp.zeros((1, 3)), jnp.array([1]), jnp.array([3, 1, 0]))
      >>> jnp.exp(-loss).tolist()
      [0.25]

    Reference:
      Xie et al., "Neural collapse inspired attraction-repulsion-balanced loss for imbalanced
      learning", Neurocomputing 527, 2023.
    """
    wide, weights = logits_and_weights(logits, targets)
    sizes = class_row(counts, logits.shape[1], "counts")
    if is_known(counts) and not (np.min(counts) >= 0 and np.max(counts) > 0):
        raise InputError(
            f"ARB needs class counts >= 0, not all 0, got {np.asarray(counts)[:3].tolist()}...: "
            "pass batch_counts(labels, num_classes) or the class counts of the training set."
        )
    sizes = jnp.where((sizes == 0) & (weights > 0), 1.0, sizes)
    log_sizes = jnp.where(sizes > 0, jnp.log(sizes), LOG_ABSENT)
    # Not jnp.clip: at the limit itself its gradient is one half.
    clamped = jnp.where(jnp.abs(wide) <= limit, wide, jnp.sign(wide) * limit)
    return cross_entropy(clamped + log_sizes, weights)
