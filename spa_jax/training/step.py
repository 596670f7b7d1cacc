"""One training step as a pure function, written once for every view.

With `axis_name=None` a function is the global view: the batch is the whole batch, under `jax.jit`
over a mesh. With an axis name it is the per-device view, under `jax.pmap` or `jax.shard_map`: the
batch is this device's part, and what depends on the whole batch is reduced over the axis.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from spa_jax.longtail.method import LossContext
from spa_jax.models.classifier import Classifier
from spa_jax.training.config import RunOptions
from spa_jax.training.feeds.batch import Batch, Inputs
from spa_jax.training.state import TrainState, replaced


def _is_correct(logits: Float[Array, "B C"], labels: Int[Array, " B"]) -> Float[Array, " B"]:
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def make_train_step(
    options: RunOptions,
    model: Classifier,
    prepare: Callable[[Any, Array, Batch], Inputs],
    optimizer: Callable[[Mapping[str, Any]], optax.GradientTransformation],
    class_counts: Float[np.ndarray, " C"],
    steps_per_epoch: int,
    axis_name: str | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """Builds the pure function `(state, batch) -> (state, metrics)`.

    forward -> features and logits -> class means -> loss (+ Reg) -> gradients -> optimiser chain
    (Proj first or last, SLERP last) -> apply -> metrics. Reg, Proj and SLERP see the same means,
    those that this batch has updated, or those of the whole training set. The forwards come in the
    order of the released code: unmixed images, if class means are made of them, then the first
    view, then the second.
    Where the head alone is trained, or its scales, gradients are of those alone, and a model that
    is `frozen_backbone` gives the features of evaluation mode.
    Of a step that is skipped (`config.guard`) the state's step and guard are all that changes.

    Args:
      options: of the run.
      model: the network with the method's head.
      prepare: `(key of the run, step, batch)` -> what the network is given.
      optimizer: the state's hyper-parameters -> the chain.
      class_counts: training images of each class.
      steps_per_epoch: optimiser steps in an epoch.
      axis_name: that gradients, loss and accuracy are averaged over; None in the global view.
    """
    method, variant, aligned = options.longtail, options.variant, options.aligned

    def forward(state: TrainState, params: PyTree, batch_stats: PyTree, images: Array) -> Any:
        """Features, the head's outputs, and the running statistics after this forward."""
        variables = state.variables | {"params": params, "batch_stats": batch_stats}
        outputs: Any = model.apply(variables, images, train=True, mutable=["batch_stats"])
        (features, of_head), mutated = outputs
        return features, of_head, mutated["batch_stats"]

    def loss_fn(trained: dict[str, PyTree], state: TrainState, inputs: Inputs) -> Any:
        params = replaced(state.params, trained)
        batch_stats, targets = state.batch_stats, inputs.targets(len(class_counts))
        clean = None
        if inputs.clean_images is not None:
            fixed = jax.lax.stop_gradient(params)
            clean, _, batch_stats = forward(state, fixed, batch_stats, inputs.clean_images)
        features, outputs, batch_stats = forward(state, params, batch_stats, inputs.images)
        logits: Any = method.logits(outputs)
        accuracy = jnp.mean(inputs.over_labels(_is_correct, logits))
        seen = (features, targets) if clean is None else (clean, inputs.labels)
        means = state.class_means
        if options.spa.means_from != "dataset":
            means = means.update(*jax.lax.stop_gradient(seen), axis_name=axis_name)
        if inputs.second_images is not None:
            _, of_second, batch_stats = forward(state, params, batch_stats, inputs.second_images)
            outputs = (outputs, of_second)
        context = LossContext(
            labels=inputs.labels,
            class_counts=jnp.asarray(class_counts),
            epoch=state.step // steps_per_epoch,
            epochs=options.epochs,
            axis_name=axis_name,
        )
        loss = method.loss(outputs, targets, context)
        if variant.loss_term is not None:
            loss = loss + variant.loss_term(params, means, state.hyperparams, aligned)
        return loss, (means, batch_stats, accuracy)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        inputs = prepare(state.rng, state.step, batch)
        (loss, (means, batch_stats, accuracy)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            options.optimizer.trained(state.params), state, inputs
        )
        if axis_name is not None:
            loss, accuracy, grads = jax.lax.pmean((loss, accuracy, grads), axis_name)
            if options.model.batch_norm == "per_device":
                batch_stats = jax.lax.pmean(batch_stats, axis_name)
        after = state.replace(class_means=means, batch_stats=batch_stats)
        after = after.apply_gradients(optimizer(state.hyperparams), grads, class_means=means)
        if options.optimizer.ema:
            after = after.averaged(options.optimizer.ema)
        metrics = {"loss": loss, "accuracy": accuracy, "gradient_norm": optax.tree.norm(grads)}
        if not options.guard.skips:
            return after, metrics
        guard, taken = state.guard.see(loss, metrics["gradient_norm"], options.guard.spike_factor)
        kept = jax.tree.map(functools.partial(jnp.where, taken), after, state)
        return kept.replace(step=after.step, guard=guard), metrics | guard.metrics

    return train_step
