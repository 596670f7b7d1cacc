"""Cross-entropy with class weights, and the weights that methods take: of all or late epochs."""

import dataclasses
import functools
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
    class_sizes,
    cross_entropy,
    weighted_targets,
)
from spa_jax.longtail.method import LossContext, Method
from spa_jax.options import option

ClassWeights = Float[Array | np.ndarray, " C"]


@dataclasses.dataclass(frozen=True)
class WeightedOptions:
    """Options of `weighted_cross_entropy`."""

    power: float = option(1.0, "k of the class weights, n^-k; 0 is cross-entropy", low=-10, high=10)


@dataclasses.dataclass(frozen=True)
class ClassBalancedOptions:
    """Options of `class_balanced`."""

    beta: float = option(0.9999, "of the effective number of examples", low=0, below=1)


@dataclasses.dataclass(frozen=True)
class CrossEntropyDrwOptions:
    """Options of `ce_drw`."""

    beta: float = option(0.9999, "of the effective number of examples", low=0, below=1)
    epoch: int = option(160, "the first epoch (from 0) with class weights", low=0)


def make_weighted_cross_entropy(options: WeightedOptions) -> Method:
    r"""The method `weighted_cross_entropy`: a mean weighted by :func:`class_weights`.

    .. math:: L = \frac{\sum_i r_{y_i} \operatorname{CE}_i}{\sum_i r_{y_i}}
    """

    def loss(logits: Logits, targets: Targets, context: LossContext) -> Float[Array, ""]:
        weights = class_weights(context.class_counts, options.power)
        return class_weighted_mean(cross_entropy(logits, targets), weights, targets, context)

    return Method("linear", loss)


def make_class_balanced(options: ClassBalancedOptions) -> Method:
    r"""The method `class_balanced`, with :func:`effective_number_weights`.

    .. math:: L = \frac{1}{B} \sum_i w_{y_i} \operatorname{CE}_i

    As in the paper and its code the sum is divided by the number of examples. Most examples are of
    large classes and weigh less than 1, so that the loss and its gradient are smaller than those of
    `weighted_cross_entropy`, which divides by the sum of weights.

    Reference:
      Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.
    """

    def loss(logits: Logits, targets: Targets, context: LossContext) -> Float[Array, ""]:
        weights = effective_number_weights(context.class_counts, options.beta)
        return jnp.mean(cross_entropy(logits, weighted_targets(targets, weights)))

    return Method("linear", loss)


def make_ce_drw(options: CrossEntropyDrwOptions) -> Method:
    """The method `ce_drw`: cross-entropy, with :func:`effective_number_weights` late in training.

    Reference:
      Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
      NeurIPS 2019.
    """

    def loss(logits: Logits, targets: Targets, context: LossContext) -> Float[Array, ""]:
        losses = cross_entropy(logits, targets)
        return deferred_weighted_mean(losses, targets, context, options.beta, options.epoch)

    check = functools.partial(check_deferral, "ce_drw", options.epoch)
    return Method("linear", loss, check=check)


def check_deferral(method: str, start: int, epochs: int) -> None:
    """Raises InputError if a method's first epoch with class weights is not in the run."""
    if start >= epochs:
        raise InputError(
            f"config.method.{method}.epoch={start} is not reached in config.epochs={epochs}, so "
            "that no class would be weighted: set it lower; published is epoch 160 of 200."
        )


def class_weights(counts: Counts, power: float) -> Float[Array, " C"]:
    r"""Class weights inverse to a power of the class counts, of mean 1.

    .. math:: r_c = C \, n_c^{-k} / \sum_j n_j^{-k}

    Args:
      counts: `(C,)` training examples of each class, above 0. Traced counts are not checked.
      power: k; 0 weighs all classes alike, GLMC takes 1.0 or 1.2.

    Returns:
      `(C,)` float32.

    Raises:
      InputError: a known count that is not above 0.

    Example:
      >>> class_weights(jnp.array([30, 10]), power=1.0).tolist()
      [0.5, 1.5]

    Reference:
      Du et al., "Global and Local Mixture Consistency Cumulative Learning for Long-tailed Visual
      Recognitions", CVPR 2023.
    """
    sizes = class_sizes(counts, "its inverse power")
    weights = (sizes / jnp.min(sizes)) ** -power
    return len(sizes) * weights / jnp.sum(weights)


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
    sizes = class_sizes(counts, "the effective number of a class")
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


def class_weighted_mean(
    losses: Float[Array, " B"], class_weights: ClassWeights, targets: Targets, context: LossContext
) -> Float[Array, ""]:
    """A method's loss: :func:`weighted_mean` by the classes of the examples."""
    own, of_batch = (
        example_weights(class_weights, part) for part in (targets, context.batch_targets)
    )
    return weighted_mean(losses, own, context.axis_name, of_batch)


def deferred_weighted_mean(
    losses: Float[Array, " B"], targets: Targets, context: LossContext, beta: float, start: int
) -> Float[Array, ""]:
    """A method's loss under DRW: class weights by effective numbers, from the epoch `start` on."""
    weights = effective_number_weights(context.class_counts, beta)
    weights = deferred(weights, context.epoch, start)
    return class_weighted_mean(losses, weights, targets, context)


def weighted_mean(
    losses: Float[Array | np.ndarray, " B"],
    weights: Shaped[Array | np.ndarray, " B"],
    axis_name: str | None = None,
    batch_weights: Shaped[Array | np.ndarray, " N"] | None = None,
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
      batch_weights: `(N,)`, those of the whole batch (or this device's part of it), where `losses`
        are of one micro-batch of it: the mean over the micro-batches is then the weighted mean.

    Returns:
      Scalar float32; 0 if all weights are 0.

    Example:
      >>> weighted_mean(jnp.array([1.0, 5.0]), jnp.array([3.0, 1.0])).item()
      2.0
    """
    losses = widen(losses)
    weights = jax.lax.stop_gradient(jnp.asarray(weights, losses.dtype))
    whole = weights if batch_weights is None else jax.lax.stop_gradient(widen(batch_weights))
    total = jnp.sum(whole) * (len(weights) / len(whole))
    if axis_name is not None:
        total = jax.lax.pmean(total, axis_name)
    return jnp.sum(weights * losses) / jnp.where(total > 0, total, 1.0)
