"""LDAM, a larger margin for a smaller class, and deferred re-weighting (DRW) late in training."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from spa_jax.alignment.geometry import widen
from spa_jax.errors import InputError
from spa_jax.longtail.losses import (
    Counts,
    Logits,
    Scalar,
    Targets,
    check_counts,
    check_matrix,
    class_row,
    cross_entropy,
    target_weights,
    weighted_targets,
)
from spa_jax.longtail.method import LossContext, Method
from spa_jax.options import option

ClassWeights = Float[Array | np.ndarray, " C"]


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
        weights = effective_number_weights(context.class_counts, options.beta)
        weights = deferred(weights, context.epoch, options.epoch)
        margins = ldam_margins(context.class_counts, options.margin)
        losses = ldam(logits, targets, margins, options.scale)
        return weighted_mean(losses, example_weights(weights, targets), context.axis_name)

    def check(epochs: int) -> None:
        if options.epoch >= epochs:
            raise InputError(
                f"config.method.ldam_drw.epoch={options.epoch} is not reached in config.epochs="
                f"{epochs}, so that no class would be weighted: set it lower; published is "
                "epoch 160 of 200."
            )

    return Method("cosine", loss, lambda logits, _: options.scale * widen(logits), check=check)


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
    check_counts(counts, "the margin of a class")
    sizes = jnp.asarray(counts, jnp.float32)
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
    check_matrix(cosines, "cosines")
    weights = target_weights(targets, cosines.shape)
    scaled = jnp.asarray(scale) * widen(cosines)
    shifts = jnp.asarray(scale) * class_row(margins, cosines.shape[1], "margins")
    if targets.ndim == 1:
        return cross_entropy(scaled - weights * shifts, weights)
    # Each class stands in the denominator of its own term with its margin, of the others without.
    terms = jax.nn.softplus(_log_sum_exp_of_others(scaled) - (scaled - shifts))
    return jnp.sum(weights * terms, axis=1)


def _log_sum_exp_of_others(logits: Float[Array, "B C"]) -> Float[Array, "B C"]:
    """For each class, the log-sum-exp over the other classes.

    From both sides, since taking one class out of the whole sum cancels where it dominates.
    """
    none = jnp.full_like(logits[:, :1], -jnp.inf)
    before = jax.lax.cumlogsumexp(logits, axis=1)[:, :-1]
    after = jax.lax.cumlogsumexp(logits, axis=1, reverse=True)[:, 1:]
    return jnp.logaddexp(
        jnp.concatenate([none, before], axis=1), jnp.concatenate([after, none], axis=1)
    )


def effective_number_weights(counts: Counts, beta: float = 0.9999) -> Float[Array, " C"]:
    r"""Class weights inverse to the effective number of examples, of mean 1.

    .. math:: w_c \propto \frac{1 - \beta}{1 - \beta^{n_c}}, \quad \sum_c w_c = C

    Args:
      counts: `(C,)` training examples of each class, above 0. Traced counts are not checked.
      beta: in [0, 1); 0 weighs all classes alike, close to 1 by the inverse of their count.

    Returns:
      `(C,)` float32.

    Raises:
      InputError: a known count that is not above 0, or `beta` outside [0, 1).

    Example:
      >>> effective_number_weights(jnp.array([2, 1]), beta=0.5).round(3).tolist()
      [0.800000011920929, 1.2000000476837158]

    Reference:
      Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.
    """
    if not 0 <= beta < 1:
        raise InputError(f"beta must be in [0, 1), got {beta}: 0.9999 is the usual value.")
    check_counts(counts, "the effective number of a class")
    sizes = jnp.asarray(counts, jnp.float32)
    # 1 - beta^n would cancel in float32 for a rare class and a beta close to 1.
    effective = -jnp.expm1(sizes * (math.log(beta) if beta > 0 else -math.inf))
    weights = 1.0 / effective
    return weights * len(sizes) / jnp.sum(weights)


def deferred(weights: ClassWeights, step: Scalar, start: Scalar) -> Float[Array, " C"]:
    """Deferred re-weighting: ones before the start, the class weights from then on.

    Args:
      weights: `(C,)` floating.
      step: epoch or optimiser step, 0-based; may be traced.
      start: the first `step` that is weighted.

    Returns:
      `(C,)` float32.

    Example:
      >>> weights = jnp.array([0.5, 1.5])
      >>> deferred(weights, 159, 160).tolist(), deferred(weights, 160, 160).tolist()
      ([1.0, 1.0], [0.5, 1.5])

    Reference:
      Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
      NeurIPS 2019.
    """
    return jnp.where(jnp.asarray(step) < start, 1.0, widen(weights))


def example_weights(class_weights: ClassWeights, targets: Targets) -> Float[Array, " B"]:
    r"""The weight of each example: that of its class.

    .. math:: w = \sum_c t_c w_c

    Args:
      class_weights: `(C,)` floating.
      targets: `(B,)` integer labels or `(B, C)` soft targets.

    Returns:
      `(B,)` float32.

    Raises:
      InputError: as :func:`spa_jax.longtail.losses.cross_entropy`.

    Example:
      >>> example_weights(jnp.array([0.5, 1.5]), jnp.array([1, 0, 1])).tolist()
      [1.5, 0.5, 1.5]
    """
    return jnp.sum(weighted_targets(targets, class_weights), axis=1)


def weighted_mean(
    losses: Float[Array | np.ndarray, " B"],
    weights: Shaped[Array | np.ndarray, " B"],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    r"""Weighted mean of losses over the whole batch, or this device's share of it.

    .. math:: \frac{\sum_i w_i L_i}{\sum_i w_i}, \quad
       \text{on device } d \text{ of } N: \quad
       N \frac{\sum_{i \in d} w_i L_i}{\sum_i w_i}

    Under `axis_name` the result differs from device to device, as the local `jnp.mean` of losses
    does. The mean over the devices (`jax.lax.pmean`) of the results is the weighted mean, and that
    of their gradients is its gradient: under `jax.pmap` and `jax.shard_map(check_vma=False)` use it
    as you would use `jnp.mean`. Dividing by the device's own sum of weights would give another
    loss, since devices have unequal weights.

    Args:
      losses: `(B,)` floating; this device's part under `axis_name`.
      weights: `(B,)`, >= 0 (False is 0); no gradient flows to them.
      axis_name: name of the mapped axis under `jax.pmap` or `jax.shard_map`.

    Returns:
      Scalar float32; 0 if all weights are 0.

    Example:
      >>> weighted_mean(jnp.array([1.0, 5.0]), jnp.array([3.0, 1.0])).item()
      2.0
    """
    losses = widen(losses)
    weights = jax.lax.stop_gradient(jnp.asarray(weights, losses.dtype))
    total = jnp.sum(weights)
    if axis_name is not None:
        total = jax.lax.pmean(total, axis_name)
    return jnp.sum(weights * losses) / jnp.where(total > 0, total, 1.0)
