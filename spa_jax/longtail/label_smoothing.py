"""Label smoothing, alike for all classes or more of it for larger ones."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spa_jax.errors import InputError
from spa_jax.longtail.losses import (
    Counts,
    Logits,
    Targets,
    class_row,
    cross_entropy,
    target_weights,
)
from spa_jax.longtail.method import LossContext, Method
from spa_jax.options import option


@dataclasses.dataclass(frozen=True)
class LabelSmoothingOptions:
    """Options of `label_smoothing`."""

    smoothing: float = option(0.1, "share of a label that goes to all classes", low=0, below=1)


@dataclasses.dataclass(frozen=True)
class LabelAwareSmoothingOptions:
    """Options of `label_aware_smoothing`; the defaults are MiSLAS's for CIFAR-100-LT at IF 100."""

    head: float = option(0.4, "share of the largest class's labels", low=0, below=1)
    tail: float = option(0.1, "share of the smallest class's labels", low=0, below=1)

    def __post_init__(self) -> None:
        if self.tail > self.head:
            raise InputError(
                f"config.method.label_aware_smoothing.tail={self.tail} must not be above head="
                f"{self.head}: labels of larger classes are smoothed more."
            )


def make_label_smoothing(options: LabelSmoothingOptions) -> Method:
    """The method `label_smoothing`: cross-entropy with :func:`smooth_targets`, alike for all.

    Reference:
      Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016.
    """

    def loss(logits: Logits, targets: Targets, _: LossContext) -> Float[Array, ""]:
        shares = jnp.full(logits.shape[1], options.smoothing)
        return jnp.mean(cross_entropy(logits, smooth_targets(targets, shares)))

    return Method("linear", loss)


def make_label_aware_smoothing(options: LabelAwareSmoothingOptions) -> Method:
    """The method `label_aware_smoothing`, the loss of MiSLAS's second stage.

    There it re-trains the classifier on class-balanced batches after a first stage with mixup:
    `init.run`, `init.parts=backbone`, `optimizer.train_only=head` and `data.sampler=class_aware`.
    """

    def loss(logits: Logits, targets: Targets, context: LossContext) -> Float[Array, ""]:
        shares = label_aware_shares(context.class_counts, options.head, options.tail)
        return jnp.mean(cross_entropy(logits, smooth_targets(targets, shares)))

    return Method("linear", loss)


def smooth_targets(
    targets: Targets, shares: Float[Array | np.ndarray, " C"]
) -> Float[Array, "B C"]:
    r"""Labels of which a share that depends on the class is spread over all classes.

    .. math:: t'_c = (1 - \varepsilon_c) t_c + \frac{1}{C} \sum_j \varepsilon_j t_j

    This is MiSLAS's released code; its paper spreads the share over the other classes only, so that
    the label itself keeps :math:`1 - \varepsilon_y` and not
    :math:`1 - \varepsilon_y + \varepsilon_y / C`.

    Args:
      targets: `(B,)` integer labels or `(B, C)` soft targets.
      shares: `(C,)` in [0, 1), :math:`\varepsilon`.

    Returns:
      `(B, C)` float32 with the sums of the rows of the targets.

    Raises:
      InputError: as :func:`spa_jax.longtail.losses.cross_entropy`.

    Example:
      >>> smooth_targets(jnp.array([0, 1]), jnp.array([0.5, 0.0])).tolist()
      [[0.75, 0.25], [0.0, 1.0]]

    Reference:
      Zhong et al., "Improving Calibration for Long-Tailed Recognition", CVPR 2021.
    """
    num_classes = shares.shape[0]
    weights = target_weights(targets, (targets.shape[0], num_classes))
    taken = weights * class_row(shares, num_classes, "shares")
    return weights - taken + jnp.sum(taken, axis=1, keepdims=True) / num_classes


def label_aware_shares(counts: Counts, head: float, tail: float) -> Float[Array, " C"]:
    r"""How much of a label is spread: the larger the class, the more.

    .. math:: \varepsilon_c = \varepsilon_{\text{tail}}
       + (\varepsilon_{\text{head}} - \varepsilon_{\text{tail}})
       \sin \left( \frac{\pi}{2} \frac{n_c - n_{\min}}{n_{\max} - n_{\min}} \right)

    The first of the paper's three forms, and the one that it recommends.

    Args:
      counts: `(C,)` training examples of each class.
      head: share of the largest class.
      tail: share of the smallest class.

    Returns:
      `(C,)` float32; `head` for all if they are of one size.

    Example:
      >>> label_aware_shares(jnp.array([700, 300, 100]), 0.4, 0.0).round(3).tolist()
      [0.4000000059604645, 0.20000000298023224, 0.0]

    Reference:
      Zhong et al., "Improving Calibration for Long-Tailed Recognition", CVPR 2021.
    """
    sizes = jnp.asarray(counts, jnp.float32)
    smallest, largest = jnp.min(sizes), jnp.max(sizes)
    spread = largest - smallest
    place = jnp.where(spread > 0, (sizes - smallest) / jnp.where(spread > 0, spread, 1.0), 1.0)
    return tail + (head - tail) * jnp.sin(0.5 * jnp.pi * place)
