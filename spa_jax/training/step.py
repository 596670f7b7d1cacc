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
from spa_jax.training.shards import Shards
from spa_jax.training.state import TrainState, replaced


def _is_correct(logits: Float[Array, "B C"], labels: Int[Array, " B"]) -> Float[Array, " B"]:
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def _micro_batches(inputs: Inputs, parts: int) -> Inputs:
    """So many of them along a leading axis, each with rows from all over the batch.

    Of a batch that is cut over devices each device then keeps the rows that it has.
    """

    def cut(leaf: Array) -> Array:
        if leaf.ndim == 0:  # the share of mixed images, which all of them have
            return jnp.broadcast_to(leaf, (parts,))
        return leaf.reshape(-1, parts, *leaf.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(cut, inputs)


def make_train_step(
    options: RunOptions,
    model: Classifier,
    prepare: Callable[[Any, Array, Batch], Inputs],
    optimizer: Callable[[Mapping[str, Any]], optax.GradientTransformation],
    class_counts: Float[np.ndarray, " C"],
    steps_per_epoch: int,
    axis_name: str | None = None,
    *,
    shards: Shards,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """Builds the pure function `(state, batch) -> (state, metrics)`.

    forward -> features, logits and loss, of one micro-batch after another where there are several
    -> class means -> (+ Reg) -> gradients -> optimiser chain (Proj first or last, SLERP last) ->
    apply -> metrics. Reg, Proj and SLERP see the same means, those that this batch has updated, or
    those of the whole training set. The forwards come in the order of the released code: unmixed
    images, if class means are made of them, then the first view, then the second.
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
      shards: what is cut over the devices.
    """
    method, variant, aligned = options.longtail, options.variant, options.aligned

    def forward(state: TrainState, params: PyTree, batch_stats: PyTree, images: Array) -> Any:
        """Features, the head's outputs, and the running statistics after this forward."""
        variables = state.variables | {"params": params, "batch_stats": batch_stats}
        together = shards.together(variables)
        outputs: Any = model.apply(together, images, train=True, mutable=["batch_stats"])
        (features, of_head), mutated = outputs
        return features, of_head, mutated["batch_stats"]

    def loss_fn(
        trained: dict[str, PyTree], state: TrainState, inputs: Inputs, whole: Inputs
    ) -> Any:
        """The method's loss of a micro-batch of the whole, and what class means are made of."""
        params = replaced(state.params, trained)
        batch_stats = state.batch_stats
        targets = shards.of_own_classes(inputs.targets(len(class_counts)))
        clean = None
        if inputs.clean_images is not None:
            fixed = jax.lax.stop_gradient(params)
            clean, _, batch_stats = forward(state, fixed, batch_stats, inputs.clean_images)
        features, outputs, batch_stats = forward(state, params, batch_stats, inputs.images)
        logits: Any = method.logits(outputs)
        accuracy = jnp.mean(inputs.over_labels(_is_correct, logits))
        seen = (features, targets) if clean is None else (clean, inputs.labels)
        if inputs.second_images is not None:
            _, of_second, batch_stats = forward(state, params, batch_stats, inputs.second_images)
            outputs = (outputs, of_second)
        context = LossContext(
            labels=inputs.labels,
            class_counts=jnp.asarray(class_counts),
            epoch=state.step // steps_per_epoch,
            epochs=options.epochs,
            axis_name=axis_name,
            batch_labels=whole.labels,
            batch_targets=whole.targets(len(class_counts)),
        )
        loss = method.loss(outputs, targets, context)
        return loss, (jax.lax.stop_gradient(seen), batch_stats, accuracy)

    gradient = jax.value_and_grad(loss_fn, has_aux=True)

    def accumulated(trained: dict[str, PyTree], state: TrainState, whole: Inputs) -> Any:
        """What `gradient` gives for the whole batch, from one micro-batch after another."""
        parts = options.accumulation_steps
        if parts == 1:
            return gradient(trained, state, whole, whole)

        def add(carry: Any, part: Inputs) -> Any:
            batch_stats, sums = carry
            own = state.replace(batch_stats=batch_stats)
            (loss, (seen, batch_stats, accuracy)), grads = gradient(trained, own, part, whole)
            return (batch_stats, jax.tree.map(jnp.add, sums, (loss, accuracy, grads))), seen

        zero = jnp.zeros((), jnp.float32)
        begin = (state.batch_stats, (zero, zero, jax.tree.map(jnp.zeros_like, trained)))
        # On a CPU, convolutions in a loop are very slow; without one, memory is not saved.
        unroll = jax.default_backend() == "cpu"
        micro_batches = _micro_batches(whole, parts)
        (batch_stats, sums), seen = jax.lax.scan(add, begin, micro_batches, unroll=unroll)
        loss, accuracy, grads = jax.tree.map(lambda total: total / parts, sums)
        # In the order of the batch again.
        seen = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), seen)
        return (loss, (seen, batch_stats, accuracy)), grads

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        inputs = prepare(state.rng, state.step, batch)
        inputs = inputs.replace(
            labels=shards.whole(inputs.labels), partner_labels=shards.whole(inputs.partner_labels)
        )
        trained, means = options.optimizer.trained(state.params), state.class_means
        (loss, (seen, batch_stats, accuracy)), grads = accumulated(trained, state, inputs)
        if options.spa.means_from != "dataset":
            features, targets = shards.whole(seen[0]), shards.of_own_classes(seen[1])
            means = means.update(features, targets, axis_name=axis_name)
        if (loss_term := variant.loss_term) is not None:

            def term_of(trained: dict[str, PyTree]) -> Array:
                params = replaced(state.params, trained)
                return loss_term(params, means, state.hyperparams, aligned)

            term, of_term = jax.value_and_grad(term_of)(trained)
            loss, grads = loss + term, jax.tree.map(jnp.add, grads, of_term)
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
