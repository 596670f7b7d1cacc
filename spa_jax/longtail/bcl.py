"""BCL: a contrastive loss that is balanced over classes, beside a logit-adjusted classifier."""

import dataclasses
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spa_jax.alignment.geometry import unit_rows, widen
from spa_jax.longtail.losses import (
    Labels,
    Scalar,
    Targets,
    check_matrix,
    gather_batch,
    log_prior,
    logit_adjusted,
    target_weights,
)
from spa_jax.longtail.method import LossContext, Method, Views
from spa_jax.options import option

Embeddings = Float[Array | np.ndarray, "M H"]
Prototypes = Float[Array | np.ndarray, "C H"]


@dataclasses.dataclass(frozen=True)
class BclOptions:
    """Options of `bcl`."""

    weight: float = option(0.35, "of the contrastive loss beside the classifier's", low=0)
    temperature: float = option(0.1, "of the contrastive loss", low=1e-3)
    scale: float = option(30.0, "what the classifier's cosines are multiplied by", low=1e-3)
    projection_dim: int = option(128, "width of what is contrasted", low=1)


def make_bcl(options: BclOptions) -> Method:
    r"""The method `bcl`.

    .. math:: L = L_{\text{LA}} + w L_{\text{BCL}}

    Two views of each image are contrasted with each other, with the batch and with a prototype of
    each class, made from its weights by a projector of its own (:func:`balanced_contrastive`). The
    classifier, of cosines, learns from both views by logit adjustment of strength 1. The released
    code classifies a third view, of stronger augmentation, and takes batch statistics of the
    projector over all its views at once. It is for ImageNet-LT and iNaturalist, with `temperature`
    0.07 and `projection_dim` 1024.

    Reference:
      Zhu et al., "Balanced Contrastive Learning for Long-Tailed Visual Recognition", CVPR 2022.
    """

    def loss(outputs: Any, labels: Targets, context: LossContext) -> Float[Array, ""]:
        prior = log_prior(context.class_counts)
        adjusted = [
            logit_adjusted(options.scale * widen(view.logits), labels, prior) for view in outputs
        ]
        contrasted = balanced_contrastive(
            jnp.concatenate([view.projected for view in outputs]),
            jnp.concatenate([labels, labels]),
            outputs[0].prototypes,
            options.temperature,
            context.axis_name,
        )
        return jnp.mean(jnp.stack(adjusted)) + options.weight * jnp.mean(contrasted)

    return Method(
        "bcl",
        loss,
        lambda logits, _: options.scale * widen(logits),
        head_options={"projection_dim": options.projection_dim},
        views=Views(second=True),
        logits=operator.attrgetter("logits"),
        unit_weights=True,
        splits=False,
    )


def balanced_contrastive(
    embeddings: Embeddings,
    labels: Labels,
    prototypes: Prototypes,
    temperature: Scalar = 0.1,
    axis_name: str | None = None,
) -> Float[Array, " M"]:
    r"""Supervised contrastive loss in which every class counts alike, and none is missing.

    .. math:: L_i = -\frac{1}{|K_{y_i}|} \sum_{p \in K_{y_i}} \log
       \frac{e^{\langle z_i, z_p \rangle / \tau}}
       {\sum_c \frac{1}{|K_c|} \sum_{k \in K_c} e^{\langle z_i, z_k \rangle / \tau}}

    with unit vectors z, and :math:`K_c` the embeddings of class c in the whole batch but the i-th
    itself, and the prototype of the class. An average over each class stands in the denominator
    in the place of a sum, and by its prototype a class is there that the batch does not have.

    Args:
      embeddings: `(M, H)` floating, of all views of a batch; this device's part under `axis_name`.
      labels: `(M,)` integers.
      prototypes: `(C, H)` floating, the same on each device.
      temperature: tau.
      axis_name: mapped axis over which the embeddings to compare with are gathered.

    Returns:
      `(M,)` float32. A traced label outside [0, C) leaves its embedding out, with loss 0.

    Raises:
      InputError: as :func:`spa_jax.longtail.losses.cross_entropy`.

    Example:
      >>> z, prototypes = jnp.array([[1.0, 0.0], [2.0, 0.0]]), jnp.array([[0.0, 1.0], [0.0, 3.0]])
      >>> loss = balanced_contrastive(z, jnp.array([0, 0]), prototypes, temperature=1.0)
      >>> jnp.allclose(loss, jnp.log((jnp.e + 1) / 2 + 1) - 0.5).item()
      True

    Reference:
      Zhu et al., "Balanced Contrastive Learning for Long-Tailed Visual Recognition", CVPR 2022.
    """
    check_matrix(embeddings, "embeddings")
    size, num_classes = embeddings.shape[0], prototypes.shape[0]
    own = target_weights(labels, (size, num_classes))
    anchors = unit_rows(embeddings)
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * size
    places = first + jnp.arange(size)
    gathered = gather_batch(anchors, axis_name)
    keys = jnp.concatenate([gathered, unit_rows(prototypes)])
    classes = jnp.concatenate([gather_batch(own, axis_name), jnp.eye(num_classes)])
    itself = places[:, None] == jnp.arange(keys.shape[0])[None]
    similar = jnp.matmul(anchors, keys.T, precision=jax.lax.Precision.HIGHEST) / temperature
    alike = jnp.where(itself, 0.0, own @ classes.T)
    # How many embeddings an average is over: of the i-th class, one less than it has.
    counts = jnp.sum(classes, axis=0)
    counted = (classes @ counts)[None] - own @ classes.T
    used = ~itself & (counted > 0)
    logits = jnp.where(used, similar - jnp.log(jnp.where(used, counted, 1.0)), -jnp.inf)
    positives = jnp.sum(alike, axis=1)
    mean = jnp.sum(alike * similar, axis=1) / jnp.where(positives > 0, positives, 1.0)
    return jnp.where(positives > 0, jax.nn.logsumexp(logits, axis=1) - mean, 0.0)
