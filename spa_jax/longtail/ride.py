"""RIDE: experts that each learn by LDAM, kept apart from their mean, which classifies at test."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spa_jax.alignment.geometry import widen
from spa_jax.longtail.ldam_drw import ldam, ldam_margins
from spa_jax.longtail.losses import Counts, Targets, class_row, log_prior
from spa_jax.longtail.method import LossContext, Method
from spa_jax.longtail.reweighting import check_deferral, deferred, deferred_weighted_mean
from spa_jax.options import option

ExpertLogits = Float[Array | np.ndarray, "B E C"]


@dataclasses.dataclass(frozen=True)
class RideOptions:
    """Options of `ride`."""

    experts: int = option(3, "classifiers", low=2)
    diversity: float = option(0.2, "weight of the distance between experts and mean", low=0)
    tilt: float = option(0.05, "how much of a class's temperature is its size", low=0, below=1)
    margin: float = option(0.5, "LDAM's margin of the rarest class, in cosines", low=0)
    scale: float = option(30.0, "what cosines are multiplied by", low=1e-3)
    beta: float = option(0.9999, "of the effective number of examples", low=0, below=1)
    epoch: int = option(160, "the first epoch (from 0) with class weights and tilt", low=0)


def make_ride(options: RideOptions) -> Method:
    r"""The method `ride`.

    .. math:: L = \sum_e \left( \operatorname{LDAM}(z_e) - \lambda \bar T^2
       \operatorname{KL}(\bar p \,\|\, p_e) \right)

    with :func:`diversity` as in the released code. Here the experts are classifiers of cosines on
    features that they share, and alignment acts on all of them. In the paper each expert has late
    stages of the network of its own, which gives them more to differ by, and a router that may
    leave experts out at test; there is none here.

    Reference:
      Wang et al., "Long-tailed Recognition by Routing Diverse Distribution-Aware Experts",
      ICLR 2021.
    """

    def loss(cosines: ExpertLogits, targets: Targets, context: LossContext) -> Float[Array, ""]:
        counts = context.class_counts
        margins = ldam_margins(counts, options.margin)
        temperatures = class_temperatures(counts, options.tilt)
        temperatures = deferred(temperatures, context.epoch, options.epoch)
        losses = [
            ldam(cosines[:, expert], targets, margins, options.scale)
            for expert in range(options.experts)
        ]
        together = jnp.sum(jnp.stack(losses), axis=0)
        learned = deferred_weighted_mean(together, targets, context, options.beta, options.epoch)
        apart = diversity(options.scale * widen(cosines), temperatures)
        return learned - options.diversity * jnp.mean(apart)

    kernels = tuple(f"expert_{expert}/kernel" for expert in range(options.experts))
    return Method(
        "experts",
        loss,
        lambda logits, _: options.scale * widen(logits),
        head_options={"experts": options.experts},
        logits=lambda cosines: jnp.mean(cosines, axis=1),
        kernels=kernels,
        tested=kernels,
        aligned=kernels,
        unit_weights=True,
        check=functools.partial(check_deferral, "ride", options.epoch),
    )


def diversity(
    logits: ExpertLogits, temperatures: Float[Array | np.ndarray, " C"]
) -> Float[Array, " B"]:
    r"""How far the experts are from their mean, which is held fixed, summed over them.

    .. math:: D = \bar T^2 \sum_e \operatorname{KL}(\bar p \,\|\, p_e), \quad
       p_e = \operatorname{softmax}(z_{ec} / T_c), \quad
       \bar p = \operatorname{softmax}(\operatorname{sg} \bar z_c / T_c)

    This is the released code; the paper has the average distance of each expert to the others.

    Args:
      logits: `(B, E, C)` floating, z.
      temperatures: `(C,)`, above 0, T; :math:`\bar T` is their mean.

    Returns:
      `(B,)` float32, >= 0.

    Example:
      >>> apart = jnp.array([[[2.0, 0.0], [0.0, 2.0]]])
      >>> diversity(apart, jnp.ones(2)).round(3).tolist()
      [0.8680000305175781]

    Reference:
      Wang et al., "Long-tailed Recognition by Routing Diverse Distribution-Aware Experts",
      ICLR 2021.
    """
    scaled = widen(logits) / class_row(temperatures, logits.shape[2], "temperatures")[None]
    of_mean = jax.nn.log_softmax(jax.lax.stop_gradient(jnp.mean(scaled, axis=1, keepdims=True)))
    distances = jnp.sum(jnp.exp(of_mean) * (of_mean - jax.nn.log_softmax(scaled)), axis=(1, 2))
    return jnp.square(jnp.mean(temperatures)) * distances


def class_temperatures(counts: Counts, tilt: float = 0.05) -> Float[Array, " C"]:
    r"""Temperatures at which experts are compared, lower for rarer classes.

    .. math:: T_c \propto \gamma C \pi_c + 1 - \gamma, \quad \max_c T_c = 1

    The released code divides by the largest, where the paper shifts it to 1.

    Args:
      counts: `(C,)` training examples of each class, above 0.
      tilt: gamma, in [0, 1); 0 is 1 for all.

    Returns:
      `(C,)` float32 in (0, 1].

    Example:
      >>> class_temperatures(jnp.array([30, 10]), tilt=0.5).round(3).tolist()
      [1.0, 0.6000000238418579]

    Reference:
      Wang et al., "Long-tailed Recognition by Routing Diverse Distribution-Aware Experts",
      ICLR 2021.
    """
    sizes = tilt * len(counts) * jnp.exp(log_prior(counts)) + 1.0 - tilt
    return sizes / jnp.max(sizes)
