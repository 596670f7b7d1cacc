"""GLMC: consistency of a mixed and a cut-and-pasted view, and two classifiers.

The *global* view is the mixup of two batches, the *local* view is cutmix of them with the same
shares. One classifier learns from plain labels and one from re-weighted labels, more and more; only
the second is used at test.
"""

import dataclasses
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spa_jax.alignment.geometry import row_cosines
from spa_jax.errors import InputError
from spa_jax.longtail.losses import Logits, Scalar, Targets, cross_entropy, weighted_targets
from spa_jax.longtail.method import LossContext, Method, Views
from spa_jax.longtail.reweighting import class_weights
from spa_jax.options import option

Embeddings = Float[Array | np.ndarray, "B H"]


class ViewOutputs(NamedTuple):
    """What the network gives for one view of a batch.

    Attributes:
      logits: `(B, C)` of the classifier that learns from plain labels.
      rebalanced_logits: `(B, C)` of the classifier that learns from re-weighted labels.
      projection: `(B, H)`, z.
      prediction: `(B, H)`, p, made from z.
    """

    logits: Logits
    rebalanced_logits: Logits
    projection: Embeddings
    prediction: Embeddings


class GlmcLosses(NamedTuple):
    """The loss of GLMC and its parts before their weights, each `(B,)` float32."""

    total: Float[Array, " B"]
    plain: Float[Array, " B"]
    rebalanced: Float[Array, " B"]
    similarity: Float[Array, " B"]


@dataclasses.dataclass(frozen=True)
class GlmcOptions:
    """Options of `glmc`."""

    label_power: float = option(
        1.2, "k of the second classifier's class weights, n^-k", low=-10, high=10
    )
    sampler_power: float = option(
        0.0, "the images mixed in are drawn with weights n^-k", low=-10, high=10
    )
    similarity_weight: float = option(4.0, "of the consistency of the two views", low=0)
    projection_dim: int = option(128, "width of the projector", low=1)


def make_glmc(options: GlmcOptions) -> Method:
    """The method `glmc`, which is tested by its class-balanced classifier, `fc_cb`.

    As in the released code of SpA, alignment acts on the plain classifier, `fc`, unless the config
    says otherwise, and class means are those of unmixed images.

    Reference:
      Du et al., "Global and Local Mixture Consistency Cumulative Learning for Long-tailed Visual
      Recognitions", CVPR 2023.
    """

    def loss(outputs: Any, targets: Targets, context: LossContext) -> Float[Array, ""]:
        global_view, local_view = (ViewOutputs(*view) for view in outputs)
        weights = class_weights(context.class_counts, options.label_power)
        plain_weight = cumulative_weight(context.epoch, context.epochs)
        losses = glmc_loss(
            global_view, local_view, targets, weights, plain_weight, options.similarity_weight
        )
        return jnp.mean(losses.total)

    return Method(
        "glmc",
        loss,
        head_options={"projection_dim": options.projection_dim},
        views=Views("glmc", options.sampler_power, clean_means=True),
        logits=operator.attrgetter("logits_cb"),
        kernels=("fc/kernel", "fc_cb/kernel"),
        tested=("fc_cb/kernel",),
        aligned=("fc/kernel",),
        needs_end=True,
    )


def cumulative_weight(epoch: Scalar, epochs: int) -> Float[Array, ""]:
    r"""Share of the plain loss, from 1 in the first epoch towards 0.

    .. math:: \alpha = 1 - (e / E)^2

    Args:
      epoch: e, 0-based, in [0, `epochs`]; may be traced.
      epochs: E, 1 or more.

    Returns:
      Scalar float32.

    Raises:
      InputError: `epochs` below 1.

    Example:
      >>> [cumulative_weight(epoch, 4).item() for epoch in range(4)]
      [1.0, 0.9375, 0.75, 0.4375]
    """
    if epochs < 1:
        raise InputError(f"epochs must be 1 or more, got {epochs}.")
    return 1.0 - jnp.square(jnp.asarray(epoch, jnp.float32) / epochs)


def similarity(
    global_prediction: Embeddings,
    local_projection: Embeddings,
    local_prediction: Embeddings,
    global_projection: Embeddings,
) -> Float[Array, " B"]:
    r"""Consistency of the two views: each predicts the other, which is held fixed.

    .. math:: L = -\cos(p_g, \operatorname{sg} z_l) - \cos(p_l, \operatorname{sg} z_g)

    Args:
      global_prediction: `(B, H)` floating.
      local_projection: `(B, H)` floating; no gradient flows to it.
      local_prediction: `(B, H)` floating.
      global_projection: `(B, H)` floating; no gradient flows to it.

    Returns:
      `(B,)` float32 in [-2, 2]; a zero vector has cosine 0.

    Example:
      >>> z, p = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 2.0]])
      >>> similarity(z, z, p, z).tolist()
      [-1.0]

    Reference:
      Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021.
    """
    return -(
        row_cosines(global_prediction, jax.lax.stop_gradient(local_projection))
        + row_cosines(local_prediction, jax.lax.stop_gradient(global_projection))
    )


def glmc_loss(
    global_view: ViewOutputs,
    local_view: ViewOutputs,
    targets: Targets,
    class_weights: Float[Array | np.ndarray, " C"],
    plain_weight: Scalar,
    similarity_weight: Scalar,
) -> GlmcLosses:
    r"""Loss of GLMC on the two views of a batch.

    .. math:: L = \alpha L_b + (1 - \alpha) L_r + w L_c

    with :math:`L_b` and :math:`L_r` the cross-entropies of the two classifiers on plain and on
    re-weighted labels, each summed over the views, and :math:`L_c` from :func:`similarity`.

    Args:
      global_view: outputs for the mixup view.
      local_view: outputs for the cutmix view.
      targets: `(B,)` integer labels or `(B, C)` mixed targets, the same for both views.
      class_weights: `(C,)`, from :func:`spa_jax.longtail.reweighting.class_weights`.
      plain_weight: :math:`\alpha`, from :func:`cumulative_weight`.
      similarity_weight: w.

    Returns:
      The total and its three parts, each `(B,)`.

    Raises:
      InputError: as :func:`spa_jax.longtail.losses.cross_entropy`.

    Example:
      >>> logits, embedding = jnp.zeros((1, 2)), jnp.array([[2.0, 0.0]])
      >>> view = ViewOutputs(logits, logits, embedding, embedding)
      >>> losses = glmc_loss(view, view, jnp.array([0]), jnp.array([0.5, 1.5]), 1.0, 4.0)
      >>> jnp.exp(-losses.plain).round(3).tolist(), losses.similarity.tolist()
      ([0.25], [-2.0])

    Reference:
      Du et al., "Global and Local Mixture Consistency Cumulative Learning for Long-tailed Visual
      Recognitions", CVPR 2023.
    """
    reweighted = weighted_targets(targets, class_weights)
    plain = cross_entropy(global_view.logits, targets) + cross_entropy(local_view.logits, targets)
    rebalanced = cross_entropy(global_view.rebalanced_logits, reweighted) + cross_entropy(
        local_view.rebalanced_logits, reweighted
    )
    agreement = similarity(
        global_view.prediction,
        local_view.projection,
        local_view.prediction,
        global_view.projection,
    )
    share = jnp.asarray(plain_weight)
    total = share * plain + (1.0 - share) * rebalanced
    total = total + jnp.asarray(similarity_weight) * agreement
    return GlmcLosses(total, plain, rebalanced, agreement)
