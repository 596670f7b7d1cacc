"""Logit adjustment, as a loss and post hoc; with strength 1 the loss is balanced softmax."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from spa_jax.longtail.cross_entropy import make_cross_entropy
from spa_jax.longtail.losses import (
    Logits,
    Targets,
    adjust_logits,
    log_prior,
    logit_adjusted,
)
from spa_jax.longtail.method import Method, Situation


def make_balanced_softmax(options: Any) -> Method:
    """The method `balanced_softmax`: logit adjustment of strength 1; it has no options."""
    del options
    return _adjusted_loss(1.0)


def make_logit_adjustment(options: Any) -> Method:
    """The method `logit_adjustment`, of strength `options.tau`."""
    return _adjusted_loss(options.tau)


def make_post_hoc_logit_adjustment(options: Any) -> Method:
    """The method `post_hoc_logit_adjustment`: cross-entropy, and `options.tau` when testing."""

    def test_logits(logits: Logits, class_counts: Float[Array, " C"]) -> Float[Array, "B C"]:
        return adjust_logits(logits, log_prior(class_counts), options.tau)

    return Method("linear", make_cross_entropy(options).loss, test_logits)


def _adjusted_loss(tau: float) -> Method:
    def loss(logits: Logits, targets: Targets, situation: Situation) -> Float[Array, ""]:
        prior = log_prior(situation.class_counts)
        return jnp.mean(logit_adjusted(logits, targets, prior, tau))

    return Method("linear", loss)
