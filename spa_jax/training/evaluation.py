"""Evaluation: sums over examples as a pure function for every view, and the report on them."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, PyTree

from spa_jax.alignment import ClassMeans
from spa_jax.alignment.class_means import class_sums
from spa_jax.longtail.method import Method
from spa_jax.models.classifier import Classifier
from spa_jax.training.feeds.batch import Batch, Normalize
from spa_jax.training.metrics import alignment_metrics, known_cosines
from spa_jax.training.variants import Aligned


class EvaluationSums(flax.struct.PyTreeNode):
    """Sums over evaluated examples; they merge over batches and devices by addition.

    Attributes:
      loss: scalar, summed cross-entropy.
      correct: `(C,)`, examples of each class that were classified right.
      count: `(C,)`, examples of each class.
      features: `(C, D)`, summed features.
    """

    loss: Any
    correct: Any
    count: Any
    features: Any

    @classmethod
    def create(cls, num_classes: int, dim: int) -> "EvaluationSums":
        """Before any batch."""
        zeros = jnp.zeros((num_classes,), jnp.float32)
        features = jnp.zeros((num_classes, dim), jnp.float32)
        return cls(jnp.zeros((), jnp.float32), zeros, zeros, features)


def make_eval_step(
    model: Classifier,
    method: Method,
    normalize: Normalize,
    class_counts: Float[np.ndarray, " C"],
    axis_name: str | None = None,
) -> Callable[[PyTree, Batch], EvaluationSums]:
    """Builds the pure function `(variables, batch) -> sums` in evaluation mode."""

    def eval_step(variables: PyTree, batch: Batch) -> EvaluationSums:
        applied: Any = model.apply(variables, normalize(batch.images), train=False)
        features, outputs = applied
        logits = method.test_logits(method.logits(outputs), jnp.asarray(class_counts))
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
        )
        return sums if axis_name is None else jax.lax.psum(sums, axis_name)

    return eval_step


def make_report(
    method: Method, aligned: Aligned
) -> Callable[[PyTree, ClassMeans, EvaluationSums], dict[str, Any]]:
    """Builds the function `(variables, class_means, sums) -> report` on the sums of all batches.

    The report is that of :meth:`spa_jax.training.program.Program.evaluate`.
    """

    def report(variables: PyTree, means: ClassMeans, sums: EvaluationSums) -> dict[str, Any]:
        nothing_seen = ClassMeans.create(*sums.features.shape)
        test_means = nothing_seen.update_from_sums(sums.features, sums.count)
        cosines = known_cosines(variables, means, **aligned)
        test_cosines = known_cosines(variables, test_means, **aligned)
        held_out = alignment_metrics(test_cosines)
        return {
            "loss": sums.loss / jnp.sum(sums.count),
            "correct": sums.correct,
            "count": sums.count,
            "cosines": cosines,
            "test_cosines": test_cosines,
            **alignment_metrics(cosines),
            **{f"test_{name}": value for name, value in held_out.items()},
            "heads": {
                path: {
                    f"{prefix}{name}": value
                    for prefix, compared in (("", means), ("test_", test_means))
                    for name, value in alignment_metrics(
                        known_cosines(variables, compared, **{**aligned, "classifier": path})
                    ).items()
                }
                for path in method.kernels
            },
        }

    return report
