"""Focal loss: examples that are classified well already count less."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from spa_jax.longtail.losses import (
    Logits,
    Scalar,
    Targets,
    log_sum_exp_of_others,
    logits_and_weights,
)
from spa_jax.longtail.method import LossContext, Method
from spa_jax.options import option


@dataclasses.dataclass(frozen=True)
class FocalOptions:
    """Options of `focal`."""

    gamma: float = option(2.0, "focusing; 0 is cross-entropy", low=0)


def make_focal(options: FocalOptions) -> Method:
    """The method `focal`, with no class weights."""

    def loss(logits: Logits, targets: Targets, _: LossContext) -> Float[Array, ""]:
        return jnp.mean(focal(logits, targets, options.gamma))

    return Method("linear", loss)


def focal(logits: Logits, targets: Targets, gamma: Scalar = 2.0) -> Float[Array, " B"]:
    r"""Focal loss of a softmax classifier.

    .. math:: L = -\sum_c t_c (1 - p_c)^\gamma \log p_c, \quad p = \operatorname{softmax}(z)

    The paper detects objects and has a sigmoid for each class; classifiers with a softmax take it
    in this form. It has a weight for each class besides, which is 1 here.

    Args:
      logits: `(B, C)` floating, finite.
      targets: `(B,)` integer labels or `(B, C)` soft targets.
      gamma: focusing, >= 0; 2 in the paper, 0 is cross-entropy.

    Returns:
      `(B,)` float32.

    Raises:
      InputError: as :func:`spa_jax.longtail.losses.cross_entropy`.

    Example:
      >>> loss = focal(jnp.log(jnp.array([[0.75, 0.25]])), jnp.array([0]), gamma=2.0)
      >>> jnp.allclose(loss, -(0.25**2) * jnp.log(0.75)).item()
      True

    Reference:
      Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
    """
    wide, weights = logits_and_weights(logits, targets)
    # Or the logarithm of a sum of large exponentials would be rounded as large numbers are.
    wide -= jax.lax.stop_gradient(jnp.max(wide, axis=1, keepdims=True))
    log_odds = wide - log_sum_exp_of_others(wide)
    # From the logarithm of 1 - p, as a power of a difference that cancels has no gradient.
    factors = jnp.exp(-jnp.asarray(gamma) * jax.nn.softplus(log_odds))
    return jnp.sum(weights * factors * jax.nn.softplus(-log_odds), axis=1)
