"""LDAM with deferred re-weighting: margins by class size, and class weights late in training."""

from typing import Any

from jaxtyping import Array, Float

from spa_jax.longtail.losses import Logits, Targets
from spa_jax.longtail.margins import (
    deferred,
    effective_number_weights,
    example_weights,
    ldam,
    ldam_margins,
    weighted_mean,
)
from spa_jax.longtail.method import Method, Situation


def make_ldam_drw(options: Any) -> Method:
    """The method `ldam_drw`.

    Its options are `ldam_margin` (of the rarest class), `ldam_scale`, `drw_beta` and `drw_epoch`,
    the first epoch whose losses are weighted.
    """

    def loss(logits: Logits, targets: Targets, situation: Situation) -> Float[Array, ""]:
        margins = ldam_margins(situation.class_counts, options.ldam_margin)
        weights = deferred(
            effective_number_weights(situation.class_counts, options.drw_beta),
            situation.epoch,
            options.drw_epoch,
        )
        losses = ldam(logits, targets, margins, options.ldam_scale)
        return weighted_mean(losses, example_weights(weights, targets), situation.axis_name)

    def test_logits(logits: Logits, class_counts: Float[Array, " C"]) -> Float[Array, "B C"]:
        del class_counts
        return options.ldam_scale * logits

    return Method("cosine", loss, test_logits)
