"""One training step as a pure function, written once for every view.

With `axis_name=None` a function is the global view: the batch is the whole batch, under `jax.jit`
over a mesh. With an axis name it is the per-device view, under `jax.pmap` or `jax.shard_map`: the
batch is this device's part, and what depends on the whole batch is reduced over the axis.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from spa_jax.alignment import ClassMeans, slerp_schedule, spa_reg, spa_slerp
from spa_jax.longtail.method import Method, Situation
from spa_jax.models.classifier import Classifier
from spa_jax.training.config import Config
from spa_jax.training.feeds.batch import Batch, Inputs, Normalize, prepare
from spa_jax.training.method import spa_options
from spa_jax.training.metrics import alignment_metrics, known_cosines, projection_metrics
from spa_jax.training.optimizer import build_optimizer
from spa_jax.training.state import TrainState

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]


def _is_correct(logits: Float[Array, "B C"], labels: Int[Array, " B"]) -> Float[Array, " B"]:
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def make_loss(
    model: Classifier,
    method: Method,
    config: Config,
    class_counts: Float[np.ndarray, " C"],
    steps_per_epoch: int,
    axis_name: str | None,
) -> Callable[[PyTree, TrainState, Inputs], tuple[Array, tuple[ClassMeans, PyTree, Array]]]:
    """Builds `(params, state, inputs) -> (loss, (class means, running statistics, accuracy))`.

    The forwards come in the order of the released code: unmixed images, if class means are made of
    them, then the first view, then the second.
    """
    options = spa_options(config)

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
        accuracy = jnp.mean(inputs.over_labels(_is_correct, method.logits(outputs)))
        if means is None:
            means = updated_means(state, features, targets)
        if inputs.second_images is not None:
            _, of_second, batch_stats = forward(state, params, batch_stats, inputs.second_images)
            outputs = (outputs, of_second)
        situation = Situation(
            inputs.labels,
            jnp.asarray(class_counts),
            state.step // steps_per_epoch,
            config.epochs,
            axis_name,
        )
        loss = method.loss(outputs, targets, situation)
        if config.spa.method == "reg":
            loss = loss + state.hyperparams["weight"] * spa_reg(params, means, **options)
        return loss, (means, batch_stats, accuracy)

    return loss_fn


def make_train_step(
    model: Classifier,
    method: Method,
    config: Config,
    normalize: Normalize,
    class_counts: Float[np.ndarray, " C"],
    steps_per_epoch: int,
    axis_name: str | None = None,
) -> TrainStep:
    """Builds the pure function `(state, batch) -> (state, metrics)`.

    forward -> features and logits -> class means -> loss (+ Reg) -> gradients -> optimiser chain
    (Proj) -> apply -> SLERP -> metrics. Reg, Proj, SLERP and the metrics see the same means, those
    that this batch has updated.
    """
    total_steps = config.epochs * steps_per_epoch
    options = spa_options(config)
    per_device_statistics = config.model.batch_norm == "per_device"
    loss_fn = make_loss(model, method, config, class_counts, steps_per_epoch, axis_name)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        inputs = prepare(state.rng, state.step, batch, config, normalize)
        (loss, (means, batch_stats, accuracy)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state, inputs
        )
        if axis_name is not None:
            loss, accuracy, grads = jax.lax.pmean((loss, accuracy, grads), axis_name)
            if per_device_statistics:
                batch_stats = jax.lax.pmean(batch_stats, axis_name)
        tx = build_optimizer(config, state.hyperparams, steps_per_epoch)
        step_before = state.step
        state = state.replace(class_means=means, batch_stats=batch_stats)
        state = state.apply_gradients(tx, grads, class_means=means)
        if config.spa.method == "slerp":
            alpha = slerp_schedule(state.hyperparams["alpha_max"], total_steps)(step_before)
            threshold = state.hyperparams["threshold"]
            params = spa_slerp(state.params, means, alpha, threshold, **options)
            state = state.replace(params=params)
        metrics = {
            "loss": loss,
            "accuracy": accuracy,
            "gradient_norm": optax.tree.norm(grads),
            **alignment_metrics(known_cosines(state.variables, means, **options)),
            **projection_metrics(state.opt_state),
        }
        return state, metrics

    return train_step
