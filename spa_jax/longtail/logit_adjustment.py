"""Cross-entropy, and logit adjustment, as a loss and post hoc; of strength 1: balanced softmax."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from spa_jax.longtail.losses import (
    Logits,
    Targets,
    adjust_logits,
    cross_entropy,
    log_prior,
    logit_adjusted,
)
from spa_jax.longtail.method import LossContext, Method, Views
from spa_jax.options import NoOptions, option


@dataclasses.dataclass(frozen=True)
class LogitAdjustmentOptions:
    """Options of `logit_adjustment` and of `post_hoc_logit_adjustment`."""

    tau: float = option(1.0, "strength; 0 is cross-entropy", low=0)


def mean_cross_entropy(logits: Logits, targets: Targets, _: LossContext) -> Float[Array, ""]:
    """The loss of every method that trains with plain cross-entropy."""
    return jnp.mean(cross_entropy(logits, targets))


def make_cross_entropy(_: NoOptions) -> Method:
    """The method `cross_entropy`, which does not know that classes are imbalanced: the baseline."""
    return Method("linear", mean_cross_entropy)


def make_mixup(_: NoOptions) -> Method:
    """The method `mixup`: cross-entropy on mixed images; the config's `augment.mix_alpha` is alpha.

    Reference:
      Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    return Method("linear", mean_cross_entropy, views=Views(mix="mixup"))


def make_balanced_softmax(_: NoOptions) -> Method:
    """The method `balanced_softmax`: logit adjustment of strength 1."""
    return make_logit_adjustment(LogitAdjustmentOptions(tau=1.0))


def make_logit_adjustment(options: LogitAdjustmentOptions) -> Method:
    """The method `logit_adjustment`, of strength `options.tau`."""

    def loss(logits: Logits, targets: Targets, context: LossContext) -> Float[Array, ""]:
        prior = log_prior(context.class_counts)
        return jnp.mean(logit_adjusted(logits, targets, prior, options.tau))

    return Method("linear", loss)


def make_post_hoc_logit_adjustment(options: LogitAdjustmentOptions) -> Method:
    """The method `post_hoc_logit_adjustment`: cross-entropy, and `options.tau` when testing."""
    return Method(
        "linear",
        mean_cross_entropy,
        lambda logits, counts: adjust_logits(logits, log_prior(counts), options.tau),
    )
