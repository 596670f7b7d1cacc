"""The optimiser chain of a run, built inside the step from the state's hyper-parameters."""

from collections.abc import Mapping
from typing import Any

import optax

from spa_jax.alignment import spa_proj
from spa_jax.training.config import Config


def spa_options(config: Config) -> dict[str, Any]:
    """The keyword arguments that all SpA variants share."""
    classifier = config.spa.classifier
    classifier = classifier if isinstance(classifier, str) else tuple(classifier)
    return {"classifier": classifier, "center": config.spa.center}


def build_optimizer(
    config: Config, hyperparams: Mapping[str, Any], steps_per_epoch: int
) -> optax.GradientTransformation:
    """Chains SpA-Proj (if it is the method), weight decay and the optimiser.

    Args:
      config: the run's configuration.
      hyperparams: numbers or traced scalars: `learning_rate`, `weight_decay`, `gamma`.
      steps_per_epoch: optimiser steps in an epoch, for the schedule.

    Returns:
      A transformation whose `update` takes `class_means=`.
    """
    learning_rate = _learning_rate(config, hyperparams["learning_rate"], steps_per_epoch)
    weight_decay = hyperparams["weight_decay"]
    if config.optimizer.name == "sgd":
        links = [
            optax.add_decayed_weights(weight_decay),
            optax.sgd(
                learning_rate,
                momentum=config.optimizer.momentum,
                nesterov=config.optimizer.nesterov,
            ),
        ]
    else:
        links = [optax.adamw(learning_rate, weight_decay=weight_decay)]
    if config.spa.method == "proj":
        project = spa_proj(
            hyperparams["gamma"],
            radial=config.spa.radial,
            acts_on=config.spa.acts_on,
            **spa_options(config),
        )
        links = [project, *links] if config.spa.acts_on == "gradients" else [*links, project]
    return optax.chain(*links)


def _learning_rate(config: Config, peak: Any, steps_per_epoch: int) -> optax.Schedule:
    """Warm-up and schedule as multiples of the peak, which may be traced."""
    optimizer = config.optimizer
    total = config.epochs * steps_per_epoch
    warmup = min(round(optimizer.warmup_epochs * steps_per_epoch), total - 1)
    if optimizer.schedule == "steps":
        falls = {epoch * steps_per_epoch: optimizer.step_factor for epoch in optimizer.step_epochs}
        after = optax.piecewise_constant_schedule(1.0, falls)
        start = 1.0 / max(warmup, 1)
        rise = optax.linear_schedule(start, 1.0, warmup) if warmup else optax.constant_schedule(1.0)
        return lambda count: peak * rise(count) * after(count)
    if warmup > 0:
        shape = optax.warmup_cosine_decay_schedule(1.0 / warmup, 1.0, warmup, total)
    else:
        shape = optax.cosine_decay_schedule(1.0, total)
    return lambda count: peak * shape(count)
