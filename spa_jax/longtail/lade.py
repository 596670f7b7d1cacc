"""LADE: balanced softmax, and logits that are log-density ratios whatever the label distribution.

A class's logit is drawn to :math:`\\log p(x | c) - \\log p(x)` under balanced classes, by the
Donsker-Varadhan bound on their divergence.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spa_jax.longtail.losses import (
    Logits,
    Scalar,
    Targets,
    class_row,
    gather_batch,
    log_prior,
    logit_adjusted,
    logits_and_weights,
)
from spa_jax.longtail.method import LossContext, Method
from spa_jax.options import option


@dataclasses.dataclass(frozen=True)
class LadeOptions:
    """Options of `lade`; the defaults are the authors' for CIFAR-100-LT at IF 100."""

    weight: float = option(0.1, "alpha, of the bound beside balanced softmax", low=0)
    penalty: float = option(0.01, "lambda, of the squared log-normaliser in the bound", low=0)


def make_lade(options: LadeOptions) -> Method:
    """The method `lade`: balanced softmax and :func:`lade_bound`, tested with the plain logits.

    The plain logits are right for balanced classes, as test sets of long-tailed benchmarks have
    them; for another distribution of labels the paper adds its logarithm.
    """

    def loss(logits: Logits, targets: Targets, context: LossContext) -> Float[Array, ""]:
        prior, axis_name = log_prior(context.class_counts), context.axis_name
        bound = lade_bound(logits, targets, prior, options.penalty, axis_name)
        return jnp.mean(logit_adjusted(logits, targets, prior)) + options.weight * bound

    return Method("linear", loss, splits=False)


def lade_bound(
    logits: Logits,
    targets: Targets,
    log_prior: Float[Array | np.ndarray, " C"],
    penalty: Scalar = 0.01,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    r"""Regularised Donsker-Varadhan loss of LADE, summed over classes.

    .. math:: L = \sum_c \pi_c \left( -\frac{1}{N_c} \sum_{i : y_i = c} z_{ic}
       + \ell_c + \lambda \ell_c^2 \right), \quad
       \ell_c = \log \frac{1}{N} \sum_i \frac{1 / C}{\pi_{y_i}} e^{z_{ic}}

    An example counts in :math:`\ell_c` by the ratio of its own class's share under balanced classes
    and in training, as importance sampling has it. The released code divides by the share of the
    class c in its place, which for each c shifts :math:`\ell_c` by a constant. Of a class that the
    batch does not have, the first term is 0, as it is there.

    Args:
      logits: `(B, C)` floating, z; this device's part under `axis_name`.
      targets: `(B,)` integer labels or `(B, C)` soft targets.
      log_prior: `(C,)`, from :func:`spa_jax.longtail.losses.log_prior`.
      penalty: lambda, which keeps the normaliser :math:`\ell` near 0.
      axis_name: mapped axis over which the batch is gathered; each device then has the whole loss.

    Returns:
      Scalar float32.

    Raises:
      InputError: as :func:`spa_jax.longtail.losses.cross_entropy`.

    Example:
      >>> prior = jnp.log(jnp.array([0.75, 0.25]))
      >>> logits, labels = jnp.zeros((4, 2)), jnp.array([0, 0, 0, 1])
      >>> abs(lade_bound(logits, labels, prior).round(3).item())
      0.0

    Reference:
      Hong et al., "Disentangling Label Distribution for Long-tailed Visual Recognition", CVPR 2021.
    """
    own_batch = logits_and_weights(logits, targets)
    wide, weights = (gather_batch(values, axis_name) for values in own_batch)
    size, num_classes = wide.shape
    prior = class_row(log_prior, num_classes, "log_prior")
    ratios = jnp.sum(weights * jnp.exp(-prior), axis=1, keepdims=True) / num_classes
    normalisers = jax.nn.logsumexp(wide + jnp.log(ratios), axis=0) - jnp.log(size)
    counts = jnp.sum(weights, axis=0)
    own = jnp.sum(weights * wide, axis=0) / jnp.where(counts > 0, counts, 1.0)
    terms = normalisers + penalty * jnp.square(normalisers) - own
    return jnp.sum(jnp.exp(prior[0]) * terms)
