"""Evaluation of a network in evaluation mode: sums over examples, and neural collapse."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from spa_jax.alignment import ClassMeans
from spa_jax.alignment.class_means import class_sums
from spa_jax.dynamics.collapse import NCState, nc4_agreement
from spa_jax.training.checking import PreparedRun
from spa_jax.training.collapse_meter import PARTS, kernel_rows, tested_classifier
from spa_jax.training.devices import OWN
from spa_jax.training.feeds import Feed
from spa_jax.training.feeds.batch import Batch
from spa_jax.training.metrics import alignment_metrics, known_cosines
from spa_jax.training.state import TrainState


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


class Evaluation:
    """Compiled functions that go over the images of a run, unaugmented.

    Attributes:
      places: of the arguments of `add_batch`.
      add_batch: `(variables, sums, inputs)` -> :class:`EvaluationSums` with one more batch.
      no_sums: those of no batch.
    """

    def __init__(self, run: PreparedRun, feed: Feed) -> None:
        """Prepares; nothing but `no_sums` is compiled yet."""
        self._run, self._feed, layout = run, feed, run.layout
        self._method, self._aligned = run.options.method, run.options.aligned
        self._class_counts = np.array(run.data.class_counts, np.float32)
        num_classes, dim = run.data.num_classes, run.model.backbone.dim
        shapes = ((), (num_classes,), (num_classes,), (num_classes, dim))
        self.no_sums: EvaluationSums = layout.make(
            lambda: EvaluationSums(*(jnp.zeros(shape, jnp.float32) for shape in shapes))
        )()
        self.places = (OWN, OWN, feed.evaluation_places)
        self.add_batch = layout.compile(self._add_batch, self.places)
        self._report = layout.make(self._report_on, (OWN, OWN, OWN))
        # Neural collapse takes two passes: means, then NC4.
        self._no_examples = layout.make(
            lambda: (NCState.create(num_classes, dim), jnp.zeros((), jnp.int32))
        )
        self._gather = layout.compile(self._gather_batch, self.places)
        self._agree = layout.compile(self._agree_batch, (OWN, *self.places))
        self._finish = layout.make(self._finish_part, (OWN, OWN))

    def evaluate(self, state: TrainState) -> dict[str, Any]:
        """Test accuracy and alignment, still on the device.

        Returns:
          `loss` scalar, `correct` and `count` `(C,)`, `cosines` and `test_cosines` `(H, C)`
          for the H heads that SpA acts on, and `mean_cosine`, `min_cosine` and their `test_`
          counterparts; `heads`, the same four for each kernel of the method, by its path; NaN
          where a class, or all of them, has no direction. With a validation part also its
          `validation_correct` and `validation_count` `(C,)`; with `config.logging.collapse` also
          `collapse`, which :func:`spa_jax.training.collapse_meter.collapse_measures` finishes.
        """
        variables = state.variables
        report = self._report(variables, state.class_means, self._sums(variables, "test"))
        if self._run.data.validation is not None:
            sums = self._sums(variables, "validation")
            report |= {"validation_correct": sums.correct, "validation_count": sums.count}
        if self._run.options.logging.collapse:
            report["collapse"] = self._collapse(variables)
        return report

    def _sums(self, variables: PyTree, part: str) -> EvaluationSums:
        sums = self.no_sums
        for inputs in self._feed.evaluation(part):
            sums = self.add_batch(variables, sums, inputs)
        return sums

    def _collapse(self, variables: PyTree) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for part in PARTS:
            state, agreeing = self._no_examples()
            for inputs in self._feed.evaluation(part):
                state = self._gather(variables, state, inputs)
            for inputs in self._feed.evaluation(part):
                agreeing = self._agree(variables, state.mean, agreeing, inputs)
            cosine, found["tested"], found["heads"] = self._finish(variables, state.mean)
            found[part] = {"state": state, "agreeing": agreeing, "mean_cosine": cosine}
        return found

    def _apply(self, variables: PyTree, inputs: Any) -> tuple[Array, Any, Batch]:
        """Traced: features and the head's outputs for a batch, and the batch."""
        batch = self._feed.evaluation_batch(inputs)
        images = self._feed.normalize(batch.images)
        applied: Any = self._run.model.apply(variables, images, train=False)
        return *applied, batch

    def _add_batch(self, variables: PyTree, sums: EvaluationSums, inputs: Any) -> EvaluationSums:
        features, outputs, batch = self._apply(variables, inputs)
        counts = jnp.asarray(self._class_counts)
        logits = self._method.test_logits(self._method.logits(outputs), counts)
        one_hot = jax.nn.one_hot(batch.labels, len(counts)) * batch.mask[:, None]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        correct = jnp.argmax(logits, axis=-1) == batch.labels
        feature_sums, count = class_sums(features, one_hot, len(counts))
        of_batch = EvaluationSums(
            loss=jnp.sum(losses * batch.mask),
            correct=jnp.sum(one_hot * correct[:, None], axis=0),
            count=count,
            features=feature_sums,
        )
        return jax.tree.map(jnp.add, sums, self._run.layout.sum(of_batch))

    def _report_on(
        self, variables: PyTree, means: ClassMeans, sums: EvaluationSums
    ) -> dict[str, Any]:
        nothing_seen = ClassMeans.create(*sums.features.shape)
        test_means = nothing_seen.update_from_sums(sums.features, sums.count)

        def cosines_of(**aligned: Any) -> dict[str, Array]:
            compared = {"": means, "test_": test_means}
            return {key: known_cosines(variables, compared[key], **aligned) for key in compared}

        def alignment(cosines: dict[str, Array]) -> dict[str, Array]:
            found = {key: alignment_metrics(cosines[key]) for key in cosines}
            return {f"{key}{name}": found[key][name] for key in found for name in found[key]}

        cosines = cosines_of(**self._aligned)
        heads = {path: {**self._aligned, "classifier": path} for path in self._method.kernels}
        return {
            "loss": sums.loss / jnp.sum(sums.count),
            "correct": sums.correct,
            "count": sums.count,
            "cosines": cosines[""],
            "test_cosines": cosines["test_"],
            **alignment(cosines),
            "heads": {path: alignment(cosines_of(**aligned)) for path, aligned in heads.items()},
        }

    def _gather_batch(self, variables: PyTree, state: NCState, inputs: Any) -> NCState:
        features, _, batch = self._apply(variables, inputs)
        of_batch = NCState.create(*state.mean.shape).update(features, batch.labels, batch.mask)
        if self._run.layout.axis_name is not None:
            of_batch = of_batch.merge_over(self._run.layout.axis_name)
        return state.merge(of_batch)

    def _agree_batch(self, variables: PyTree, means: Array, agreeing: Array, inputs: Any) -> Array:
        features, _, batch = self._apply(variables, inputs)
        weights, bias = tested_classifier(variables, self._method)
        agrees = nc4_agreement(features, means, weights, bias) & (batch.mask != 0)
        return agreeing + self._run.layout.sum(jnp.sum(agrees, dtype=jnp.int32))

    def _finish_part(self, variables: PyTree, means: Array) -> tuple[Any, ...]:
        """Mean cosine of the aligned weights; the tested classifier; all heads `(H, C, D)`."""
        cosines = known_cosines(variables, means, **self._aligned)
        heads = jnp.stack([kernel_rows(variables, path) for path in self._method.kernels])
        tested = tested_classifier(variables, self._method)
        return alignment_metrics(cosines)["mean_cosine"], tested, heads
