"""Logit adjustment, as a loss and post hoc; with strength 1 the loss is balanced softmax."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from spa_jax.longtail.cross_entropy import mean_cross_entropy
from spa_jax.longtail.losses import Logits, Targets, adjust_logits, log_prior, logit_adjusted
from spa_jax.longtail.method import LossContext, Method
from spa_jax.options import NoOptions, option


@dataclasses.dataclass(frozen=True)
class LogitAdjustmentOptions:
    """Options of `logit_adjustment` and of `post_hoc_logit_adjustment`."""

    tau: float = option(1.0, "strength; 0 is cross-entropy", low=0)


def make_balanced_softmax(options: NoOptions) -> Method:
    """The method `balanced_softmax`: logit adjustment of strength 1."""
    del options
    return make_logit_adjustment(LogitAdjustmentOptions(tau=1.0))


def make_logit_adjustment(options: LogitAdjustmentOptions) -> Method:
    """The method `logit_adjustment`, of strength `options.tau`."""

    def loss(logits: Logits, targets: Targets, context: LossContext) -> Float[Array, ""]:
        prior = log_prior(context.class_counts)
        return jnp.mean(logit_adjusted(logits, targets, prior, options.tau))

    return Method("linear", loss)


def make_post_hoc_logit_adjustment(options: LogitAdjustmentOptions) -> Method:
    """The method `post_hoc_logit_adjustment`: cross-entropy, and `options.tau` when testing."""

    def test_logits(logits: Logits, class_counts: Float[Array, " C"]) -> Float[Array, "B C"]:
        return adjust_logits(logits, log_prior(class_counts), options.tau)

    return Method("linear", mean_cross_entropy, test_logits)
