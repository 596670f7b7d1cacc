"""LDAM, a larger margin for a smaller class, and deferred re-weighting (DRW) late in training."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from spa_jax.alignment.geometry import widen
from spa_jax.longtail.losses import (
    Counts,
    Logits,
    Scalar,
    Targets,
    class_row,
    class_sizes,
    cross_entropy,
    log_sum_exp_of_others,
    logits_and_weights,
)
from spa_jax.longtail.method import LossContext, Method
from spa_jax.longtail.reweighting import ClassWeights, check_deferral, deferred_weighted_mean
from spa_jax.options import option


@dataclasses.dataclass(frozen=True)
class LdamDrwOptions:
    """Options of `ldam_drw`."""

    margin: float = option(0.5, "margin of the rarest class, in cosines", low=0)
    scale: float = option(30.0, "what cosines are multiplied by", low=1e-3)
    beta: float = option(0.9999, "of the effective number of examples", low=0, below=1)
    epoch: int = option(160, "the first epoch (from 0) with class weights", low=0)


def make_ldam_drw(options: LdamDrwOptions) -> Method:
    """The method `ldam_drw`."""

    def loss(logits: Logits, targets: Targets, context: LossContext) -> Float[Array, ""]:
        margins = ldam_margins(context.class_counts, options.margin)
        losses = ldam(logits, targets, margins, options.scale)
        return deferred_weighted_mean(losses, targets, context, options.beta, options.epoch)

    return Method(
        "cosine",
        loss,
        lambda logits, _: options.scale * widen(logits),
        unit_weights=True,
        check=functools.partial(check_deferral, "ldam_drw", options.epoch),
    )


def ldam_margins(counts: Counts, largest: float = 0.5) -> Float[Array, " C"]:
    r"""Margins of LDAM: the smaller the class, the larger.

    .. math:: m_c = m_{\max} \frac{n_c^{-1/4}}{\max_j n_j^{-1/4}}

    Args:
      counts: `(C,)` training examples of each class, above 0. Traced counts are not checked.
      largest: margin of the smallest class, in cosines.

    Returns:
      `(C,)` float32 in (0, `largest`].

    Raises:
      InputError: a known count that is not above 0.

    Example:
      >>> ldam_margins(jnp.array([1600, 100])).tolist()
      [0.25, 0.5]

    Reference:
      Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
      NeurIPS 2019.
    """
    sizes = class_sizes(counts, "the margin of a class")
    return largest * (jnp.min(sizes) / sizes) ** 0.25


def ldam(
    cosines: Logits, targets: Targets, margins: ClassWeights, scale: Scalar = 30.0
) -> Float[Array, " B"]:
    r"""Label-distribution-aware margin (LDAM) loss.

    .. math:: L = -\sum_c t_c \log
       \frac{e^{s (z_c - m_c)}}{e^{s (z_c - m_c)} + \sum_{j \ne c} e^{s z_j}}

    Args:
      cosines: `(B, C)` floating, z: cosines between features and class weights.
      targets: `(B,)` integer labels or `(B, C)` soft targets.
      margins: `(C,)`, from :func:`ldam_margins`.
      scale: s, the inverse temperature.

    Returns:
      `(B,)` float32.

    Raises:
      InputError: as :func:`spa_jax.longtail.losses.cross_entropy`.

    Example:
      >>> loss = ldam(jnp.zeros((1, 2)), jnp.array([0]), jnp.array([0.1, 0.5]), scale=10.0)
      >>> jnp.allclose(jnp.exp(-loss), 1 / (1 + jnp.e)).item()
      True

    Reference:
      Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
      NeurIPS 2019.
    """
    wide, weights = logits_and_weights(cosines, targets, "cosines")
    scaled = jnp.asarray(scale) * wide
    shifts = jnp.asarray(scale) * class_row(margins, cosines.shape[1], "margins")
    if targets.ndim == 1:
        return cross_entropy(scaled - weights * shifts, weights)
    # Each class stands in the denominator of its own term with its margin, of the others without.
    terms = jax.nn.softplus(log_sum_exp_of_others(scaled) - (scaled - shifts))
    return jnp.sum(weights * terms, axis=1)
