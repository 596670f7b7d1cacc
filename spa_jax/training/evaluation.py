"""Evaluation of a network in evaluation mode: sums over examples, and neural collapse."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from spa_jax.alignment import ClassMeans, unit_rows
from spa_jax.alignment.class_means import class_sums
from spa_jax.alignment.geometry import widen
from spa_jax.alignment.kernels import find_kernels
from spa_jax.dynamics.collapse import NCState, metrics, nc4_agreement
from spa_jax.dynamics.collapse.measures import equiangularity, equinorm, etf_error
from spa_jax.errors import InputError
from spa_jax.longtail.method import Method
from spa_jax.training.checking import PreparedRun
from spa_jax.training.devices import OWN
from spa_jax.training.feeds import Feed
from spa_jax.training.feeds.batch import Batch
from spa_jax.training.metrics import alignment_metrics, fetch, known_cosines
from spa_jax.training.state import TrainState

COLLAPSE_PARTS = ("train", "test")
"""What neural collapse is measured on."""

MEASURES = (
    *("nc1", "nc1_over_c", "nc1_rank", "nc1_quotient", "cdnv"),
    *(
        f"nc2_{measure}_{rows}"
        for rows in ("means", "weights")
        for measure in ("equinorm", "equiangular", "etf")
    ),
    *("nc3", "nc3_self_duality", "nc4_means"),
)
"""The scalars of :func:`spa_jax.dynamics.collapse.metrics`, which are recorded at each epoch."""


class EvaluationSums(flax.struct.PyTreeNode):
    """Sums over evaluated examples; they merge over batches and devices.

    Attributes:
      loss: scalar, summed cross-entropy.
      correct: `(C,)`, examples of each class that were classified right.
      count: `(C,)`, examples of each class.
      features: `(C, D)`, summed features of those whose features are finite.
      finite: `(C,)`, how many these are.
      collapse: what neural collapse is measured by; None where it is not.
    """

    loss: Any
    correct: Any
    count: Any
    features: Any
    finite: Any
    collapse: Any = None


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
        self._method, self._aligned = run.options.longtail, run.options.aligned
        self._class_counts = np.array(run.data.class_counts, np.float32)
        self._measured = COLLAPSE_PARTS if run.options.logging.collapse else ()
        num_classes, dim = run.data.num_classes, run.dim

        def nothing() -> tuple[EvaluationSums, Array]:
            of_class = (num_classes,)
            shapes = ((), of_class, of_class, (num_classes, dim), of_class)
            state = NCState.create(num_classes, dim) if self._measured else None
            zeros = [jnp.zeros(shape, jnp.float32) for shape in shapes]
            return EvaluationSums(*zeros, collapse=state), jnp.zeros((), jnp.int32)

        by_class = run.shards.by_class
        of_sums = EvaluationSums(OWN, by_class, by_class, by_class, by_class, OWN)
        self.no_sums, self._none_agree = layout.compile(nothing, results=(of_sums, OWN))()
        self.places = (OWN, of_sums, feed.evaluation_places)
        self.add_batch = layout.compile(self._add_batch, self.places, of_sums)
        self._report = layout.compile(self._report_on, (OWN, OWN, OWN))
        self._agree = layout.compile(self._agree_batch, (OWN, OWN, OWN, feed.evaluation_places))
        self._logits = layout.compile(self._logits_of, (OWN, feed.evaluation_places))

    def evaluate(self, state: TrainState) -> dict[str, Any]:
        """Test accuracy and alignment, still on the device; of averages, where there are.

        Returns:
          `loss` scalar, `correct` and `count` `(C,)`, `cosines` and `test_cosines` `(H, C)`
          for the H heads that SpA acts on, and `mean_cosine`, `min_cosine` and their `test_`
          counterparts; `heads`, the same four for each kernel of the method, by its path; NaN
          where a class, or all of them, has no direction. With a validation part also its
          `validation_correct` and `validation_count` `(C,)`; with `config.logging.collapse` also
          `collapse`, which :func:`collapse_measures` finishes.
        """
        variables, sums = state.evaluated, {}
        validation = () if self._feed.data.validation is None else ("validation",)
        for part in dict.fromkeys(("test", *validation, *self._measured)):
            sums[part] = self.no_sums
            for inputs in self._feed.evaluation(part):
                sums[part] = self.add_batch(variables, sums[part], inputs)
        report = self._report(variables, state.class_means, sums)
        for part in self._measured:  # a second pass, once the means are known
            found, agreeing = report["collapse"][part], self._none_agree
            for inputs in self._feed.evaluation(part):
                agreeing = self._agree(variables, found["state"].mean, agreeing, inputs)
            found["agreeing"] = agreeing
        return report

    def logits(self, state: TrainState, part: str) -> Float[np.ndarray, "N C"]:
        """The logits that each example is predicted from, of one run.

        Args:
          state: on the devices.
          part: "train", "test" or "validation".

        Returns:
          `(N, C)` float32, in the order of the part.
        """
        batches = self._feed.evaluation(part)
        found = [fetch(self._logits(state.evaluated, inputs)) for inputs in batches]
        return np.concatenate(found)[: len(getattr(self._feed.data, part))]

    def _apply(self, variables: PyTree, inputs: Any) -> tuple[Array, Any, Batch]:
        """Traced: features and the head's outputs for a batch, and the batch."""
        batch = self._feed.evaluation_batch(inputs)
        images = self._feed.normalize(batch.images)
        variables = self._run.shards.together(variables)
        applied: Any = self._run.model.apply(variables, images, train=False)
        return *applied, batch

    def _predict(self, variables: PyTree, inputs: Any) -> tuple[Array, Any, Batch]:
        """Traced: features, the logits that are predicted from, and the batch."""
        features, outputs, batch = self._apply(variables, inputs)
        logits = self._method.logits(outputs)
        return features, self._method.test_logits(logits, jnp.asarray(self._class_counts)), batch

    def _logits_of(self, variables: PyTree, inputs: Any) -> Array:
        return self._run.layout.gather(widen(self._predict(variables, inputs)[1]))

    def _add_batch(self, variables: PyTree, sums: EvaluationSums, inputs: Any) -> EvaluationSums:
        features, logits, batch = self._predict(variables, inputs)
        layout, num_classes = self._run.layout, len(self._class_counts)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        # Of logits that are no numbers the largest is the first, which must not be a hit.
        correct = (jnp.argmax(logits, -1) == batch.labels) & jnp.all(jnp.isfinite(logits), -1)
        counted = jnp.where(batch.mask > 0, batch.labels, num_classes)  # which sums leave out
        rows, labels = self._run.shards.whole((features, counted))
        feature_sums, finite = class_sums(rows, labels, num_classes)
        by_class = functools.partial(
            jax.ops.segment_sum, segment_ids=counted, num_segments=num_classes
        )
        of_batch = EvaluationSums(
            loss=jnp.sum(losses * batch.mask),
            correct=by_class(correct.astype(jnp.float32)),
            count=by_class(jnp.ones(correct.shape)),
            features=feature_sums,
            finite=finite,
        )
        of_batch, state = layout.sum(of_batch), sums.collapse
        if state is not None:
            own = NCState.create(*state.mean.shape).update(features, batch.labels, batch.mask)
            if layout.axis_name is not None:
                own = own.merge_over(layout.axis_name)
            state = state.merge(own)
        added = jax.tree.map(jnp.add, sums.replace(collapse=None), of_batch)
        return added.replace(collapse=state)

    def _report_on(
        self, variables: PyTree, means: ClassMeans, sums: dict[str, EvaluationSums]
    ) -> dict[str, Any]:
        test, method = sums["test"], self._method
        nothing_seen = ClassMeans.create(*test.features.shape)
        compared = {"": means, "test_": nothing_seen.update_from_sums(test.features, test.finite)}

        def cosines_of(**aligned: Any) -> dict[str, Array]:
            return {key: known_cosines(variables, compared[key], **aligned) for key in compared}

        def alignment(cosines: dict[str, Array]) -> dict[str, Array]:
            found = {key: alignment_metrics(cosines[key]) for key in cosines}
            return {f"{key}{name}": found[key][name] for key in found for name in found[key]}

        cosines = cosines_of(**self._aligned)
        heads = {path: {**self._aligned, "classifier": path} for path in method.kernels}
        report = {
            "loss": test.loss / jnp.sum(test.count),
            "correct": test.correct,
            "count": test.count,
            "cosines": cosines[""],
            "test_cosines": cosines["test_"],
            **alignment(cosines),
            "heads": {path: alignment(cosines_of(**aligned)) for path, aligned in heads.items()},
        }
        if "validation" in sums:
            held_out = sums["validation"]
            report |= {"validation_correct": held_out.correct, "validation_count": held_out.count}
        if self._measured:
            report["collapse"] = {
                "tested": tested_classifier(variables, method),
                "heads": jnp.stack([kernel_rows(variables, path) for path in method.kernels]),
            }
        for part in self._measured:
            state = sums[part].collapse
            found = alignment_metrics(known_cosines(variables, state.mean, **self._aligned))
            report["collapse"][part] = {"state": state, "mean_cosine": found["mean_cosine"]}
        return report

    def _agree_batch(self, variables: PyTree, means: Array, agreeing: Array, inputs: Any) -> Array:
        features, _, batch = self._apply(variables, inputs)
        weights, bias = tested_classifier(variables, self._method)
        agrees = nc4_agreement(features, means, weights, bias) & (batch.mask != 0)
        return agreeing + self._run.layout.sum(jnp.sum(agrees, dtype=jnp.int32))


def collapse_measures(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Finishes what the report of an evaluation has in `collapse`, once it is fetched, in float64.

    Returns:
      `train` and `test`: the :data:`MEASURES` of the classifier that is used at test, `nc4`, and
      `mean_cosine` of the weights that SpA acts on. Classes without an example are left out; NaN
      where there is no value, as where all class means coincide.
    """
    weights, bias = found["tested"]
    measures = {}
    for part in COLLAPSE_PARTS:
        state = found[part]["state"]
        seen = state.counts > 0
        of_seen = {name: getattr(state, name)[seen] for name in ("counts", "mean", "traces")}
        try:
            values = metrics(dataclasses.replace(state, **of_seen), weights[seen], bias[seen])
        except InputError:  # of the weights alone there may be some
            values = _of_weights(weights)
        measures[part] = {name: float(values.get(name, np.nan)) for name in MEASURES}
        measures[part]["nc4"] = float(found[part]["agreeing"] / max(np.sum(state.counts), 1))
        measures[part]["mean_cosine"] = float(found[part]["mean_cosine"])
    return measures


def _of_weights(weights: Float[np.ndarray, "C D"]) -> dict[str, float]:
    """The measures that need no class means, if the weights point somewhere."""
    if not (np.isfinite(weights).all() and weights.any()):
        return {}
    return {
        "nc2_equinorm_weights": equinorm(weights),
        "nc2_equiangular_weights": equiangularity(weights),
        "nc2_etf_weights": etf_error(weights, weights),
    }


def collapse_geometry(found: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What `geometry.npz` holds: `weights` `(H, C, D)` of all heads, and both `(C, D)` means."""
    means = {f"{part}_means": found[part]["state"].mean for part in COLLAPSE_PARTS}
    return {"weights": found["heads"], **means}


def kernel_rows(variables: PyTree, path: str) -> Float[Array, "C D"]:
    """The class weights that a path names, trained or constant."""
    (position,) = find_kernels(variables, path)
    return widen(jax.tree.leaves(variables)[position]).T


def tested_classifier(
    variables: PyTree, method: Method
) -> tuple[Float[Array, "C D"], Float[Array, " C"]]:
    """Weights and bias of the classifier that is used at test, as the weights act there.

    Where they act at length 1 they have that, and learned scales are part of them. Of several
    classifiers it is the mean, as theirs is of the logits.
    """
    classifiers = []
    for path in method.tested:
        (position,) = find_kernels(variables, path)
        (*places, _), _ = jax.tree_util.tree_leaves_with_path(variables)[position]
        layer = functools.reduce(lambda tree, place: tree[place.key], places, variables)
        weights = kernel_rows(variables, path)
        if method.unit_weights:
            weights = unit_rows(weights)
        weights *= layer.get("scale", 1.0)
        if "scales" in layer:
            weights *= layer["scales"][:, None]
        classifiers.append((weights, layer.get("bias", jnp.zeros(len(weights)))))
    weights, biases = (jnp.stack(parts) for parts in zip(*classifiers, strict=True))
    return jnp.mean(weights, axis=0), jnp.mean(biases, axis=0)
