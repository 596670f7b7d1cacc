"""The optimiser chain of a run, built inside the step from the state's hyper-parameters."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array

from spa_jax.alignment import spa_proj
from spa_jax.training.config import Config
from spa_jax.training.method import spa_options


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
    if config.optimizer.schedule == "spa_released":
        by_epoch = _released(config.epochs)
    elif config.optimizer.per_epoch:
        by_epoch = _epoch_by_epoch(config)
    else:
        shape = _step_by_step(config, steps_per_epoch)
        return lambda count: peak * shape(count)
    return lambda count: peak * by_epoch(jnp.asarray(count) // steps_per_epoch)


def _released(epochs: int) -> Callable[[Array], Array]:
    """Of SpA's released code: its warm-up ends a tenth above the peak."""

    def multiple(epoch: Array) -> Array:
        fall = 0.5 * (1 + jnp.cos(jnp.pi * (epoch - 9) / (epochs - 9)))
        return jnp.where(epoch <= 10, (epoch + 1) / 10, fall)

    return multiple


def _epoch_by_epoch(config: Config) -> Callable[[Array], Array]:
    """A rate that changes between epochs only; the warm-up begins above zero and reaches 1."""
    optimizer, epochs = config.optimizer, config.epochs
    warmup = min(round(optimizer.warmup_epochs), epochs - 1)

    def multiple(epoch: Array) -> Array:
        if optimizer.schedule == "steps":
            falls = jnp.sum(epoch >= jnp.asarray(optimizer.step_epochs))
            after = optimizer.step_factor**falls
        else:
            after = 0.5 * (1 + jnp.cos(jnp.pi * (epoch - warmup) / (epochs - warmup)))
        return jnp.where(epoch < warmup, (epoch + 1) / max(warmup, 1), after)

    return multiple


def _step_by_step(config: Config, steps_per_epoch: int) -> optax.Schedule:
    optimizer = config.optimizer
    total = config.epochs * steps_per_epoch
    warmup = min(round(optimizer.warmup_epochs * steps_per_epoch), total - 1)
    if optimizer.schedule == "steps":
        falls = {epoch * steps_per_epoch: optimizer.step_factor for epoch in optimizer.step_epochs}
        after = optax.piecewise_constant_schedule(1.0, falls)
        start = 1.0 / max(warmup, 1)
        rise = optax.linear_schedule(start, 1.0, warmup) if warmup else optax.constant_schedule(1.0)
        return lambda count: rise(count) * after(count)
    if warmup > 0:
        return optax.warmup_cosine_decay_schedule(1.0 / warmup, 1.0, warmup, total)
    return optax.cosine_decay_schedule(1.0, total)
