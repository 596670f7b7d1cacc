"""One training step and one evaluation step, as pure functions, written once for every view.

With `axis_name=None` a function is the global view: the batch is the whole batch, under `jax.jit`
over a mesh. With an axis name it is the per-device view, under `jax.pmap` or `jax.shard_map`: the
batch is this device's part, and what depends on the whole batch is reduced over the axis.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from spa_jax.alignment import slerp_schedule, spa_reg, spa_slerp
from spa_jax.alignment.class_means import class_sums
from spa_jax.longtail.method import Method, Situation
from spa_jax.models.classifier import Classifier
from spa_jax.training.batch import Batch, Inputs, Normalize, prepare
from spa_jax.training.config import Config
from spa_jax.training.metrics import alignment_metrics, known_cosines, projection_metrics
from spa_jax.training.optimizer import build_optimizer, spa_options
from spa_jax.training.state import TrainState

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]


def _is_correct(logits: Float[Array, "B C"], labels: Int[Array, " B"]) -> Float[Array, " B"]:
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


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

    def loss_fn(params: PyTree, state: TrainState, inputs: Inputs) -> Any:
        variables = {"params": params, "batch_stats": state.batch_stats}
        outputs: Any = model.apply(variables, inputs.images, train=True, mutable=["batch_stats"])
        (features, logits), mutated = outputs
        targets = inputs.targets(logits.shape[-1])
        means = state.class_means.update(
            jax.lax.stop_gradient(features), targets, axis_name=axis_name
        )
        epoch = state.step // steps_per_epoch
        situation = Situation(inputs.labels, jnp.asarray(class_counts), epoch, axis_name)
        loss = method.loss(logits, targets, situation)
        if config.spa.method == "reg":
            loss = loss + state.hyperparams["weight"] * spa_reg(params, means, **options)
        accuracy = jnp.mean(inputs.over_labels(_is_correct, logits))
        return loss, (means, mutated["batch_stats"], accuracy)

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
            **alignment_metrics(known_cosines(state.params, means, **options)),
            **projection_metrics(state.opt_state),
        }
        return state, metrics

    return train_step


class EvaluationSums(flax.struct.PyTreeNode):
    """Sums over evaluated examples; they merge over batches and devices by addition.

    Attributes:
      loss: scalar, summed cross-entropy.
      correct: `(C,)`, examples of each class that were classified right.
      count: `(C,)`, examples of each class.
      features: `(C, D)`, summed features.
      batches: int32 scalar, batches so far.
    """

    loss: Any
    correct: Any
    count: Any
    features: Any
    batches: Any

    @classmethod
    def create(cls, num_classes: int, dim: int) -> "EvaluationSums":
        """Before any batch."""
        zeros = jnp.zeros((num_classes,), jnp.float32)
        features = jnp.zeros((num_classes, dim), jnp.float32)
        return cls(jnp.zeros((), jnp.float32), zeros, zeros, features, jnp.zeros((), jnp.int32))


def make_eval_step(
    model: Classifier,
    method: Method,
    normalize: Normalize,
    class_counts: Float[np.ndarray, " C"],
    axis_name: str | None = None,
) -> Callable[[PyTree, PyTree, Batch], EvaluationSums]:
    """Builds the pure function `(params, batch_stats, batch) -> sums` in evaluation mode."""

    def eval_step(params: PyTree, batch_stats: PyTree, batch: Batch) -> EvaluationSums:
        variables = {"params": params, "batch_stats": batch_stats}
        outputs: Any = model.apply(variables, normalize(batch.images), train=False)
        features, logits = outputs
        logits = method.test_logits(logits, jnp.asarray(class_counts))
        num_classes = logits.shape[-1]
        one_hot = jax.nn.one_hot(batch.labels, num_classes) * batch.mask[:, None]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        correct = jnp.argmax(logits, axis=-1) == batch.labels
        feature_sums, count = class_sums(features, one_hot, num_classes)
        sums = EvaluationSums(
            loss=jnp.sum(losses * batch.mask),
            correct=jnp.sum(one_hot * correct[:, None], axis=0),
            count=count,
            features=feature_sums,
            batches=jnp.zeros((), jnp.int32),
        )
        if axis_name is not None:
            sums = jax.lax.psum(sums, axis_name)
        return sums.replace(batches=jnp.ones((), jnp.int32))

    return eval_step
