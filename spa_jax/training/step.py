"""One training step as a pure function, written once for every view.

With `axis_name=None` a function is the global view: the batch is the whole batch, under `jax.jit`
over a mesh. With an axis name it is the per-device view, under `jax.pmap` or `jax.shard_map`: the
batch is this device's part, and what depends on the whole batch is reduced over the axis.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from spa_jax.alignment import ClassMeans
from spa_jax.longtail.method import LossContext, Method
from spa_jax.models.classifier import Classifier
from spa_jax.training.feeds.batch import Batch, Inputs
from spa_jax.training.metrics import alignment_metrics, known_cosines
from spa_jax.training.state import TrainState
from spa_jax.training.variants import Aligned, Variant

Metrics = dict[str, Array]
Loss = Callable[[PyTree, TrainState, Inputs], tuple[Array, tuple[ClassMeans, PyTree, Array]]]


def _is_correct(logits: Float[Array, "B C"], labels: Int[Array, " B"]) -> Float[Array, " B"]:
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def make_loss(
    model: Classifier,
    method: Method,
    variant: Variant,
    aligned: Aligned,
    class_counts: Float[np.ndarray, " C"],
    epochs: int,
    steps_per_epoch: int,
    axis_name: str | None,
) -> Loss:
    """Builds `(params, state, inputs) -> (loss, (class means, running statistics, accuracy))`.

    The forwards come in the order of the released code: unmixed images, if class means are made of
    them, then the first view, then the second.
    """

    def forward(state: TrainState, params: PyTree, batch_stats: PyTree, images: Array) -> Any:
        """Features, the head's outputs, and the running statistics after this forward."""
        variables = state.variables | {"params": params, "batch_stats": batch_stats}
        outputs: Any = model.apply(variables, images, train=True, mutable=["batch_stats"])
        (features, of_head), mutated = outputs
        return features, of_head, mutated["batch_stats"]

    def updated_means(state: TrainState, features: Array, targets: Array) -> ClassMeans:
        features = jax.lax.stop_gradient(features)
        return state.class_means.update(features, targets, axis_name=axis_name)

    def loss_fn(params: PyTree, state: TrainState, inputs: Inputs) -> Any:
        batch_stats, targets = state.batch_stats, inputs.targets(len(class_counts))
        means = None
        if inputs.clean_images is not None:
            fixed = jax.lax.stop_gradient(params)
            features, _, batch_stats = forward(state, fixed, batch_stats, inputs.clean_images)
            means = updated_means(state, features, inputs.labels)
        features, outputs, batch_stats = forward(state, params, batch_stats, inputs.images)
        logits: Any = method.logits(outputs)
        accuracy = jnp.mean(inputs.over_labels(_is_correct, logits))
        if means is None:
            means = updated_means(state, features, targets)
        if inputs.second_images is not None:
            _, of_second, batch_stats = forward(state, params, batch_stats, inputs.second_images)
            outputs = (outputs, of_second)
        context = LossContext(
            labels=inputs.labels,
            class_counts=jnp.asarray(class_counts),
            epoch=state.step // steps_per_epoch,
            epochs=epochs,
            axis_name=axis_name,
        )
        loss = method.loss(outputs, targets, context)
        if variant.loss_term is not None:
            loss = loss + variant.loss_term(params, means, state.hyperparams, aligned)
        return loss, (means, batch_stats, accuracy)

    return loss_fn


def make_train_step(
    prepare: Callable[[Any, Array, Batch], Inputs],
    loss_fn: Loss,
    optimizer: Callable[[Mapping[str, Any]], optax.GradientTransformation],
    measure: Callable[[TrainState], Metrics],
    axis_name: str | None = None,
    per_device_statistics: bool = False,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Builds the pure function `(state, batch) -> (state, metrics)`.

    forward -> features and logits -> class means -> loss (+ Reg) -> gradients -> optimiser chain
    (Proj first or last, SLERP last) -> apply -> metrics. Reg, Proj, SLERP and the metrics see the
    same means, those that this batch has updated.

    Args:
      prepare: `(key of the run, step, batch)` -> what the network is given.
      loss_fn: of :func:`make_loss`.
      optimizer: the state's hyper-parameters -> the chain.
      measure: the state after the step -> scalars.
      axis_name: that gradients, loss and accuracy are averaged over; None in the global view.
      per_device_statistics: whether running statistics differ between devices and are averaged.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        inputs = prepare(state.rng, state.step, batch)
        (loss, (means, batch_stats, accuracy)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state, inputs
        )
        if axis_name is not None:
            loss, accuracy, grads = jax.lax.pmean((loss, accuracy, grads), axis_name)
            if per_device_statistics:
                batch_stats = jax.lax.pmean(batch_stats, axis_name)
        state = state.replace(class_means=means, batch_stats=batch_stats)
        state = state.apply_gradients(optimizer(state.hyperparams), grads, class_means=means)
        return state, {
            "loss": loss,
            "accuracy": accuracy,
            "gradient_norm": optax.tree.norm(grads),
            **measure(state),
        }

    return train_step


def make_measure(aligned: Aligned, variant: Variant) -> Callable[[TrainState], Metrics]:
    """Builds `state -> scalars`: alignment, and what the variant's link did at this step."""

    def measure(state: TrainState) -> Metrics:
        cosines = known_cosines(state.variables, state.class_means, **aligned)
        own = {name: read(state.opt_state) for name, read in variant.metrics.items()}
        return alignment_metrics(cosines) | own

    return measure
