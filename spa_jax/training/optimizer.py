"""The optimiser chain of a run, built inside the step from the state's hyper-parameters."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from spa_jax.errors import InputError
from spa_jax.options import check_unread, option
from spa_jax.training.variants import Aligned, Variant

_NO_KERNELS = ("bias", "scale", "scales", "class_token", "positions")
_RELEASED_WARMUP = 11  # epochs; the tenth is at the peak, the last a tenth above it


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """The config's group `optimizer`."""

    name: str = option("sgd", "the optimiser", choices=("sgd", "adamw"))
    learning_rate: float = option(0.1, "its peak, after a linear warm-up", low=0)
    warmup_epochs: float = option(0.0, "epochs in which it rises", low=0)
    schedule: str = option(
        "cosine", "how it falls: cosine to 0, or steps", choices=("cosine", "steps", "spa_released")
    )
    per_epoch: bool = option(False, "the rate changes between epochs only")
    step_epochs: tuple[int, ...] = option(
        (160, 180), "steps: epochs after which the rate falls", above=0
    )
    step_factor: float = option(0.01, "steps: what it is multiplied by each time", low=0, high=1)
    momentum: float = option(0.9, "of sgd", low=0, high=1)
    nesterov: bool = option(False, "of sgd")
    weight_decay: float = option(5e-4, "on what is trained, see decayed", low=0)
    decayed: str = option(
        "all",
        "kernels: not biases, norms, scales, tokens and positions",
        choices=("all", "kernels"),
    )
    clip_norm: float = option(0.0, "largest norm of the gradient, all in one; 0: any", low=0)
    ema: float = option(
        0.0, "decay of averaged parameters, which are evaluated; 0: none", low=0, below=1
    )
    train_only: str = option(
        "all",
        "head: all else stays, batch statistics too; scales: one of each class, all else stays",
        choices=("all", "head", "scales"),
    )

    def trained(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The part of the parameters that steps change, as an optimiser sees it."""
        if self.train_only == "scales":
            return {"head": {"scales": params["head"]["scales"]}}
        return dict(params) if self.train_only == "all" else {"head": params["head"]}

    def check(self, epochs: int) -> None:
        """Raises InputError for a schedule that fits neither run nor itself, or an unread field."""
        if self.schedule == "spa_released" and epochs <= 10:
            raise InputError(
                f"config.optimizer.schedule=spa_released warms up for 10 epochs, and config.epochs="
                f"{epochs}: train longer, or choose another schedule."
            )
        if self.schedule == "spa_released" and self.warmup_epochs:
            raise InputError(
                "config.optimizer.schedule=spa_released has a warm-up of its own: leave "
                "config.optimizer.warmup_epochs at 0."
            )
        if self.per_epoch and self.warmup_epochs % 1:
            raise InputError(
                f"config.optimizer.warmup_epochs={self.warmup_epochs} must be whole where the rate "
                "changes between epochs only (config.optimizer.per_epoch=True)."
            )
        if not self.step_epochs or sorted({*self.step_epochs}) != [*self.step_epochs]:
            raise InputError(
                "config.optimizer.step_epochs must be positive integers that ascend, got "
                f"{self.step_epochs}."
            )
        if self.schedule == "steps" and min(self.step_epochs) < self.warmup_epochs:
            raise InputError(
                f"config.optimizer.step_epochs={self.step_epochs} has the rate fall before "
                f"config.optimizer.warmup_epochs={self.warmup_epochs} have raised it: let it fall "
                "later, or shorten the warm-up."
            )
        unread = [
            (self.name != "sgd", "momentum", "it is of config.optimizer.name=sgd"),
            (self.name != "sgd", "nesterov", "it is of config.optimizer.name=sgd"),
            (self.schedule != "steps", "step_epochs", "it is of config.optimizer.schedule=steps"),
            (self.schedule != "steps", "step_factor", "it is of config.optimizer.schedule=steps"),
        ]
        check_unread(self, "optimizer", unread, otherwise=", or set that")


def build_optimizer(
    options: OptimizerOptions,
    variant: Variant,
    aligned: Aligned,
    hyperparams: Mapping[str, Any],
    epochs: int,
    steps_per_epoch: int,
) -> optax.GradientTransformationExtraArgs:
    """Chains the variant's first link, clipping, decay and the optimiser, the variant's last link.

    What is clipped is what the first link has left of the gradient: SpA-Proj never makes it longer,
    so that no more is clipped than has to be.

    Args:
      options: of the optimiser.
      variant: of SpA.
      aligned: which kernels it acts on.
      hyperparams: numbers or traced scalars: `learning_rate`, `weight_decay`, and the strengths of
        the variant.
      epochs: of the run, for the schedule.
      steps_per_epoch: optimiser steps in an epoch.

    Returns:
      A transformation whose `update` takes `class_means=`.
    """
    schedule = learning_rate_multiple(options, epochs, steps_per_epoch)
    weight_decay = hyperparams["weight_decay"]
    mask = _kernels if options.decayed == "kernels" else None

    def learning_rate(count: Any) -> Any:
        return hyperparams["learning_rate"] * schedule(count)

    links: list[optax.GradientTransformation]
    if options.name == "sgd":
        links = [
            optax.add_decayed_weights(weight_decay, mask),
            optax.sgd(learning_rate, momentum=options.momentum, nesterov=options.nesterov),
        ]
    else:
        links = [optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)]
    if options.clip_norm:
        links.insert(0, optax.clip_by_global_norm(options.clip_norm))
    first, last = (
        [make(hyperparams, aligned, epochs * steps_per_epoch)] if make is not None else []
        for make in (variant.first_link, variant.last_link)
    )
    return optax.chain(*first, *links, *last)


def _kernels(params: PyTree) -> PyTree:
    """Whether a parameter is a kernel, for each of them."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in _NO_KERNELS, params)


def learning_rate_multiple(
    options: OptimizerOptions, epochs: int, steps_per_epoch: int
) -> optax.Schedule:
    """The learning rate as a multiple of its peak, by the number of steps completed.

    One schedule in ticks, which are steps, or epochs where the rate changes between epochs only:
    a rise from one tick's share to the peak, then a fall. By epochs, and in SpA's released code
    whose warm-up ends a tenth above the peak, each tick of the rise adds its share; by steps the
    peak is reached when the rise is over.

    Args:
      options: of the optimiser.
      epochs: of the run.
      steps_per_epoch: optimiser steps in an epoch.

    Example:
      >>> options = OptimizerOptions(schedule="steps", warmup_epochs=2.0, per_epoch=True)
      >>> multiple = learning_rate_multiple(options, epochs=200, steps_per_epoch=10)
      >>> [round(float(multiple(10 * epoch)), 3) for epoch in (0, 1, 2, 160)]
      [0.5, 1.0, 1.0, 0.01]
    """
    released = options.schedule == "spa_released"
    by_epoch = options.per_epoch or released
    tick = steps_per_epoch if by_epoch else 1
    total = epochs * steps_per_epoch // tick
    warmup = min(round(options.warmup_epochs * steps_per_epoch / tick), total - 1)
    share = 1.0 / max(warmup, 1)
    begun = 0  # ticks by which the fall has begun before the rise ends
    if released:
        warmup, share, begun = _RELEASED_WARMUP, 1.0 / (_RELEASED_WARMUP - 1), 2
    end = share * (warmup + 1) if by_epoch else 1.0
    rise = optax.linear_schedule(share, end, warmup)
    if options.schedule == "steps":
        falls = {
            epoch * steps_per_epoch // tick - warmup: options.step_factor
            for epoch in options.step_epochs
        }
        fall = optax.piecewise_constant_schedule(1.0, falls)
    else:
        fall = optax.cosine_decay_schedule(1.0, total - warmup + begun)
    whole = optax.join_schedules([rise, lambda count: fall(count + begun)], [warmup])
    return lambda count: whole(jnp.asarray(count) // tick)
