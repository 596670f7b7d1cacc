"""GLMC: two classifiers on mixed views of two differently sampled batches."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from spa_jax.longtail.consistency import (
    GlmcLosses,
    ViewOutputs,
    class_weights,
    cumulative_weight,
    glmc_loss,
)
from spa_jax.longtail.losses import Targets
from spa_jax.longtail.method import Method, Situation, Views


def make_glmc(options: Any) -> Method:
    """The method `glmc`, which is tested by its class-balanced classifier, `fc_cb`.

    Its options are `glmc_label_power` (k of the class weights), `glmc_sampler_power` (of the second
    sampler), `glmc_similarity_weight`, and for the head `glmc_projection_dim`. As in the released
    code of SpA, alignment acts on the plain classifier, `fc`, unless the config says otherwise, and
    class means are those of unmixed images.

    Reference:
      Du et al., "Global and Local Mixture Consistency Cumulative Learning for Long-tailed Visual
      Recognitions", CVPR 2023.
    """

    def loss(outputs: Any, targets: Targets, situation: Situation) -> Float[Array, ""]:
        losses = _losses(options, outputs, targets, situation)
        return jnp.mean(losses.total)

    def logits(outputs: Any) -> Float[Array, "B C"]:
        return outputs.logits_cb

    return Method(
        "glmc",
        loss,
        views=Views("glmc", options.glmc_sampler_power, clean_means=True),
        logits=logits,
        kernels=("fc/kernel", "fc_cb/kernel"),
        tested="fc_cb/kernel",
        aligned="fc/kernel",
    )


def _losses(options: Any, outputs: Any, targets: Targets, situation: Situation) -> GlmcLosses:
    global_view, local_view = (
        ViewOutputs(
            logits=view.logits,
            rebalanced_logits=view.logits_cb,
            projection=view.projected,
            prediction=view.predicted,
        )
        for view in outputs
    )
    return glmc_loss(
        global_view,
        local_view,
        targets,
        class_weights(situation.class_counts, options.glmc_label_power),
        cumulative_weight(situation.epoch, situation.epochs),
        options.glmc_similarity_weight,
    )
