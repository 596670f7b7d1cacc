"""A classifier fixed as a simplex ETF, to which features are drawn by dot regression."""

import dataclasses
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spa_jax.alignment.geometry import row_norms, widen
from spa_jax.longtail.losses import (
    Counts,
    Targets,
    batch_counts,
    check_matrix,
    class_row,
    target_weights,
)
from spa_jax.longtail.method import LossContext, Method
from spa_jax.options import option

Features = Float[Array | np.ndarray, "B D"]
Prototypes = Float[Array | np.ndarray, "C D"]

SHORTEST_FEATURE = 1e-8
"""A feature shorter than this is divided by this instead of by its length."""


@dataclasses.dataclass(frozen=True)
class EtfOptions:
    """Options of `etf`."""

    rescaled: bool = option(True, "longer prototypes for classes that are rare in the batch")


def make_etf(options: EtfOptions) -> Method:
    """The method `etf`.

    Its published recipe mixes images too: `augment.mix=mixup` with `augment.mix_alpha=1`.

    Reference:
      Yang et al., "Inducing Neural Collapse in Imbalanced Learning: Do We Really Need a Learnable
      Classifier at the End of Deep Neural Network?", NeurIPS 2022.
    """

    def loss(outputs: Any, targets: Targets, context: LossContext) -> Float[Array, ""]:
        prototypes = outputs.kernel.T
        if options.rescaled:
            counts = batch_counts(context.batch_labels, len(prototypes), context.axis_name)
            prototypes = rescaled_prototypes(prototypes, counts)
        return jnp.mean(dot_regression(outputs.features, targets, prototypes))

    return Method("etf", loss, logits=operator.attrgetter("logits"), fixed_kernel=True)


def dot_regression(
    features: Features, targets: Targets, prototypes: Prototypes
) -> Float[Array, " B"]:
    r"""Dot-regression loss: pulls a feature towards the direction of its class's fixed prototype.

    .. math:: L = \sum_c t_c
       \frac{(\langle h, m_c \rangle - \|m_c\| \|h\|)^2}{2 \|h\|}, \quad
       \nabla_h L = -\sum_c t_c \|m_c\| (1 - \cos(h, m_c)) \, m_c

    The lengths are constants: no gradient flows to :math:`\|h\|`, nor to the prototypes.

    Args:
      features: `(B, D)` floating, h.
      targets: `(B,)` integer labels or `(B, C)` soft targets.
      prototypes: `(C, D)` floating, m: the rows of :func:`spa_jax.simplex_etf`, in training perhaps
        rescaled by :func:`rescaled_prototypes`.

    Returns:
      `(B,)` float32, finite in value and gradient at h = 0 too.

    Raises:
      InputError: as :func:`spa_jax.longtail.losses.cross_entropy`.

    Example:
      >>> etf = jnp.array([[1.0], [-1.0]])
      >>> dot_regression(jnp.array([[2.0], [-2.0]]), jnp.array([0, 0]), etf).tolist()
      [0.0, 4.0]

    Reference:
      Yang et al., "Inducing Neural Collapse in Imbalanced Learning: Do We Really Need a Learnable
      Classifier at the End of Deep Neural Network?", NeurIPS 2022.
    """
    check_matrix(features, "features")
    weights = target_weights(targets, (features.shape[0], prototypes.shape[0]))
    features, prototypes = widen(features), jax.lax.stop_gradient(widen(prototypes))
    lengths = jnp.maximum(jax.lax.stop_gradient(row_norms(features)), SHORTEST_FEATURE)[:, None]
    # Dividing first, since the square of a long feature would overflow.
    dots = jnp.matmul(features / lengths, prototypes.T, precision=jax.lax.Precision.HIGHEST)
    errors = jnp.square(dots - row_norms(prototypes)[None])
    return 0.5 * lengths[:, 0] * jnp.sum(weights * errors, axis=1)


def rescaled_prototypes(prototypes: Prototypes, counts: Counts) -> Float[Array, "C D"]:
    r"""Prototypes that are longer for the classes that are rarer in the batch, for training only.

    .. math:: m_c \sqrt{\gamma / n_c}, \quad \gamma = \sum_j n_j \,/\, |\{j : n_j > 0\}|

    Args:
      prototypes: `(C, D)` floating.
      counts: `(C,)`, >= 0, examples of each class in the whole batch, before mixing
        (:func:`spa_jax.longtail.losses.batch_counts`). A class of count 0 keeps its length.

    Returns:
      `(C, D)` float32.

    Raises:
      InputError: counts that are not one for each prototype.

    Example:
      >>> rescaled_prototypes(jnp.ones((4, 1)), jnp.array([10, 1, 1, 0]))[1:].tolist()
      [[2.0], [2.0], [1.0]]

    Reference:
      Yang et al., "Inducing Neural Collapse in Imbalanced Learning", NeurIPS 2022.
    """
    prototypes = widen(prototypes)
    sizes = class_row(counts, prototypes.shape[0], "counts")[0]
    present = sizes > 0
    average = jnp.sum(sizes) / jnp.maximum(jnp.sum(present), 1)
    scales = jnp.where(present, jnp.sqrt(average / jnp.where(present, sizes, 1.0)), 1.0)
    return scales[:, None] * prototypes
